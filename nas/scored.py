"""Points of a space scored without training: what `--warm-start naswot` believes of all of them.

Some random points within the limits are scored (nas/naswot.py), each once: the scores lie in the
run folder. A Gaussian process of these scores tells those of all other points.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from nas import run
from nas.arch import Arch
from nas.errors import ArchError, OptionError
from nas.features import Features
from nas.gaussian import Array, conditioned, fit
from nas.interfaces import Choices, Space
from nas.points import decode
from nas.samplers import Excess, Prior, allowed_choices, no_prior

FILE = "naswot.csv"
POINTS = 64
FEW = 10  # scores under which nothing is believed of the others
LONG = 60.0  # seconds that are told before they are spent
COLUMNS = ("arch_id", "score", "seconds")


def drawn(space: Space, excess: Excess, seed: int, count: int = POINTS) -> list[Choices]:
    """Return so many random points within the limits, all of them different networks.

    Fewer where the space has no more, or where they are too rare to be met.
    """
    rng, found = random.Random(f"{seed}:naswot"), dict[str, Choices]()
    for _ in range(10 * count):
        point = allowed_choices(space, rng, excess)
        try:
            found.setdefault(decode(space, point).id, point)
        except ArchError:
            continue
        if len(found) == count:
            break
    return list(found.values())


def scores(
    path: Path,
    archs: Sequence[Arch],
    score: Callable[[Arch], float],
    say: Callable[[str], None],
    stop: Callable[[], str],
) -> tuple[list[float], float]:
    """Return the scores of the first archs, in order, and the seconds that they took.

    Each is kept in a CSV file as it comes, and one that is there is not computed again. All archs
    are scored unless `stop` gives a reason to end early.

    Raises:
        NasError: an arch cannot be scored.
        RunError: the file cannot be written.
    """
    kept = {row["arch_id"]: row for row in run.read_csv(path)}
    rows, told = list[tuple[str, float, float]](), False
    for arch in archs:
        before = kept.get(arch.id)
        if before:
            rows.append((arch.id, float(before["score"]), float(before["seconds"])))
            continue
        if stop():
            break
        start = time.perf_counter()
        value = score(arch)
        rows.append((arch.id, value, time.perf_counter() - start))
        run.write_csv(path, COLUMNS, rows)
        left = rows[-1][2] * (len(archs) - len(rows))
        if left > LONG and not told:
            told = True
            say(f"naswot: scoring {len(archs)} networks without training, about {left:.0f} s more")
    return [row[1] for row in rows], sum(row[2] for row in rows)


def expected(space: Space, points: Sequence[Choices], values: Sequence[float]) -> Prior:
    """Return what a Gaussian process of the points' scores expects at any point of the space.

    In deviations of these scores from their mean. Of fewer than FEW nothing is expected.
    """
    if len(points) < FEW:
        return no_prior
    features = Features(space)
    rows, found = features.rows(points), np.array(values)
    standard = (found - found.mean()) / (float(found.std()) or 1.0)
    exact = np.zeros(len(found))
    process = conditioned(fit(rows, standard, exact), rows, standard, exact)

    def prior(points: Sequence[Choices]) -> Array:
        return process(features.rows(points))[0]

    return prior


def naswot_prior(
    folder: Path,
    space: Space,
    excess: Excess,
    seed: int,
    say: Callable[[str], None],
    stop: Callable[[], str],
) -> tuple[Prior, str]:
    """Return what NASWOT lets expect of the points of a space, and the line that says so.

    Raises:
        OptionError: a network of the space cannot be scored, or there are too few of them.
        RunError: the scores cannot be written, or read.
    """
    from nas.naswot import score  # torch: only where it is asked for

    points = drawn(space, excess, seed)
    if len(points) < FEW:
        raise OptionError(
            f"--warm-start naswot needs at least {FEW} networks within the limits to score, and "
            f"space {space.name} has {len(points)}: leave it out"
        )
    archs = [decode(space, point) for point in points]
    path = folder / FILE
    try:
        values, seconds = scores(path, archs, lambda arch: score(arch, seed=seed), say, stop)
    except (KeyError, ValueError) as error:
        raise run_error(path, error) from error
    line = f"naswot: {len(values)} networks scored without training in {seconds:.0f} s"
    return expected(space, points[: len(values)], values), line
