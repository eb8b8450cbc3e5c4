"""Mobile inverted bottleneck: expand 1x1, depthwise k x k, squeeze-and-excite, project 1x1.

Sources: Sandler et al. 2018 (MobileNetV2); Tan et al. 2019 (MnasNet); released EfficientNet code.
"""

from __future__ import annotations

from nas.models.arch import Block
from nas.models.layers import Body, Conv, Layer, squeeze_layers
from nas.models.rounding import expanded

READS = ("kernel", "expansion", "se")


def body(b: Block) -> Body:
    """Return the layers; the expansion is left out where it would not widen."""
    mid = expanded(b.inputs, b.expansion)
    layers: list[Layer] = []
    if mid != b.inputs:
        layers.append(Conv(b.inputs, mid, norm=b.norm, activation=b.activation))
    layers.append(Conv(mid, mid, b.kernel, b.stride, mid, b.norm, b.activation))
    layers += squeeze_layers(b, mid)
    layers.append(Conv(mid, b.outputs, norm=b.norm))
    return Body(layers)
