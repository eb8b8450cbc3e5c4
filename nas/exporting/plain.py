"""What the model.py of a standalone export holds, beside nas/models/modules.py: copied as text.

So nothing here may need nas itself, but for the names of nas.models.modules, which are copied too.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas.models.modules import Conv2dSame, activation


def chain(**parts: nn.Module) -> nn.Sequential:
    """Return modules that run one after the other, by name."""
    return nn.Sequential(OrderedDict(parts))


def conv(
    inputs: int,
    outputs: int,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    norm: nn.Module | None = None,
    act: str = "",
    same: bool = False,
) -> nn.Sequential:
    """Return a convolution, then norm and activation where given.

    The padding is symmetric, or with `same` TensorFlow's.
    """
    kind, padding = (Conv2dSame, 0) if same else (nn.Conv2d, kernel // 2)
    parts = {"conv": kind(inputs, outputs, kernel, stride, padding, 1, groups, norm is None)}
    more = {"norm": norm, "activation": activation(act) if act else None}
    return chain(**parts, **{name: module for name, module in more.items() if module})


class Network(nn.Module):
    """Images (N, C, H, W) in, logits (N, classes) out; without a head a list of maps.

    `taps`: the stages whose maps `features` returns; 0 is the stem.
    """

    def __init__(
        self,
        stem: nn.Sequential,
        stages: Sequence[nn.Sequential],
        head: nn.Sequential | None,
        taps: Sequence[int],
        normalise: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.normalise = normalise or nn.Identity()
        self.stem, self.stages = stem, nn.ModuleList(stages)
        self.head = head
        self.taps = tuple(taps)

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the last map at each stride."""
        x = self.normalise(x)
        maps = [self.stem[0](x)]
        x = self.stem[1:](maps[0])
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return [maps[tap] for tap in self.taps]

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        if self.head is None:
            return self.features(x)
        x = self.stem(self.normalise(x))
        for stage in self.stages:
            x = stage(x)
        out: Tensor = self.head(x)
        return out


def to_rgb(
    image: Any,
    whole: Sequence[float] | None = None,
    fractions: Sequence[float] | None = None,
    background: int = 255,
) -> Any:
    """Return a Pillow image as 8-bit RGB, as `nas predict` sees it.

    `whole`, `fractions`: what becomes black and white of numbers beyond 8 bits and of fractions;
    by default the upper byte of 16 bits, and none. `background`: gray behind what is transparent.
    """
    from PIL import Image

    if image.mode == "F" or image.mode.startswith("I"):
        between = fractions if image.mode == "F" else whole or (0, 65536)
        if between is None:
            raise ValueError("fractions have no fixed range from black to white")
        kept = image if image.mode in ("F", "I") else image.convert("I")
        kind = torch.float32 if image.mode == "F" else torch.int32
        values = torch.frombuffer(bytearray(kept.tobytes()), dtype=kind).double()
        shares = (values - between[0]) / (between[1] - between[0])
        levels = 256 * shares if image.mode != "F" and whole is None else 255 * shares + 0.5
        levels = levels.nan_to_num(0.0).floor().clamp(0, 255).to(torch.uint8)
        return Image.frombytes("L", image.size, bytes(levels.tolist())).convert("RGB")
    if "A" in image.mode.upper().replace("LAB", "") or "transparency" in image.info:
        layer = image.convert("RGBA")
        if layer.getchannel("A").getextrema() != (0, 0):
            behind = Image.new("RGBA", layer.size, (background, background, background, 255))
            layer = Image.alpha_composite(behind, layer)
        return layer.convert("RGB")
    return image.convert("RGB")


def read_image(path: str | Path, size: int, crop_pct: float, **decoding: Any) -> Tensor:
    """Return the middle of an image as uint8 (1, 3, size, size), as `nas predict` sees it.

    The short side is reduced to size / 0.875 (antialiased), then the middle crop_pct is sampled
    bilinearly. `decoding`: what `to_rgb` takes. Needs Pillow.
    """
    from PIL import Image, ImageOps

    with Image.open(path) as file:
        image = to_rgb(ImageOps.exif_transpose(file), **decoding)
    short, stored = min(image.size), max(size, round(size / 0.875))
    if short > stored:
        width, height = (round(side * stored / short) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    width, height = image.size
    data = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    pixels = data.view(1, height, width, 3).permute(0, 3, 1, 2).float()
    target = max(size, round(size / crop_pct))
    unit = min(width, height) / target  # pixels of the image per pixel of the result
    steps = (torch.arange(size) + 0.5) * unit
    rows, columns = (
        2 * (steps + (side * target // min(width, height) - size) // 2 * unit) / side - 1
        for side in (height, width)
    )
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)[None]
    view = nn.functional.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    return view.round().to(torch.uint8)
