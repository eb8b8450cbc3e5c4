"""Train an arch on images: one loop for `nas train`, for candidates of a search, for members.

All randomness of an epoch is a function of (seed, epoch), so a training that was killed goes on
from its last checkpoint to the same numbers, on one device.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import time
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint as recompute

from nas import run
from nas.arch import Arch
from nas.cost import count
from nas.data.batches import steps as steps_of
from nas.data.loader import Data
from nas.errors import NasError, OptionError, RunError
from nas.model import Model
from nas.training import checkpoint, distributed, optim
from nas.training.recipe import Recipe
from nas.training.trained import CONFIG, config, initial_weights
from nas.training.validation import Score, validate

Row = dict[str, float]
RESULTS, CHECKPOINTS, BEST = "results.csv", "checkpoints", "weights/best.safetensors"
# a mean loss of an epoch this many times that of guessing is no training any more
DIVERGED = 100
# multiply-adds of a training step in those of a forward pass: forward, and twice that backward
STEP = 3


@dataclass(frozen=True)
class Job:
    """What decides a training's result. `amp` of None: bfloat16 on CUDA, float32 elsewhere.

    `batch_size` is of one optimiser step over all processes; it goes through the device in
    `accumulate` parts. `init`: weights to start from; a classifier of another shape starts fresh.
    `freeze` trains the classifier only.
    """

    arch: Arch
    recipe: Recipe
    epochs: int
    batch_size: int
    seed: int = 0
    device: str = "cpu"
    amp: bool | None = None
    accumulate: int = 1
    checkpointing: bool = False
    freeze: bool = False
    init: Path | None = None

    @property
    def mixed(self) -> bool:
        """Tell whether the forward pass runs in bfloat16."""
        return self.device.startswith("cuda") if self.amp is None else self.amp


@dataclass
class _State:
    """A training between two epochs."""

    model: Model
    optimizer: torch.optim.Optimizer
    ema: AveragedModel | None
    accumulate: int
    epoch: int = 0
    best: float = -1.0
    rows: list[Row] = dataclasses.field(default_factory=list)


def fit(
    job: Job,
    data: Data,
    folder: Path,
    *,
    until: int | None = None,
    validate_at: Collection[int] | None = None,
    watch: Callable[[Row], None] = lambda row: None,
    say: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """Train up to epoch `until` (default: all), from the folder's checkpoint if there is one.

    Return one row for each epoch so far; those of `validate_at` (default: all, and always the
    last) hold val_top1 and company. `watch` gets each new row, `say` a line on anything unusual.
    The folder gets results.csv, a checkpoint and weights/best.safetensors, the best by val_top1.

    Raises:
        NasError: training has diverged, or one image does not fit into memory.
        RunError: the checkpoint is another training's or damaged, or the disk is full.
        OptionError: the weights to start from do not fit.
    """
    last = min(until or job.epochs, job.epochs)
    wanted = set(range(1, job.epochs + 1)) if validate_at is None else {*validate_at, last}
    job = dataclasses.replace(job, device=distributed.local_device(job.device))
    if job.device.startswith("cuda"):
        torch.backends.cudnn.benchmark = True  # all batches of a training have one shape
    with distributed.joined(job.device):
        state = _restored(job, folder)
        while state.epoch < last:
            row, accumulate = None, state.accumulate
            try:
                row = _epoch(job, data, state, validating=state.epoch + 1 in wanted)
            except (RuntimeError, MemoryError) as error:
                if not _out_of_memory(error):
                    raise
            if row is None:
                # outside of the handler, whose error holds the memory of the step that failed
                del state
                state = _smaller(job, folder, accumulate, say)
                continue
            _keep(job, data, folder, state, row)
            watch(row)
        return state.rows


def training_flops(job: Job, data: Data, epochs: int) -> float:
    """Return the multiply-adds that training for some epochs takes, at the data's image size."""
    return STEP * count(job.arch, data.size).flops * epochs * len(data.train)


def _epoch(job: Job, data: Data, state: _State, *, validating: bool) -> Row:
    """Train one epoch in place; return its row.

    Raises:
        NasError: the loss is not finite, or far above that of guessing.
    """
    number = state.epoch + 1
    _seed(job.seed, number)
    started = time.perf_counter()
    loss, lr, images = _steps(job, data, state)
    seconds = time.perf_counter() - started
    if not loss < DIVERGED * math.log(len(data.classes)):
        raise NasError(
            f"the loss is {loss:.3g} in epoch {number}: training has diverged; lower the learning "
            "rate (--recipe-option lr=...) or warm up longer"
        )
    row = {"epoch": number, "lr": lr, "train_loss": loss}
    if validating:
        row |= _validated(job, data, state)
    row |= {"seconds": seconds, "images_per_second": images / seconds}
    if job.device.startswith("cuda"):
        row["memory_bytes"] = torch.cuda.max_memory_allocated(job.device)
    state.epoch = number
    state.rows.append(row)
    return row


