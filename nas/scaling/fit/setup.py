"""A fit of alpha, beta and gamma that has been checked: its base, its grid, its trainings."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from nas.core import registry
from nas.core.errors import OptionError
from nas.evaluation.evaluate import make_evaluator
from nas.interfaces import EvaluatorSpec, Metrics, TrainingEvaluator
from nas.models.arch import Arch
from nas.models.cost import count
from nas.scaling.fit.grid import GROWTH, MISS, MOST, Grid, GridPoint, candidates
from nas.scaling.settings import SHAPED, ScaleSettings
from nas.scaling.setup import ScaleSetup
from nas.searching.objective import Bound, Objective, make_objective, reward
from nas.searching.setup import FINAL_SEEDS, FINALISTS

EVALUATOR = "training"
LEAST = 2  # networks, for there to be a choice
MEMORY = "memory_mib"  # of training at batch 1, counted


@dataclass(frozen=True)
class FitPlan:
    """A fit that has been checked. `arch`: the base with the data's classes."""

    setup: ScaleSetup
    arch: Arch
    grid: Grid
    evaluator: TrainingEvaluator
    spec: EvaluatorSpec
    objective: Objective

    @property
    def rungs(self) -> tuple[int, ...]:
        """Return the epochs after which the worse half of the candidates stops."""
        return self.evaluator.rungs

    @property
    def finalists(self) -> int:
        """Return how many of the best are trained again with new seeds."""
        return self.setup.settings.finalists or FINALISTS

    @property
    def final_seeds(self) -> int:
        return self.setup.settings.final_seeds or FINAL_SEEDS

    @property
    def rounds(self) -> list[tuple[int, int]]:
        """Return of each round how many networks are trained at most, and for how many epochs.

        The paper's candidate is in the finals too.
        """
        alive, before, found = len(self.grid.trained), 0, list[tuple[int, int]]()
        for epochs in self.rungs:
            found.append((alive, epochs - before))
            alive, before = self.survivors(alive), epochs
        finalists = min(self.finalists, len(self.grid.trained) - 1) + 1
        return [*found, (finalists, self.final_seeds * self.rungs[-1])]

    @property
    def epochs(self) -> int:
        """Return how many epochs are trained in all, at most."""
        return sum(networks * epochs for networks, epochs in self.rounds)

    @property
    def training_flops(self) -> float:
        """Return the multiply-adds of all that, at most; nan where the evaluator does not tell.

        Counted as a training's own are: no validation, which is no training.
        """
        from nas.training.loop import STEP  # torch, which a family that is not fitted needs not

        images = getattr(self.evaluator, "train_images", math.nan)
        flops = sorted((count(each.arch).flops for each in self.grid.trained), reverse=True)
        spent = sum(sum(flops[:networks]) * epochs for networks, epochs in self.rounds)
        return STEP * images * spent

    def survivors(self, alive: int) -> int:
        """Return the number of survivors of a rung: the better half, at least the finalists."""
        return min(alive, max(self.finalists, math.ceil(alive / 2)))

    def score(self, metrics: Metrics) -> float:
        """Return what candidates are ranked by: accuracy in percent, less what a target takes."""
        return reward(metrics, self.objective)


def prepare_fit(setup: ScaleSetup) -> FitPlan:
    """Check a fit and choose its candidates; nothing is written or trained yet.

    Raises:
        OptionError: a setting that has no effect, data that cannot be read, or a base of which
            fewer than two networks at twice its FLOPs exist.
        EvaluatorError: the base does not take the images.
    """
    chosen = setup.settings
    _check(chosen)
    spec = _spec(chosen)
    evaluator = make_evaluator(spec)
    arch = _fitted(setup.arch, evaluator)
    evaluator.check(arch)
    most = chosen.candidates or MOST
    grid = candidates(arch, most=most, fixed_ends=chosen.fixed_ends)
    if len(grid.trained) < LEAST:
        raise OptionError(_too_few(arch, grid))
    if chosen.target_latency:
        spec = dataclasses.replace(spec, device=_device(chosen))
    return FitPlan(setup, arch, grid, evaluator, spec, _objective(chosen))


def measured(metrics: Metrics, candidate: GridPoint) -> Metrics:
    """Return metrics with the memory that training takes for one image, in MiB, as counted."""
    cost = count(candidate.arch)
    return {**metrics, MEMORY: (cost.training_bytes + cost.training_bytes_per_image) / 2**20}


def _check(chosen: ScaleSettings) -> None:
    if chosen.rule not in SHAPED:
        raise OptionError(
            f"--fit finds alpha, beta and gamma, and rule {chosen.rule} reads none: use "
            f"--rule {' or '.join(SHAPED)}, or leave --fit out"
        )
    if chosen.device and not (chosen.target_latency or chosen.train):
        raise OptionError(
            "--device measures a latency: give --target-latency, or leave --device out"
        )


def _spec(chosen: ScaleSettings) -> EvaluatorSpec:
    """Return what workers make: trainings of candidates."""
    given = {
        "data": chosen.data,
        "image_column": chosen.image_column,
        "label_column": chosen.label_column,
        "download": chosen.download,
        "recipe": chosen.fit_recipe,
        "epochs": chosen.fit_epochs,
        "fraction": chosen.fit_fraction,
        "accelerator": chosen.accelerator,
    }
    return EvaluatorSpec(EVALUATOR, {name: value for name, value in given.items() if value})


def _device(chosen: ScaleSettings) -> str:
    """Return the device whose latency counts: a GPU where the trainings have one.

    Raises:
        OptionError: there is no such device.
    """
    if chosen.device:
        registry.export("devices", chosen.device, "make")
        return chosen.device
    from nas.hardware.torch_device import torch_device

    gpu = chosen.gpus_per_trial or torch_device(chosen.accelerator).startswith("cuda")
    return "cuda" if gpu else "cpu"


def _objective(chosen: ScaleSettings) -> Objective:
    wanted = {"latency_ms": chosen.target_latency, MEMORY: chosen.target_memory}
    targets = tuple(Bound(metric, value) for metric, value in wanted.items() if value)
    return make_objective("soft", None, targets, ())


def _fitted(arch: Arch, evaluator: TrainingEvaluator) -> Arch:
    """Return the base with as many classes as the data has; its resolution stays."""
    classes = len(evaluator.classes) or arch.head.classes
    return dataclasses.replace(arch, head=dataclasses.replace(arch.head, classes=classes))


def _too_few(arch: Arch, grid: Grid) -> str:
    found = len(grid.trained) or "none"
    return (
        f"--fit needs two networks to choose from: of the {len(grid.candidates)} with "
        f"alpha·beta²·gamma² near {GROWTH:g}, {found} costs {GROWTH:g} times the FLOPs of "
        f"{arch.name} within {MISS:.0%}; take a base with more layers, channels or pixels, or give "
        "--alpha, --beta and --gamma"
    )
