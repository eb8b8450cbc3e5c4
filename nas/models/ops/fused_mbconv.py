"""Fused inverted bottleneck: expand k x k, squeeze-and-excite, project 1x1.

With expansion 1 it is a single k x k convolution. Source: Tan and Le 2021 (EfficientNetV2).
"""

from __future__ import annotations

from nas.models.arch import Block
from nas.models.layers import Body, Conv, Layer, squeeze_layers
from nas.models.rounding import expanded

READS = ("kernel", "expansion", "se")


def body(b: Block) -> Body:
    """Return the layers; squeeze-and-excite sits on the expanded width."""
    mid = expanded(b.inputs, b.expansion)
    if mid == b.inputs:
        only: list[Layer] = [Conv(b.inputs, b.outputs, b.kernel, b.stride, 1, b.norm, b.activation)]
        return Body(only + squeeze_layers(b, b.outputs))
    first: list[Layer] = [Conv(b.inputs, mid, b.kernel, b.stride, 1, b.norm, b.activation)]
    return Body([*first, *squeeze_layers(b, mid), Conv(mid, b.outputs, norm=b.norm)])