def _steps(job: Job, data: Data, state: _State) -> tuple[float, float, int]:
    """Run the optimiser steps of one epoch; return mean loss, last learning rate, images."""
    rank, world = distributed.rank(), distributed.world()
    steps = steps_of(len(data.train), job.batch_size)
    model = _wrapped(job, state.model)
    _training_mode(job, state.model)
    total, images, lr = torch.zeros((), device=job.device), 0, 0.0
    batches = data.train.train(
        state.epoch, job.seed, job.batch_size, job.recipe.augment, rank, world
    )
    base = optim.scaled_lr(job.recipe, job.batch_size)
    for step, (x, y) in enumerate(batches):
        done = state.epoch * steps + step
        lr = base * optim.lr_at(job.recipe, done, job.epochs * steps, steps)
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        total += len(x) * _step(job, model, state, x, y)
        images += len(x)
    sums = distributed.summed(torch.stack([total, torch.tensor(float(images)).to(total)]))
    return float(sums[0] / sums[1]), lr, int(sums[1])


def _step(job: Job, model: nn.Module, state: _State, x: Tensor, y: Tensor) -> Tensor:
    """Take one optimiser step on a batch, in parts; return the mean loss."""
    state.optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), device=job.device)
    kind = job.device.partition(":")[0]
    for images, labels in zip(x.chunk(state.accumulate), y.chunk(state.accumulate), strict=True):
        with torch.autocast(kind, torch.bfloat16, enabled=job.mixed):
            logits = model(images)
        loss = functional.cross_entropy(
            logits.float(), labels, label_smoothing=job.recipe.label_smoothing
        ) * (len(images) / len(x))
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    state.optimizer.step()
    if state.ema:
        state.ema.update_parameters(state.model)
    return total


def _validated(job: Job, data: Data, state: _State) -> Row:
    """Return the validation columns of a row: of the averaged weights too where there are any."""
    distributed.average_buffers(state.model)
    raw = score(state.model, data, job, state.accumulate)
    found = {"val_top1_raw": raw.top1}
    shown = raw
    if state.ema:
        distributed.average_buffers(state.ema.module)
        shown = score(state.ema.module, data, job, state.accumulate)
        found["val_top1_ema"] = shown.top1
    return {"val_loss": shown.loss, "val_top1": shown.top1, "val_top5": shown.top5, **found}


