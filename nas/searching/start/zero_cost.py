"""Zero-cost scores (NASWOT) of random points of a space, each computed once in a run folder."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nas.core.errors import ArchError, NasError, OptionError
from nas.core.ledger import Ledger
from nas.interfaces import Choices, Space
from nas.models.arch import Arch
from nas.models.points import decode
from nas.searching.samplers import Violation, sample_feasible

FILE = "naswot.csv"
POINTS = 64
MIN_POINTS = 10  # points below which there is no prior
LONG = 60.0  # seconds from which the duration is announced
Scorer = Callable[[Arch], float]


@dataclass(frozen=True)
class ZeroCostScore:
    """A row of naswot.csv."""

    arch_id: str
    score: float
    seconds: float


def sample_points(
    space: Space, violation: Violation, seed: int, count: int = POINTS
) -> list[Choices]:
    """Return random feasible points, all of them different networks.

    Raises:
        OptionError: there are fewer than MIN_POINTS, or they are too rare to be met.
    """
    rng, found = random.Random(f"{seed}:naswot"), dict[str, Choices]()
    for _ in range(10 * count):
        point = sample_feasible(space, rng, violation)
        try:
            found.setdefault(decode(space, point).id, point)
        except ArchError:
            continue
        if len(found) == count:
            break
    if len(found) < MIN_POINTS:
        raise OptionError(
            f"--warm-start naswot needs {MIN_POINTS} networks within the limits to score, and of "
            f"space {space.name} found {len(found)}: leave it out"
        )
    return list(found.values())


def score_archs(
    path: Path,
    archs: Sequence[Arch],
    score: Scorer,
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
    ledger = Ledger(path, ZeroCostScore)
    known, found, told = {row.arch_id: row for row in ledger.rows}, list[ZeroCostScore](), False
    for arch in archs:
        if arch.id not in known:
            if stop():
                break
            start = time.perf_counter()
            value = score_arch(arch, score)
            known[arch.id] = ZeroCostScore(arch.id, value, time.perf_counter() - start)
            ledger.append(known[arch.id])
            left = known[arch.id].seconds * (len(archs) - len(found) - 1)
            if left > LONG and not told:
                told = True
                say(
                    f"naswot: scoring {len(archs)} networks without training, about {left:.0f} s "
                    "more"
                )
        found.append(known[arch.id])
    return [row.score for row in found], sum(row.seconds for row in found)


def score_arch(arch: Arch, score: Scorer) -> float:
    """Return the score of an arch.

    Raises:
        OptionError: it has none.
    """
    try:
        return score(arch)
    except NasError as error:
        raise OptionError(f"--warm-start naswot: {error}; leave it out") from error
