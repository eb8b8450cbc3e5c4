"""Train an arch on images: one loop for `nas train`, for candidates of a search, for members.

All randomness of an epoch is a function of (seed, epoch), so a training that was killed goes on
from its last checkpoint to the same numbers, on one device. One that is told to end (SIGTERM) makes
a checkpoint in the middle of its epoch, with the states of torch's generators.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from nas.core import run_folder
from nas.core.errors import NasError, OptionError, RunError
from nas.data.batches import steps as steps_of
from nas.data.loader import Data
from nas.models.cost import count
from nas.training import distributed, optim, preemption
from nas.training.memory import check_images, is_out_of_memory, more_parts, parts_that_fit
from nas.training.mending import keep_best, mend
from nas.training.preemption import Notice, Preempted
from nas.training.start import BlownUp, begin, slower, training_mode
from nas.training.state import Job, Row, Start, State, eval_model, fresh, restored, save, seed_torch
from nas.training.teacher import ask, listening, loss_of, with_views
from nas.training.validation import Score, validate

RESULTS = "results.csv"
# a mean loss of an epoch this many times that of guessing is no training any more
DIVERGED = 100
LOST = 0.5  # of the accuracy of a probe: below, with a loss above guessing, a rate is too high
TIMED = 4  # steps that tell a machine's speed
# multiply-adds of a training step in those of a forward pass: forward, and twice that backward
STEP = 3


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

    Return one row for each epoch so far; those of `validate_at` (default: as the recipe's
    `interval` has it, and always the last) hold val_top1, val_loss and the like. `watch` gets each
    new row, `say` a line on anything unusual. Every `interval` epochs the folder gets results.csv,
    a checkpoint and weights/best.safetensors, the best by val_top1. Without `until`, a training
    whose validation has not improved for the recipe's `patience` ends before its last epoch.
    A recipe with a `probe` begins with that, and ends there with `until` 0, or if no rate is good.

    Raises:
        Preempted: SIGTERM came; a checkpoint was made of all that is done.
        NasError: training has diverged, or one image does not fit into memory.
        RunError: the checkpoint is another training's or damaged, or the disk is full.
        OptionError: the weights to start from do not fit.
    """
    last = job.epochs if until is None else min(until, job.epochs)
    usual = range(0, job.epochs, job.recipe.interval)
    wanted = {*(usual if validate_at is None else validate_at), last}
    patience = 0 if until is not None else job.recipe.patience
    job = dataclasses.replace(job, device=distributed.local_device(job.device))
    job = fitting(job, data, say)
    if job.device.startswith("cuda"):
        torch.backends.cudnn.benchmark = True  # all batches of a training have one shape
    with distributed.joined(job.device), preemption.noticed() as notice:
        state = _begun(job, data, folder, notice, say)
        goes_on = True
        while goes_on and state.epoch < last and not stalled(state.rows, patience):
            row, accumulate = None, state.accumulate
            try:
                row = _epoch(job, data, state, notice, validating=state.epoch + 1 in wanted)
            except Preempted:
                raise Preempted(_paused(job, data, folder, state, say)) from None
            except BlownUp as error:
                state, goes_on = slower(job, folder, state, error, say)
                continue
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            if row is None:
                # outside of the handler, whose error holds the memory of the step that failed
                del state
                state = _smaller(job, folder, accumulate, say)
                continue
            if state.epoch in wanted or state.epoch % job.recipe.interval == 0:
                _keep(job, data, folder, state, row)
            watch(row)
            if notice.asked:
                raise Preempted(_paused(job, data, folder, state, say))
        return state.rows


def _begun(job: Job, data: Data, folder: Path, notice: Notice, say: Callable[[str], None]) -> State:
    """Return the training as its checkpoint has it, or as it is before its first epoch.

    Raises:
        Preempted: SIGTERM came in a linear probe, of which nothing is kept.
    """
    state = restored(job, folder)
    _mend(job, data, folder, state)
    if job.recipe.probe and not (state.start or state.epoch or state.part.steps):
        try:
            begin(job, data, folder, state, notice, say)
        except Preempted:
            raise Preempted(f"stopped by SIGTERM in the linear probe of {folder}") from None
        if distributed.rank() == 0:
            _write_rows(folder / RESULTS, state.rows)
    return state


def stalled(rows: Sequence[Row], patience: int) -> bool:
    """Tell whether neither accuracy nor loss of a validation improved for `patience` epochs; 0: no.

    A function of the rows, so that a resumed training ends where an undisturbed one does.
    """
    scored = [row for row in rows if "val_top1" in row]
    if not patience or not scored:
        return False
    top1, loss, improved = -1.0, math.inf, 0.0
    for row in scored:
        if row["val_top1"] > top1 or row["val_loss"] < loss:
            improved = row["epoch"]
        top1, loss = max(top1, row["val_top1"]), min(loss, row["val_loss"])
    return scored[-1]["epoch"] - improved >= patience


