"""What a model answers on labelled images: top-1, top-5, loss, confusion."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.training.distributed import gathered, summed

Array = npt.NDArray[np.int64]
# classes up to which counts are given as a matrix: of 8,000 it would have 64 million cells
MATRIX = 1000


@dataclass(frozen=True)
class Confusion:
    """A sparse confusion matrix: each pair of classes that came up, in order, and how often.

    `true`, `predicted` and `counts` (P,) int64: of N images at most N pairs, however many classes.
    """

    true: Array
    predicted: Array
    counts: Array
    classes: int

    def matrix(self) -> list[list[int]] | None:
        """Return counts[true][predicted]; None of more than 1,000 classes."""
        if self.classes > MATRIX:
            return None
        dense = np.zeros((self.classes, self.classes), np.int64)
        dense[self.true, self.predicted] = self.counts
        return [[int(n) for n in row] for row in dense]

    def row(self, index: int) -> dict[int, int]:
        """Return how often images of a class were taken for which."""
        first, last = np.searchsorted(self.true, [index, index + 1])
        part = slice(first, last)
        return dict(zip(self.predicted[part].tolist(), self.counts[part].tolist(), strict=True))


@dataclass(frozen=True)
class Score:
    """Answers counted: what was taken for what, top-1 and top-5 in percent, mean loss."""

    top1: float
    top5: float
    loss: float
    count: int
    confusion: Confusion | None = None

    @property
    def standard_error(self) -> float:
        """Return the standard error of top-1 in points, from the number of images alone.

        Of the share (right + 1) / (count + 2), so that all or none right is not certainty.
        """
        share = (self.top1 / 100 * self.count + 1) / (self.count + 2)
        return 100 * float((share * (1 - share) / (self.count + 2)) ** 0.5)


@torch.no_grad()
def validate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    classes: int,
    *,
    device: str,
    amp: bool = False,
) -> Score:
    """Return the score of a model on batches of images (N, 3, H, W) and labels (N,).

    Under torchrun each process brings its own part of the images, and all get the score of all.
    Top-5 of fewer than six classes is 100.
    """
    training = model.training
    model.eval()
    pairs = [torch.zeros(0, dtype=torch.int64, device=device)]
    exact = torch.float32 if device.startswith("mps") else torch.float64  # which MPS has not
    sums = torch.zeros(2, dtype=exact, device=device)  # loss, top-5
    kind = device.partition(":")[0]
    for images, labels in batches:
        with torch.autocast(kind, torch.bfloat16, enabled=amp):
            logits = model(images)
        logits = logits.float()
        best = logits.topk(min(5, classes), 1).indices
        pairs.append(labels * classes + best[:, 0])
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        sums += torch.stack([loss, (best == labels[:, None]).sum()])
    model.train(training)
    codes, sums = gathered(torch.cat(pairs)).cpu().numpy(), summed(sums)
    true, predicted = np.divmod(codes, classes)
    loss, top5 = (sums / max(1, len(codes))).tolist()
    top1 = 100 * int((true == predicted).sum()) / max(1, len(codes))
    return Score(top1, 100 * top5, loss, len(codes), _confusion(codes, classes))


def _confusion(codes: Array, classes: int) -> Confusion:
    unique, counts = np.unique(codes, return_counts=True)
    true, predicted = np.divmod(unique, classes)
    return Confusion(true, predicted, counts.astype(np.int64), classes)
