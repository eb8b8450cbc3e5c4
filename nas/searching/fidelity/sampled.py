"""The archs of a proxy check: random ones of about one size, spread over it."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from nas.core.errors import OptionError
from nas.core.units import format_count
from nas.interfaces import Choices, Space
from nas.models.arch import Arch
from nas.models.cost import count
from nas.searching.feasibility import try_decode
from nas.searching.fidelity.settings import ProxySettings
from nas.searching.samplers import random_choices, repair

DRAWS = 2000
BAND, SAMPLED = 0.1, 200  # of the target, to both sides; archs that a median is taken of
# where random points in the band are rare: repaired to lie there, for each arch, and
# failed repairs after which no more are tried
STRATUM, MOST_FAILURES = 5, 3


class SampledArch(NamedTuple):
    """One arch of the check; its multiply-adds are counted at the long training's image size."""

    arch: Arch
    choices: Choices
    flops: int


def band(chosen: ProxySettings, space: Space) -> tuple[tuple[float, float], tuple[str, ...]]:
    """Return the least and most multiply-adds of the archs, and a line where they were chosen.

    A search compares archs of about one size; over all sizes a proxy that sees the size alone
    ranks well, and says nothing of that.
    """
    if chosen.min_flops or chosen.max_flops:
        return (chosen.min_flops or 0, chosen.max_flops or math.inf), ()
    target = float(chosen.target_flops or 0)
    note: tuple[str, ...] = ()
    if not target:
        rng = random.Random(chosen.seed)
        archs = (try_decode(space, random_choices(space, rng)) for _ in range(SAMPLED))
        target = statistics.median(count(arch).flops for arch in archs if arch)
        words = f"archs within {BAND:.0%} of {format_count(target)} multiply-adds, the median of"
        note = (f"{words} {space.name}; --target-flops takes that of your search",)
    return ((1 - BAND) * target, (1 + BAND) * target), note


def spread_archs(
    space: Space, number: int, *, seed: int, least: float, most: float
) -> tuple[SampledArch, ...]:
    """Return different random archs of a space, one of each stratum of FLOPs, small to large.

    The strata hold equally many of the random archs between `least` and `most`.

    Raises:
        OptionError: fewer than `number` are found.
    """
    rng = random.Random(seed)
    points = (random_choices(space, rng) for _ in range(DRAWS))
    pool = _inside(space, points, least, most)
    if len(pool) < STRATUM * number:
        pool |= _inside(
            space, _sample_repaired(space, STRATUM * number, rng, least, most), least, most
        )
    if len(pool) < number:
        upper = format_count(most) if math.isfinite(most) else "any"
        raise OptionError(
            f"only {len(pool)} different archs of {space.name} were found from "
            f"{format_count(least)} to {upper} multiply-adds, and {number} are asked for: widen "
            "--min-flops and --max-flops, or take fewer --archs"
        )
    ranked = sorted(pool.values(), key=lambda each: (each.flops, each.arch.id))
    edges = [len(ranked) * i // number for i in range(number + 1)]
    return tuple(rng.choice(ranked[a:b]) for a, b in itertools.pairwise(edges))


def _inside(
    space: Space, points: Iterable[Choices], least: float, most: float
) -> dict[str, SampledArch]:
    """Return the archs of points that are within the limits, by id."""
    found: dict[str, SampledArch] = {}
    for choices in points:
        arch = try_decode(space, choices)
        if arch and least <= (flops := count(arch).flops) <= most:
            found.setdefault(arch.id, SampledArch(arch, choices, flops))
    return found


def _sample_repaired(
    space: Space, number: int, rng: random.Random, least: float, most: float
) -> Iterator[Choices]:
    """Yield random points repaired to lie within the band, as a search does; some may fail."""

    def violation(choices: Choices) -> float:
        arch = try_decode(space, choices)
        if arch is None:
            return math.inf
        flops = count(arch).flops
        return max(flops / most - 1, least / flops - 1)

    failures = 0
    for _ in range(number):
        choices = repair(space, random_choices(space, rng), rng, violation)
        failures += violation(choices) > 0
        if failures > MOST_FAILURES:
            return
        yield choices
