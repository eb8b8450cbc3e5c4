"""How long a training takes, in seconds: read from a table, or estimated from counted costs."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import NormalDist, mean
from typing import Any

from nas.core import registry
from nas.core.errors import NasError, OptionError
from nas.core.tables import read_rows
from nas.models.arch import Arch
from nas.models.cost import count

# Seconds per unit of `features`, fitted by scripts/fit_times.py to the training times of
# Accel-NASBench (Ahmad et al. 2024, Apache-2.0): ImageNet, a short proxy training on its authors'
# machines. Held out, half of the archs lie within 4.9 % of it.
SECONDS = (363.2, 1.664, 106.3, 15.08, 28.55)
# standard deviation of the log of an observed time around it, from the middle 68 % held out
SPREAD = 0.075
SPACE = "mbconv"  # whose archs Accel-NASBench has trained
GENES = {"expansion": "e", "kernel": "k", "layers": "l", "se": "se"}


def features(arch: Arch) -> tuple[float, ...]:
    """Return what a training time is a sum of.

    A constant; millions of multiply-adds and of activations of an image; the number of blocks, and
    of those with squeeze-and-excitation.
    """
    cost, blocks = count(arch), arch.blocks()
    gated = sum(block.se > 0 for block in blocks)
    return 1.0, cost.flops / 1e6, cost.activations / 1e6, len(blocks), gated


def estimate(arch: Arch) -> float:
    """Return the estimated seconds of a whole training of Accel-NASBench's kind."""
    return sum(s * value for s, value in zip(SECONDS, features(arch), strict=True))


def observed(arch: Arch, chance: random.Random) -> float:
    """Return an estimate as one training would show it: with a log-normal draw around it.

    Trainings of one arch differ in the table too: 13 were timed twice, the median pair 3.7 %
    apart. Without the draw virtual times would be more regular than a cluster's are.
    """
    draw = NormalDist(0, SPREAD).inv_cdf(max(chance.random(), 1e-12))
    return estimate(arch) * math.exp(draw)


def read_times(path: Path) -> dict[str, float]:
    """Return the mean seconds of each arch of a table, by arch id.

    A .csv or .parquet file. Its archs are in a column `arch_id`, as in trials.csv of a run, or in
    the columns of Accel-NASBench (`block0_e`, ...); its seconds are in `train_time` or `seconds`.

    Raises:
        OptionError: no such table, or it lacks a column or a number.
        MissingError: a .parquet file without pyarrow.
    """
    found = defaultdict(list)
    for name, seconds in _named(path, read_rows(path)):
        found[name].append(seconds)
    if not found:
        raise OptionError(f"{path} holds no times: a row needs an arch and its seconds above 0")
    return {name: mean(seconds) for name, seconds in found.items()}


def arch_of(row: Mapping[str, Any]) -> Arch:
    """Return the arch of a row of Accel-NASBench.

    Raises:
        KeyError, ValueError: a column is missing, or is no number.
        ArchError: its numbers make no arch.
    """
    space = registry.export("spaces", SPACE, "SPACE")
    choices = {}
    for name in space.choices:
        block, _, gene = name.removeprefix("block").partition("_")
        value = row[f"block{int(block) - 1}_{GENES[gene]}"]
        on = value in (True, 1, "True", "true", "1")
        choices[name] = 0.25 * on if gene == "se" else int(value)
    arch: Arch = space.decode(choices)
    return arch


def _named(path: Path, rows: list[dict[str, Any]]) -> Iterable[tuple[str, float]]:
    """Yield arch id and seconds of each row that has both; a trial that was rejected has neither.

    Raises:
        OptionError: a column is missing, or holds something else.
    """
    columns = rows[0].keys() if rows else ()
    time = next((name for name in ("train_time", "seconds") if name in columns), None)
    if time is None or not {"arch_id", "block0_e"} & set(columns):
        raise OptionError(
            f"{path} needs a column train_time or seconds, and arch_id or those of Accel-NASBench "
            f"(block0_e, ...); it has {', '.join(columns) or 'no rows'}"
        )
    for number, row in enumerate(rows, 2):
        try:
            seconds = float(row[time] or 0)
            if seconds > 0:
                yield row.get("arch_id") or arch_of(row).id, seconds
        except (KeyError, TypeError, ValueError, NasError) as error:
            raise OptionError(f"{path}, row {number}: {type(error).__name__}: {error}") from error