def score(model: nn.Module, data: Data, job: Job, accumulate: int = 1) -> Score:
    """Return a model's score on the validation split, with as many images at a time as fit."""
    world = distributed.world()
    batch = max(world, job.batch_size // accumulate)
    batches = data.val.ordered(batch, distributed.rank(), world)
    return validate(model, batches, len(data.classes), device=job.device, amp=job.mixed)


def _keep(job: Job, data: Data, folder: Path, state: _State, row: Row) -> None:
    """Write the best weights, the table and a checkpoint; only the first process writes."""
    better = row.get("val_top1", -1.0) > state.best
    state.best = max(state.best, row.get("val_top1", -1.0))
    if distributed.rank() == 0:
        if better:
            shown = state.ema.module if state.ema else state.model
            checkpoint.save_weights(folder / BEST, shown.state_dict())
            described = config(job.arch, data, recipe=job.recipe.name, metrics=row)
            path = folder / CONFIG
            before = run.read_json(path) if path.exists() else {}
            run.write_json(path, before | described)
        weights = {f"model.{k}": v for k, v in state.model.state_dict().items()}
        if state.ema:
            weights |= {f"ema.{k}": v for k, v in state.ema.state_dict().items()}
        saved = {
            "job": _signature(job),
            "rows": json.dumps(state.rows),
            "best": state.best,
            "accumulate": state.accumulate,
            "optimizer": state.optimizer.state_dict(),
        }
        checkpoint.save(folder / CHECKPOINTS, state.epoch, weights, saved)
        _write_rows(folder / RESULTS, state.rows)
    distributed.barrier()


def _write_rows(path: Path, rows: list[Row]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    run.write_csv(path, columns, [[row.get(name, "") for name in columns] for row in rows])


def _fresh(job: Job) -> _State:
    """Return a training before its first epoch."""
    _seed(job.seed, 0, shared=True)
    recipe = job.recipe
    head = job.arch.head
    if recipe.dropout is not None:
        head = dataclasses.replace(head, dropout=recipe.dropout)
    depth = job.arch.stochastic_depth
    if recipe.stochastic_depth is not None:
        depth = recipe.stochastic_depth
    norm = job.arch.norm
    if recipe.norm_momentum is not None:
        norm = dataclasses.replace(norm, momentum=recipe.norm_momentum)
    model = Model(dataclasses.replace(job.arch, head=head, stochastic_depth=depth, norm=norm))
    if job.init:
        model.load_state_dict(initial_weights(model, job.init), strict=False)
    if job.freeze:
        model.requires_grad_(False)
        model.get_classifier().requires_grad_(True)
    model = model.to(job.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if job.checkpointing:
        _recompute_blocks(model)
    optimizer = optim.make_optimizer(model, recipe, optim.scaled_lr(recipe, job.batch_size))
    return _State(model, optimizer, optim.make_ema(model, recipe), job.accumulate)


def _restored(job: Job, folder: Path, accumulate: int = 0) -> _State:
    """Return the training as its last checkpoint has it, or a fresh one."""
    found = checkpoint.load(folder / CHECKPOINTS)
    # the weights that it once started from may be gone
    state = _fresh(dataclasses.replace(job, init=None) if found else job)
    if found:
        weights, saved = found
        if saved.get("job") != _signature(job):
            raise RunError(
                f"{folder / CHECKPOINTS} is of another training (arch, recipe, epochs, batch or "
                "seed differ): resume with its own settings, or name another run"
            )
        parts = {part: _stripped(weights, f"{part}.") for part in ("model", "ema")}
        state.model.load_state_dict(parts["model"])
        if state.ema:
            state.ema.load_state_dict(parts["ema"])
        state.optimizer.load_state_dict(saved["optimizer"])
        state.rows = json.loads(saved["rows"])
        state.epoch, state.best = len(state.rows), saved["best"]
        state.accumulate = max(job.accumulate, saved["accumulate"])
    state.accumulate = accumulate or state.accumulate
    return state


def _stripped(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def _signature(job: Job) -> str:
    """Return what must be equal for a checkpoint to be this training's; not where it runs."""
    free = {"device", "amp", "accumulate", "checkpointing", "arch"}
    fixed = {f.name: getattr(job, f.name) for f in dataclasses.fields(job) if f.name not in free}
    return repr((job.arch.id, sorted((k, repr(v)) for k, v in fixed.items())))


def _smaller(job: Job, folder: Path, parts: int, say: Callable[[str], None]) -> _State:
    """Return the training with its steps in twice as many parts, from its last checkpoint.

    Raises:
        NasError: a part was one image already, or other processes wait in the middle of a step.
    """
    mine = job.batch_size // distributed.world()
    accumulate = min(2 * parts, mine)
    part = math.ceil(mine / accumulate)
    if distributed.world() > 1:
        raise NasError(
            f"out of memory on {job.device} with {math.ceil(mine / parts)} images at a time: go on "
            f"with --resume --accumulate {accumulate}"
        )
    if parts >= mine:
        raise NasError(
            f"one image of {job.arch.resolution} pixels does not fit into the memory of "
            f"{job.device}: choose a smaller --imgsz or --grad-checkpointing"
        )
    say(f"out of memory: {part} images at a time now, {accumulate} times for a step")
    if job.device.startswith("cuda"):
        torch.cuda.empty_cache()
    return _restored(job, folder, accumulate)


def _out_of_memory(error: Exception) -> bool:
    """Tell whether memory did not suffice: each allocator has an error and words of its own."""
    words = ("out of memory", "allocate memory", "not enough memory", "ALLOC_FAILED")
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(word in str(error) for word in words)


def _wrapped(job: Job, model: Model) -> nn.Module:
    if distributed.world() == 1:
        return model
    devices: Any = [job.device] if job.device.startswith("cuda") else None
    with warnings.catch_warnings():  # newer releases of torch rename this argument
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)


def _training_mode(job: Job, model: Model) -> None:
    """Set training mode; frozen parts keep their statistics too."""
    model.train(not job.freeze)
    if job.freeze:
        model.get_classifier().train()


def _seed(seed: int, epoch: int, *, shared: bool = False) -> None:
    """Seed torch for one epoch; `shared`: alike in all processes, as fresh weights must be."""
    rank = 0 if shared else distributed.rank()
    torch.manual_seed((seed * 1_000_003 + epoch) * 1_009 + rank)


def _recompute_blocks(model: Model) -> None:
    """Keep only the blocks' inputs for the backward pass, which runs the blocks again.

    Batch norm then sees each batch twice; with momentum 1 - sqrt(1 - m) two updates of its
    statistics are exactly one with m.
    """
    for block in (block for stage in model.stages for block in stage.children()):
        for module in block.modules():
            if isinstance(module, nn.BatchNorm2d) and module.momentum is not None:
                module.momentum = 1 - math.sqrt(1 - module.momentum)
        block.forward = functools.partial(recompute, block.forward, use_reentrant=False)


def check_batch(batch_size: int, world: int) -> None:
    """Check that a batch can be shared among the processes.

    Raises:
        OptionError: it is not positive or no multiple of their number.
    """
    if batch_size < 1 or batch_size % world:
        raise OptionError(
            f"--batch-size is of all {world} processes together and must be a multiple of "
            f"{world}, not {batch_size}"
        )
