"""Which network a state dict is of, and its tensors under our names."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from nas.core.errors import OptionError
from nas.models import cost
from nas.models.arch import Arch
from nas.models.build import Model
from nas.models.load import baselines
from nas.training.weights.naming import COUNTER, origin, renamed, same_names


def under_our_names(
    weights: Mapping[str, Tensor], arch: Arch, told: str
) -> tuple[dict[str, Tensor], Arch]:
    """Return a state dict under our names, and its arch, with the classes of its classifier.

    Raises:
        OptionError: they are of another arch; the message names the first that does not fit.
    """
    with torch.device("meta"):
        own = Model(arch).state_dict()
    library = "" if set(own) & set(weights) else origin(list(weights))
    if library:
        found, misfit = renamed(weights, own)
    else:
        misfit = same_names(weights, own)
        found = {name: weights[name] for name in own if name in weights}
    if misfit:
        whose = f" under the names of {library}" if library else ""
        raise OptionError(
            f"{told} holds the weights of another arch than {arch.name}{whose}, or not all of "
            f"them: {misfit}; take the arch they belong to (`nas ls baselines`)"
        )
    broken = [name for name, tensor in found.items() if not tensor.isfinite().all()]
    if broken:
        raise OptionError(
            f"{told} holds weights that are not finite ({broken[0]}): that training diverged; take "
            "others"
        )
    counters = {n: torch.tensor(0) for n in own if n.endswith(COUNTER)}
    found = {
        name: tensor for name in own if (tensor := found.get(name, counters.get(name))) is not None
    }
    last = list(own)[-1]
    classes = len(found[last]) if last in found else arch.head.classes
    whole = dataclasses.replace(arch, head=dataclasses.replace(arch.head, classes=classes))
    return found, whole


def recognised(weights: Mapping[str, Tensor], told: str) -> Arch:
    """Return the baseline that weights are of.

    Raises:
        OptionError: they are of none.
    """
    count = sum(value.numel() for name, value in weights.items() if _learnt(name))
    for arch in baselines().values():
        if not _has_params(arch, count):
            continue
        with contextlib.suppress(OptionError):
            under_our_names(weights, arch, told)
            return arch
    raise OptionError(
        f"{told} does not tell its arch, and its weights are of no baseline: name the arch"
    )


def _learnt(name: str) -> bool:
    return name.rpartition(".")[2] in ("weight", "bias")


def _has_params(arch: Arch, count: int) -> bool:
    """Tell whether an arch has `count` parameters with a classifier of any number of classes."""
    found, head = cost.count(arch).params, arch.head
    each = (head.hidden or head.channels or arch.stages[-1].channels) + 1
    return (count - found) % each == 0 and count > found - each * head.classes
