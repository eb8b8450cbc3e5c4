"""Depthwise separable convolution: depthwise k x k with activation, then linear pointwise 1x1.

Source: the first block of MnasNet-A1 and MobileNetV2 (MBConv with expansion 1).
"""

from __future__ import annotations

from nas.models.arch import Block
from nas.models.layers import Body, Conv, squeeze_layers

READS = ("kernel", "se")


def body(b: Block) -> Body:
    """Return the layers; the pointwise convolution has no activation."""
    depthwise = Conv(b.inputs, b.inputs, b.kernel, b.stride, b.inputs, b.norm, b.activation)
    return Body([depthwise, *squeeze_layers(b, b.inputs), Conv(b.inputs, b.outputs, norm=b.norm)])
