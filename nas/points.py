"""One point of a space: its arch, what that costs, how far it is above the limits."""

from __future__ import annotations

from nas.arch import Arch
from nas.cost import count
from nas.errors import ArchError, NasError
from nas.interfaces import Choices, Metrics, Space
from nas.objective import Objective
from nas.samplers import Excess, no_excess


def decode(space: Space, choices: Choices) -> Arch:
    """Return the arch of a point.

    Raises:
        ArchError: the space calls the point invalid, or it decodes to something impossible.
    """
    try:
        if space.valid and not space.valid(choices):
            raise ArchError("the space says that this point is not valid")
        arch = space.decode(choices)
    except NasError:
        raise
    except Exception as error:  # a space is the user's code
        raise ArchError(f"decode fails on {choices}: {type(error).__name__}: {error}") from error
    if not isinstance(arch, Arch):
        raise ArchError(f"decode gives no Arch for {choices} but {type(arch).__name__}")
    return arch


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


def cost_metrics(arch: Arch) -> Metrics:
    """Return the metrics that are counted, not evaluated."""
    cost = count(arch)
    return {"flops": cost.flops, "params": cost.params, "activations": cost.activations}
