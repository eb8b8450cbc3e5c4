"""Training views as the loader makes them, in one call."""

import torch
from torch import Tensor

from nas.data import augment
from nas.data.augment import Store
from nas.data.augment_settings import Augment


def train_crops(
    store: Store,
    index: Tensor,
    size: int,
    settings: Augment,
    generator: torch.Generator,
    *,
    crop_pct: float = 1.0,
) -> Tensor:
    """Return a randomly cropped or shifted, flipped view of each image: `crop` of random boxes."""
    draws = augment.draw(len(index), generator)
    sides = store.heights[index], store.widths[index]
    boxes = augment.train_boxes(*sides, size, settings, draws, crop_pct=crop_pct)
    return augment.crop(store, index, boxes, size)
