"""ResNet's basic block: two k x k convolutions, activation after the addition.

Source: He et al. 2016 (ResNet-18, ResNet-34).
"""

from __future__ import annotations

from nas.models.arch import Block
from nas.models.layers import Body, Conv, squeeze_layers

READS = ("kernel", "se")


def body(b: Block) -> Body:
    """Return the layers."""
    first = Conv(b.inputs, b.outputs, b.kernel, b.stride, 1, b.norm, b.activation)
    second = Conv(b.outputs, b.outputs, b.kernel, norm=b.norm)
    return Body([first, second, *squeeze_layers(b, b.outputs)], after=b.activation)
