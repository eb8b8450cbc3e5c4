"""A linear probe: logistic regression on the features of a network whose weights stay as they are.

A minute's work that says what weights from elsewhere are worth on these images, and the classifier
that a fine-tuning starts from: with a fresh one the first gradients spoil the features (Kumar et
al. 2022, arXiv 2202.10054).
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.core import run_folder
from nas.core.errors import NasError
from nas.data.augment_settings import Augment
from nas.data.batches import Batch
from nas.data.loader import Data, Loader
from nas.training import distributed
from nas.training.preemption import Notice
from nas.training.result import ProbeScore

FILE = "probe.json"
PLAIN = Augment(crop="none", flip=False)
STRENGTHS = (1.0, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4)  # of the penalty, tried in turn
MOST_BYTES = 2**29  # of features: 100,000 images of 1,280 numbers
ITERATIONS, LEAST_ITERATIONS = 100, 10
MOST_FLOPS = 5e11  # of the iterations at one strength, on a CPU
WORSE = 2  # strengths in turn with a higher loss, after which none is tried any more
SAMPLE, PER_CLASS, MOST_SAMPLE = 512, 4, 4_096  # training images that choose the statistics
STATISTICS_BATCH = 64  # images of a batch that statistics are taken of
LEAST = 32  # training images below which statistics are left alone
Vectors = tuple[Tensor, Tensor]  # features float32 (N, D), labels int64 (N,)


@dataclass(frozen=True)
class Probe:
    """A classifier of a network's features, weight (K, D) and bias (K,), and its score on val."""

    weight: Tensor
    bias: Tensor
    score: ProbeScore


def probe(
    model: nn.Module,
    data: Data,
    *,
    device: str,
    batch: int = 64,
    mixed: bool = False,
    notice: Notice | None = None,
) -> Probe:
    """Return the classifier that these features allow, its penalty chosen by the loss on val.

    Of `model` `forward_features` and `forward_head` are called, in eval mode. Of more training
    images than memory should hold a random part is taken. `mixed`: in bfloat16.

    Raises:
        NasError: the features are no finite numbers.
        Preempted: the notice has come.
    """
    started = time.perf_counter()
    seen = _Reader(model, device, mixed, notice or Notice())
    first = seen.vectors(_part(data.train, batch, _most(model)))
    held_out = seen.vectors(_ordered(data.val, batch))
    weight, bias, strength = _regression(first, held_out, len(data.classes))
    logits = functional.linear(held_out[0], weight, bias)
    score = _score(logits, held_out[1], strength, time.perf_counter() - started)
    return Probe(weight, bias, score)


def choose_statistics(
    model: nn.Module,
    data: Data,
    *,
    device: str,
    batch: int = 64,
    mixed: bool = False,
    notice: Notice | None = None,
    own: bool = True,
) -> str:
    """Give norms the statistics of these images if features separate classes better so.

    Return `recalibrated` or `own`. Weights that are intact are best with the statistics that they
    were trained with (lite0 at 64 px: 77 % against 57 of val); a sub-network, of which channels or
    layers are missing, has none that are its own: not `own`, they are always taken again, as frozen
    ones that do not fit blow up in training. Else two probes on a part of the training images tell.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    if not norms or len(data.train) < LEAST:
        return "own"
    count = max(SAMPLE, min(MOST_SAMPLE, PER_CLASS * len(data.classes)))
    seen = _Reader(model, device, mixed, notice or Notice())
    before = _separated(seen, data, batch, count) if own else math.inf
    kept = [tensor.clone() for norm in norms for tensor in norm.buffers()]
    recalibrate(model, seen.until(_part(data.train, STATISTICS_BATCH, count // 2)))
    distributed.average_buffers(model)
    after = _separated(seen, data, batch, count) if own else 0.0
    better = torch.tensor(float(after < before and distributed.rank() == 0), device=device)
    if distributed.summed(better) > 0:
        return "recalibrated"
    for tensor, old in zip((t for norm in norms for t in norm.buffers()), kept, strict=True):
        tensor.copy_(old)
    return "own"


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[Batch]) -> None:
    """Replace the norms' running statistics by their mean over batches of images."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta, training = [norm.momentum for norm in norms], model.training
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean
        norm.train()
    try:
        for images, _ in batches:
            model(images)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.train(training)


def write_probe(folder: Path, score: ProbeScore) -> None:
    """Keep what a probe gave in the folder of its training."""
    run_folder.write_json(folder / FILE, score.to_dict())


def read_probe(folder: Path) -> ProbeScore | None:
    """Return what the probe of a training gave; None where there was none.

    Raises:
        RunError: the file is damaged.
    """
    path = folder / FILE
    return run_folder.read_record(path, ProbeScore) if path.exists() else None


def as_row(score: ProbeScore) -> dict[str, float]:
    """Return a probe's score as the row of an epoch, which it is none of: 0."""
    found = {"val_loss": score.loss, "val_top1": score.top1, "val_top5": score.top5}
    return {"epoch": 0, **found, "val_top1_raw": score.top1, "seconds": score.seconds}


def probe_rows(folder: Path) -> list[dict[str, float]]:
    """Return what the probe of a training gave as the row of epoch 0; [] where there was none.

    Raises:
        RunError: the file is damaged.
    """
    found = read_probe(folder)
    return [as_row(found)] if found else []


