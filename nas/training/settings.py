"""What decides a training: one field a flag of `nas train`. Light, as those of a search are."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import model_validator

from nas.core.errors import OptionError
from nas.core.settings import (
    Natural,
    Options,
    Pixels,
    Place,
    Positive,
    Seconds,
    Settings,
    Switch,
    Word,
    Words,
    setting,
)

WHAT, HOW, MACHINE = "What", "How", "Machine"
NOTHING = "none"  # for --init: fresh weights


class TrainSettings(Settings):
    """Everything that decides a training; `args.yaml` of a run holds these beside the arch."""

    VERB: ClassVar[str] = "train"

    data: Place | None = setting(
        None,
        WHAT,
        "Folder of class folders, parquet file or folder, digits, cifar10, flowers102, ...",
    )
    image_column: Word | None = setting(
        None,
        WHAT,
        "Parquet column that holds the images; default by its metadata or name.",
    )
    label_column: Word | None = setting(
        None, WHAT, "Parquet column that holds the labels; default likewise."
    )
    download: Switch = setting(False, WHAT, "Fetch the data set if it is not on this machine yet.")
    imgsz: Pixels | None = setting(None, WHAT, "Pixels a side; default the arch's.", "--img-size")
    init: Place | None = setting(
        None,
        WHAT,
        "Weights to start from: pretrained, a train run, a .safetensors or .pth, timm:NAME, "
        "torchvision:NAME or none; default pretrained for photographs, where a package has them.",
    )
    teacher: Place | None = setting(
        None,
        WHAT,
        "Teacher to learn from beside the labels (distillation): a train run of the same classes, "
        "timm:NAME, or pretrained, which get a classifier for these images first.",
    )
    freeze: Switch = setting(False, WHAT, "Train the classifier only, on weights to start from.")
    probe: Switch = setting(
        False,
        WHAT,
        "Stop after the linear probe: a classifier of the features of the weights, as they are.",
    )
    recipe: Place = setting(
        "auto", HOW, "Recipe (`nas ls recipes`); auto is made for the folder and the arch."
    )
    recipe_options: Options = setting({}, HOW, "Option of the recipe, as name=value; repeatable.")
    epochs: Positive | None = setting(
        None, HOW, "Passes over the training images; default the recipe's."
    )
    time_limit: Seconds | None = setting(
        None, HOW, "Train about this long on this machine, such as 20m, instead of --epochs."
    )
    batch_size: Positive | None = setting(
        None,
        HOW,
        "Images of a step, over all processes; lr scales with it; default the recipe's.",
        "-b",
    )
    accumulate: Positive = setting(1, HOW, "Parts in which a step goes through the device.")
    seed: Natural = setting(0, HOW, "Seed of everything random; the splits do not depend on it.")
    device: Word = setting("auto", MACHINE, "auto, cpu, cuda, cuda:1 or mps.")
    workers: Natural | None = setting(
        None, MACHINE, "Processes that read images, where they do not fit into memory.", "-j"
    )
    amp: Switch | None = setting(None, MACHINE, "bfloat16 in the forward pass; default on CUDA.")
    grad_checkpointing: Switch = setting(
        False, MACHINE, "Save memory: compute blocks again in the backward pass."
    )
    tracker: Words = setting(
        [],
        MACHINE,
        "none, tensorboard, wandb, mlflow or trackio; repeatable; default tensorboard if it is "
        "installed.",
    )

    @property
    def weights(self) -> str | None:
        """Return the source of weights to start from; None: none, or not decided yet."""
        return None if self.init == NOTHING else self.init

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.data:
            raise OptionError(
                "train needs --data: a folder of class folders, a parquet file, digits, or a name "
                "such as cifar10"
            )
        if self.freeze and self.init == NOTHING:
            raise OptionError("--freeze trains the classifier only: name the weights with --init")
        if self.probe and (self.init == NOTHING or self.freeze):
            raise OptionError(
                "--probe classifies by the features of weights, and trains nothing: name them with "
                "--init, and leave out --freeze"
            )
        if self.probe and self.teacher:
            raise OptionError("--probe trains nothing that a --teacher could teach: leave one out")
        return self


# may differ between a training and its resumption: where it runs, not what comes out
FREE = ("download", "device", "workers", "accumulate", "grad_checkpointing", "amp", "tracker")
