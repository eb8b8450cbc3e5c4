"""Which images are trained on, which are validated on, and which are kept for the final number.

A search sees train and val only. What the source lacks is carved out of its train split: of each
class the same share (stratified), chosen by a hash of seed and image name, so that the split is
the same on every machine and one more image moves no other.
"""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import itertools
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from nas.core.errors import OptionError
from nas.data.dataset import Dataset, Index, Split, some, subset
from nas.data.depth import with_decoding
from nas.data.identity import fingerprint

TEST_SHARE = 0.2
# 10 % of a small split would be too few images to tell two archs apart
VAL_SHARE, SMALL_VAL_SHARE, SMALL = 0.1, 0.2, 5000


def make_splits(dataset: Dataset, *, seed: int = 0) -> Dataset:
    """Return the data set with exactly train, val and test, and notes on where they are from.

    The source's own test split stays the test split; with a val split only, that is kept as the
    test split. Of a class with n > 1 training images at least one is held out and one stays; a
    class with one stays in train. How images are decoded is measured on train (`nas.data.depth`).

    Raises:
        OptionError: too few images for a split to have any.
    """
    given, notes = dict(dataset.splits), []
    if {"train", "val", "test"} <= set(given):
        notes.append(f"train, val and test as the source has them ({_sizes(given)})")
    elif "test" in given:
        notes.append("test: the source's own")
    elif "val" in given:
        given["test"] = given.pop("val")
        notes.append("test: the source's val split, kept for the final number")
    else:
        note = _hold_out(given, "test", TEST_SHARE, dataset, seed)
        notes.append(note)
    if "val" not in given:
        share = SMALL_VAL_SHARE if len(given["train"]) < SMALL else VAL_SHARE
        notes.append(_hold_out(given, "val", share, dataset, seed))
    splits = {name: given[name] for name in ("train", "val", "test")}
    for name, split in splits.items():
        if not len(split):
            raise OptionError(f"{dataset.name}: split {name} holds no images")
    return with_decoding(
        dataclasses.replace(dataset, splits=splits, notes=(*dataset.notes, *notes))
    )


def fraction(split: Split, share: float, seed: int) -> Split:
    """Return this share of a split, of each class alike and at least one image.

    Of the same seed a smaller share is part of a larger one.

    Raises:
        OptionError: the share is not in 0..1.
    """
    if not 0 < share <= 1:
        raise OptionError(f"the fraction of the data must be above 0 and at most 1, not {share}")
    if share == 1:
        return split
    taken = [of_class[: max(1, _part(len(of_class), share))] for of_class in _ranked(split, seed)]
    return subset(split, _together(taken))


def joined(parts: Iterable[Split]) -> Split:
    """Return the images of several splits, one after the other."""
    splits = list(parts)
    starts = [0, *itertools.accumulate(map(len, splits))]

    def read(i: int) -> bytes | npt.NDArray[np.uint8]:
        place = bisect.bisect_right(starts, i) - 1
        return splits[place].read(i - starts[place])

    known = [split.fingerprint for split in splits]
    return Split(
        np.concatenate([split.labels for split in splits]),
        [name for split in splits for name in split.names],
        read,
        fingerprint(known) if all(known) else "",
        splits[0].decoding,
    )


def _hold_out(given: dict[str, Split], name: str, share: float, data: Dataset, seed: int) -> str:
    """Move this share of given["train"] to given[name]; return a note that says so."""
    train = given["train"]
    held = _together([c[: _held(len(c), share)] for c in _ranked(train, seed)])
    if not len(held):
        raise OptionError(
            f"{data.name}: no class has two images, so none can be held out for {name}; "
            "at least 3 images a class are needed, some hundred are sensible"
        )
    kept = np.setdiff1d(np.arange(len(train)), held)
    given[name], given["train"] = subset(train, held), subset(train, kept)
    without = np.setdiff1d(train.labels, given[name].labels)
    lacking = f", none of {some([data.classes[i] for i in without])}" if len(without) else ""
    return (
        f"{name}: {len(held):,} of {len(train):,} training images held out "
        f"({share:.0%} of each class, seed {seed}){lacking}"
    )


def _held(images: int, share: float) -> int:
    """Return how many images of a class are held out."""
    return max(1, _part(images, share)) if images > 1 else 0


def _part(images: int, share: float) -> int:
    return int(images * share + 0.5)


def _ranked(split: Split, seed: int) -> list[Index]:
    """Return for each class that has any its positions, in an order of the seed's."""
    ranks = [
        hashlib.blake2b(f"{seed}:{name}".encode(errors="surrogateescape"), digest_size=8).digest()
        for name in split.names
    ]
    order = np.argsort(np.array(ranks, dtype="S8"), kind="stable")
    labels = split.labels[order]
    return [order[labels == label] for label in np.unique(labels)]


def _together(parts: list[Index]) -> Index:
    """Return positions in the source's order."""
    return np.sort(np.concatenate([np.zeros(0, np.int64), *parts]))


def _sizes(splits: dict[str, Split]) -> str:
    return ", ".join(f"{len(split):,}" for split in splits.values())
