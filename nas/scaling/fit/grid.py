"""The grid that alpha, beta and gamma are fitted on: networks of about twice a base's FLOPs. Pure.

Source: Tan and Le 2019, section 3.3, step 1. They published neither the grid nor its step; here the
step follows from the base, as whole layers, channels in eights and pixels in eights make networks
of a small base alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from nas.models.arch import Arch
from nas.models.compound import Multipliers, ScaledArch, family
from nas.models.cost import count
from nas.scaling.fit.coefficients import PAPER

GROWTH = 2.0  # what a candidate costs, in FLOPs of the base
PRODUCT = 0.1  # how far alpha * beta**2 * gamma**2 may be from it
MISS = 0.1  # how far the counted FLOPs may be from it
STEPS = (0.05, 0.02)  # of the coefficients, the coarsest that gives enough networks
FINE = 0.01  # of one coefficient where the others are 1
APART = 0.05  # of two networks that are trained, in the logarithm of FLOPs
MOST = 12
SPARE = "close to a network that is trained"
PAPERS, NEAR = "the paper's", "nearest the paper's"
ONLY = ("depth", "width", "resolution")
_WEIGHTS = (1, 2, 2)  # FLOPs grow with depth, and with the squares of width and resolution

Point = tuple[float, float, float]


@dataclass(frozen=True)
class GridPoint:
    """A network of the grid: the base at phi 1 by the rule formula with these coefficients.

    `rounded` is what rounding left of them, `ratio` its counted FLOPs over the base's, `roles` what
    it stands for ("depth only", "the paper's"), `reason` why it is not trained, "" if it is.
    """

    coefficients: Point
    rounded: Multipliers
    arch: Arch
    ratio: float
    roles: tuple[str, ...] = ()
    reason: str = ""

    @property
    def product(self) -> float:
        """Return alpha * beta**2 * gamma**2."""
        return product(self.coefficients)

    @property
    def near_papers(self) -> bool:
        """Tell whether it stands for the paper's coefficients."""
        return not {PAPERS, NEAR}.isdisjoint(self.roles)

    @property
    def passes(self) -> bool:
        """Tell whether its counted FLOPs are near enough to twice the base's."""
        return _miss(self) <= MISS


class Grid(NamedTuple):
    """All networks of a grid, those that are trained and those that are not; by coefficients."""

    candidates: tuple[GridPoint, ...]
    step: float
    tolerance: float

    @property
    def trained(self) -> list[GridPoint]:
        return [each for each in self.candidates if not each.reason]


def candidates(
    arch: Arch, *, most: int = MOST, tolerance: float = PRODUCT, fixed_ends: bool = False
) -> Grid:
    """Return the grid of a base: at most `most` of its networks are to be trained.

    Each coefficient is at least 1, and their product alpha * beta**2 * gamma**2 is 2 within
    `tolerance`, a share. Coefficients that round to one network are one candidate, which gets those
    nearest to what rounding left. Of the networks whose FLOPs are 2 times the base's within 10 per
    cent, the corners (depth, width, resolution alone) and the one nearest the paper's are kept, and
    the others spread over the rest: each next one is the farthest from all before. The step is the
    coarsest that gives enough of them.
    """
    found: list[GridPoint] = []
    points: list[Point] = []
    for step in STEPS:
        points += _points(step, tolerance)
        found = _with_roles(_networks(arch, points, tolerance, fixed_ends))
        kept = {id(each) for each in _spread([each for each in found if each.passes], most)}
        if len(kept) >= most:
            break
    named = (each if id(each) in kept else replace(each, reason=_reason(each)) for each in found)
    return Grid(tuple(named), step, tolerance)


def product(point: Point) -> float:
    """Return alpha * beta**2 * gamma**2."""
    return math.prod(c**weight for c, weight in zip(point, _WEIGHTS, strict=True))


def candidate(arch: Arch, point: Point, fixed_ends: bool = False) -> GridPoint:
    """Return the base at phi 1 with these coefficients.

    Raises:
        OptionError: one of them is below 1.
    """
    member = _member(arch, point, fixed_ends)
    ratio = count(member.arch).flops / count(arch).flops
    return GridPoint(point, member.rounded, member.arch, ratio)


def distance(one: Sequence[float], other: Sequence[float]) -> float:
    """Return how far factors of depth, width and resolution are apart, in the log of FLOPs."""
    parts = zip(_WEIGHTS, one, other, strict=True)
    return math.hypot(*(weight * math.log(a / b) for weight, a, b in parts))


def _member(arch: Arch, point: Point, fixed_ends: bool) -> ScaledArch:
    alpha, beta, gamma = point
    return family(arch, [1], alpha=alpha, beta=beta, gamma=gamma, fixed_ends=fixed_ends)[0]


def _miss(each: GridPoint) -> float:
    return abs(each.ratio / GROWTH - 1)


