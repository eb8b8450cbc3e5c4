"""What a training is: its job, and its state between two steps, fresh or from a checkpoint."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from nas.core.errors import RunError
from nas.models.arch import Arch
from nas.models.build import Model
from nas.training import checkpoint, distributed, optim, preemption
from nas.training.memory import recompute_blocks
from nas.training.preemption import Part
from nas.training.recipe import Recipe
from nas.training.teacher import Teacher, ready
from nas.training.weights.sources import initial_weights

Row = dict[str, float]
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Job:
    """What decides a training's result. `amp` of None: bfloat16 on CUDA, float32 elsewhere.

    `batch_size` is of one optimiser step over all processes; it goes through the device in
    `accumulate` parts. `init`: weights to start from; a classifier of another shape starts fresh.
    `freeze` trains the classifier only. No `epochs`: a recipe that begins with a probe ends there.
    `teacher`: what it learns from beside the labels.
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
    init: str | Path | None = None
    teacher: Teacher | None = None

    @property
    def mixed(self) -> bool:
        """Tell whether the forward pass runs in bfloat16."""
        return self.device.startswith("cuda") if self.amp is None else self.amp


@dataclass(frozen=True)
class Start:
    """What a fine-tuning found out before its first epoch, and what followed from it.

    `row`: the probe's score, of epoch 0. `live`: norms take the statistics of each batch, for those
    that the weights came with were worse than recalibrated ones. `rate`: times the recipe's rate.
    `whole`: the weights are all of this network's, not inherited from a larger one.
    """

    row: Row
    live: bool
    rate: float = 1.0
    whole: bool = True


@dataclass
class State:
    """A training between two steps: `epoch` whole epochs, and a part of the next."""

    model: Model
    optimizer: torch.optim.Optimizer
    ema: AveragedModel | None
    accumulate: int
    part: Part
    epoch: int = 0
    best: float = -1.0
    kept: int = 0  # epochs that the checkpoint has
    start: Start | None = None  # of a fine-tuning, once it is known
    rows: list[Row] = dataclasses.field(default_factory=list)


def fresh(job: Job) -> State:
    """Return a training before its first epoch."""
    if job.teacher:
        ready(job.teacher.net, job.device)
    seed_torch(job.seed, 0, shared=True)
    recipe = job.recipe
    model = Model(optim.arch_of(job.arch, recipe))
    if job.init:
        model.load_state_dict(initial_weights(model, job.init), strict=False)
    if job.freeze:
        model.requires_grad_(False)
        model.get_classifier().requires_grad_(True)
    model = model.to(job.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if job.checkpointing:
        recompute_blocks(model)
    optimizer = optim.make_optimizer(model, recipe, optim.scaled_lr(recipe, job.batch_size))
    ema, part = optim.make_ema(model, recipe), preemption.start_part(job.device)
    return State(model, optimizer, ema, job.accumulate, part)


def restored(job: Job, folder: Path, accumulate: int = 0, *, whole: bool = False) -> State:
    """Return the training as its last checkpoint has it, or a fresh one.

    `whole`: as the last one of whole epochs has it.
    """
    found = checkpoint.load(folder / CHECKPOINTS, whole=whole)
    # the weights that it once started from may be gone
    state = fresh(dataclasses.replace(job, init=None) if found else job)
    if found:
        weights, saved = found
        if saved.get("job") not in (_signature(job), _former_signature(job)):
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
        state.epoch = state.kept = len(state.rows)
        state.best = saved["best"]
        state.start = Start(**json.loads(saved["start"])) if saved.get("start") else None
        state.accumulate = max(job.accumulate, saved["accumulate"])
        state.part = preemption.start_part(job.device, saved.get("part"))
    state.accumulate = accumulate or state.accumulate
    return state


def eval_model(state: State) -> nn.Module:
    """Return the model that is validated and kept: that of the averaged weights, if any."""
    return state.ema.module if state.ema else state.model


def save(job: Job, folder: Path, state: State) -> None:
    """Write a checkpoint of where a training is."""
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
    if state.start:
        saved["start"] = json.dumps(dataclasses.asdict(state.start))
    if state.part.steps:
        saved["part"] = state.part.state(job.device)
    checkpoint.save(folder / CHECKPOINTS, state.epoch, weights, saved, steps=state.part.steps)
    state.kept = state.epoch


def _stripped(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def _signature(job: Job) -> str:
    """Return what must be equal for a checkpoint to be this training's; not where it runs.

    Nor where the weights lie that it started from: a run may be moved, and checkpoints have them.
    """
    return _former_signature(dataclasses.replace(job, init=None))


def _former_signature(job: Job) -> str:
    """Return the signature that has the place of the weights, as it had until December 2026."""
    free = {"device", "amp", "accumulate", "checkpointing", "arch", "teacher"}
    fixed = {f.name: getattr(job, f.name) for f in dataclasses.fields(job) if f.name not in free}
    if later := job.recipe.later():
        fixed["later"] = later
    if job.teacher:  # by its weights, wherever they lie
        fixed["teacher"] = job.teacher.facts.digest
    return repr((job.arch.id, sorted((k, repr(v)) for k, v in fixed.items())))


def seed_torch(seed: int, epoch: int, *, shared: bool = False) -> None:
    """Seed torch for one epoch; `shared`: alike in all processes, as fresh weights must be."""
    rank = 0 if shared else distributed.rank()
    torch.manual_seed((seed * 1_000_003 + epoch) * 1_009 + rank)
