"""How far a point of a space is above the hard limits of a search."""

from __future__ import annotations

from nas.core.errors import ArchError
from nas.interfaces import Choices, Space
from nas.models.points import cost_metrics, decode
from nas.searching.objective import Objective
from nas.searching.samplers import Excess, no_excess


def excess(space: Space, objective: Objective) -> Excess:
    """Return how far a point is above the hard limits, as a share of the limit; inf if invalid.

    Controllers that take it propose within the limits instead of being rejected.
    """
    if not objective.limits and space.valid is None:
        return no_excess

    def above(choices: Choices) -> float:
        try:
            cost = cost_metrics(decode(space, choices))
        except ArchError:
            return float("inf")
        return max((cost[b.metric] / b.value - 1 for b in objective.limits), default=0.0)

    return above