@dataclass(frozen=True)
class _Reader:
    """A network as a source of features."""

    model: nn.Module
    device: str
    mixed: bool
    notice: Notice

    def until(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        return self.notice.until(batches)

    @torch.no_grad()
    def vectors(self, batches: Iterable[Batch]) -> Vectors:
        """Return features and labels of all processes' batches.

        Raises:
            NasError: a feature is no finite number.
        """
        model: Any = self.model
        training, kind = model.training, self.device.partition(":")[0]
        model.eval()
        found: list[Tensor] = []
        labels: list[Tensor] = []
        for images, y in self.until(batches):
            with torch.autocast(kind, torch.bfloat16, enabled=self.mixed):
                maps = model.forward_features(images)
                vector = model.forward_head(maps, pre_logits=True)
            found.append(vector.float().flatten(1))
            labels.append(y)
        model.train(training)
        x, y = torch.cat(found), torch.cat(labels)
        x = distributed.gathered(x.flatten()).view(-1, x.shape[1])
        if not bool(torch.isfinite(x).all()):
            raise NasError(
                "the weights to start from give features that are no finite numbers: they are "
                "damaged, or of another network; --init names others"
            )
        return x, distributed.gathered(y)


def _most(model: nn.Module) -> int:
    """Return how many images' features are held at once."""
    classifier: Any = model.get_classifier()  # type: ignore[operator]
    return max(1, MOST_BYTES // (4 * int(classifier.in_features)))


def _ordered(loader: Loader, batch: int) -> Iterator[Batch]:
    world = distributed.world()
    return loader.ordered(max(world, batch), distributed.rank(), world)


def _part(loader: Loader, batch: int, most: int) -> Iterator[Batch]:
    """Return plain views of all images, or of a random part of more than `most`."""
    if len(loader) <= most:
        return _ordered(loader, batch)
    world = distributed.world()
    size = max(world, min(batch, most) // world * world)
    drawn = loader.train(0, 0, size, PLAIN, distributed.rank(), world)
    return itertools.islice(drawn, max(1, most // size))


def _separated(seen: _Reader, data: Data, batch: int, count: int) -> float:
    """Return the loss of a probe of a part of the training images on the last third of them."""
    try:
        # in random order, as classes may lie one after the other
        x, y = seen.vectors(_part_in_random_order(data.train, batch, count))
    except NasError:
        return math.inf
    at = max(1, 2 * len(x) // 3)
    first, rest = (x[:at], y[:at]), (x[at:], y[at:])
    weight, bias, _ = _regression(first, rest, len(data.classes))
    return float(functional.cross_entropy(functional.linear(rest[0], weight, bias), rest[1]))


def _part_in_random_order(loader: Loader, batch: int, count: int) -> Iterator[Batch]:
    world = distributed.world()
    size = max(world, min(batch, len(loader)) // world * world)
    drawn = loader.train(0, 0, size, PLAIN, distributed.rank(), world)
    return itertools.islice(drawn, max(1, count // size))


def _regression(first: Vectors, held_out: Vectors, classes: int) -> tuple[Tensor, Tensor, float]:
    """Return weight (K, D), bias (K,) and the strength with the least loss on what is held out.

    From strong to weak penalties, each from the solution before. Features are centred, which
    changes no solution, and scaled by one number, so that strengths mean the same for all networks.
    """
    (x, y), (held_x, held_y) = first, held_out
    mean = x.mean(0)
    x = x - mean
    scale = x.square().mean().sqrt().clamp(min=1e-12)
    x, held_x = x / scale, (held_x - mean) / scale
    best = (math.inf, torch.zeros(classes, x.shape[1] + 1, device=x.device), 0.0)
    now, worse = best[1], 0
    for strength in STRENGTHS:
        now = _solve(x, y, now, strength)
        loss = float(functional.cross_entropy(_logits(held_x, now), held_y))
        worse = 0 if loss < best[0] else worse + 1
        best = min(best, (loss, now, strength), key=lambda each: each[0])
        if worse == WORSE:
            break
    weight, bias = best[1][:, :-1] / scale, best[1][:, -1]
    return weight.contiguous(), bias - weight @ mean, best[2]


def _solve(x: Tensor, y: Tensor, start: Tensor, strength: float) -> Tensor:
    """Return the minimum of mean cross-entropy + strength / 2 x squared weights, by L-BFGS."""
    flops = 4.0 * len(x) * start.numel()
    most = ITERATIONS if x.is_cuda else int(min(ITERATIONS, MOST_FLOPS / flops))
    weight = start.clone().requires_grad_(True)
    solver = torch.optim.LBFGS(
        [weight],
        max_iter=max(LEAST_ITERATIONS, most),
        tolerance_grad=1e-5,
        tolerance_change=1e-7,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        weight.grad = None
        penalty = strength / 2 * weight[:, :-1].square().sum()
        found = functional.cross_entropy(_logits(x, weight), y) + penalty
        found.backward()  # type: ignore[no-untyped-call]
        return found

    solver.step(loss)  # type: ignore[no-untyped-call]
    found = weight.detach()
    return found if bool(torch.isfinite(found).all()) else start


def _logits(x: Tensor, weight: Tensor) -> Tensor:
    return functional.linear(x, weight[:, :-1], weight[:, -1])


def _score(logits: Tensor, labels: Tensor, strength: float, seconds: float) -> ProbeScore:
    best = logits.topk(min(5, logits.shape[1]), 1).indices == labels[:, None]
    return ProbeScore(
        top1=100 * int(best[:, 0].sum()) / max(1, len(labels)),
        top5=100 * int(best.any(1).sum()) / max(1, len(labels)),
        loss=float(functional.cross_entropy(logits, labels)),
        n=len(labels),
        strength=strength,
        seconds=seconds,
    )
