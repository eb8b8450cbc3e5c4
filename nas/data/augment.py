"""Views: what a network sees of its images. Batched, each image varied by itself, on any device.

A view is decided on the CPU from the sizes of the images and a table of random numbers (`draw`),
so that it is the same on every device; only then are pixels touched, where they lie.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nas.data.augment_settings import Augment
from nas.data.pixels import Pixels

# of the short side: 224 pixels out of 256, as the reference code of EfficientNet cuts them out
CROP_PCT = 0.875
ASPECTS = (3 / 4, 4 / 3)
ATTEMPTS = 10  # at a random part that fits into the image, as in torchvision
DRAWS = 2 * ATTEMPTS + 5  # random numbers per view: attempts, place, flip, place of the cutout
# output pixels of one step: what the caches of a CPU hold; on a GPU, what is little beside a batch
PIECE = {"cpu": 1 << 16}
LARGE_PIECE = 1 << 22


@dataclass(frozen=True)
class Store:
    """Images one after the other: `values` uint8 (P, 3) where they are used, the rest on the CPU.

    `starts`, `heights`, `widths`, `labels`: int64 (N,).
    """

    values: Tensor
    starts: Tensor
    heights: Tensor
    widths: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.starts)


@dataclass(frozen=True)
class Boxes:
    """The part of each image that its view shows, in its pixels: float64 (B,), and `flip` bool.

    With `cut`, the part is cut out and then resized: nothing beside it is read. Without, the
    image is resized and then cut, and what lies outside of the image is black.
    """

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    flip: Tensor
    cut: bool = False


def make_store(pixels: Pixels, device: str | torch.device = "cpu") -> Store:
    """Return the tensors of images; on the CPU, their values are not copied.

    Raises:
        RunError: images that are mapped from a file are damaged, on their way to a GPU.
    """
    if torch.device(device).type != "cpu":
        pixels.check(range(len(pixels)))
    columns = (pixels.starts, pixels.heights, pixels.widths, pixels.labels)
    sizes = (torch.from_numpy(column.astype(np.int64)) for column in columns)
    return Store(torch.from_numpy(pixels.values).to(device), *sizes)


def store_images(images: Sequence[npt.NDArray[np.uint8]]) -> Store:
    """Return a store of loose images (H, W, 3), labelled 0."""
    heights = torch.tensor([image.shape[0] for image in images])
    widths = torch.tensor([image.shape[1] for image in images])
    values = torch.from_numpy(np.concatenate([image.reshape(-1, 3) for image in images]))
    ends = (heights * widths).cumsum(0)
    return Store(values, ends - heights * widths, heights, widths, torch.zeros_like(ends))


def draw(count: int, generator: torch.Generator) -> Tensor:
    """Return the random numbers of `count` training views: float64 in [0, 1), (count, DRAWS)."""
    return torch.rand(count, DRAWS, generator=generator, dtype=torch.float64)


def plain_crops(store: Store, index: Tensor, size: int, *, crop_pct: float = 1.0) -> Tensor:
    """Return the middle of each image, as for evaluation: `crop` of plain boxes."""
    sides = store.heights[index], store.widths[index]
    return crop(store, index, plain_boxes(*sides, size, crop_pct=crop_pct), size)


def plain_boxes(heights: Tensor, widths: Tensor, size: int, *, crop_pct: float = 1.0) -> Boxes:
    """Return the middles: short side resized to size / crop_pct, then size x size cut out."""
    short = torch.minimum(heights, widths)
    target = short_side(size, crop_pct)
    tops, lefts = ((side * target // short - size) // 2 for side in (heights, widths))
    unit = short.double() / target  # pixels of the image per pixel of the view
    side = size * unit
    return Boxes(tops * unit, lefts * unit, side, side, torch.zeros_like(short, dtype=torch.bool))


def short_side(size: int, crop_pct: float) -> int:
    """Return the short side that an image is resized to before `size` x `size` is cut out."""
    return max(size, round(size / crop_pct))


def train_boxes(
    heights: Tensor,
    widths: Tensor,
    size: int,
    augment: Augment,
    draws: Tensor,
    *,
    crop_pct: float = 1.0,
) -> Boxes:
    """Return the random part of each image that the augmentation asks for."""
    flip = (draws[:, -3] < 0.5) & augment.flip
    if augment.crop == "resized":
        return dataclasses.replace(_parts(heights, widths, augment.scale, draws), flip=flip)
    boxes = dataclasses.replace(plain_boxes(heights, widths, size, crop_pct=crop_pct), flip=flip)
    if augment.crop == "none":
        return boxes
    reach = round(augment.shift * size)
    unit = boxes.height / size
    down, right = (
        ((draws[:, column] * (2 * reach + 1)).floor() - reach) * unit for column in (-5, -4)
    )
    return dataclasses.replace(boxes, top=boxes.top + down, left=boxes.left + right)


def _parts(heights: Tensor, widths: Tensor, scale: tuple[float, float], draws: Tensor) -> Boxes:
    """Return parts of random area and aspect, as torchvision's RandomResizedCrop does."""
    rows, columns = heights.double(), widths.double()
    low, high = math.log(ASPECTS[0]), math.log(ASPECTS[1])
    area = (scale[0] + (scale[1] - scale[0]) * draws[:, :ATTEMPTS]) * (rows * columns)[:, None]
    aspect = torch.exp(low + (high - low) * draws[:, ATTEMPTS : 2 * ATTEMPTS])
    height, width = (area / aspect).sqrt().round(), (area * aspect).sqrt().round()
    fits = (height >= 1) & (width >= 1) & (height <= rows[:, None]) & (width <= columns[:, None])
    first = fits.to(torch.uint8).argmax(1, keepdim=True)
    some = fits.any(1)
    height = torch.where(some, height.gather(1, first)[:, 0], _at_most(rows, columns / ASPECTS[0]))
    width = torch.where(some, width.gather(1, first)[:, 0], _at_most(columns, rows * ASPECTS[1]))
    top = torch.where(some, draws[:, -5] * (rows - height + 1), (rows - height) / 2).floor()
    left = torch.where(some, draws[:, -4] * (columns - width + 1), (columns - width) / 2).floor()
    return Boxes(top, left, height, width, torch.zeros_like(some), cut=True)