def fitting(job: Job, data: Data, say: Callable[[str], None] = lambda text: None) -> Job:
    """Return a training whose steps go through the device in as many parts as its memory needs.

    Raises:
        OptionError: a step of this process has fewer images than batch norm needs.
        NasError: not even these fit.
    """
    arch = dataclasses.replace(job.arch, resolution=data.size)
    mine = min(job.batch_size, len(data.train)) // distributed.world()
    if not job.freeze:
        check_images(arch, mine, len(data.train))
    beside = job.teacher.facts.memory if job.teacher else (0.0, 0.0)
    parts = parts_that_fit(
        arch, mine, job.accumulate, job.device, checkpointing=job.checkpointing, beside=beside
    )
    if parts > job.accumulate:
        say(
            f"a step of {mine} images goes through {job.device} in {parts} parts of up to "
            f"{math.ceil(mine / parts)}, which is what fits into the memory that is free"
        )
    return dataclasses.replace(job, accumulate=parts)


def images_per_second(job: Job, data: Data) -> float:
    """Return the speed of a training on this machine, from steps of which nothing is kept."""
    augment, state = job.recipe.augment, fresh(fitting(job, data))
    training_mode(job, state)
    images, started = 0, time.perf_counter()
    for number in range(1 + TIMED):  # one of an epoch each: there may be no more
        batches = with_views(job.teacher, data.train, number, job.seed, job.batch_size, augment)
        x, y, seen = next(iter(batches))
        float(_step(job, state.model, state, x, y, seen))  # waits for the device
        if number == 0:  # makes buffers, and on a GPU chooses kernels
            started = time.perf_counter()
        else:
            images += len(x)
    return images / (time.perf_counter() - started)


def training_flops(job: Job, data: Data, epochs: int) -> float:
    """Return the multiply-adds that training for some epochs takes, at the data's image size."""
    return STEP * count(job.arch, data.size).flops * epochs * len(data.train)


def _epoch(job: Job, data: Data, state: State, notice: Notice, *, validating: bool) -> Row:
    """Train one epoch, or the rest of it, in place; return its row.

    Raises:
        Preempted: the notice has come; the state is that after the step before.
        NasError: the loss is not finite, or far above that of guessing.
    """
    number = state.epoch + 1
    seed_torch(job.seed, number)
    loss, lr, images = _steps(job, data, state, notice)
    seconds = state.part.seconds
    row = {"epoch": number, "lr": lr, "train_loss": loss}
    guessing = math.log(len(data.classes))
    if validating and loss < DIVERGED * guessing:
        row |= _validated(job, data, state, notice)
    if not loss < DIVERGED * guessing or _blown_up(state.start, row, guessing):
        raise (BlownUp if state.start else NasError)(
            f"the loss is {loss:.3g} in epoch {number}: training has diverged; lower the learning "
            "rate (--recipe-option lr=...) or warm up longer"
        )
    row |= {"seconds": seconds, "images_per_second": images / seconds}
    if job.device.startswith("cuda"):
        row["memory_bytes"] = torch.cuda.max_memory_allocated(job.device)
    state.epoch, state.part = number, preemption.start_part(job.device)
    state.rows.append(row)
    return row


def _blown_up(start: Start | None, row: Row, guessing: float) -> bool:
    """Tell whether an epoch has lost most of what the weights that a training began with knew."""
    if start is None or "val_top1" not in row:
        return False
    return row["train_loss"] > guessing and row["val_top1"] < LOST * start.row["val_top1"]


def _steps(job: Job, data: Data, state: State, notice: Notice) -> tuple[float, float, int]:
    """Run what is left of an epoch's steps; return mean loss, last learning rate, images."""
    rank, world, part = distributed.rank(), distributed.world(), state.part
    steps = steps_of(len(data.train), job.batch_size)
    training_mode(job, state)
    model = distributed.wrapped(state.model, job.device)
    preemption.set_random_states(part.random, job.device)
    augment = job.recipe.augment
    batches = with_views(
        *(job.teacher, data.train, state.epoch, job.seed, job.batch_size, augment),
        *(rank, world, part.steps),
    )
    before, started = part.seconds, time.perf_counter()
    for x, y, seen in notice.until(batches):
        for group in state.optimizer.param_groups:
            group["lr"] = _lr(job, state, part.steps, steps)
        part.loss += len(x) * _step(job, model, state, x, y, seen)
        part.images += len(x)
        part.steps += 1
        part.seconds = before + time.perf_counter() - started
    seen = torch.tensor(float(part.images)).to(part.loss)
    total, seen = distributed.summed(torch.stack([part.loss, seen]))
    loss, images = float(total / seen), int(seen)
    part.seconds = before + time.perf_counter() - started
    return loss, _lr(job, state, steps - 1, steps), images


def _lr(job: Job, state: State, step: int, steps: int) -> float:
    """Return the learning rate of a step (from 0) of the running epoch of `steps` steps."""
    epoch, rate = state.epoch, state.start.rate if state.start else 1.0
    share = optim.lr_at(job.recipe, epoch * steps + step, job.epochs * steps, steps)
    return optim.scaled_lr(job.recipe, job.batch_size) * share * rate


