"""What ops are made of. Each layer states its output size, its cost and its module side by side.

An op describes a block once, as a list of these; `cost` adds up the tallies and `build` makes the
modules, so the two cannot drift apart. Torch is imported only when a module is asked for.

Sizes are (height, width). FLOPs are multiply-adds of convolutions and linear layers.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from nas.models.arch import Block, Norm, ceil_div
from nas.models.rounding import round_channels

if TYPE_CHECKING:
    from torch import nn

# Activations whose backward needs their input beside the result that the next layer keeps; relu
# works in place and needs its result only. relu6 in place keeps a copy of its input.
KEEPS_INPUT = frozenset({"relu6", "silu", "hardswish", "gelu"})


class Tally(NamedTuple):
    """What one layer costs for one image; numbers of elements, not bytes.

    `activations` are the outputs of convolutions, linear layers and 3x3 pools (as pycls counts
    them); `saved` is what backward keeps; `peak` is what is alive at once when nothing is kept.
    """

    params: int = 0
    flops: int = 0
    activations: int = 0
    saved: int = 0
    peak: int = 0
    buffers: int = 0


class Layer(Protocol):
    """One step of a block."""

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the output size for an input size."""

    def tally(self, height: int, width: int) -> Tally:
        """Return the cost for an input of that size."""

    def module(self) -> nn.Module:
        """Return the torch module that costs just that."""


