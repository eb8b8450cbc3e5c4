"""Random points of a space scored by NASWOT, without training, each once in a run folder."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from nas.core import run_folder
from nas.core.errors import ArchError, NasError, OptionError, RunError
from nas.interfaces import Choices, Space
from nas.models.arch import Arch
from nas.searching.points import decode
from nas.searching.samplers import Excess, allowed_choices

FILE = "naswot.csv"
POINTS = 64
FEW = 10  # points under which nothing can be told of the others
LONG = 60.0  # seconds that are told before they are spent
COLUMNS = ("arch_id", "score", "seconds")
Score = Callable[[Arch], float]


def drawn(space: Space, excess: Excess, seed: int, count: int = POINTS) -> list[Choices]:
    """Return so many random points within the limits, all of them different networks.

    Raises:
        OptionError: there are fewer than FEW, or they are too rare to be met.
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
    if len(found) < FEW:
        raise OptionError(
            f"--warm-start naswot needs {FEW} networks within the limits to score, and of space "
            f"{space.name} found {len(found)}: leave it out"
        )
    return list(found.values())


def scored(
    path: Path,
    archs: Sequence[Arch],
    score: Score,
    say: Callable[[str], None],
    stop: Callable[[], bool],
) -> tuple[list[float], float]:
    """Return the scores of archs, in order, and the seconds that they took.

    Each is kept in a CSV file as it comes; one that is there is not computed again. Where `stop`
    says so, they are the scores of the first archs only.

    Raises:
        OptionError: an arch cannot be scored.
        RunError: the file cannot be written, or is damaged.
    """
    rows, kept, told = list[tuple[str, float, float]](), _kept(path), False
    for arch in archs:
        if arch.id in kept:
            rows.append((arch.id, *kept[arch.id]))
            continue
        if stop():
            break
        start = time.perf_counter()
        value = tried(arch, score)
        rows.append((arch.id, value, time.perf_counter() - start))
        run_folder.write_csv(path, COLUMNS, rows, checked=True)
        left = rows[-1][2] * (len(archs) - len(rows))
        if left > LONG and not told:
            told = True
            say(f"naswot: scoring {len(archs)} networks without training, about {left:.0f} s more")
    return [value for _, value, _ in rows], sum(seconds for _, _, seconds in rows)


def tried(arch: Arch, score: Score) -> float:
    """Return the score of an arch.

    Raises:
        OptionError: it has none.
    """
    try:
        return score(arch)
    except NasError as error:
        raise OptionError(f"--warm-start naswot: {error}; leave it out") from error


def _kept(path: Path) -> dict[str, tuple[float, float]]:
    try:
        rows = run_folder.read_csv(path)
        return {row["arch_id"]: (float(row["score"]), float(row["seconds"])) for row in rows}
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise RunError(
            f"{path} is damaged ({type(error).__name__}: {error}): delete it, and the networks are "
            "scored again"
        ) from error