def _step(job: Job, model: nn.Module, state: State, x: Tensor, y: Tensor, seen: Tensor) -> Tensor:
    """Take one optimiser step on a batch, in parts; return the mean loss. `seen`: by a teacher."""
    state.optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), device=job.device)
    kind = job.device.partition(":")[0]
    parts = min(state.accumulate, len(x))  # of sizes that differ by one at most
    for images, labels, views in zip(*(t.tensor_split(parts) for t in (x, y, seen)), strict=True):
        with torch.autocast(kind, torch.bfloat16, enabled=job.mixed):
            # before the maps of the student are there
            answer = ask(job.teacher, views) if job.teacher else None
            with listening(job.teacher, job.recipe, state.model) as vectors:
                logits = model(images)
        loss = loss_of(job.recipe, logits.float(), labels, answer, vectors)
        loss *= len(images) / len(x)
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    if job.recipe.clip:
        trained = [p for p in state.model.parameters() if p.requires_grad]
        nn.utils.clip_grad_norm_(trained, job.recipe.clip, foreach=True)
    state.optimizer.step()
    if state.ema:
        state.ema.update_parameters(state.model)
    return total


def _validated(job: Job, data: Data, state: State, notice: Notice) -> Row:
    """Return the validation columns of a row: of the averaged weights too where there are any.

    Raises:
        Preempted: the notice has come.
    """
    distributed.average_buffers(state.model)
    raw = score(state.model, data, job, state.accumulate, notice)
    found = {"val_top1_raw": raw.top1}
    shown = raw
    if state.ema:
        distributed.average_buffers(state.ema.module)
        shown = score(state.ema.module, data, job, state.accumulate, notice)
        found["val_top1_ema"] = shown.top1
    return {"val_loss": shown.loss, "val_top1": shown.top1, "val_top5": shown.top5, **found}


def score(
    model: nn.Module, data: Data, job: Job, accumulate: int = 1, notice: Notice | None = None
) -> Score:
    """Return a model's score on the validation split, with as many images at a time as fit."""
    world = distributed.world()
    batch = max(world, job.batch_size // accumulate)
    batches = data.val.ordered(batch, distributed.rank(), world)
    batches = notice.until(batches) if notice else batches
    return validate(model, batches, len(data.classes), device=job.device, amp=job.mixed)


def _keep(job: Job, data: Data, folder: Path, state: State, row: Row) -> None:
    """Write the best weights, the table and a checkpoint; only the first process writes."""
    better = row.get("val_top1", -1.0) > state.best
    state.best = max(state.best, row.get("val_top1", -1.0))
    if distributed.rank() == 0:
        if better:
            keep_best(folder, eval_model(state), job.arch, data, job.recipe.name, row)
        save(job, folder, state)
        _write_rows(folder / RESULTS, state.rows)
    distributed.barrier()


def _paused(job: Job, data: Data, folder: Path, state: State, say: Callable[[str], None]) -> str:
    """Write what no checkpoint has of a training that is told to end; return where it stopped."""
    part, steps = state.part, steps_of(len(data.train), job.batch_size)
    if part.steps > part.kept or state.epoch > state.kept:
        try:
            save(job, folder, state)
            part.kept = part.steps
        except RunError as error:  # the notice stays one: what was kept before is gone on from
            say(str(error))
    where = f"after epoch {state.epoch} of {job.epochs}"
    if part.kept:
        done = f"{part.kept:,} of {steps:,} steps"
        where = f"in the middle of epoch {state.epoch + 1} of {job.epochs}, after {done}"
    return f"stopped by SIGTERM {where}; saved in {folder}"


def _write_rows(path: Path, rows: list[Row]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row)) or ["epoch"]
    run_folder.write_csv(path, columns, [[row.get(name, "") for name in columns] for row in rows])


def _mend(job: Job, data: Data, folder: Path, state: State) -> None:
    """Make what is damaged beside the checkpoint again."""
    if state.best < 0 or distributed.rank():
        return
    rows = [*([state.start.row] if state.start else []), *state.rows]
    if mend(folder, eval_model(state), job.arch, data, job.recipe.name, rows):
        state.best = -1.0 if state.part.steps else rows[-1].get("val_top1", -1.0)


def _smaller(job: Job, folder: Path, parts: int, say: Callable[[str], None]) -> State:
    """Return the training with its steps in twice as many parts, from its last checkpoint.

    Raises:
        NasError: a part was one image already, or other processes wait in the middle of a step.
    """
    mine = job.batch_size // distributed.world()
    accumulate = more_parts(mine, parts, job.device, job.arch)
    part = math.ceil(mine / accumulate)
    say(f"out of memory: {part} images at a time now, {accumulate} times for a step")
    if job.device.startswith("cuda"):
        torch.cuda.empty_cache()
    return restored(job, folder, accumulate)


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
