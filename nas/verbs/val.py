"""Val: a trained model and labelled images in, its score on one split out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nas.data.batches import Input
from nas.data.dataset import Dataset, Split, open_dataset
from nas.data.identity import unchanged
from nas.data.loader import open_split
from nas.data.splits import carve
from nas.errors import OptionError, did_you_mean
from nas.machines.hardware import torch_device
from nas.training.trained import load_trained
from nas.training.validation import Score, validate

SCHEMA = 1
SPLITS = ("test", "val")


def val(
    source: str | Path,
    *,
    data: str | Path | None = None,
    split: str = "test",
    batch_size: int = 64,
    device: str = "auto",
    workers: int | None = None,
    download: bool = False,
    image_column: str | None = None,
    label_column: str | None = None,
) -> dict[str, Any]:
    """Return the score of a trained model on a split, as `nas val --json` prints it.

    `source` is a train run, a search run that trained, or the `best` folder of one; without `data`
    its own images are read. Accuracies are in percent. Other data may lack classes, and have them
    in another order, but has none that the model does not know.

    Raises:
        OptionError: no trained model, no such split or data, or unknown classes.
    """
    if split not in SPLITS:
        raise OptionError(
            f"--split takes {' or '.join(SPLITS)}, not {split!r}{did_you_mean(split, SPLITS)}"
        )
    place = torch_device(device)
    model, config = load_trained(source)
    chosen = str(data or config.get("data") or "")
    if not chosen:
        raise OptionError(f"{source} does not say which images it was trained on: give --data")
    named = {"image_column": image_column, "label_column": label_column}
    columns = {key: column or (None if data else config.get(key)) for key, column in named.items()}
    dataset = carve(open_dataset(chosen, download=download, **columns))
    part = _of_classes(dataset, split, config["classes"])
    loader = open_split(part, trained_input(config), device=place, workers=workers)
    classes = len(config["classes"])
    score = validate(model.to(place), loader.ordered(batch_size), classes, device=place)
    notes = [*dataset.notes, _broken(len(part) - score.count), _changed(config, dataset, data)]
    return {
        "schema": SCHEMA,
        "run": str(source),
        "data": dataset.name,
        "split": split,
        "n": score.count,
        "top1": score.top1,
        "top5": score.top5,
        "loss": finite(score.loss),
        "standard_error": score.standard_error,
        "classes": config["classes"],
        "per_class": _per_class(score, config["classes"]),
        "confusion": score.confusion,
        "notes": [note for note in notes if note],
    }


def trained_input(config: dict[str, Any]) -> Input:
    """Return what a trained model takes, as its config.json says."""
    mean, std = (tuple(map(float, config[key])) for key in ("mean", "std"))
    return Input(int(config["input_size"][-1]), float(config["crop_pct"]), mean, std)  # type: ignore[arg-type]


def _of_classes(dataset: Dataset, name: str, classes: Sequence[str]) -> Split:
    """Return a split of the data with the labels that the model uses.

    Raises:
        OptionError: it has images of a class that the model does not know.
    """
    split = dataset.splits[name]
    places = np.array([classes.index(c) if c in classes else -1 for c in dataset.classes])
    labels = places[split.labels]
    if (labels < 0).any():
        unknown = dataset.classes[int(split.labels[labels < 0][0])]
        raise OptionError(
            f"{dataset.name} has a class {unknown!r} that the model does not know"
            f"{did_you_mean(unknown, classes)}; it knows {', '.join(classes[:20])}"
            f"{', ...' if len(classes) > 20 else ''}"
        )
    return dataclasses.replace(split, labels=labels)


def finite(value: float) -> float | None:
    """Return a number as JSON has it: none for the loss of weights that have blown up."""
    return value if math.isfinite(value) else None


def _broken(number: int) -> str:
    return f"{number} broken left out; `nas doctor --data` names them" if number else ""


def _changed(config: dict[str, Any], dataset: Dataset, other: object) -> str:
    """Return a warning where the run's own data is no longer what it was trained on."""
    before = config.get("fingerprint")
    if other or unchanged(before, dataset):
        return ""
    return (
        "the data has changed since the training: its splits may differ, and images that were "
        "trained on may be among these"
    )


def _per_class(score: Score, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return for each class how many of its images were told, and what most others were taken for.

    A class without images has a top-1 of None.
    """
    rows = []
    for index, name in enumerate(classes):
        row = score.confusion[index]
        wrong = [0 if other == index else number for other, number in enumerate(row)]
        most = max(range(len(wrong)), key=wrong.__getitem__)
        rows.append(
            {
                "class": name,
                "n": sum(row),
                "top1": 100 * row[index] / sum(row) if sum(row) else None,
                "confused_with": classes[most] if wrong[most] else None,
                "confused": wrong[most],
            }
        )
    return rows
