"""Types of `import nas`, written by scripts/write_stub.py."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.core.errors import ArchError as ArchError
from nas.core.errors import EvaluatorError as EvaluatorError
from nas.core.errors import MissingError as MissingError
from nas.core.errors import NasError as NasError
from nas.core.errors import OptionError as OptionError
from nas.core.errors import RunError as RunError
from nas.data.augment_settings import Augment as Augment
from nas.data.dataset import Dataset as Dataset
from nas.data.dataset import Split as Split
from nas.exporting.export import export as export
from nas.exporting.result import ExportResult as ExportResult
from nas.hardware.bench import BenchResult as BenchResult
from nas.hardware.bench import bench as bench
from nas.interfaces import Choices as Choices
from nas.interfaces import Metrics as Metrics
from nas.interfaces import Space as Space
from nas.interfaces import Timing as Timing
from nas.models.arch import Arch as Arch
from nas.models.arch import Head as Head
from nas.models.arch import Norm as Norm
from nas.models.arch import Squeeze as Squeeze
from nas.models.arch import Stage as Stage
from nas.models.arch import Stem as Stem
from nas.models.load import build_model as build_model
from nas.models.load import count as count
from nas.models.load import load_arch as load_arch
from nas.models.published import Published as Published
from nas.reporting.explain import explain as explain
from nas.reporting.explained import ExplainResult as ExplainResult
from nas.scaling.fit.result import FitResult as FitResult
from nas.scaling.progress import ScalingProgress
from nas.scaling.result import ScaleResult as ScaleResult
from nas.searching.fidelity.result import ProxyCheckResult as ProxyCheckResult
from nas.searching.progress import SearchProgress
from nas.searching.result import PlanResult as PlanResult
from nas.searching.result import SearchResult as SearchResult
from nas.searching.samplers import Proposer as Proposer
from nas.searching.samplers import Reseeded as Reseeded
from nas.training.doctor import doctor as doctor
from nas.training.predict import predict as predict
from nas.training.progress import TrainingProgress
from nas.training.recipe import Recipe as Recipe
from nas.training.result import DoctorResult as DoctorResult
from nas.training.result import PredictResult as PredictResult
from nas.training.result import TrainResult as TrainResult
from nas.training.result import ValResult as ValResult
from nas.training.train import Interrupted
from nas.training.val import val as val
from nas.training.weights.inherit import inherit as inherit
from nas.training.weights.load import load_weights as load_weights

__version__: str
__all__ = [
    "Arch",
    "ArchError",
    "Augment",
    "BenchResult",
    "Choices",
    "Dataset",
    "DoctorResult",
    "EvaluatorError",
    "ExplainResult",
    "ExportResult",
    "FitResult",
    "Head",
    "Metrics",
    "MissingError",
    "NasError",
    "Norm",
    "OptionError",
    "PlanResult",
    "PredictResult",
    "Proposer",
    "ProxyCheckResult",
    "Published",
    "Recipe",
    "Reseeded",
    "RunError",
    "ScaleResult",
    "SearchResult",
    "Space",
    "Split",
    "Squeeze",
    "Stage",
    "Stem",
    "Timing",
    "TrainResult",
    "ValResult",
    "bench",
    "build_model",
    "count",
    "doctor",
    "explain",
    "export",
    "inherit",
    "load_arch",
    "load_weights",
    "plan",
    "predict",
    "proxy_check",
    "scale",
    "search",
    "train",
    "val",
]

def plan(
    *,
    space: str | Path | None = None,
    data: str | Path | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    download: bool = False,
    init: str | Path | None = None,
    teacher: str | Path | None = None,
    imgsz: int | str | None = None,
    epochs: int | str | None = None,
    fraction: float | str | None = None,
    train_imgsz: int | str | None = None,
    batch_size: int | str | None = None,
    recipe: str | Path | None = None,
    recipe_options: Mapping[str, Any] = ...,
    pruner: str | Path | None = None,
    pruner_options: Mapping[str, Any] = ...,
    trial_time: str | float | None = None,
    trial_time_limit: str | float | None = None,
    trials_per_device: str | None = None,
    finalists: int | str | None = None,
    final_seeds: int | str | None = None,
    final_epochs: int | str | None = None,
    final_fraction: float | str | None = None,
    target_flops: str | float | None = None,
    target_params: str | float | None = None,
    target_latency: str | float | None = None,
    device: str | None = None,
    max_flops: str | float | None = None,
    max_params: str | float | None = None,
    objective: str = "reward",
    reward: str = "hard",
    w: float | str | None = None,
    controller: str | Path = "predictor",
    controller_options: Mapping[str, Any] = ...,
    evaluator: str | Path | None = None,
    evaluator_options: Mapping[str, Any] = ...,
    warm_start: str | Path | None = None,
    executor: str | Path = "local",
    executor_options: Mapping[str, Any] = ...,
    workers: int | str | None = None,
    address: str | None = None,
    cpus_per_trial: float | str | None = None,
    gpus_per_trial: float | str | None = None,
    storage: str | None = None,
    study: str | None = None,
    trials: int | str | None = None,
    time_limit: str | float | None = None,
    seed: int | str = 0,
    random_search: bool = True,
    price: str | float | None = None,
    project: str | Path = "runs",
) -> PlanResult:
    """Return the size of the space, what it reaches, and what a search will take.

    The settings are those of `nas.search`; nothing is searched or written. Of a space that the
    evaluator does not know, everything but the times is told. price: that of an hour of one GPU
    where `gpus_per_trial` is given, else of one worker, in any currency. project: the folder of
    runs, where the one of `warm_start` is looked for.

    Raises:
        OptionError: a setting or the price is wrong.

    Settings, flags of `nas search`:
        space: Space: a name (`nas ls spaces`) or a path to your .py; default mbconv, with
            --data of small images mbconv_small.
        data: Train candidates on these images: a folder of class folders, image parquet,
            digits, or a torchvision data set such as cifar10.
        image_column: Parquet column that holds the images; default by its metadata or name.
        label_column: Parquet column that holds the labels; default likewise.
        download: Let a data set that is not here be downloaded.
        init: Weights that every candidate inherits: pretrained, a run, a file, timm:NAME or
            torchvision:NAME; the space is the sub-networks of that net unless --space says
            otherwise; none: from nothing; default pretrained for colour photographs, where such
            weights are installed and no --space is given.
        teacher: Teacher of all finalists alike (distillation): a train run of the same classes,
            timm:NAME, or pretrained; the result is trained without it too, to tell what it
            added.
        imgsz: Pixels a side of the network's input, where FLOPs are counted.
        epochs: Epochs of a candidate's training; default as many as rank candidates; 0, from
            weights: a linear probe alone.
        fraction: Share of the training images for a candidate, such as 0.2; default 1.
        train_imgsz: Pixels a side for a candidate's training; default --imgsz.
        batch_size: Images a step; default the recipe's.
        recipe: Recipe (`nas ls recipes`); default auto.
        recipe_options: Option of the recipe, as name=value.
        pruner: Pruner, which stops losing trainings early (`nas ls pruners`); default halving,
            from weights none.
        pruner_options: Option of the pruner, as name=value.
        trial_time: Train each candidate for this time, such as 5m, instead of a number of
            epochs: a small network gets more of them.
        trial_time_limit: Stop a trial after this time, such as 10m.
        trials_per_device: Trainings at once on one device: a number, or auto to measure it.
        finalists: How many of the best are trained again with new seeds before one is selected;
            0: none; default 3, from weights 2.
        final_seeds: Seeds of each finalist; default 3, from weights 1.
        final_epochs: Epochs of a training of the finals; default as many as rank archs
            reliably, from weights those of `nas train`, within --time-limit.
        final_fraction: Share of the training images for the finals; default what is needed.
        target_flops: Multiply-adds to aim at, such as 400M (= 0.8 GFLOPs at 2 per
            multiply-add).
        target_params: Parameters to aim at, such as 5.3M.
        target_latency: Latency to aim at, such as 12ms, on --device (a100, rtx3090, tpu: per
            image at the benchmark's batch).
        device: Device of the latency: measured on this machine (cpu, cuda, onnxruntime), or
            predicted (a100, rtx3090, tpuv2, tpuv3, zcu102, vck190).
        max_flops: Hard limit: archs with more multiply-adds are not evaluated.
        max_params: Hard limit: archs with more parameters are not evaluated.
        objective: reward, or pareto for two true objectives.
        reward: accuracy x (cost/T)^w. hard: free up to T, w = -1 above. soft: w = -0.07 on both
            sides (its optimum does not depend on T). absolute: accuracy - 10 x |cost/T - 1|.
        w: Exponent of the reward, <= 0 (hard: above T; absolute: slope).
        controller: Controller, which proposes archs (`nas ls controllers`), or a path to your
            .py.
        controller_options: Option of the controller, as name=value.
        evaluator: Evaluator of archs (`nas ls evaluators`), or a path to your .py; default
            surrogate, with --data training.
        evaluator_options: Option of the evaluator, as name=value.
        warm_start: Warm start: an earlier search run (its evaluations, or a prior from them),
            surrogate (a prior from 5,138 ImageNet proxy trainings), or naswot (a prior from
            zero-cost scores).
        executor: Executor, which runs the evaluations (`nas ls executors`).
        executor_options: Option of the executor, as name=value.
        workers: Evaluations at once; default 1, on a cluster as many as it holds. With 1 a
            resumed search is identical.
        address: Of --executor ray: auto, HOST:PORT, ray://HOST:PORT, or local to start Ray on
            this machine; default auto where RAY_ADDRESS is set, as in a Ray job, else local.
        cpus_per_trial: CPUs of each evaluation: whole, or a part such as 0.5; default 1.
        gpus_per_trial: GPUs of each evaluation; 0.25 lets four share one; default 0.
        storage: Keep the study in this database (postgresql://...) instead of the run's
            journal, so that several drivers share it.
        study: Name of the shared study in --storage; default the run's --name.
        trials: Archs to evaluate; default 300, with --data 60, from weights 16.
        time_limit: End after this time, such as 20m, shared evenly by the search, the random
            search and, with --data, the finals. What runs then is finished, or counts with its
            accuracy so far.
        seed: Seed of everything random.
        random_search: Random search at equal budget beside the search, to compare with.
    """

def proxy_check(
    data: str,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    download: bool = False,
    space: str | Path | None = None,
    init: str | Path | None = None,
    imgsz: int | str | None = None,
    archs: int | str = 8,
    target_flops: str | float | None = None,
    min_flops: str | float | None = None,
    max_flops: str | float | None = None,
    budget: Sequence[str] = ...,
    long_epochs: int | str | None = None,
    seeds: int | str = 2,
    fraction: float | str = 1.0,
    threshold: float | str = 0.5,
    recipe: str | Path = "auto",
    recipe_options: Mapping[str, Any] = ...,
    batch_size: int | str | None = None,
    seed: int | str = 0,
    device: str = "auto",
    workers: int | str | None = None,
    project: str | Path = "runs",
    name: str | None = None,
    resume: bool = False,
    say: Callable[[str], None] = ...,
    interrupted: Callable[[], bool] = ...,
) -> ProxyCheckResult:
    """Train some archs shortly and long; return how well each short budget ranks them.

    `settings` are the command's flags with underscores (`ProxySettings` of the file beside):
    `nas.proxy_check("digits", archs=12, budget=["2", "4:0.5"], max_flops="20M")`. Random archs,
    one of each stratum of FLOPs, are trained `seeds` times with each budget and long, each time
    on a schedule and with a seed of its own. Accuracies are of the validation split after the last
    epoch; the test split is not read.

    Each finished training is a row of project/proxy-check/name/trainings.csv; `resume` goes on
    with the run of that name, or with the latest one, of these settings. `say` gets a line on each
    training; after an epoch in which `interrupted` the result is of the archs finished so far.

    Raises:
        OptionError: a setting is wrong, the data cannot be used, or the space has too few archs.
        RunError: the run folder is in use, damaged, or of other settings.
        NasError: every training failed.

    Settings, flags of `nas proxy-check`:
        image_column: Parquet column that holds the images; default by its metadata or name.
        label_column: Parquet column that holds the labels; default likewise.
        download: Fetch the data set if it is not on this machine yet.
        space: Space: a name (`nas ls spaces`) or a path to your .py; default mbconv_small for
            images of up to 64 pixels, else mbconv.
        init: Weights that every arch inherits, as of a search: pretrained, a run, a file,
            timm:NAME; the space is the sub-networks of that net unless --space says otherwise
            [default: none].
        imgsz: Pixels a side [default: the space's; of sub-networks each its own].
        archs: Archs to train: random ones, spread over the range of FLOPs.
        target_flops: Multiply-adds of the search that is planned, such as 5M: archs within 10 %
            of it [default: the median of the space].
        min_flops: Least multiply-adds of an arch, instead of --target-flops.
        max_flops: Most multiply-adds of an arch, instead of --target-flops.
        budget: A short training as epochs[:fraction of the images[:pixels]], such as 4, 8:0.5
            or 8:0.5:32; with --init 0 is a linear probe; repeatable [default: 1/8, 1/4 and 1/2
            of the long one; with --init 0, 1 and 3].
        long_epochs: Epochs of the long training, which gives the true ranking [default: 16, or
            as many as a training needs to tell what an arch gives].
        seeds: Trainings of each arch with each budget.
        fraction: Share of the training images for everything, the long training too.
        threshold: A budget ranks well enough if the lower end of its tau is above this: at 0.5
            three of four pairs are in the right order.
        recipe: Recipe (`nas ls recipes`).
        recipe_options: Number or word of the recipe, as name=value; repeatable.
        batch_size: Images of a step [default: recipe's].
        seed: Seed of everything random; the splits do not depend on it.
        device: auto, cpu, cuda, cuda:1 or mps.
        workers: Processes that read images, where they do not fit into memory.
    """

def scale(
    base: str | Path | Arch | Mapping[str, Any] | None = None,
    *,
    phi: str | float | Sequence[float] = "1..7",
    rule: str = "formula",
    alpha: float | str | None = None,
    beta: float | str | None = None,
    gamma: float | str | None = None,
    fixed_ends: bool = False,
    data: str | Path | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    download: bool = False,
    fit: bool = False,
    candidates: int | str | None = None,
    fit_epochs: int | str | None = None,
    fit_fraction: float | str | None = None,
    fit_recipe: str | Path | None = None,
    finalists: int | str | None = None,
    final_seeds: int | str | None = None,
    target_latency: str | float | None = None,
    target_memory: float | str | None = None,
    device: str | None = None,
    train: bool = False,
    init: str | Path | None = None,
    teacher: str | Path | None = None,
    epochs: int | str | None = None,
    batch_size: int | str | None = None,
    recipe: str | Path | None = None,
    recipe_options: Mapping[str, Any] = ...,
    member_gpus: Mapping[str, int] = ...,
    accumulate: int | str | None = None,
    grad_checkpointing: bool = False,
    accelerator: str = "auto",
    executor: str | Path = "local",
    executor_options: Mapping[str, Any] = ...,
    workers: int | str | None = None,
    address: str | None = None,
    cpus_per_trial: float | str | None = None,
    gpus_per_trial: float | str | None = None,
    trial_time_limit: str | float | None = None,
    seed: int | str = 0,
    project: str | Path = "runs",
    name: str | None = None,
    resume: bool = False,
    screen: ScalingProgress | None = None,
    interrupted: Callable[[], bool] = ...,
) -> ScaleResult:
    """Scale a baseline; return the family (`rule`, `members`, `run`, ...).

    `to_dict()` of it is what `nas scale --json` prints.

    `base` is a search run, a baseline's name, an arch.json, an Arch or its data; without it the
    latest search under `project` is taken. `settings` are the command's flags with underscores:
    `nas.scale("efficientnet_b0", phi="1..7", rule="released")`; `rule` is one of
    `nas.models.compound.RULES`. Writes project/scale/name with b1/arch.json and so on, family.csv
    and report.html. `fit` finds the coefficients on images first, `train` trains every member;
    `resume` goes on with the run of that name, or with the latest one, of this base and these
    settings; what says where and how much at once may be changed.

    Raises:
        OptionError: no such base, rule or phi, a coefficient below 1, or a wrong setting.
        RunError: the folder is in use, damaged or cannot be written.

    Settings, flags of `nas scale`:
        phi: Members: 1..7, 0.5,1,2 or -1..1.
        rule: formula, released, exact, width, depth, resolution or fast.
        alpha: Depth coefficient, >= 1; default as fitted to this base, else 1.2.
        beta: Width coefficient; default as fitted, else 1.1.
        gamma: Resolution coefficient; default as fitted, else 1.15.
        fixed_ends: Keep stem, head and the end stages' layers.
        data: Images to fit and to train on: a folder of class folders, image parquet, digits,
            cifar10, ...
        image_column: Parquet column that holds the images; default by its metadata or name.
        label_column: Parquet column that holds the labels; default likewise.
        download: Let a data set that is not here be downloaded.
        fit: Fit alpha, beta, gamma to this base: train the candidates of a grid at twice its
            FLOPs.
        candidates: How many networks of the grid at most; default 12.
        fit_epochs: Epochs of a candidate's training; default as many as rank candidates.
        fit_fraction: Share of the training images for a candidate; default 1.
        fit_recipe: Recipe of a candidate (`nas ls recipes`); default auto.
        finalists: How many of the best are trained again with new seeds; default 3.
        final_seeds: Seeds of each finalist; default 3.
        target_latency: Choose by accuracy x (latency/T)^-0.07 on --device, with T such as 12ms.
        target_memory: Choose by accuracy x (memory/T)^-0.07 in training, with T in MiB at batch
            1.
        device: Device of the latency (`nas ls devices`); default that of the worker.
        train: Train every member, and measure it where it was trained.
        init: Weights of the base that members start from, grown to their size: pretrained, a
            train run, a file; measured on one small net and short trainings alone; default
            none.
        teacher: Teacher of every member (distillation): a train run of the same classes,
            timm:NAME, or pretrained.
        epochs: Epochs of a member; default the recipe's.
        batch_size: Images a step; default the recipe's.
        recipe: Recipe of a member; default auto.
        recipe_options: Option of that recipe, as name=value.
        member_gpus: GPUs of one member, as b7=4: it is trained by DDP; repeatable.
        accumulate: Parts in which a step goes through the device; default 1.
        grad_checkpointing: Save memory: compute blocks again in the backward pass.
        accelerator: auto, cpu, cuda or mps.
        executor: Who runs the trainings (`nas ls executors`).
        executor_options: Option of the executor, as name=value.
        workers: Trainings at once; default 1, on a cluster its size.
        address: Of --executor ray: auto, HOST:PORT or local.
        cpus_per_trial: CPUs of each training; default 1.
        gpus_per_trial: GPUs of each training; default 0.
        trial_time_limit: Give a training up after this time, such as 10m.
        seed: Seed of everything random.
    """

def search(
    *,
    space: str | Path | None = None,
    data: str | Path | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    download: bool = False,
    init: str | Path | None = None,
    teacher: str | Path | None = None,
    imgsz: int | str | None = None,
    epochs: int | str | None = None,
    fraction: float | str | None = None,
    train_imgsz: int | str | None = None,
    batch_size: int | str | None = None,
    recipe: str | Path | None = None,
    recipe_options: Mapping[str, Any] = ...,
    pruner: str | Path | None = None,
    pruner_options: Mapping[str, Any] = ...,
    trial_time: str | float | None = None,
    trial_time_limit: str | float | None = None,
    trials_per_device: str | None = None,
    finalists: int | str | None = None,
    final_seeds: int | str | None = None,
    final_epochs: int | str | None = None,
    final_fraction: float | str | None = None,
    target_flops: str | float | None = None,
    target_params: str | float | None = None,
    target_latency: str | float | None = None,
    device: str | None = None,
    max_flops: str | float | None = None,
    max_params: str | float | None = None,
    objective: str = "reward",
    reward: str = "hard",
    w: float | str | None = None,
    controller: str | Path = "predictor",
    controller_options: Mapping[str, Any] = ...,
    evaluator: str | Path | None = None,
    evaluator_options: Mapping[str, Any] = ...,
    warm_start: str | Path | None = None,
    executor: str | Path = "local",
    executor_options: Mapping[str, Any] = ...,
    workers: int | str | None = None,
    address: str | None = None,
    cpus_per_trial: float | str | None = None,
    gpus_per_trial: float | str | None = None,
    storage: str | None = None,
    study: str | None = None,
    trials: int | str | None = None,
    time_limit: str | float | None = None,
    seed: int | str = 0,
    random_search: bool = True,
    project: str | Path = "runs",
    name: str | None = None,
    resume: bool = False,
    screen: SearchProgress | None = None,
    interrupted: Callable[[], bool] = ...,
) -> SearchResult:
    """Search a space; return what it found (`best`, `leaderboard`, `run`, ...).

    `to_dict()` of it is what `nas search --json` prints.

    `settings` are the command's flags with underscores, as text or numbers:
    `nas.search(space="mbconv", target_flops="400M", trials=200)`. The run folder is
    project/search/name. `resume` goes on with the run of that name, or with the latest one, of
    these settings if any are given; where there is none it starts.

    Raises:
        OptionError: a setting is wrong, or no arch reaches the target.
        RunError: the run folder is in use, damaged or cannot be written.

    Settings, flags of `nas search`:
        space: Space: a name (`nas ls spaces`) or a path to your .py; default mbconv, with
            --data of small images mbconv_small.
        data: Train candidates on these images: a folder of class folders, image parquet,
            digits, or a torchvision data set such as cifar10.
        image_column: Parquet column that holds the images; default by its metadata or name.
        label_column: Parquet column that holds the labels; default likewise.
        download: Let a data set that is not here be downloaded.
        init: Weights that every candidate inherits: pretrained, a run, a file, timm:NAME or
            torchvision:NAME; the space is the sub-networks of that net unless --space says
            otherwise; none: from nothing; default pretrained for colour photographs, where such
            weights are installed and no --space is given.
        teacher: Teacher of all finalists alike (distillation): a train run of the same classes,
            timm:NAME, or pretrained; the result is trained without it too, to tell what it
            added.
        imgsz: Pixels a side of the network's input, where FLOPs are counted.
        epochs: Epochs of a candidate's training; default as many as rank candidates; 0, from
            weights: a linear probe alone.
        fraction: Share of the training images for a candidate, such as 0.2; default 1.
        train_imgsz: Pixels a side for a candidate's training; default --imgsz.
        batch_size: Images a step; default the recipe's.
        recipe: Recipe (`nas ls recipes`); default auto.
        recipe_options: Option of the recipe, as name=value.
        pruner: Pruner, which stops losing trainings early (`nas ls pruners`); default halving,
            from weights none.
        pruner_options: Option of the pruner, as name=value.
        trial_time: Train each candidate for this time, such as 5m, instead of a number of
            epochs: a small network gets more of them.
        trial_time_limit: Stop a trial after this time, such as 10m.
        trials_per_device: Trainings at once on one device: a number, or auto to measure it.
        finalists: How many of the best are trained again with new seeds before one is selected;
            0: none; default 3, from weights 2.
        final_seeds: Seeds of each finalist; default 3, from weights 1.
        final_epochs: Epochs of a training of the finals; default as many as rank archs
            reliably, from weights those of `nas train`, within --time-limit.
        final_fraction: Share of the training images for the finals; default what is needed.
        target_flops: Multiply-adds to aim at, such as 400M (= 0.8 GFLOPs at 2 per
            multiply-add).
        target_params: Parameters to aim at, such as 5.3M.
        target_latency: Latency to aim at, such as 12ms, on --device (a100, rtx3090, tpu: per
            image at the benchmark's batch).
        device: Device of the latency: measured on this machine (cpu, cuda, onnxruntime), or
            predicted (a100, rtx3090, tpuv2, tpuv3, zcu102, vck190).
        max_flops: Hard limit: archs with more multiply-adds are not evaluated.
        max_params: Hard limit: archs with more parameters are not evaluated.
        objective: reward, or pareto for two true objectives.
        reward: accuracy x (cost/T)^w. hard: free up to T, w = -1 above. soft: w = -0.07 on both
            sides (its optimum does not depend on T). absolute: accuracy - 10 x |cost/T - 1|.
        w: Exponent of the reward, <= 0 (hard: above T; absolute: slope).
        controller: Controller, which proposes archs (`nas ls controllers`), or a path to your
            .py.
        controller_options: Option of the controller, as name=value.
        evaluator: Evaluator of archs (`nas ls evaluators`), or a path to your .py; default
            surrogate, with --data training.
        evaluator_options: Option of the evaluator, as name=value.
        warm_start: Warm start: an earlier search run (its evaluations, or a prior from them),
            surrogate (a prior from 5,138 ImageNet proxy trainings), or naswot (a prior from
            zero-cost scores).
        executor: Executor, which runs the evaluations (`nas ls executors`).
        executor_options: Option of the executor, as name=value.
        workers: Evaluations at once; default 1, on a cluster as many as it holds. With 1 a
            resumed search is identical.
        address: Of --executor ray: auto, HOST:PORT, ray://HOST:PORT, or local to start Ray on
            this machine; default auto where RAY_ADDRESS is set, as in a Ray job, else local.
        cpus_per_trial: CPUs of each evaluation: whole, or a part such as 0.5; default 1.
        gpus_per_trial: GPUs of each evaluation; 0.25 lets four share one; default 0.
        storage: Keep the study in this database (postgresql://...) instead of the run's
            journal, so that several drivers share it.
        study: Name of the shared study in --storage; default the run's --name.
        trials: Archs to evaluate; default 300, with --data 60, from weights 16.
        time_limit: End after this time, such as 20m, shared evenly by the search, the random
            search and, with --data, the finals. What runs then is finished, or counts with its
            accuracy so far.
        seed: Seed of everything random.
        random_search: Random search at equal budget beside the search, to compare with.
    """

def train(
    arch: str | Path | Arch | Mapping[str, Any],
    *,
    data: str | Path | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    download: bool = False,
    imgsz: int | str | None = None,
    init: str | Path | None = None,
    teacher: str | Path | None = None,
    freeze: bool = False,
    probe: bool = False,
    recipe: str | Path = "auto",
    recipe_options: Mapping[str, Any] = ...,
    epochs: int | str | None = None,
    time_limit: str | float | None = None,
    batch_size: int | str | None = None,
    accumulate: int | str = 1,
    seed: int | str = 0,
    device: str = "auto",
    workers: int | str | None = None,
    amp: bool | None = None,
    grad_checkpointing: bool = False,
    tracker: Sequence[str] = ...,
    project: str | Path = "runs",
    name: str | None = None,
    resume: bool = False,
    screen: TrainingProgress | None = None,
    interrupted: Interrupted = ...,
) -> TrainResult:
    """Train an arch on images; return its scores (`test`, `val`, `run`, ...).

    `to_dict()` of them is what `nas train --json` prints.

    `settings` are the command's flags with underscores: `nas.train("efficientnet_b0",
    data="digits", epochs=5)`. The run folder is project/train/name; `resume` goes on with the run
    of that name, or with the latest one, of the given settings, and starts one where there is none.
    The test split is read once, at the end. Under torchrun every process calls this, and all but
    the first get an empty result.

    Raises:
        OptionError: a setting is wrong, or the data cannot be used.
        RunError: the run folder is in use, damaged or cannot be written.
        NasError: the training diverged.
        Preempted: SIGTERM came while it trained: a SystemExit; `resume` goes on from there.

    Settings, flags of `nas train`:
        data: Folder of class folders, parquet file or folder, digits, cifar10, flowers102, ...
        image_column: Parquet column that holds the images; default by its metadata or name.
        label_column: Parquet column that holds the labels; default likewise.
        download: Fetch the data set if it is not on this machine yet.
        imgsz: Pixels a side; default the arch's.
        init: Weights to start from: pretrained, a train run, a .safetensors or .pth, timm:NAME,
            torchvision:NAME or none; default pretrained for photographs, where a package has
            them.
        teacher: Teacher to learn from beside the labels (distillation): a train run of the same
            classes, timm:NAME, or pretrained, which get a classifier for these images first.
        freeze: Train the classifier only, on weights to start from.
        probe: Stop after the linear probe: a classifier of the features of the weights, as they
            are.
        recipe: Recipe (`nas ls recipes`); auto is made for the folder and the arch.
        recipe_options: Option of the recipe, as name=value; repeatable.
        epochs: Passes over the training images; default the recipe's.
        time_limit: Train about this long on this machine, such as 20m, instead of --epochs.
        batch_size: Images of a step, over all processes; lr scales with it; default the
            recipe's.
        accumulate: Parts in which a step goes through the device.
        seed: Seed of everything random; the splits do not depend on it.
        device: auto, cpu, cuda, cuda:1 or mps.
        workers: Processes that read images, where they do not fit into memory.
        amp: bfloat16 in the forward pass; default on CUDA.
        grad_checkpointing: Save memory: compute blocks again in the backward pass.
        tracker: none, tensorboard, wandb, mlflow or trackio; repeatable; default tensorboard if
            it is installed.
    """
