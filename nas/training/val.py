"""Val: a trained model and labelled images in, its score on one split out."""

from __future__ import annotations

import dataclasses
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas.core import run_folder
from nas.core.errors import OptionError, did_you_mean
from nas.data.class_folders import by_likeness
from nas.data.dataset import Dataset, Split, open_dataset, open_labelled, some, subset
from nas.data.identity import unchanged
from nas.data.loader import open_split
from nas.data.split_names import alike
from nas.data.splits import joined, make_splits
from nas.hardware.torch_device import torch_device
from nas.training.diagnosis import FIELD
from nas.training.result import ClassScore, ValResult
from nas.training.trained import load_trained, trained_input
from nas.training.validation import Score, validate
from nas.training.weights.sources import refuse_named

SCHEMA = 1
SPLITS = ("test", "val", "train", "all")


@dataclass(frozen=True)
class _Scored:
    """What is scored: the images with the model's labels, how many there were, and what to say."""

    name: str
    split: str
    part: Split
    found: int
    notes: tuple[str, ...]


def val(
    source: str | Path,
    *,
    data: str | Path | None = None,
    split: str | None = None,
    batch_size: int = 64,
    device: str = "auto",
    workers: int | None = None,
    download: bool = False,
    image_column: str | None = None,
    label_column: str | None = None,
) -> ValResult:
    """Return the score of a trained model on images; `to_dict()` is what `nas val --json` prints.

    `source` is a train run, a search run that trained, or the `best` folder of one. Without `data`
    the test split of its own images is scored, or the `split` that is named: test, val, train or
    all. Of other `data` all images are, whatever their layout, or those of the split that it has
    under that name. Its classes are told by name; images of unknown ones are left out and counted:
    `n` of `images` were scored. Accuracies are in percent.

    Raises:
        OptionError: no trained model, no such split or data, or none of its classes is known.
    """
    if split is not None and split not in SPLITS:
        words = f"{', '.join(SPLITS[:-1])} or {SPLITS[-1]}"
        raise OptionError(f"--split takes {words}, not {split!r}{did_you_mean(split, SPLITS)}")
    refuse_named(source, "val")
    place = torch_device(device)
    model, config = load_trained(run_folder.find(source, ("train", "search")))
    if not (data or config.get("data")):
        raise OptionError(f"{source} does not say which images it was trained on: give --data")
    named = {"image_column": image_column, "label_column": label_column}
    columns = {key: column or (None if data else config.get(key)) for key, column in named.items()}
    scored = _images(config, str(data) if data else None, split, {"download": download, **columns})
    loader = open_split(scored.part, trained_input(config), device=place, workers=workers)
    classes = len(config["classes"])
    score = validate(model.to(place), loader.ordered(batch_size), classes, device=place)
    broken = _broken(len(scored.part) - score.count)
    notes = (*scored.notes, broken, config.get(FIELD, ""))
    matrix = score.confusion.matrix() if score.confusion else None
    return ValResult(
        schema=SCHEMA,
        run=Path(source),
        data=scored.name,
        split=scored.split,
        n=score.count,
        images=scored.found,
        top1=score.top1,
        top5=score.top5,
        loss=finite(score.loss),
        standard_error=score.standard_error,
        classes=tuple(config["classes"]),
        per_class=tuple(_per_class(score, config["classes"])),
        confusion=None if matrix is None else tuple(map(tuple, matrix)),
        notes=tuple(note for note in notes if note),
    )


def _images(
    config: dict[str, Any], data: str | None, split: str | None, how: dict[str, Any]
) -> _Scored:
    """Return the images to be scored: a split of the model's own data, or all of other data.

    `how` they are read: what `open_dataset` takes beside the data.
    """
    own = str(config.get("data") or "")
    if data is not None and not _is_same(data, own):
        other = open_labelled(data, config["classes"], **how)
        if not _is_own(config, other):
            return _of_other(other, split, config["classes"], _overlap(data, own))
    dataset = make_splits(open_dataset(data or own, **how))
    chosen = split or "test"
    whole = joined(dataset.splits.values()) if chosen == "all" else dataset.splits[chosen]
    part, unknown = _of_classes(dataset, whole, config["classes"])
    notes = [
        *dataset.notes,
        f"{data} is what the model was trained on: of it {_which(chosen)}" if data else "",
        "the model was trained on images among these" if chosen in ("train", "all") else "",
        _changed(config, dataset),
        *unknown,
    ]
    return _Scored(dataset.name, chosen, part, len(whole), tuple(notes))


