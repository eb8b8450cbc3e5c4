"""A data set as it lies: labelled images, not decoded yet, in the splits that the source has."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from nas.core import registry
from nas.core.errors import OptionError, did_you_mean
from nas.data import identity
from nas.data.identity import fingerprint
from nas.data.images import PLAIN, Decoding

SPLITS = ("train", "val", "test")
SMALL = 64  # pixels a side up to which a space with fewer strides fits better
# what sources call them; `eval` is the test split where no other is, else the val split
SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "eval": "eval",
}

Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Labelled images of one split.

    `labels` (N,) int64. `names` says what a message calls image i: its path inside the data, or
    "x.parquet row 17"; names are told apart by it when a split is carved. `read(i)` returns an
    encoded file as bytes, or a uint8 array (H, W) or (H, W, 3); it may raise OSError. It must work
    in another thread. `fingerprint` changes when these images do; "" means that it is not known,
    and nothing is cached. `decoding`: how what is read becomes RGB.
    """

    labels: Index
    names: Sequence[str]
    read: Callable[[int], bytes | npt.NDArray[np.uint8]]
    fingerprint: str = ""
    decoding: Decoding = PLAIN

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """A data set: `splits` has "train" always, "val" and "test" where the source has them.

    `fingerprint` is what the data is, by its content (`nas.data.identity`); of a user's reader it
    may be "". `former_fingerprint`: what runs of before content was looked at have of this data, by
    names, sizes and times. `notes`: one line for each thing that was understood or left out;
    `warnings`: those of them that may mean a mistake.
    """

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    fingerprint: str
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    former_fingerprint: str = ""


class Asked(Protocol):
    """Settings that name data."""

    @property
    def data(self) -> str | None: ...
    @property
    def image_column(self) -> str | None: ...
    @property
    def label_column(self) -> str | None: ...
    @property
    def download(self) -> bool: ...


def open_asked(chosen: Asked) -> Dataset:
    """Return the data set that settings name, as `open_dataset` does."""
    return open_dataset(
        chosen.data or "",
        download=chosen.download,
        image_column=chosen.image_column,
        label_column=chosen.label_column,
    )


def open_dataset(
    data: str,
    *,
    download: bool = False,
    image_column: str | None = None,
    label_column: str | None = None,
) -> Dataset:
    """Return the data set of a path or a name: the first part of nas/data/datasets that knows it.

    A file or folder of that name comes before the name of a data set. A path to a .py file is a
    part of the user's own: its `read(data, *, download)` returns the Dataset. The columns are of
    parts that have such (COLUMNS).

    Raises:
        OptionError: nothing knows it, or it holds no usable images; the message says what to do.
        MissingError: a package that reads it is not installed.
        NasError: a download failed.
    """
    data = os.path.expanduser(data)
    asked = {"image_column": image_column, "label_column": label_column}
    columns = {name: column for name, column in asked.items() if column}
    if data.endswith(".py"):
        _check_columns(data, data, columns)
        return _of_user(data, download, columns)
    for name in registry.names("datasets"):
        if registry.export("datasets", name, "matches")(data):
            _check_columns(name, data, columns)
            read = registry.export("datasets", name, "read")
            return _with_splits_identified(settle(read(data, download=download, **columns)))
    raise OptionError(_unknown(data))


def open_labelled(
    data: str, classes: Sequence[str], *, download: bool = False, **columns: str | None
) -> Dataset:
    """Return images that a net of these classes is to be scored on: there need be no train split.

    Nor need there be all classes, and there may be others.

    Raises:
        OptionError, MissingError, NasError: as `open_dataset`.
    """
    path = os.path.expanduser(data)
    for name in () if path.endswith(".py") else registry.names("datasets"):
        part = registry.load("datasets", name)
        if hasattr(part, "read_labelled") and part.matches(path):
            _check_columns(name, data, {key: word for key, word in columns.items() if word})
            return _with_splits_identified(part.read_labelled(path, classes))
    return open_dataset(data, download=download, **columns)


def _check_columns(part: str, data: str, columns: Mapping[str, str]) -> None:
    """Check that columns are named of data that has such.

    Raises:
        OptionError: they are not.
    """
    if columns and not getattr(registry.load("datasets", part), "COLUMNS", False):
        flag = next(iter(columns)).replace("_", "-")
        raise OptionError(f"--{flag} names a column of a parquet file, and {data} is none")