def _reason(each: GridPoint) -> str:
    if each.passes:
        return SPARE
    return f"costs {each.ratio:.2f} times the base, and {GROWTH:g} within {MISS:.0%} is asked for"


def _networks(
    arch: Arch, points: Sequence[Point], tolerance: float, fixed_ends: bool
) -> list[GridPoint]:
    """Return one candidate for each network of these points and the axes, by coefficients."""
    inner = _made(arch, points, fixed_ends)
    # a dimension alone is there if any coefficient gives it
    ends = [
        min(made, key=_miss)
        for axis in range(len(ONLY))
        if (made := _made(arch, _alone(axis, tolerance), fixed_ends))
    ]
    found = {each.arch.id: each for each in (*inner, *ends)}
    return sorted(found.values(), key=lambda each: each.coefficients)


def _made(arch: Arch, points: Sequence[Point], fixed_ends: bool) -> list[GridPoint]:
    """Return a candidate for each network; of points that round alike the nearest to it stands."""
    sides = [_side(arch, axis, points, fixed_ends) for axis in range(len(ONLY))]
    best: dict[tuple[Arch, ...], tuple[float, Point]] = {}
    for point in points:
        parts = [side[value] for side, value in zip(sides, point, strict=True)]
        far = distance(point, [part.rounded[axis] for axis, part in enumerate(parts)])
        key = tuple(part.arch for part in parts)
        best[key] = min(best.get(key, (math.inf, point)), (far, point))
    return [candidate(arch, point, fixed_ends) for _, point in sorted(best.values())]


def _side(
    arch: Arch, axis: int, points: Sequence[Point], fixed_ends: bool
) -> dict[float, ScaledArch]:
    """Return the base scaled in one dimension alone: what is equal there is equal in the grid."""
    values = {point[axis] for point in points}
    return {value: _member(arch, _on(axis, value), fixed_ends) for value in values}


def _on(axis: int, value: float) -> Point:
    """Return the point of an axis: the other coefficients are 1."""
    a, b, c = (value if each == axis else 1.0 for each in range(len(ONLY)))
    return a, b, c


def _near(point: Point, tolerance: float) -> bool:
    return abs(product(point) / GROWTH - 1) <= tolerance + 1e-9


def _steps(step: float, end: float) -> list[float]:
    """Return 1, 1 + step, ... up to an end; two digits are enough to write each of them."""
    return [round(1 + i * step, 2) for i in range(int((end - 1) / step + 1e-9) + 1)]


def _points(step: float, tolerance: float) -> list[Point]:
    """Return the points of the grid with a product near 2, and the paper's."""
    most = GROWTH * (1 + tolerance)
    found = {
        (alpha, beta, gamma)
        for alpha in _steps(step, most)
        for beta in _steps(step, math.sqrt(most / alpha))
        for gamma in _steps(step, math.sqrt(most / alpha) / beta)
        if _near((alpha, beta, gamma), tolerance)
    }
    papers = PAPER.alpha, PAPER.beta, PAPER.gamma
    return sorted(found | {papers} if _near(papers, tolerance) else found)


def _alone(axis: int, tolerance: float) -> list[Point]:
    """Return the points of an axis with a product near 2."""
    points = (_on(axis, value) for value in _steps(FINE, GROWTH * (1 + tolerance)))
    return [point for point in points if _near(point, tolerance)]


def _with_roles(found: list[GridPoint]) -> list[GridPoint]:
    """Return the candidates, with what some of them stand for."""
    passing = [each for each in found if each.passes]
    roles: dict[int, tuple[str, ...]] = {}
    papers: Point = PAPER.alpha, PAPER.beta, PAPER.gamma
    if passing:
        near = min(passing, key=lambda each: distance(each.coefficients, papers))
        roles[id(near)] = (PAPERS if near.coefficients == papers else NEAR,)
    for axis, name in enumerate(ONLY):
        # by the coefficients: those of the other dimensions are 1 for every phi
        alone = [e for e in passing if e.coefficients == _on(axis, e.coefficients[axis])]
        if alone:
            corner = id(min(alone, key=_miss))
            roles[corner] = (*roles.get(corner, ()), f"{name} only")
    return [replace(each, roles=roles.get(id(each), ())) for each in found]


def _spread(passing: list[GridPoint], most: int) -> list[GridPoint]:
    """Return at most so many: those with a role, then each time the farthest from all chosen.

    What is nearer than APART to one of them is no other network to speak of.
    """
    order = (PAPERS, NEAR, *(f"{name} only" for name in ONLY))
    named = sorted((e for e in passing if e.roles), key=lambda e: order.index(e.roles[0]))
    chosen, rest = named[:most], [e for e in passing if not e.roles]
    while rest and len(chosen) < most:
        far = [min(distance(e.rounded, c.rounded) for c in chosen) for e in rest]
        if max(far) < APART:
            break
        chosen.append(rest.pop(far.index(max(far))))
    return chosen
