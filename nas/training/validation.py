"""What a model answers on labelled images: top-1, top-5, loss, confusion."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.training.distributed import summed


@dataclass(frozen=True)
class Score:
    """Answers counted: `confusion[true][predicted]`, top-1 and top-5 in percent, mean loss."""

    top1: float
    top5: float
    loss: float
    count: int
    confusion: list[list[int]]

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
    confusion = torch.zeros(classes, classes, dtype=torch.int64, device=device)
    exact = torch.float32 if device.startswith("mps") else torch.float64  # which MPS has not
    sums = torch.zeros(2, dtype=exact, device=device)  # loss, top-5
    kind = device.partition(":")[0]
    for images, labels in batches:
        with torch.autocast(kind, torch.bfloat16, enabled=amp):
            logits = model(images)
        logits = logits.float()
        best = logits.topk(min(5, classes), 1).indices
        pairs = labels * classes + best[:, 0]
        confusion += torch.bincount(pairs, minlength=classes**2).view(classes, classes)
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        sums += torch.stack([loss, (best == labels[:, None]).sum()])
    model.train(training)
    confusion, sums = summed(confusion), summed(sums)
    count = int(confusion.sum())
    loss, top5 = (sums / max(1, count)).tolist()
    top1 = 100 * int(confusion.trace()) / max(1, count)
    return Score(top1, 100 * top5, loss, count, confusion.tolist())