def _with_splits_identified(dataset: Dataset) -> Dataset:
    splits = {
        name: dataclasses.replace(
            split, fingerprint=split.fingerprint or fingerprint([dataset.fingerprint, name])
        )
        for name, split in dataset.splits.items()
    }
    return dataclasses.replace(dataset, splits=splits)


def _of_user(path: str, download: bool, columns: Mapping[str, str]) -> Dataset:
    read = registry.export("datasets", path, "read")
    with registry.guard(f"read of {path} gave no Dataset"):
        found = read(path, download=download, **columns)
        return settle(_identified(found, Path(path).read_bytes()))


def _identified(dataset: Dataset, code: bytes) -> Dataset:
    """Return the data set of a user's reader with an identity that no other reader shares.

    The reader's own fingerprint is trusted; without one its images are read for it, and a split of
    more than are read is not cached.
    """
    parts, splits = {}, {}
    for name, split in dataset.splits.items():
        known = split.fingerprint or dataset.fingerprint
        images = known or identity.of_images(split.read, len(split))
        parts[name] = identity.combined(images, list(split.names), split.labels.tolist())
        cached = known or len(split) <= identity.SAMPLED
        key = fingerprint([name, parts[name], code if known else b""]) if cached else ""
        splits[name] = dataclasses.replace(split, fingerprint=key)
    own, former = identity.combined(dataset.classes, parts), dataset.fingerprint
    return dataclasses.replace(dataset, splits=splits, fingerprint=own, former_fingerprint=former)


def _unknown(data: str) -> str:
    wanted = (
        "give a folder of class folders, a parquet file or a folder of them, digits, or the name "
        "of a torchvision data set such as cifar10 or flowers102"
    )
    if os.path.lexists(data):
        return f"--data {data} is a file of no known kind (an archive must be unpacked): {wanted}"
    names = registry.names("datasets")
    known = [
        word for name in names for word in getattr(registry.load("datasets", name), "NAMES", ())
    ]
    return f"no data {data!r}{did_you_mean(data, known)}: {wanted}"


def settle(dataset: Dataset) -> Dataset:
    """Return the data set checked, and noted where it is thin.

    Raises:
        OptionError: no train split, an empty one, fewer than two classes with images in it, or
            labels that are no class; the message names the split.
    """
    train = dataset.splits.get("train")
    if train is None or not len(train):
        raise OptionError(f"{dataset.name} has no images to train on: a train split is needed")
    counts = {name: _counts(dataset, name) for name in dataset.splits}
    if (used := np.count_nonzero(counts["train"])) < 2:
        only = dataset.classes[int(np.argmax(counts["train"]))]
        raise OptionError(
            f"{dataset.name} has {used} class with training images ({only}): "
            "at least two are needed to tell apart"
        )
    notes = (*dataset.notes, *_thin(dataset.classes, counts))
    return dataclasses.replace(dataset, notes=notes)


def _counts(dataset: Dataset, name: str) -> Index:
    """Return the images per class of a split."""
    split, classes = dataset.splits[name], len(dataset.classes)
    if len(split.names) != len(split.labels):
        raise OptionError(
            f"{dataset.name}: split {name} has {len(split.names)} names for "
            f"{len(split.labels)} labels"
        )
    if len(split) and not (split.labels.min() >= 0 and split.labels.max() < classes):
        raise OptionError(
            f"{dataset.name}: labels of split {name} are {split.labels.min()}.."
            f"{split.labels.max()}, but there are {classes} classes (0..{classes - 1})"
        )
    return np.bincount(split.labels, minlength=classes).astype(np.int64)


def _thin(classes: tuple[str, ...], counts: Mapping[str, Index]) -> list[str]:
    """Return notes on classes with one image or none."""
    notes = []
    if lone := [classes[i] for i in np.flatnonzero(counts["train"] == 1)]:
        notes.append(f"one training image only: {some(lone)}")
    for name, found in counts.items():
        if missing := [classes[i] for i in np.flatnonzero(found == 0)]:
            notes.append(f"no image in {name}: {some(missing)}")
    return notes


def some(words: Sequence[str], most: int = 5) -> str:
    """Return the first words, comma-separated, and how many more there are."""
    more = f" and {len(words) - most:,} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def subset(split: Split, index: Index) -> Split:
    """Return the images of a split at these positions, in this order."""
    known = split.fingerprint
    return Split(
        split.labels[index],
        [split.names[i] for i in index],
        lambda i: split.read(int(index[i])),
        fingerprint([known, index.tobytes().hex()]) if known else "",
        split.decoding,
    )
