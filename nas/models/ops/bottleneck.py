"""ResNet's bottleneck: 1x1 to outputs / expansion, k x k with the stride, 1x1 to outputs.

Source: He et al. 2016 (ResNet-50 up); the stride sits on the k x k convolution (v1.5).
"""

from __future__ import annotations

from nas.models.arch import Block
from nas.models.layers import Body, Conv, squeeze_layers

READS = ("kernel", "expansion", "se")


def body(b: Block) -> Body:
    """Return the layers; `expansion` 4 is ResNet's: the middle is a quarter of the output."""
    mid = max(1, round(b.outputs / b.expansion))
    reduce = Conv(b.inputs, mid, norm=b.norm, activation=b.activation)
    middle = Conv(mid, mid, b.kernel, b.stride, 1, b.norm, b.activation)
    widen = Conv(mid, b.outputs, norm=b.norm)
    return Body([reduce, middle, widen, *squeeze_layers(b, b.outputs)], after=b.activation)
