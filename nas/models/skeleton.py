"""Whether two networks have one skeleton, so that one can inherit the weights of the other."""

from __future__ import annotations

from typing import Any

from nas.core.errors import OptionError
from nas.models import cost
from nas.models.arch import Arch, Block
from nas.models.layers import SqueezeExcite, is_mixing


def check_skeleton(parent: Arch, arch: Arch) -> None:
    """Refuse an arch that is not of its parent's skeleton.

    Raises:
        OptionError: it is not; the message names the first difference.
    """
    pairs: list[tuple[str, Any, Any]] = [
        ("channels of the image", parent.in_channels, arch.in_channels),
        ("stages", len(parent.stages), len(arch.stages)),
        ("stem.stride", parent.stem.stride, arch.stem.stride),
        ("stem.pool", parent.stem.pool, arch.stem.pool),
        ("activation", parent.activation, arch.activation),
        ("norm.kind", parent.norm.kind, arch.norm.kind),
        ("a convolution in the head", bool(parent.head.channels), bool(arch.head.channels)),
        ("a hidden layer in the head", bool(parent.head.hidden), bool(arch.head.hidden)),
    ]
    for number, stages in enumerate(zip(parent.stages, arch.stages, strict=False), 1):
        for name in ("op", "stride", "skip", "activation"):
            # a stage without an activation of its own has the network's
            both = [
                getattr(stage, name) or whole.activation
                for stage, whole in zip(stages, (parent, arch), strict=True)
            ]
            pairs.append((f"{name} of stage {number}", both[0], both[1]))
    for what, theirs, ours in pairs:
        if theirs != ours:
            raise OptionError(
                f"{arch.name} does not fit the skeleton of {parent.name}, whose weights it would "
                f"inherit: {what}: {_told(ours)}, the parent's {_told(theirs)}; "
                "take an arch that differs in kernels, expansion, layers, channels and pixels "
                "alone, or other weights"
            )
    _check_forms(parent, arch)


def form_of(block: Block) -> list[tuple[str, bool]]:
    """Return the kind of each layer of a block, and if it mixes channels; SE is left out.

    Weights can be inherited between blocks of one form.
    """
    layers = (layer for layer in cost.body(block).main if not isinstance(layer, SqueezeExcite))
    return [(type(layer).__name__, is_mixing(layer)) for layer in layers]


def _told(value: object) -> str:
    return str(value) if not isinstance(value, bool) else "yes" if value else "no"


def _check_forms(parent: Arch, arch: Arch) -> None:
    """Refuse a block that has other layers than its parent's, as of expansion 1.

    Raises:
        OptionError: there is one; the message names its stage.
    """
    for index in range(len(parent.stages)):
        for (theirs, _), (ours, _) in zip(parent.runs(index), arch.runs(index), strict=False):
            if form_of(theirs) != form_of(ours):
                raise OptionError(
                    f"stage {index + 1} of {arch.name} ({ours.op}, expansion {ours.expansion:g}) "
                    f"has {len(form_of(ours))} convolutions a block and that of {parent.name} "
                    f"(expansion {theirs.expansion:g}) {len(form_of(theirs))}: its weights do "
                    "not fit; take an expansion that leaves out no layer and adds none"
                )
