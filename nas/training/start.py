"""Before the first epoch of a fine-tuning: its statistics, its classifier, what is to be beaten.

All of it is in the checkpoint of epoch 0, so that it is done once however often a training is
resumed; probe.json tells people and other programs.
"""

from __future__ import annotations

import dataclasses
import itertools
import operator
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from nas.core.errors import NasError
from nas.data.loader import Data
from nas.models.arch import Arch
from nas.models.build import Model
from nas.training import distributed, optim
from nas.training.mending import keep_best
from nas.training.preemption import Notice
from nas.training.probe import as_row, choose_statistics, probe, write_probe
from nas.training.state import Job, Start, State, restored, save
from nas.training.teacher import weakness
from nas.training.weights.sources import find_weights, same_network

SLOWER, LEAST_RATE = 1 / 3, 1 / 30  # of the recipe's rate, once the loss has blown up
# times the recipe's rate (.02 and .2 of 32 images), by what is missing of inherited weights: four
# sub-networks of lite0 were best so (docs/results.md)
FEWER_LAYERS, CUT = 0.67, 6.7


def begin(
    job: Job, data: Data, folder: Path, state: State, notice: Notice, say: Callable[[str], None]
) -> None:
    """Choose the statistics, probe, take over its classifier, and keep it all as epoch 0.

    Raises:
        Preempted: the notice has come; nothing is kept.
        NasError: the weights give no finite features.
        RunError: the disk is full.
    """
    started, model = time.perf_counter(), state.model
    batch = max(distributed.world(), job.batch_size // state.accumulate)
    statistics, kept = "own", _kept(job)
    if job.recipe.statistics == "measured":
        own = kept in ("all", "fewer layers")
        statistics = choose_statistics(
            model, data, device=job.device, batch=batch, mixed=job.mixed, notice=notice, own=own
        )
    live = statistics != "own"
    rate, why = _rate(kept, live) if job.recipe.adapt else (1.0, "")
    found = probe(model, data, device=job.device, batch=batch, mixed=job.mixed, notice=notice)
    classifier = model.get_classifier()
    with torch.no_grad():
        classifier.weight.copy_(found.weight)
        classifier.bias.copy_(found.bias)
    state.ema = optim.make_ema(model, job.recipe)
    seconds = time.perf_counter() - started
    score = dataclasses.replace(found.score, statistics=statistics, seconds=seconds)
    state.start = Start(as_row(score), live, rate, whole=kept == "all")
    state.best = score.top1
    if distributed.rank() == 0:
        write_probe(folder, score)
        keep_best(folder, model, job.arch, data, job.recipe.name, state.start.row)
        save(job, folder, state)
    distributed.barrier()
    say(
        f"linear probe: {score.top1:.2f} % of {score.n:,} val images, by the features of the "
        f"weights as they are ({score.statistics} norm statistics)"
    )
    if why:
        say(f"learning rate {optim.scaled_lr(job.recipe, job.batch_size) * rate:.2g}: {why}")
    if job.teacher and (warned := weakness(job.teacher.facts, score.top1)):
        say(warned)


class BlownUp(Exception):
    """The loss of a fine-tuning is that of no network that has been trained before."""


def slower(
    job: Job, folder: Path, state: State, error: BlownUp, say: Callable[[str], None]
) -> tuple[State, bool]:
    """Return a fine-tuning whose loss blew up as it was before that epoch, and whether it goes on.

    It does at a third of the rate, which is kept with the checkpoint, so that a resumed training
    has it too. Once that was tried down to a thirtieth, it ends: the best so far, at least what the
    probe gave, is worth keeping.

    Raises:
        NasError: the checkpoint is lost.
    """
    assert state.start
    rate, number = state.start.rate * SLOWER, state.epoch + 1
    again = restored(job, folder, whole=True)
    distributed.barrier()  # the first process writes the checkpoint again that all have read
    if again.start is None:
        raise NasError(str(error)) from None
    if rate < LEAST_RATE:
        say(f"{error}. It ends here; the best before, of the linear probe or an epoch, is kept")
        return again, False
    again.start = dataclasses.replace(again.start, rate=rate)
    if distributed.rank() == 0:
        save(job, folder, again)
    distributed.barrier()
    say(
        f"the loss blew up in epoch {number}: going on after epoch {again.epoch} at a third of "
        "the learning rate"
    )
    return again, True


def training_mode(job: Job, state: State) -> None:
    """Set training mode; parts that are not trained, and frozen statistics, stay as they are."""
    model, recipe, start = state.model, job.recipe, state.start
    recalibrated = bool(start and start.live)
    model.train()
    intact = not recalibrated and (start is None or start.whole)
    early = _early_parts(model, recipe.freeze_stride) if intact else 0
    for part in [model.stem, *model.stages][:early]:
        part.requires_grad_(False).eval()
    if job.freeze:
        for part in (model.stem, *model.stages, *list(model.head)[:-1]):
            part.eval()
    if recipe.statistics == "frozen" or (recipe.statistics == "measured" and not recalibrated):
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


def _kept(job: Job) -> str:
    """Return what a network has of the weights to start from: all, fewer layers, cut or grown."""
    if not job.init:
        return "all"
    parent, arch = find_weights(job.init, job.arch).arch, job.arch
    if same_network(parent, arch):
        return "all"
    theirs, ours = _sizes(parent), _sizes(arch)
    if not any(our < their for our, their in zip(ours, theirs, strict=True)):
        return "grown"
    both = zip(parent.stages, arch.stages, strict=True)
    stages = tuple(dataclasses.replace(whole, layers=part.layers) for whole, part in both)
    fewer = same_network(dataclasses.replace(parent, stages=stages), arch)
    return "fewer layers" if fewer else "cut"


def _sizes(arch: Arch) -> list[float]:
    each = [(s.channels, s.kernel, s.expansion, s.layers) for s in arch.stages]
    return [arch.stem.channels, *itertools.chain.from_iterable(each)]


def _rate(kept: str, live: bool) -> tuple[float, str]:
    """Return the rate by how intact weights are, times the recipe's, and why it is not that."""
    if kept == "fewer layers" and not live:
        return FEWER_LAYERS, "only layers are missing of the weights, which stay near what they are"
    if kept in ("fewer layers", "cut"):
        return CUT, "parts of the weights are missing, and norms follow the batches"
    return 1.0, ""


def _early_parts(model: Model, most: int) -> int:
    """Return how many parts, the stem first, have a stride up to `most`; a third at most."""
    stem = model.arch.stem
    strides = itertools.accumulate(
        [stem.stride * stem.pool, *(stage.stride for stage in model.arch.stages)], operator.mul
    )
    early = sum(1 for stride in strides if stride <= most)
    return min(early, (len(model.arch.stages) + 2) // 3)
