"""Constraint violation: how far a point of a space is above the hard limits of a search."""

from __future__ import annotations

from nas.core.errors import ArchError
from nas.interfaces import Choices, Space
from nas.models.points import cost_metrics, decode
from nas.searching.objective import Objective
from nas.searching.samplers import Violation, no_violation


def constraint_violation(space: Space, objective: Objective) -> Violation:
    """Return the constraint violation of points: the excess as a share of a limit; inf if invalid.

    Controllers that take it propose feasible points instead of being rejected.
    """
    if not objective.limits and space.valid is None:
        return no_violation

    def above(choices: Choices) -> float:
        try:
            cost = cost_metrics(decode(space, choices))
        except ArchError:
            return float("inf")
        return max((cost[b.metric] / b.value - 1 for b in objective.limits), default=0.0)

    return above
