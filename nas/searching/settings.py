"""What decides a search: one field a flag. Light, so that `nas search --help` answers at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nas.core.settings import check_kinds, check_known, flag, flag_name, share, whole
from nas.core.units import parse_count, parse_milliseconds, parse_number, parse_seconds

AUTO = "auto"  # the recipe of trainings
TRAINS = (None, "training")  # evaluators that train on --data


@dataclass(frozen=True)
class Settings:
    """Everything that decides a search; `args.yaml` of a run holds these, the flags are made of it.

    Sizes are numbers here: multiply-adds, parameters, milliseconds, seconds.
    """

    space: str | None = flag(
        None,
        "What",
        "Space: a name (`nas ls spaces`) or a path to your .py; default mbconv, with --data of "
        "small images mbconv_small.",
    )
    data: str | None = flag(
        None,
        "Data",
        "Train candidates on these images: a folder of class folders, image parquet, digits, or a "
        "torchvision data set such as cifar10.",
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
    imgsz: int | None = flag(
        None, "Data", "Pixels a side of the network's input, where FLOPs are counted."
    )
    epochs: int | None = flag(
        None, "Data", "Epochs of a candidate's training; default as many as rank candidates."
    )
    fraction: float | None = flag(
        None, "Data", "Share of the training images for a candidate, such as 0.2; default 1."
    )
    train_imgsz: int | None = flag(
        None, "Data", "Pixels a side for a candidate's training; default --imgsz."
    )
    batch_size: int | None = flag(None, "Data", "Images a step; default the recipe's.")
    recipe: str | None = flag(None, "Data", "Recipe (`nas ls recipes`); default auto.")
    recipe_options: dict[str, Any] = flag({}, "Data", "Option of the recipe, as name=value.")
    pruner: str | None = flag(
        None, "Data", "What stops losing trainings early (`nas ls pruners`); default halving."
    )
    pruner_options: dict[str, Any] = flag({}, "Data", "Option of the pruner, as name=value.")
    trial_time: float | None = flag(
        None,
        "Data",
        "Train each candidate for this time, such as 5m, instead of a number of epochs: a small "
        "network gets more of them.",
    )
    trial_time_limit: float | None = flag(
        None, "Data", "Give a trial up after this time, such as 10m."
    )
    trials_per_device: str | None = flag(
        None, "Data", "Trainings at once on one device: a number, or auto to measure it."
    )
    finalists: int | None = flag(
        None,
        "Data",
        "How many of the best are trained again with new seeds before one is named; 0: none; "
        "default 3.",
    )
    final_seeds: int | None = flag(None, "Data", "Seeds of each finalist; default 3.")
    final_epochs: int | None = flag(
        None,
        "Data",
        "Epochs of a training of the finals; default as many as tell what an arch gives, within "
        "--time-limit.",
    )
    final_fraction: float | None = flag(
        None, "Data", "Share of the training images for the finals; default what is needed."
    )
    target_flops: int | None = flag(
        None,
        "Target",
        "Multiply-adds to aim at, such as 400M (= 0.8 GFLOPs at 2 per multiply-add).",
    )
    target_params: int | None = flag(None, "Target", "Parameters to aim at, such as 5.3M.")
    target_latency: float | None = flag(
        None,
        "Target",
        "Latency to aim at, such as 12ms, on --device (a100, rtx3090, tpu: per image at the "
        "benchmark's batch).",
    )
    device: str | None = flag(
        None,
        "Target",
        "Device of the latency: measured on this machine (cpu, cuda, onnxruntime), or predicted "
        "(a100, rtx3090, tpuv2, tpuv3, zcu102, vck190).",
    )
    max_flops: int | None = flag(
        None, "Target", "Hard limit: archs with more multiply-adds are not evaluated."
    )
    max_params: int | None = flag(
        None, "Target", "Hard limit: archs with more parameters are not evaluated."
    )
    objective: str = flag("reward", "Target", "reward, or pareto for two true objectives.")
    reward: str = flag(
        "hard",
        "Target",
        "accuracy x (cost/T)^w. hard: free up to T, w = -1 above. soft: w = -0.07 on both sides "
        "(its optimum does not depend on T). absolute: accuracy - 10 x |cost/T - 1|.",
    )
    w: float | None = flag(
        None, "Target", "Exponent of the reward, <= 0 (hard: above T; absolute: slope)."
    )
    controller: str = flag(
        "predictor", "How", "What proposes archs (`nas ls controllers`), or a path to your .py."
    )
    controller_options: dict[str, Any] = flag({}, "How", "Option of the controller, as name=value.")
    evaluator: str | None = flag(
        None,
        "How",
        "What scores an arch (`nas ls evaluators`), or a path to your .py; default surrogate, "
        "with --data training.",
    )
    evaluator_options: dict[str, Any] = flag({}, "How", "Option of the evaluator, as name=value.")
    warm_start: str | None = flag(
        None,
        "How",
        "Begin with what is known: an earlier search run (its evaluations, or what they tell of "
        "accuracies elsewhere), surrogate (5,138 ImageNet proxy trainings), or naswot (scores "
        "without training).",
    )
    executor: str = flag("local", "How", "Who runs the evaluations (`nas ls executors`).")
    executor_options: dict[str, Any] = flag({}, "How", "Option of the executor, as name=value.")
    workers: int | None = flag(
        None,
        "How",
        "Evaluations at once; default 1, on a cluster as many as it holds. With 1 a resumed search "
        "is identical.",
    )
    address: str | None = flag(
        None,
        "Cluster",
        "Of --executor ray: auto, HOST:PORT, ray://HOST:PORT, or local to start Ray on this "
        "machine; default auto where RAY_ADDRESS is set, as in a Ray job, else local.",
    )
    cpus_per_trial: float | None = flag(
        None,
        "Cluster",
        "CPUs of each evaluation: whole, or a part such as 0.5; default 1.",
    )
    gpus_per_trial: float | None = flag(
        None, "Cluster", "GPUs of each evaluation; 0.25 lets four share one; default 0."
    )
    storage: str | None = flag(
        None,
        "Cluster",
        "Keep the study in this database (postgresql://...) instead of the run's journal, so that "
        "several drivers share it.",
    )
    study: str | None = flag(
        None, "Cluster", "Name of the shared study in --storage; default the run's --name."
    )
    trials: int | None = flag(None, "How", "Archs to evaluate; default 300, with --data 60.")
    time_limit: float | None = flag(
        None,
        "How",
        "End after this time, such as 20m, shared evenly by the search, the random search and, "
        "with --data, the finals. What runs then is finished, or counted for what it showed.",
    )
    seed: int = flag(0, "How", "Seed of everything random.")
    random_search: bool = flag(
        True, "How", "Random search at equal budget beside the search, to compare with."
    )


def settings_from(given: Mapping[str, Any]) -> Settings:
    """Return settings from flags as typed; None means the default.

    Raises:
        OptionError: an unknown setting or a malformed value.
    """
    known = {f.name: f for f in dataclasses.fields(Settings)}
    check_known("search", given, known)
    values = {key: value for key, value in given.items() if value is not None}
    check_kinds(values, known)
    for key in ("target_flops", "target_params", "max_flops", "max_params"):
        if key in values:
            values[key] = parse_count(values[key], flag_name(key))
    if "target_latency" in values:
        values["target_latency"] = parse_milliseconds(values["target_latency"], "--target-latency")
    if "time_limit" in values:
        values["time_limit"] = parse_seconds(values["time_limit"], "--time-limit")
    for key in ("trial_time", "trial_time_limit"):
        if key in values:
            values[key] = parse_seconds(values[key], flag_name(key))
    for key in ("cpus_per_trial", "gpus_per_trial"):
        if key in values:
            values[key] = parse_number(values[key], flag_name(key))
    if "w" in values:
        values["w"] = parse_number(values["w"], "--w")
    for key in ("fraction", "final_fraction"):
        if key in values:
            values[key] = share(key, values[key])
    for key, least in _LEAST.items():
        if key in values:
            values[key] = whole(key, values[key], least)
    if values.get("data") and values.get("evaluator") in TRAINS:
        values.setdefault("recipe", AUTO)  # so that args.yaml says by which a run was trained
    return Settings(**values)


# the images are at least 32 pixels a side because the networks stride by 32
_LEAST = {
    "trials": 1,
    "workers": 1,
    "seed": 0,
    "epochs": 1,
    "imgsz": 32,
    "train_imgsz": 32,
    "batch_size": 2,
    "finalists": 0,
    "final_seeds": 1,
    "final_epochs": 1,
}
