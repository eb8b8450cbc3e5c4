"""Setup of the training of members: checks, each one's recipe and folder, its memory."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nas.core import registry, run_folder
from nas.core.errors import OptionError
from nas.core.units import format_bytes
from nas.data.dataset import Dataset, open_asked
from nas.data.splits import make_splits
from nas.evaluation.teacher import check_teacher
from nas.interfaces import EvaluatorSpec
from nas.models.cost import count
from nas.scaling.base_weights import PARENT
from nas.scaling.result import Member
from nas.scaling.settings import ScaleSettings
from nas.scaling.setup import ScaleSetup
from nas.training import auto
from nas.training.auto import NAME
from nas.training.recipe import Recipe, load_recipe
from nas.training.settings import NOTHING, TrainSettings
from nas.training.setup import check_policy

EVALUATOR, RECIPE, ARCH = "member", NAME, "arch.json"


def with_data(setup: ScaleSetup) -> ScaleSetup:
    """Return a setup with its images; check how members are to be trained on them.

    Raises:
        OptionError: the data, the recipe, an option of it or a device cannot be used.
        MissingError: a package that the data or the recipe needs is not installed.
    """
    recipe = load_recipe(setup.settings.recipe or RECIPE, setup.settings.recipe_options)
    if setup.arch.in_channels != 3:
        raise OptionError(
            f"{setup.arch.name} takes {setup.arch.in_channels} channels; images have 3"
        )
    check_policy(recipe, setup.arch.resolution)
    _check_devices(setup.settings)
    _check_gpus(setup.settings)
    plan = plan_of(setup, Path(), ())
    _check_batch(plan)
    if setup.settings.teacher:
        check_teacher(setup.settings.teacher, plan.dataset.classes)
    return dataclasses.replace(setup, dataset=plan.dataset)


def fitted_to_data(setup: ScaleSetup) -> ScaleSetup:
    """Return a setup whose base has a class for each of its images'."""
    classes = len(setup.dataset.classes) if setup.dataset else setup.arch.head.classes
    head = dataclasses.replace(setup.arch.head, classes=classes)
    return dataclasses.replace(setup, arch=dataclasses.replace(setup.arch, head=head))


def check_names(settings: ScaleSettings, names: Sequence[str]) -> None:
    """Check that members which get GPUs of their own are of the family.

    Raises:
        OptionError: one is not.
    """
    for name in settings.member_gpus:
        if name not in names:
            raise OptionError(
                f"--member-gpus {name}: the family has no {name}; it has {', '.join(names)}"
            )


def _check_devices(settings: ScaleSettings) -> None:
    """Check what trains and what measures; other machines tell by themselves.

    Raises:
        OptionError: there is none of that name, or not here.
    """
    from nas.hardware.torch_device import torch_device

    if settings.device:
        registry.export("devices", settings.device, "make")
    if settings.executor != "local":
        return
    try:
        torch_device(settings.accelerator)
    except OptionError as error:
        raise OptionError(str(error).replace("--device", "--accelerator")) from error
    if settings.device:
        registry.make("devices", settings.device, options={})


def _check_gpus(settings: ScaleSettings) -> None:
    """Check the members' own GPUs.

    Raises:
        OptionError: no GPUs are asked for at all, or more than there are.
    """
    for name, gpus in settings.member_gpus.items():
        if settings.accelerator in ("cpu", "mps"):
            raise OptionError(
                f"--member-gpus {name}={gpus} needs CUDA devices, not --accelerator "
                f"{settings.accelerator}"
            )
        if settings.executor == "local" and gpus > (here := _gpus_here()):
            raise OptionError(
                f"--member-gpus {name}={gpus}: this machine has {here} GPUs; lower it, or use "
                "--executor ray"
            )


def _gpus_here() -> int:
    from nas.hardware.facts import accelerators

    return sum(each["device"].startswith("cuda") for each in accelerators()[0])


def _check_batch(plan: MemberPlan) -> None:
    """Check that a step's images can be shared among the GPUs of every member.

    Raises:
        OptionError: they cannot.
    """
    asked = {f"--member-gpus {name}={n}": n for name, n in plan.setup.settings.member_gpus.items()}
    if plan.share > 1:
        asked[f"--gpus-per-trial {plan.share}"] = plan.share
    for flags, gpus in asked.items():
        if plan.batch % int(gpus):
            raise OptionError(
                f"{flags}: the batch of {plan.batch} images is shared among the GPUs, and "
                f"{plan.batch} is no multiple of {gpus}; set --batch-size"
            )


def recipe_options(phi: float, recipe: Recipe) -> dict[str, Any]:
    """Return the options of a recipe that follow the size of a member.

    Dropout and resolution are the arch's and follow by compound scaling; stochastic depth stays at
    the base's rate, as the released code has 0.2 for every size, and AutoAugment has no strength.
    RandAugment's magnitude grows: 17 for B5 and 28 for B7 in the released code (README of
    tensorflow/tpu, models/official/efficientnet); in between and down to 9 at phi 0, ResNet-50's
    in Cubuk et al. 2020 (arXiv 1909.13719), it is ours, on torchvision's scale of 0..30.
    """
    if recipe.augment.policy != "randaugment":
        return {}
    points = ((0.0, 9.0), (5.0, 17.0), (7.0, 28.0))
    (x0, y0), (x1, y1) = points[:2] if phi <= 5 else points[1:]
    return {"magnitude": min(30, max(0, round(y0 + (phi - x0) / (x1 - x0) * (y1 - y0))))}


def memory_needed(member: Member, images: int) -> int:
    """Return the estimated bytes of training on so many images at a time, in float32."""
    return member.training_bytes + images * member.training_bytes_per_image


