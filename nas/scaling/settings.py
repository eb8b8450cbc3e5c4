"""What decides a scaling: one field a flag of `nas scale`. Light, as those of a search are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nas.core.errors import OptionError
from nas.core.settings import check_kinds, check_known, flag, flag_name, share, whole
from nas.core.units import parse_milliseconds, parse_number, parse_seconds
from nas.searching.settings import AUTO


@dataclass(frozen=True)
class ScaleSettings:
    """Everything that decides a scaling; `args.yaml` of a run holds these beside the base."""

    phi: str = flag("1..7", "Family", "Members: 1..7, 0.5,1,2 or -1..1.")
    rule: str = flag(
        "formula",
        "Family",
        "formula, released, exact, width, depth, resolution or fast.",
    )
    alpha: float | None = flag(
        None, "Family", "Depth coefficient, >= 1; default as fitted to this base, else 1.2."
    )
    beta: float | None = flag(None, "Family", "Width coefficient; default as fitted, else 1.1.")
    gamma: float | None = flag(
        None, "Family", "Resolution coefficient; default as fitted, else 1.15."
    )
    fixed_ends: bool = flag(False, "Family", "Keep stem, head and the end stages' layers.")
    data: str | None = flag(
        None,
        "Data",
        "Images to fit and to train on: a folder of class folders, image parquet, digits, cifar10, "
        "...",
    )
    image_column: str | None = flag(
        None,
        "Data",
        "Parquet column that holds the images; default by its metadata or name.",
    )
    label_column: str | None = flag(
        None, "Data", "Parquet column that holds the labels; default likewise."
    )
    download: bool = flag(False, "Data", "Let a data set that is not here be downloaded.")
    fit: bool = flag(
        False,
        "Fit",
        "Fit alpha, beta, gamma to this base: train the candidates of a grid at twice its FLOPs.",
    )
    candidates: int | None = flag(None, "Fit", "How many networks of the grid at most; default 12.")
    fit_epochs: int | None = flag(
        None, "Fit", "Epochs of a candidate's training; default as many as rank candidates."
    )
    fit_fraction: float | None = flag(
        None, "Fit", "Share of the training images for a candidate; default 1."
    )
    fit_recipe: str | None = flag(
        None, "Fit", "Recipe of a candidate (`nas ls recipes`); default auto."
    )
    finalists: int | None = flag(
        None, "Fit", "How many of the best are trained again with new seeds; default 3."
    )
    final_seeds: int | None = flag(None, "Fit", "Seeds of each finalist; default 3.")
    target_latency: float | None = flag(
        None,
        "Fit",
        "Choose by accuracy x (latency/T)^-0.07 on --device, with T such as 12ms.",
    )
    target_memory: float | None = flag(
        None,
        "Fit",
        "Choose by accuracy x (memory/T)^-0.07 in training, with T in MiB at batch 1.",
    )
    device: str | None = flag(
        None,
        "Measurement",
        "Device of the latency (`nas ls devices`); default that of the worker.",
    )
    train: bool = flag(False, "Train", "Train every member, and measure it where it was trained.")
    epochs: int | None = flag(None, "Train", "Epochs of a member; default the recipe's.")
    batch_size: int | None = flag(None, "Train", "Images a step; default the recipe's.")
    recipe: str | None = flag(None, "Train", "Recipe of a member; default auto.")
    recipe_options: dict[str, Any] = flag({}, "Train", "Option of that recipe, as name=value.")
    member_gpus: dict[str, Any] = flag(
        {}, "Train", "GPUs of one member, as b7=4: it is trained by DDP; repeatable."
    )
    accumulate: int | None = flag(
        None, "Train", "Parts in which a step goes through the device; default 1."
    )
    grad_checkpointing: bool = flag(
        False, "Train", "Save memory: compute blocks again in the backward pass."
    )
    accelerator: str = flag("auto", "How", "auto, cpu, cuda or mps.")
    executor: str = flag("local", "How", "Who runs the trainings (`nas ls executors`).")
    executor_options: dict[str, Any] = flag({}, "How", "Option of the executor, as name=value.")
    workers: int | None = flag(None, "How", "Trainings at once; default 1, on a cluster its size.")
    address: str | None = flag(None, "How", "Of --executor ray: auto, HOST:PORT or local.")
    cpus_per_trial: float | None = flag(None, "How", "CPUs of each training; default 1.")
    gpus_per_trial: float | None = flag(None, "How", "GPUs of each training; default 0.")
    trial_time_limit: float | None = flag(
        None, "How", "Give a training up after this time, such as 10m."
    )
    seed: int = flag(0, "How", "Seed of everything random.")


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
_LEAST = {
    "candidates": 2,
    "fit_epochs": 1,
    "finalists": 1,
    "final_seeds": 1,
    "epochs": 1,
    "batch_size": 1,
    "accumulate": 1,
    "workers": 1,
    "seed": 0,
}
_NUMBERS = (*COEFFICIENTS, "target_memory", "cpus_per_trial", "gpus_per_trial")
_DEFAULTS = dataclasses.asdict(ScaleSettings())
_FIT = ("candidates", "fit_epochs", "fit_fraction", "fit_recipe", "finalists", "final_seeds")
_WORK = (
    *("device", "accelerator", "executor", "executor_options", "workers", "address"),
    *("cpus_per_trial", "gpus_per_trial", "trial_time_limit", "seed", "download"),
    *("image_column", "label_column"),
)
_TRAIN = (
    *("epochs", "batch_size", "recipe", "recipe_options", "member_gpus"),
    *("accumulate", "grad_checkpointing"),
)


def changeable(chosen: ScaleSettings) -> set[str]:
    """Return the names of FREE; the device too, where the fit does not choose by its latency."""
    return FREE if chosen.target_latency else FREE | {"device"}


def scale_settings_from(given: Mapping[str, Any]) -> ScaleSettings:
    """Return settings from flags as typed or a file; None means the default.

    Raises:
        OptionError: an unknown setting, a malformed value, or flags that do not fit together.
    """
    known = {f.name: f for f in dataclasses.fields(ScaleSettings)}
    check_known("scale", given, known)
    values = {key: value for key, value in given.items() if value is not None}
    if "phi" in values:
        values["phi"] = _phi(values["phi"])
    check_kinds(values, known)
    for key in _NUMBERS:
        if key in values:
            values[key] = parse_number(values[key], flag_name(key))
    if values.get("target_memory", 1) <= 0:
        raise OptionError(
            f"--target-memory must be positive, in MiB such as 200, not {values['target_memory']:g}"
        )
    if "target_latency" in values:
        values["target_latency"] = parse_milliseconds(values["target_latency"], "--target-latency")
    if "trial_time_limit" in values:
        values["trial_time_limit"] = parse_seconds(values["trial_time_limit"], "--trial-time-limit")
    if "fit_fraction" in values:
        values["fit_fraction"] = share("fit_fraction", values["fit_fraction"])
    for key, least in _LEAST.items():
        if key in values:
            values[key] = whole(key, values[key], least)
    _check_together(values)
    for verb, recipe in (("train", "recipe"), ("fit", "fit_recipe")):
        if values.get(verb):
            values.setdefault(recipe, AUTO)  # so that args.yaml says by which a run was trained
    return ScaleSettings(**values)


def _phi(value: Any) -> Any:
    """Return numbers as they are typed: one, or several in a list."""
    if isinstance(value, list | tuple | range):
        return ",".join(str(_phi(each)) for each in value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if number else value


def _check_together(values: Mapping[str, Any]) -> None:
    """Refuse a flag that would do nothing.

    Raises:
        OptionError: there is one; the message names it and what it belongs to.
    """
    for lead, keys in (("fit", (*_FIT, "target_latency", "target_memory")), ("train", _TRAIN)):
        for key in keys:
            if values.get(key) and not values.get(lead):
                raise OptionError(f"{flag_name(key)} belongs to --{lead}: give that too")
    works = values.get("fit") or values.get("train")
    idle = [key for key in _WORK if values.get(key) and values[key] != _DEFAULTS[key]]
    if idle and not works:
        raise OptionError(
            f"{flag_name(idle[0])} is for trainings: give --fit or --train, or leave it out"
        )
    if works and not values.get("data"):
        lead = "--fit" if values.get("fit") else "--train"
        raise OptionError(
            f"{lead} needs --data: a folder of class folders, a parquet file, digits, or a name "
            "such as cifar10"
        )
    if values.get("data") and not works:
        raise OptionError("--data is for --fit or --train: give one of them, or leave it out")
    fitted = [flag_name(k) for k in COEFFICIENTS if k in values]
    if values.get("fit") and fitted:
        raise OptionError(f"--fit finds {fitted[0]} itself: leave one of the two out")
