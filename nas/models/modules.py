"""The few modules torch does not have, as plain nn.Modules."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from nas.models.arch import Norm

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "relu6": lambda: nn.ReLU6(inplace=True),
    "silu": nn.SiLU,
    "hardswish": nn.Hardswish,
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
    "hardsigmoid": nn.Hardsigmoid,
}


def activation(name: str) -> nn.Module:
    """Return the module of an activation or gate named in `nas.models.arch`."""
    return _ACTIVATIONS[name]()


def norm(rule: Norm, channels: int) -> nn.Module:
    """Return batch norm, or group norm with 8 channels a group where 8 divides them."""
    if rule.kind == "group":
        return nn.GroupNorm(channels // math.gcd(channels, 8), channels, rule.eps)
    return nn.BatchNorm2d(channels, rule.eps, rule.momentum)


class Conv2dSame(nn.Conv2d):
    """A strided convolution padded as TensorFlow's SAME: by what the last step lacks, the odd
    pixel on the right and below. How much depends on the height and width that come in.
    """

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for size, kernel, stride in zip(
            (x.shape[3], x.shape[2]), self.kernel_size[::-1], self.stride[::-1], strict=True
        ):
            missing = kernel - stride + -size % stride
            if kernel < stride:  # else it is never negative, for sizes not known yet either
                missing = max(missing, 0)
            pads += [missing // 2, missing - missing // 2]
        return super().forward(nn.functional.pad(x, pads))


class SqueezeExcite(nn.Module):
    """Scale channels by a gate computed from their means."""

    def __init__(self, channels: int, squeezed: int, act: str, gate: str) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.activation = activation(act)
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.gate = activation(gate)

    def forward(self, x: Tensor) -> Tensor:
        scale = x.mean((2, 3), keepdim=True)
        gate: Tensor = self.gate(self.expand(self.activation(self.reduce(scale))))
        return x * gate


class Normalise(nn.Module):
    """uint8 images (N, C, H, W) to what a network takes: (x / 255 - mean) / std of each channel."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        shape = (1, len(mean), 1, 1)
        scale = 1 / (255 * torch.tensor(std).view(shape))
        shift = torch.tensor(mean).view(shape) / torch.tensor(std).view(shape)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x.float() * self.scale - self.shift


class StochasticDepth(nn.Module):
    """Drop a residual branch per image with probability `rate`; scale the kept by 1 / (1 - rate).

    Source: Huang et al. 2016; the rate of block i of N is total * i / N (EfficientNet's code).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        kept = torch.rand(x.shape[0], 1, 1, 1, device=x.device) >= self.rate
        return x * (kept.to(x.dtype) / (1 - self.rate))

    def extra_repr(self) -> str:
        return f"rate={self.rate:.4g}"


class Residual(nn.Module):
    """main(x) + shortcut(x), the main path under stochastic depth, an activation after the sum."""

    def __init__(
        self, main: nn.Module, shortcut: nn.Module | None, after: str | None, drop_rate: float
    ) -> None:
        super().__init__()
        self.main = main
        self.shortcut = shortcut
        self.drop = StochasticDepth(drop_rate) if shortcut else nn.Identity()
        self.after = activation(after) if after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.main(x)
        if self.shortcut is not None:
            y = self.drop(y) + self.shortcut(x)
        out: Tensor = self.after(y)
        return out


def initialise(module: nn.Module) -> None:
    """Initialise one module in place: convolutions N(0, sqrt(2 / fan_out)), hidden linear layers
    N(0, sqrt(2 / inputs)), biases 0. fan_out is k * k * outputs / groups.

    Sources: released EfficientNet code (efficientnet_model.py); He et al. 2015 for linear layers.
    """
    if isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / module.in_features))
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def initialise_classifier(module: nn.Linear) -> None:
    """Initialise the last layer in place: N(0, 0.1 / sqrt(inputs)), bias 0.

    So fresh logits are a tenth as large as the features, and the first loss is that of guessing,
    ln(classes), for any number of classes. The released EfficientNet code draws from
    +-1 / sqrt(classes), which suits 1,000 classes: with 10 the first loss of B0 was 5.2, not 2.3.
    """
    nn.init.normal_(module.weight, 0.0, 0.1 / math.sqrt(module.in_features))
    nn.init.zeros_(module.bias)
