"""Random images to train on: as tensors, and as `nas.training.loop.fit` takes them."""

from __future__ import annotations

import torch
from torch import Tensor

from nas.data.dataset import Dataset, Split
from nas.data.loader import Data, open_data, stored_side


def random_images(count: int, size: int, classes: int) -> tuple[Tensor, Tensor]:
    """Return uint8 images (N, side, side, 3), as large as ours are stored, and labels (N,)."""
    side, generator = stored_side(size), torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, side, side, 3), dtype=torch.uint8, generator=generator)
    return images, torch.randint(classes, (count,), generator=generator)


def resident(images: Tensor, labels: Tensor, *, size: int, classes: int, device: str) -> Data:
    """Return images that are kept on the device; a few of them are those to validate on."""

    def split(count: int) -> Split:
        names = [f"image {i}" for i in range(count)]
        return Split(labels[:count].numpy(), names, lambda i: images[i].numpy())

    few = split(min(len(labels), 2))
    splits = {"train": split(len(labels)), "val": few, "test": few}
    named = tuple(f"class {i}" for i in range(classes))
    dataset = Dataset("random", named, splits, "")
    return open_data(dataset, imgsz=size, device=device, cache=False, resident=True)