def advice(member: Member, images: int, memory: float, parts: int = 1) -> str:
    """Return in one line what makes a member fit into so much memory; "" if it fits.

    `parts`: in which a step goes through the device already.
    """
    need = memory_needed(member, images)
    if need <= memory:
        return ""
    left = memory - member.training_bytes
    fit = int(left // member.training_bytes_per_image) if left > 0 else 0
    start = (
        f"{member.name}: by estimate {format_bytes(need)} for {images} images at a time, and "
        f"there are {format_bytes(memory)}"
    )
    if fit >= 1:
        return (
            f"{start}: {fit} fit; --accumulate {parts * math.ceil(images / fit)} or "
            "--grad-checkpointing makes it sure (a single process splits its steps by itself where "
            "memory runs out)"
        )
    return (
        f"{start}: not one image fits; --grad-checkpointing may make it, else a larger device, as "
        "pipeline stages (GPipe) are not built"
    )


@dataclass(frozen=True)
class MemberPlan:
    """Plan of the training of a family: rows of members, data, devices."""

    setup: ScaleSetup
    folder: Path
    rows: Sequence[Member]
    dataset: Dataset

    @cached_property
    def settled(self) -> auto.Plan:
        """Return recipe, epochs and batch of all members: those of the base, so that they agree."""
        chosen, base = self.setup.settings, self.setup.arch
        given = auto.Situation(
            len(self.dataset.splits["train"]),
            len(self.dataset.classes),
            base.resolution,
            count(base),
            start="weights" if self.setup.weights else "nothing",
            epochs=chosen.epochs or 0,
            batch=chosen.batch_size or 0,
        )
        return auto.resolve_recipe(chosen.recipe or RECIPE, chosen.recipe_options, given)

    @property
    def recipe(self) -> Recipe:
        return self.settled.recipe

    @property
    def batch(self) -> int:
        """Return the images of a step: as asked for, else the recipe's; no more than there are."""
        return min(self.settled.amount.batch, len(self.dataset.splits["train"]))

    @property
    def epochs(self) -> int:
        return self.settled.amount.epochs

    def gpus(self, name: str) -> int:
        """Return the GPUs that a member has of its own, 0: the executor's share."""
        return int(self.setup.settings.member_gpus.get(name, 0))

    @property
    def share(self) -> int:
        """Return the GPUs that train together where a member has none of its own."""
        chosen = self.setup.settings
        on_gpu = chosen.accelerator not in ("cpu", "mps")
        return max(1, int(chosen.gpus_per_trial or 1)) if on_gpu else 1

    def per_step(self, name: str) -> int:
        """Return the images that a device of a member has at a time."""
        parts = (self.gpus(name) or self.share) * (self.setup.settings.accumulate or 1)
        return math.ceil(self.batch / parts)


def plan_of(setup: ScaleSetup, folder: Path, rows: Sequence[Member]) -> MemberPlan:
    """Return the plan of a setup, whose data is opened if it is not.

    Raises:
        OptionError, MissingError: the data cannot be read.
    """
    dataset = setup.dataset or make_splits(open_asked(setup.settings))
    return MemberPlan(setup, folder, rows, dataset)


def spec_of(plan: MemberPlan) -> EvaluatorSpec:
    chosen = plan.setup.settings
    options = {
        "data": chosen.data or "",
        "recipe": chosen.recipe or RECIPE,
        "epochs": plan.epochs,
        "batch_size": plan.batch,
        "accelerator": chosen.accelerator,
        "latency_on": chosen.device or "",
    }
    return EvaluatorSpec(EVALUATOR, options)


def begin(plan: MemberPlan, row: Member) -> None:
    """Make a member's folder one of `nas train`, which only has to be gone on with."""
    folder, chosen = (plan.folder / row.name).resolve(), plan.setup.settings
    arguments = TrainSettings.model_validate(
        {
            "data": chosen.data or "",
            "image_column": chosen.image_column,
            "label_column": chosen.label_column,
            "download": chosen.download,
            "imgsz": row.resolution,
            "init": str((plan.folder / PARENT).resolve()) if plan.setup.weights else NOTHING,
            "teacher": chosen.teacher,
            "recipe": chosen.recipe or RECIPE,
            "recipe_options": {
                **recipe_options(row.phi, plan.recipe),
                **chosen.recipe_options,
            },
            "epochs": plan.epochs,
            "batch_size": plan.batch,
            "accumulate": chosen.accumulate,
            "grad_checkpointing": chosen.grad_checkpointing,
            "seed": chosen.seed,
            "device": chosen.accelerator,
        }
    )
    run_folder.write_args(folder, {"arch": str(folder / ARCH), **arguments.model_dump()})
    run_folder.write_text(folder / ARCH, row.arch.to_json() + "\n")


def opening(plan: MemberPlan, due: Sequence[Member]) -> str:
    names = ", ".join(row.name for row in due)
    weights = plan.setup.weights
    start = f", from the grown weights of {weights.told}" if weights else ""
    return (
        f"training {names} on {plan.dataset.name}, {plan.epochs} epochs, recipe "
        f"{plan.recipe.name}, {plan.batch} images a step{start}"
    )


def warnings(plan: MemberPlan, due: Sequence[Member]) -> list[str]:
    """Return a line for each member that will hardly fit into this machine's memory."""
    from nas.hardware.facts import training_memory

    chosen = plan.setup.settings
    if chosen.executor != "local" or chosen.grad_checkpointing:
        return []  # other machines are not asked; of what is computed again there is no estimate
    memory, parts = training_memory(chosen.accelerator), chosen.accumulate or 1
    lines = (advice(row, plan.per_step(row.name), memory, parts) for row in due)
    return [line for line in lines if line]