def _of_other(dataset: Dataset, split: str | None, classes: Sequence[str], overlap: str) -> _Scored:
    """Return the images of data that the model was not trained on.

    Raises:
        OptionError: it has no such split, or no class that the model knows.
    """
    found = dataset.splits
    if split not in (None, "all", *found):
        has = f"only {some(list(found))}" if len(found) > 1 else "it is one tree"
        raise OptionError(
            f"{dataset.name} has no {split} split of its own, {has}: leave --split out, and all "
            "its images are scored"
        )
    chosen = split or "all"
    whole = joined(found.values()) if chosen == "all" else found[chosen]
    part, unknown = _of_classes(dataset, whole, classes)
    said = f"all images of its {' and '.join(found)} folders" if len(found) > 1 else ""
    notes = (*dataset.notes, said if chosen == "all" else "", overlap, *unknown)
    return _Scored(dataset.name, chosen, part, len(whole), notes)


def _which(split: str) -> str:
    return "all images are scored" if split == "all" else f"the {split} split is scored"


def _is_same(data: str, own: str) -> bool:
    return data == own or os.path.realpath(os.path.expanduser(data)) == os.path.realpath(own)


def _is_own(config: dict[str, Any], other: Dataset) -> bool:
    """Return whether other data is a copy of what the model was trained on."""
    before = config.get("fingerprint")
    return before is not None and unchanged(before, other)


def _overlap(data: str, own: str) -> str:
    """Return a warning where images may be those of the training.

    A folder lies inside of its folder, or the other way, or the model does not say what that was.
    """
    if not own:
        return "the model does not say which images it was trained on: they may be among these"
    here, there = (Path(os.path.realpath(os.path.expanduser(path))) for path in (data, own))
    if here.is_relative_to(there) or there.is_relative_to(here):
        return f"{data} and the model's own data {own} overlap: it may have been trained on these"
    return ""


def _of_classes(
    dataset: Dataset, split: Split, classes: Sequence[str]
) -> tuple[Split, tuple[str, ...]]:
    """Return the images of classes that the model knows, with its labels, and a note on others.

    Raises:
        OptionError: the model knows no class of these images.
    """
    near = by_likeness(classes)
    names = [c if c in classes else near.get(alike(c), "") for c in dataset.classes]
    places = np.array([classes.index(name) if name else -1 for name in names])
    labels = places[split.labels]
    if (labels >= 0).all():
        return dataclasses.replace(split, labels=labels), ()
    counted = Counter(dataset.classes[i] for i in split.labels[labels < 0].tolist())
    unknown = some([f"{name} ({n:,} images)" for name, n in counted.most_common()])
    hint = did_you_mean(next(iter(counted)), classes)
    said = f"classes that the model does not know: {unknown}{hint}; it knows {some(classes)}"
    if (labels < 0).all():
        raise OptionError(f"{dataset.name} has only {said}")
    kept = np.flatnonzero(labels >= 0)
    part = dataclasses.replace(subset(split, kept), labels=labels[kept])
    return part, (f"left out {counted.total():,} images of {said}",)


def finite(value: float) -> float | None:
    """Return a number as JSON has it: none for the loss of weights that have blown up."""
    return value if math.isfinite(value) else None


def _broken(number: int) -> str:
    return f"{number} broken left out; `nas doctor --data` names them" if number else ""


def _changed(config: dict[str, Any], dataset: Dataset) -> str:
    """Return a warning where the run's own data is no longer what it was trained on."""
    if unchanged(config.get("fingerprint"), dataset):
        return ""
    return (
        "the data has changed since the training: its splits may differ, and images that were "
        "trained on may be among these"
    )


def _per_class(score: Score, classes: Sequence[str]) -> list[ClassScore]:
    """Return for each class how many of its images were told, and what most others were taken for.

    A class without images has a top-1 of None.
    """
    rows = []
    for index, name in enumerate(classes):
        row = score.confusion.row(index) if score.confusion else {}
        count, right = sum(row.values()), row.pop(index, 0)
        most = max(row, key=row.__getitem__, default=None)
        rows.append(
            ClassScore(
                name=name,
                n=count,
                top1=100 * right / count if count else None,
                confused_with=None if most is None else classes[most],
                confused=0 if most is None else row[most],
            )
        )
    return rows
