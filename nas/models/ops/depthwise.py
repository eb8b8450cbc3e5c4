"""Depthwise separable convolution of MobileNetV1: an activation after both convolutions.

Source: Howard et al. 2017 (MobileNetV1), Figure 3.
"""

from __future__ import annotations

from nas.models.arch import Block
from nas.models.layers import Body, Conv, squeeze_layers

READS = ("kernel", "se")


def body(b: Block) -> Body:
    """Return the layers; unlike `sepconv`, the pointwise convolution is activated."""
    depthwise = Conv(b.inputs, b.inputs, b.kernel, b.stride, b.inputs, b.norm, b.activation)
    pointwise = Conv(b.inputs, b.outputs, norm=b.norm, activation=b.activation)
    return Body([depthwise, *squeeze_layers(b, b.inputs), pointwise])
