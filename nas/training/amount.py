"""How much a training is: optimiser steps and views of images, and what that is worth. Pure.

Epochs say little: 4 epochs of 360 images in batches of 64 are 20 steps, of 45,000 images 2,800.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Amount:
    """What one training gets: `epochs` over `images` training images in batches of `batch`."""

    images: int
    batch: int
    epochs: int

    @property
    def steps_per_epoch(self) -> int:
        """Return the optimiser steps of an epoch: what is left over is dropped."""
        return max(1, self.images // self.batch)

    @property
    def steps(self) -> int:
        """Return the optimiser steps of the training."""
        return self.epochs * self.steps_per_epoch

    @property
    def views(self) -> int:
        """Return how many images are shown in all, each time varied anew."""
        return self.steps * min(self.batch, self.images)

    def __str__(self) -> str:
        return f"{self.steps:,} optimiser steps, {self.views:,} views of images"


@dataclass(frozen=True)
class Need:
    """The least training for a purpose: both numbers are needed. `docs/train.md` has the reason."""

    steps: int
    views: int
    lacking: str  # what a training below is not good for

    def epochs(self, images: int, batch: int) -> int:
        """Return the fewest epochs over so many images in such batches that are enough."""
        one = Amount(images, batch, 1)
        return max(math.ceil(self.steps / one.steps), math.ceil(self.views / one.views))


RANKING = Need(400, 12_000, "too few to rank candidates: their order is mostly noise")
FINAL = Need(1_000, 30_000, "too few to tell what an arch gives when it is trained")


CANDIDATE_EPOCHS = 4  # at least, where none are asked for


def candidate(images: int, batch: int) -> Amount:
    """Return what a candidate of a search gets where nothing is asked for: enough to rank it."""
    return Amount(images, batch, max(CANDIDATE_EPOCHS, RANKING.epochs(images, batch)))


# of a candidate that inherits its weights: a pilot (docs/search.md) ranked by three epochs of 769
# images as by a whole fine-tuning, by one epoch or a linear probe hardly
INHERITED_EPOCHS, INHERITED_VIEWS, INHERITED_IMAGES = 3, 1_200, 800


def inheriting(images: int, batch: int) -> Amount:
    """Return the fine-tuning of a candidate that inherits its weights."""
    return Amount(images, batch, max(INHERITED_EPOCHS, math.ceil(INHERITED_VIEWS / images)))


@dataclass(frozen=True)
class Worth:
    """What an amount is worth for a purpose; `epochs` are those that would do, `text` a line."""

    ranks: bool
    epochs: int
    text: str


def worth(amount: Amount, need: Need = RANKING) -> Worth:
    """Return whether an amount is enough for a purpose, and a sentence that says so.

    RANKING is for candidates of a search, FINAL for its last round and for a training of its own.
    """
    epochs = need.epochs(amount.images, amount.batch)
    if amount.epochs >= epochs:
        return Worth(True, amount.epochs, f"{amount}")
    return Worth(False, epochs, f"{amount}: {need.lacking}; --epochs {epochs} would do")