@dataclass(frozen=True, slots=True)
class Conv:
    """Convolution, then norm and activation; a bias only without a norm.

    `padding` is `symmetric`, or `same`: TensorFlow's, which differs where the stride is above 1.
    """

    inputs: int
    outputs: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    norm: Norm | None = None
    activation: str | None = None
    padding: str = "symmetric"

    @property
    def copies(self) -> bool:
        """Whether the input is copied into a padded one: padding differs from side to side."""
        return self.padding == "same" and self.stride > 1 and self.kernel > 1

    def size(self, height: int, width: int) -> tuple[int, int]:
        return ceil_div(height, self.stride), ceil_div(width, self.stride)

    def tally(self, height: int, width: int) -> Tally:
        rows, columns = self.size(height, width)
        copied = 0
        if self.copies:
            sides = (s + same_padding(s, self.kernel, self.stride) for s in (height, width))
            copied = self.inputs * math.prod(sides)
        weights = self.outputs * (self.inputs // self.groups) * self.kernel**2
        out, into = self.outputs * rows * columns, self.inputs * height * width
        return Tally(
            params=weights + self.outputs * (2 if self.norm else 1),
            flops=weights * rows * columns,
            activations=out,
            # the input or its padded copy, what the norm reads, what the activation reads
            saved=(copied or into) + out * bool(self.norm) + out * (self.activation in KEEPS_INPUT),
            peak=into + max(copied + out, out * (2 if self.norm else 1)),
            buffers=2 * self.outputs if self.norm and self.norm.kind == "batch" else 0,
        )

    def module(self) -> nn.Module:
        from torch import nn

        from nas.models import modules

        parts: OrderedDict[str, nn.Module] = OrderedDict()
        kind = modules.Conv2dSame if self.copies else nn.Conv2d
        parts["conv"] = kind(
            self.inputs,
            self.outputs,
            self.kernel,
            self.stride,
            0 if self.copies else self.kernel // 2,
            groups=self.groups,
            bias=self.norm is None,
        )
        if self.norm:
            parts["norm"] = modules.norm(self.norm, self.outputs)
        if self.activation:
            parts["activation"] = modules.activation(self.activation)
        return nn.Sequential(parts)


@dataclass(frozen=True, slots=True)
class SqueezeExcite:
    """Scale channels by two 1x1 convolutions of their means.

    Source: Hu et al. 2018; widths as in the released EfficientNet code.
    """

    channels: int
    squeezed: int
    activation: str
    gate: str

    def size(self, height: int, width: int) -> tuple[int, int]:
        return height, width

    def tally(self, height: int, width: int) -> Tally:
        weights, out = 2 * self.channels * self.squeezed, self.channels * height * width
        return Tally(
            params=weights + self.channels + self.squeezed,
            flops=weights,
            activations=self.channels + self.squeezed,
            saved=out + 3 * self.channels + 2 * self.squeezed,
            peak=2 * out,
        )

    def module(self) -> nn.Module:
        from nas.models import modules

        return modules.SqueezeExcite(self.channels, self.squeezed, self.activation, self.gate)


@dataclass(frozen=True, slots=True)
class Pool:
    """3x3 pooling, always symmetric padding: `max` or `average` (padding not counted)."""

    kind: str
    channels: int
    stride: int

    def size(self, height: int, width: int) -> tuple[int, int]:
        return ceil_div(height, self.stride), ceil_div(width, self.stride)

    def tally(self, height: int, width: int) -> Tally:
        rows, columns = self.size(height, width)
        into, out = self.channels * height * width, self.channels * rows * columns
        # max pooling also keeps 64-bit indices
        saved = into + 2 * out * (self.kind == "max")
        return Tally(activations=out, saved=saved, peak=into + 3 * out)

    def module(self) -> nn.Module:
        from torch import nn

        if self.kind == "max":
            return nn.MaxPool2d(3, self.stride, 1)
        return nn.AvgPool2d(3, self.stride, 1, count_include_pad=False)


@dataclass(frozen=True, slots=True)
class GlobalPool:
    """The mean over the whole map, then flat; `kept`: what made the map keeps it for backward."""

    channels: int
    kept: bool = False

    def size(self, height: int, width: int) -> tuple[int, int]:
        return 1, 1

    def tally(self, height: int, width: int) -> Tally:
        into = self.channels * height * width
        return Tally(saved=into * self.kept, peak=into + self.channels)

    def module(self) -> nn.Module:
        from torch import nn

        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


@dataclass(frozen=True, slots=True)
class Dropout:
    """Dropout on the pooled features."""

    rate: float

    def size(self, height: int, width: int) -> tuple[int, int]:
        return height, width

    def tally(self, height: int, width: int) -> Tally:
        return Tally()

    def module(self) -> nn.Module:
        from torch import nn

        return nn.Dropout(self.rate)


@dataclass(frozen=True, slots=True)
class Linear:
    """A fully connected layer with bias, then an activation or none."""

    inputs: int
    outputs: int
    activation: str | None = None

    def size(self, height: int, width: int) -> tuple[int, int]:
        return height, width

    def tally(self, height: int, width: int) -> Tally:
        weights = self.inputs * self.outputs
        return Tally(
            params=weights + self.outputs,
            flops=weights,
            activations=self.outputs,
            saved=self.inputs + self.outputs * (self.activation in KEEPS_INPUT),
            peak=self.inputs + self.outputs,
        )

    def module(self) -> nn.Module:
        from torch import nn

        from nas.models import modules

        linear = nn.Linear(self.inputs, self.outputs)
        if not self.activation:
            return linear
        return nn.Sequential(linear, modules.activation(self.activation))


def same_padding(size: int, kernel: int, stride: int) -> int:
    """Return how many pixels TensorFlow's SAME adds to a side, on both ends together."""
    return max(kernel - stride + -size % stride, 0)


class Body(NamedTuple):
    """What an op returns: the layers of the main path, and an activation after the addition."""

    main: Sequence[Layer]
    after: str | None = None


def is_mixing(layer: Layer) -> bool:
    """Tell whether a layer makes channels of its own; a depthwise convolution does not."""
    if isinstance(layer, Conv):
        return not layer.inputs == layer.outputs == layer.groups
    return not isinstance(layer, SqueezeExcite | Pool | GlobalPool | Dropout)


def squeeze_layers(block: Block, channels: int) -> list[Layer]:
    """Return the squeeze-and-excite layer that a block asks for on `channels`, or nothing."""
    if not block.se:
        return []
    rule = block.squeeze
    if rule.of == "input":
        squeezed = max(1, int(block.se * block.inputs))
    else:
        squeezed = round_channels(block.se * channels)
    return [SqueezeExcite(channels, squeezed, rule.activation or block.activation, rule.gate)]
