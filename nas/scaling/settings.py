"""What decides a scaling: one field a flag of `nas scale`. Light, as those of a search are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import model_validator

from nas.core.errors import OptionError
from nas.core.settings import (
    Milliseconds,
    Natural,
    Number,
    Options,
    Place,
    Positive,
    Reader,
    Seconds,
    Settings,
    Share,
    Switch,
    Word,
    check_filled,
    flag_name,
    refuse,
    setting,
    whole,
)
from nas.core.units import parse_number
from nas.searching.settings import AUTO
from nas.training.settings import NOTHING


def _phi(value: Any, flag: str) -> str:
    """Return numbers as they are typed: one, or several in a list."""
    if isinstance(value, list | tuple | range):
        return str(check_filled(",".join(_phi(each, flag) for each in value), flag))
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise refuse(flag, "numbers and ranges such as 1..7 or 0.5,1,2", value)
    return str(value)


def _mebibytes(value: Any, flag: str) -> float:
    found = parse_number(value, flag)
    if found <= 0:
        raise OptionError(f"{flag} must be positive, in MiB such as 200, not {found:g}")
    return found


def _gpus(value: Any, flag: str) -> dict[str, int]:
    read = whole(1).read
    if not isinstance(value, Mapping):
        raise refuse(flag, "a mapping of members to numbers", value)
    return {name: read(count, f"{flag} {name}") for name, count in value.items()}


Phis = Annotated[str, Reader(_phi, "str | float | Sequence[float]", metavar=None)]
Gpus = Annotated[dict[str, int], Reader(_gpus, "Mapping[str, int]", list[str], "<name=value>")]
Mebibytes = Annotated[float, Reader(_mebibytes, "float | str")]


class ScaleSettings(Settings):
    """Everything that decides a scaling; `args.yaml` of a run holds these beside the base."""

    VERB: ClassVar[str] = "scale"

    phi: Phis = setting("1..7", "Family", "Members: 1..7, 0.5,1,2 or -1..1.")
    rule: Word = setting(
        "formula",
        "Family",
        "formula, released, exact, width, depth, resolution or fast.",
    )
    alpha: Number | None = setting(
        None, "Family", "Depth coefficient, >= 1; default as fitted to this base, else 1.2."
    )
    beta: Number | None = setting(None, "Family", "Width coefficient; default as fitted, else 1.1.")
    gamma: Number | None = setting(
        None, "Family", "Resolution coefficient; default as fitted, else 1.15."
    )
    fixed_ends: Switch = setting(False, "Family", "Keep stem, head and the end stages' layers.")
    data: Place | None = setting(
        None,
        "Data",
        "Images to fit and to train on: a folder of class folders, image parquet, digits, cifar10, "
        "...",
    )
    image_column: Word | None = setting(
        None,
        "Data",
        "Parquet column that holds the images; default by its metadata or name.",
    )
    label_column: Word | None = setting(
        None, "Data", "Parquet column that holds the labels; default likewise."
    )
    download: Switch = setting(False, "Data", "Let a data set that is not here be downloaded.")
    fit: Switch = setting(
        False,
        "Fit",
        "Fit alpha, beta, gamma to this base: train the candidates of a grid at twice its FLOPs.",
    )
    candidates: Annotated[int, whole(2)] | None = setting(
        None, "Fit", "How many networks of the grid at most; default 12."
    )
    fit_epochs: Positive | None = setting(
        None, "Fit", "Epochs of a candidate's training; default as many as rank candidates."
    )
    fit_fraction: Share | None = setting(
        None, "Fit", "Share of the training images for a candidate; default 1."
    )
    fit_recipe: Place | None = setting(
        None, "Fit", "Recipe of a candidate (`nas ls recipes`); default auto."
    )
    finalists: Positive | None = setting(
        None, "Fit", "How many of the best are trained again with new seeds; default 3."
    )
    final_seeds: Positive | None = setting(None, "Fit", "Seeds of each finalist; default 3.")
    target_latency: Milliseconds | None = setting(
        None,
        "Fit",
        "Choose by accuracy x (latency/T)^-0.07 on --device, with T such as 12ms.",
    )
    target_memory: Mebibytes | None = setting(
        None,
        "Fit",
        "Choose by accuracy x (memory/T)^-0.07 in training, with T in MiB at batch 1.",
    )
    device: Word | None = setting(
        None,
        "Measurement",
        "Device of the latency (`nas ls devices`); default that of the worker.",
    )
    train: Switch = setting(
        False, "Train", "Train every member, and measure it where it was trained."
    )
    init: Place | None = setting(
        None,
        "Train",
        "Weights of the base that members start from, grown to their size: pretrained, a train "
        "run, a file; measured on one small net and short trainings alone; default none.",
    )
    teacher: Place | None = setting(
        None,
        "Train",
        "Teacher of every member (distillation): a train run of the same classes, timm:NAME, or "
        "pretrained.",
    )
    epochs: Positive | None = setting(None, "Train", "Epochs of a member; default the recipe's.")
    batch_size: Positive | None = setting(
        None, "Train", "Images a step; default the recipe's.", "-b"
    )
    recipe: Place | None = setting(None, "Train", "Recipe of a member; default auto.")
    recipe_options: Options = setting({}, "Train", "Option of that recipe, as name=value.")
    member_gpus: Gpus = setting(
        {}, "Train", "GPUs of one member, as b7=4: it is trained by DDP; repeatable."
    )
    accumulate: Positive | None = setting(
        None, "Train", "Parts in which a step goes through the device; default 1."
    )
    grad_checkpointing: Switch = setting(
        False, "Train", "Save memory: compute blocks again in the backward pass."
    )
    accelerator: Word = setting("auto", "How", "auto, cpu, cuda or mps.")
    executor: Place = setting("local", "How", "Who runs the trainings (`nas ls executors`).")
    executor_options: Options = setting({}, "How", "Option of the executor, as name=value.")
    workers: Positive | None = setting(
        None, "How", "Trainings at once; default 1, on a cluster its size.", "-j"
    )
    address: Word | None = setting(None, "How", "Of --executor ray: auto, HOST:PORT or local.")
    cpus_per_trial: Number | None = setting(None, "How", "CPUs of each training; default 1.")
    gpus_per_trial: Number | None = setting(None, "How", "GPUs of each training; default 0.")
    trial_time_limit: Seconds | None = setting(
        None, "How", "Give a training up after this time, such as 10m."
    )
    seed: Natural = setting(0, "How", "Seed of everything random.")

    @property
    def weights(self) -> str | None:
        """Return the source of the weights that members start from; None: from nothing."""
        return None if self.init == NOTHING else self.init

    @model_validator(mode="before")
    @classmethod
    def _name_the_recipes(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Let args.yaml say by which recipes a run was trained."""
        asked = [recipe for verb, recipe in _RECIPES.items() if given.get(verb)]
        return {**given, **{recipe: AUTO for recipe in asked if given.get(recipe) is None}}

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Refuse a flag that would do nothing; the message names what it belongs to."""
        for lead, keys in (("fit", _FIT), ("train", _TRAIN)):
            for key in keys:
                if getattr(self, key) and not getattr(self, lead):
                    raise OptionError(f"{flag_name(key)} belongs to --{lead}: give that too")
        defaults = {key: field.default for key, field in type(self).model_fields.items()}
        idle = [k for k in _WORK if getattr(self, k) and getattr(self, k) != defaults[k]]
        works = self.fit or self.train
        if idle and not works:
            raise OptionError(
                f"{flag_name(idle[0])} is for trainings: give --fit or --train, or leave it out"
            )
        if works and not self.data:
            raise OptionError(
                f"{'--fit' if self.fit else '--train'} needs --data: a folder of class folders, a "
                "parquet file, digits, or a name such as cifar10"
            )
        if self.data and not works:
            raise OptionError("--data is for --fit or --train: give one of them, or leave it out")
        fitted = [flag_name(key) for key in COEFFICIENTS if getattr(self, key) is not None]
        if self.fit and fitted:
            raise OptionError(f"--fit finds {fitted[0]} itself: leave one of the two out")
        return self


# may differ between a run and its resumption: where and how much at once, not what comes out
FREE = {
    "download",
    "accelerator",
    "executor",
    "executor_options",
    "workers",
    "address",
    "cpus_per_trial",
    "gpus_per_trial",
    "member_gpus",
    "accumulate",
    "grad_checkpointing",
    "trial_time_limit",
}
COEFFICIENTS = ("alpha", "beta", "gamma")
SHAPED = ("formula", "exact")  # the rules that read them
_RECIPES = {"train": "recipe", "fit": "fit_recipe"}
_FIT = (
    *("candidates", "fit_epochs", "fit_fraction", "fit_recipe", "finalists", "final_seeds"),
    *("target_latency", "target_memory"),
)
_WORK = (
    *("device", "accelerator", "executor", "executor_options", "workers", "address"),
    *("cpus_per_trial", "gpus_per_trial", "trial_time_limit", "seed", "download"),
    *("image_column", "label_column"),
)
_TRAIN = (
    *("init", "teacher"),
    *("epochs", "batch_size", "recipe", "recipe_options", "member_gpus"),
    *("accumulate", "grad_checkpointing"),
)


def changeable(chosen: ScaleSettings) -> set[str]:
    """Return the names of FREE; the device too, where the fit does not choose by its latency."""
    return FREE if chosen.target_latency else FREE | {"device"}
