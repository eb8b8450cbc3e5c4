"""One point of a space: its arch, and what that costs."""

from __future__ import annotations

from nas.core.errors import ArchError, NasError
from nas.core.registry import error_text
from nas.interfaces import Choices, Metrics, Space
from nas.models.arch import Arch
from nas.models.cost import count


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
    except (Exception, SystemExit) as error:  # a space is the user's code
        raise ArchError(f"decode fails on {choices}: {error_text(error)}") from error
    if not isinstance(arch, Arch):
        raise ArchError(f"decode gives no Arch for {choices} but {type(arch).__name__}")
    return arch


def cost_metrics(arch: Arch) -> Metrics:
    """Return the metrics that are counted, not evaluated."""
    cost = count(arch)
    return {"flops": cost.flops, "params": cost.params, "activations": cost.activations}
