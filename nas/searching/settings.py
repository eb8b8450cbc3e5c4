"""What decides a search: one field a flag. Light, so that `nas search --help` answers at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import model_validator

from nas.core.settings import (
    Count,
    Milliseconds,
    Natural,
    Number,
    Options,
    Pixels,
    Place,
    Positive,
    Seconds,
    Settings,
    Share,
    Switch,
    Word,
    setting,
    whole,
)

AUTO = "auto"  # the recipe of trainings
TRAINS = (None, "training")  # evaluators that train on --data


class SearchSettings(Settings):
    """Everything that decides a search; `args.yaml` of a run holds these, the flags are made of it.

    Sizes are numbers here: multiply-adds, parameters, milliseconds, seconds.
    """

    VERB: ClassVar[str] = "search"

    space: Place | None = setting(
        None,
        "What",
        "Space: a name (`nas ls spaces`) or a path to your .py; default mbconv, with --data of "
        "small images mbconv_small.",
    )
    data: Place | None = setting(
        None,
        "Data",
        "Train candidates on these images: a folder of class folders, image parquet, digits, or a "
        "torchvision data set such as cifar10.",
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
    init: Place | None = setting(
        None,
        "Data",
        "Weights that every candidate inherits: pretrained, a run, a file, timm:NAME or "
        "torchvision:NAME; the space is the sub-networks of that net unless --space says "
        "otherwise; none: from nothing; default pretrained for colour photographs, where such "
        "weights are installed and no --space is given.",
    )
    teacher: Place | None = setting(
        None,
        "Data",
        "Teacher of all finalists alike (distillation): a train run of the same classes, "
        "timm:NAME, or pretrained; the result is trained without it too, to tell what it added.",
    )
    imgsz: Pixels | None = setting(
        None, "Data", "Pixels a side of the network's input, where FLOPs are counted.", "--img-size"
    )
    epochs: Natural | None = setting(
        None,
        "Data",
        "Epochs of a candidate's training; default as many as rank candidates; 0, from weights: a "
        "linear probe alone.",
    )
    fraction: Share | None = setting(
        None, "Data", "Share of the training images for a candidate, such as 0.2; default 1."
    )
    train_imgsz: Pixels | None = setting(
        None, "Data", "Pixels a side for a candidate's training; default --imgsz."
    )
    batch_size: Annotated[int, whole(2)] | None = setting(
        None, "Data", "Images a step; default the recipe's.", "-b"
    )
    recipe: Place | None = setting(None, "Data", "Recipe (`nas ls recipes`); default auto.")
    recipe_options: Options = setting({}, "Data", "Option of the recipe, as name=value.")
    pruner: Place | None = setting(
        None,
        "Data",
        "Pruner, which stops losing trainings early (`nas ls pruners`); default halving, from "
        "weights none.",
    )
    pruner_options: Options = setting({}, "Data", "Option of the pruner, as name=value.")
    trial_time: Seconds | None = setting(
        None,
        "Data",
        "Train each candidate for this time, such as 5m, instead of a number of epochs: a small "
        "network gets more of them.",
    )
    trial_time_limit: Seconds | None = setting(
        None, "Data", "Stop a trial after this time, such as 10m."
    )
    trials_per_device: Word | None = setting(
        None, "Data", "Trainings at once on one device: a number, or auto to measure it."
    )
    finalists: Natural | None = setting(
        None,
        "Data",
        "How many of the best are trained again with new seeds before one is selected; 0: none; "
        "default 3, from weights 2.",
    )
    final_seeds: Positive | None = setting(
        None, "Data", "Seeds of each finalist; default 3, from weights 1."
    )
    final_epochs: Positive | None = setting(
        None,
        "Data",
        "Epochs of a training of the finals; default as many as rank archs reliably, from "
        "weights those of `nas train`, within --time-limit.",
    )
    final_fraction: Share | None = setting(
        None, "Data", "Share of the training images for the finals; default what is needed."
    )
    target_flops: Count | None = setting(
        None,
        "Target",
        "Multiply-adds to aim at, such as 400M (= 0.8 GFLOPs at 2 per multiply-add).",
        "--target-macs",
    )
    target_params: Count | None = setting(None, "Target", "Parameters to aim at, such as 5.3M.")
    target_latency: Milliseconds | None = setting(
        None,
        "Target",
        "Latency to aim at, such as 12ms, on --device (a100, rtx3090, tpu: per image at the "
        "benchmark's batch).",
    )
    device: Word | None = setting(
        None,
        "Target",
        "Device of the latency: measured on this machine (cpu, cuda, onnxruntime), or predicted "
        "(a100, rtx3090, tpuv2, tpuv3, zcu102, vck190).",
    )
    max_flops: Count | None = setting(
        None, "Target", "Hard limit: archs with more multiply-adds are not evaluated."
    )
    max_params: Count | None = setting(
        None, "Target", "Hard limit: archs with more parameters are not evaluated."
    )
    objective: Word = setting("reward", "Target", "reward, or pareto for two true objectives.")
    reward: Word = setting(
        "hard",
        "Target",
        "accuracy x (cost/T)^w. hard: free up to T, w = -1 above. soft: w = -0.07 on both sides "
        "(its optimum does not depend on T). absolute: accuracy - 10 x |cost/T - 1|.",
    )
    w: Number | None = setting(
        None, "Target", "Exponent of the reward, <= 0 (hard: above T; absolute: slope)."
    )
    controller: Place = setting(
        "predictor",
        "How",
        "Controller, which proposes archs (`nas ls controllers`), or a path to your .py.",
    )
    controller_options: Options = setting({}, "How", "Option of the controller, as name=value.")
    evaluator: Place | None = setting(
        None,
        "How",
        "Evaluator of archs (`nas ls evaluators`), or a path to your .py; default surrogate, "
        "with --data training.",
    )
    evaluator_options: Options = setting({}, "How", "Option of the evaluator, as name=value.")
    warm_start: Place | None = setting(
        None,
        "How",
        "Warm start: an earlier search run (its evaluations, or a prior from them), surrogate (a "
        "prior from 5,138 ImageNet proxy trainings), or naswot (a prior from zero-cost scores).",
    )
    executor: Place = setting(
        "local", "How", "Executor, which runs the evaluations (`nas ls executors`)."
    )
    executor_options: Options = setting({}, "How", "Option of the executor, as name=value.")
    workers: Positive | None = setting(
        None,
        "How",
        "Evaluations at once; default 1, on a cluster as many as it holds. With 1 a resumed search "
        "is identical.",
        "-j",
    )
    address: Word | None = setting(
        None,
        "Cluster",
        "Of --executor ray: auto, HOST:PORT, ray://HOST:PORT, or local to start Ray on this "
        "machine; default auto where RAY_ADDRESS is set, as in a Ray job, else local.",
    )
    cpus_per_trial: Number | None = setting(
        None,
        "Cluster",
        "CPUs of each evaluation: whole, or a part such as 0.5; default 1.",
    )
    gpus_per_trial: Number | None = setting(
        None, "Cluster", "GPUs of each evaluation; 0.25 lets four share one; default 0."
    )
    storage: Word | None = setting(
        None,
        "Cluster",
        "Keep the study in this database (postgresql://...) instead of the run's journal, so that "
        "several drivers share it.",
    )
    study: Word | None = setting(
        None, "Cluster", "Name of the shared study in --storage; default the run's --name."
    )
    trials: Positive | None = setting(
        None, "How", "Archs to evaluate; default 300, with --data 60, from weights 16."
    )
    time_limit: Seconds | None = setting(
        None,
        "How",
        "End after this time, such as 20m, shared evenly by the search, the random search and, "
        "with --data, the finals. What runs then is finished, or counts with its accuracy so far.",
    )
    seed: Natural = setting(0, "How", "Seed of everything random.")
    random_search: Switch = setting(
        True, "How", "Random search at equal budget beside the search, to compare with."
    )

    @model_validator(mode="before")
    @classmethod
    def _name_the_recipe(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Let args.yaml say by which recipe a run was trained."""
        trains = given.get("data") and given.get("evaluator") in TRAINS
        return {**given, "recipe": AUTO} if trains and given.get("recipe") is None else dict(given)
