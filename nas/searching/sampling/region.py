"""The part of a space that a search is about, and random points of it.

Under a tight target nearly all points of a space are too large: none of 60 random ones of `mbconv`
has 100M multiply-adds or fewer. So random search and the first trials of every controller are drawn
from what meets the target, uniformly: as they would be if the space were drawn from until a point
meets it, in milliseconds (`nas.searching.sampling.tilt`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from nas.core.errors import ArchError
from nas.interfaces import Choices, Metrics, Space
from nas.models.arch import Arch
from nas.models.points import cost_metrics, decode
from nas.searching.objective import Bound, Goal
from nas.searching.samplers import Draw, mutate, random_choices, repair
from nas.searching.sampling.tilt import Tilt, fit

# how far from a target that costs on both sides a point may lie, as a share of it
BAND = 0.1
PLAIN = 20  # draws from the whole space, before any others
REPAIRS = 200  # mutations towards the region, where no draw meets it
WALK = 2  # steps for each choice of the random walk after them
TINY = 1e-9  # replaces a cost of 0 under a logarithm


@dataclass(frozen=True)
class Region:
    """The points at or under `bounds`, and within BAND of `targets`.

    `cost_of` returns the metrics that these are about.
    """

    space: Space
    bounds: tuple[Bound, ...]
    targets: tuple[Bound, ...] = ()
    cost_of: Callable[[Arch], Metrics] = cost_metrics

    def measured(self, choices: Choices) -> tuple[float, float]:
        """Return how far a point is above the region and below it, as logs of a ratio of costs.

        Neither is above 0 in the region; both are inf where the space calls the point invalid.
        """
        try:
            cost = self.cost_of(decode(self.space, choices))
        except ArchError:
            return math.inf, math.inf
        near = [_log_ratio(cost, target) for target in self.targets]
        above = [_log_ratio(cost, bound) for bound in self.bounds]
        above += [ratio - math.log(1 + BAND) for ratio in near]
        return max(above), max((math.log(1 - BAND) - ratio for ratio in near), default=-math.inf)

    def violation(self, choices: Choices) -> float:
        """Return how far a point lies outside; at most 0 inside."""
        return max(self.measured(choices))

    @cached_property
    def tilt(self) -> Tilt:
        """Return the tilt towards the region, a function of the region alone."""
        depth = math.log(1 + BAND) - math.log(1 - BAND)
        aim, least = (-depth / 2, -depth) if self.targets else (0.0, -math.inf)
        return fit(self.space, lambda choices: self.measured(choices)[0], aim, least)

    def draw(self, space: Space, rng: random.Random) -> Choices:
        """Return a random point of the region; where none is found, one that is near to it."""
        for _ in range(PLAIN):
            choices = random_choices(space, rng)
            if self.violation(choices) <= 0:
                return choices
        nearest, least = choices, math.inf
        for choices in self.tilt.draws(space, rng):
            violation = self.violation(choices)
            if violation <= 0:
                return choices
            if violation < least:
                nearest, least = choices, violation
        return self._walked(repair(space, nearest, rng, self.violation, REPAIRS), rng)

    def _walked(self, choices: Choices, rng: random.Random) -> Choices:
        """Return where a random walk leads that does not leave the region (Metropolis)."""
        if self.violation(choices) > 0:
            return choices
        for _ in range(WALK * len(self.space.choices)):
            step = mutate(self.space, choices, rng)
            if self.violation(step) <= 0:
                choices = step
        return choices


def drawing(
    space: Space,
    goal: Goal,
    known: Sequence[str] = ("flops", "params", "activations"),
    cost_of: Callable[[Arch], Metrics] = cost_metrics,
) -> Draw:
    """Return what draws the random points of a search.

    They lie within the hard limits, and at or under the targets of a hard reward, or within BAND of
    those of a soft or absolute one, which costs on both sides. A front (`pareto`) has no target.
    Bounds on metrics that are not `known` before an evaluation, by `cost_of`, do not count. Without
    any every point is as likely.
    """
    objective = goal.objective
    bounds = tuple(bound for bound in objective.limits if bound.metric in known)
    targets = tuple(bound for bound in objective.targets if bound.metric in known)
    if goal.pareto:
        targets = ()
    elif objective.kind == "hard":
        bounds, targets = (*bounds, *targets), ()
    return Region(space, bounds, targets, cost_of).draw if bounds or targets else random_choices


def _log_ratio(cost: Metrics, bound: Bound) -> float:
    return math.log(max(cost[bound.metric], TINY) / bound.value)