def _at_most(side: Tensor, limit: Tensor) -> Tensor:
    return torch.minimum(side, limit.round().clamp(min=1))


def crop(store: Store, index: Tensor, boxes: Boxes, size: int) -> Tensor:
    """Return the boxes of the images as uint8 (B, 3, size, size), channels last, bilinear.

    Where every box is `size` pixels wide and high and lies on whole pixels, they are copied. There
    is no antialiasing: images are stored with a short side near that of the view.
    """
    heights, widths = store.heights[index], store.widths[index]
    rows = _lines(boxes.top, boxes.height, heights, size, boxes.cut)
    columns = _lines(boxes.left, boxes.width, widths, size, boxes.cut)
    columns = _Lines(*(torch.where(boxes.flip[:, None], t.flip(1), t) for t in columns.tensors()))
    # the number of a pixel in `values` is that of its row's start and its column
    rows.first.mul_(widths[:, None]).add_(store.starts[index][:, None])
    rows.second.mul_(widths[:, None]).add_(store.starts[index][:, None])
    blend = bool(rows.share.any() or columns.share.any())
    edges = not bool(rows.inside.all() and columns.inside.all())
    device = store.values.device
    rows, columns = rows.to(device), columns.to(device)
    out = torch.empty(len(index), size, size, 3, dtype=torch.uint8, device=device)
    step = max(1, PIECE.get(device.type, LARGE_PIECE) // size**2)
    for at in range(0, len(index), step):
        piece = slice(at, at + step)
        _fill(out[piece], store.values, rows.part(piece), columns.part(piece), blend, edges)
    return out.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class _Lines:
    """Rows or columns that make up views, (B, S): each the mix of two, black where not inside."""

    first: Tensor  # int64
    second: Tensor  # int64
    share: Tensor  # float32, of the second
    inside: Tensor  # bool

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.first, self.second, self.share, self.inside

    def to(self, device: torch.device) -> _Lines:
        return _Lines(*(sent(tensor, device) for tensor in self.tensors()))

    def part(self, piece: slice) -> _Lines:
        return _Lines(*(tensor[piece] for tensor in self.tensors()))


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; a copy to CUDA waits for nothing, which needs pinned memory."""
    source = tensor.pin_memory() if device.type == "cuda" and not tensor.is_cuda else tensor
    return source.to(device, non_blocking=True)


def _lines(start: Tensor, extent: Tensor, length: Tensor, size: int, cut: bool) -> _Lines:
    """Return the pixels between which the centres of `size` lines fall (half-pixel centres)."""
    steps = torch.arange(size, dtype=torch.float64) + 0.5
    centres = start[:, None] + steps * (extent / size)[:, None] - 0.5
    low = (start if cut else torch.zeros_like(start))[:, None]
    high = low + (extent if cut else length.double())[:, None] - 1
    inside = (centres > low - 0.5) & (centres < high + 0.5)
    centres = centres.clamp(low, high)
    first = centres.floor()
    second = torch.minimum(first + 1, high)
    return _Lines(first.long(), second.long(), (centres - first).float(), inside)


def _fill(
    out: Tensor, values: Tensor, rows: _Lines, columns: _Lines, blend: bool, edges: bool
) -> None:
    """Write the views of some images into `out` uint8 (b, S, S, 3)."""
    flat = out.view(*out.shape[:2], -1)

    def corner(row: Tensor, column: Tensor) -> Tensor:
        pixels = (row[:, :, None] + column[:, None, :]).flatten()
        return values.index_select(0, pixels).view(flat.shape)

    if not blend:
        flat.copy_(corner(rows.first, columns.first))
    else:
        across = columns.share.repeat_interleave(3, 1)[:, None, :]
        upper = corner(rows.first, columns.first).float()
        upper.lerp_(corner(rows.first, columns.second).float(), across)
        lower = corner(rows.second, columns.first).float()
        lower.lerp_(corner(rows.second, columns.second).float(), across)
        flat.copy_(upper.lerp_(lower, rows.share[:, :, None]).round_())
    if edges:
        flat.mul_(rows.inside[:, :, None]).mul_(columns.inside.repeat_interleave(3, 1)[:, None, :])


def holes(draws: Tensor, size: int, share: float) -> tuple[Tensor, Tensor]:
    """Return the rows and the columns, bool (B, size) each, that a cutout covers in each view.

    Its middle lies anywhere in the view, so that a part may fall outside (DeVries & Taylor,
    arXiv:1708.04552).
    """
    side = round(share * size)
    line = torch.arange(size)
    middles = (draws[:, -2:] * size).long()
    firsts = middles - side // 2
    covered = (line >= firsts[..., None]) & (line < firsts[..., None] + side)
    return covered[:, 0], covered[:, 1]


def finish(
    views: Tensor, mean: Tensor, std: Tensor, hole: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Return uint8 views as float32 (B, 3, S, S), channels last: (x / 255 - mean) / std.

    `hole`: what `holes` returned; its pixels become the mean. `mean`, `std` (3,) on the device.
    """
    side = views.shape[-1]
    # rows of 3 S numbers: many times as fast on a CPU as broadcasting over the last 3
    flat = views.permute(0, 2, 3, 1).contiguous().flatten(2).float()
    flat.mul_((1 / (255 * std)).repeat(side)).sub_((mean / std).repeat(side))
    if hole:
        rows, columns = (sent(lines, views.device) for lines in hole)
        flat.masked_fill_(rows[:, :, None] & columns.repeat_interleave(3, 1)[:, None, :], 0)
    return flat.view(*flat.shape[:2], side, 3).permute(0, 3, 1, 2)
