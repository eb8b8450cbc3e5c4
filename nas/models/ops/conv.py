"""Plain k x k convolution with norm and activation, squeeze-and-excite after it.

Source: the ConvOp choice "regular conv" of MnasNet (Tan et al. 2019, section 4.1).
"""

from __future__ import annotations

from nas.models.arch import Block
from nas.models.layers import Body, Conv, squeeze_layers

READS = ("kernel", "se")


def body(b: Block) -> Body:
    """Return one convolution."""
    conv = Conv(b.inputs, b.outputs, b.kernel, b.stride, 1, b.norm, b.activation)
    return Body([conv, *squeeze_layers(b, b.outputs)])
