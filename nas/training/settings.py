"""What decides a training: one field a flag of `nas train`. Light, as those of a search are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.core.errors import OptionError
from nas.core.settings import check_empty, check_known, flag, flag_name, whole
from nas.core.units import parse_seconds

WHAT, HOW, MACHINE = "What", "How", "Machine"


@dataclass(frozen=True)
class TrainSettings:
    """Everything that decides a training; `args.yaml` of a run holds these beside the arch."""

    data: str | None = flag(
        None,
        WHAT,
        "Folder of class folders, parquet file or folder, digits, cifar10, flowers102, ...",
    )
    image_column: str | None = flag(
        None,
        WHAT,
        "Parquet column that holds the images; default by its metadata or name.",
    )
    label_column: str | None = flag(
        None, WHAT, "Parquet column that holds the labels; default likewise."
    )
    download: bool = flag(False, WHAT, "Fetch the data set if it is not on this machine yet.")
    imgsz: int | None = flag(None, WHAT, "Pixels a side; default the arch's.")
    init: str | None = flag(
        None,
        WHAT,
        "Weights to start from: a train run (folder or name) or a .safetensors; other classes get "
        "a new classifier.",
    )
    freeze: bool = flag(False, WHAT, "Train the classifier only; needs --init.")
    recipe: str = flag(
        "auto", HOW, "Recipe (`nas ls recipes`); auto is made for the folder and the arch."
    )
    recipe_options: dict[str, Any] = flag(
        {}, HOW, "Option of the recipe, as name=value; repeatable."
    )
    epochs: int | None = flag(None, HOW, "Passes over the training images; default the recipe's.")
    time_limit: float | None = flag(
        None, HOW, "Train about this long on this machine, such as 20m, instead of --epochs."
    )
    batch_size: int | None = flag(
        None, HOW, "Images of a step, over all processes; lr scales with it; default the recipe's."
    )
    accumulate: int = flag(1, HOW, "Parts in which a step goes through the device.")
    seed: int = flag(0, HOW, "Seed of everything random; the splits do not depend on it.")
    device: str = flag("auto", MACHINE, "auto, cpu, cuda, cuda:1 or mps.")
    workers: int | None = flag(
        None, MACHINE, "Processes that read images, where they do not fit into memory."
    )
    amp: bool | None = flag(None, MACHINE, "bfloat16 in the forward pass; default on CUDA.")
    grad_checkpointing: bool = flag(
        False, MACHINE, "Save memory: compute blocks again in the backward pass."
    )
    tracker: list[str] = flag(
        [],
        MACHINE,
        "none, tensorboard, wandb, mlflow or trackio; repeatable; default tensorboard if it is "
        "installed.",
    )


# may differ between a training and its resumption: where it runs, not what comes out
FREE = ("download", "device", "workers", "accumulate", "grad_checkpointing", "amp", "tracker")
_LEAST = {"imgsz": 32, "epochs": 1, "batch_size": 1, "accumulate": 1, "seed": 0, "workers": 0}
_KINDS: dict[str, tuple[type, str]] = {
    **dict.fromkeys(
        ("data", "image_column", "label_column", "init", "recipe", "device"), (str, "a word")
    ),
    **dict.fromkeys(("download", "freeze", "grad_checkpointing", "amp"), (bool, "true or false")),
    "recipe_options": (dict, "a mapping of names to values"),
    "tracker": (list, "a list of names"),
}


def train_settings_from(given: Mapping[str, Any]) -> TrainSettings:
    """Return settings from flags as typed or a file; None means the default.

    Raises:
        OptionError: an unknown setting or a malformed value.
    """
    check_known("train", given, (field.name for field in dataclasses.fields(TrainSettings)))
    values = {key: _checked(key, value) for key, value in given.items() if value is not None}
    found = TrainSettings(**values)
    if not found.data:
        raise OptionError(
            "train needs --data: a folder of class folders, a parquet file, digits, or a name "
            "such as cifar10"
        )
    if found.freeze and not found.init:
        raise OptionError("--freeze trains the classifier only: name the weights with --init")
    return found


def _checked(key: str, value: Any) -> Any:
    """Return a value of its field's kind."""
    if key == "time_limit":
        return parse_seconds(value, "--time-limit")
    check_empty(key, value)
    if key in _LEAST:
        return whole(key, value, _LEAST[key])
    kind, words = _KINDS[key]
    if isinstance(value, Path) and kind is str:
        return str(value)
    if not isinstance(value, kind):
        raise OptionError(f"{flag_name(key)} takes {words}, not {value!r}")
    return value
