"""What the names of folders say: which split they hold, and whether they name parts or masks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from nas.data.dataset import SPLIT_WORDS

_WORDS = {
    **SPLIT_WORDS,
    **dict.fromkeys(("trn", "trainset", "trainingset", "traindata"), "train"),
    **dict.fromkeys(("vali", "valset", "validset", "validationset", "devset", "dev"), "val"),
    **dict.fromkeys(("tst", "testset", "testingset", "testdata", "holdout", "heldout"), "test"),
    **dict.fromkeys(("evaluation", "evalset"), "eval"),
}
_WORD = re.compile(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+(?![^\W\d_A-Z])|\d+")
# words that say nothing of what is in a folder
_PLAIN = frozenset(
    (
        *("set", "sets", "data", "dataset", "datasets", "image", "images", "img", "imgs"),
        *("pic", "pics", "picture", "pictures", "photo", "photos", "file", "files"),
        *("jpg", "jpeg", "png", "folder", "folders", "split", "splits", "class", "classes"),
        *("master", "main", "archive", "the", "of", "for", "and", "out"),
    )
)
_MASKS = frozenset(
    (
        *("mask", "masks", "segmentation", "segmentations", "annotation", "annotations"),
        *("label", "labels", "gt", "groundtruth", "trimap", "trimaps", "bbox", "bboxes"),
    )
)
_PARTS = frozenset(
    (
        *("fold", "part", "batch", "chunk", "subset", "set", "split", "version", "original"),
        *("augmented", "augmentation", "aug", "raw", "processed", "preprocessed", "resized"),
        *("cropped", "color", "colour", "grayscale", "greyscale", "gray", "grey", "rgb"),
        *("segmented", "domain", "session", "copy", "backup", "old", "new"),
    )
)
_COUNTED = frozenset(("part", "fold", "batch", "chunk", "set", "split", "subset", "session"))
_UNLABELLED = frozenset(
    (
        *("pred", "predict", "prediction", "predictions", "unlabeled", "unlabelled"),
        *("inference", "unknown"),
    )
)


class SplitName(NamedTuple):
    """A split's kind (train, val, test, eval), and the words of the name that are left over."""

    split: str
    rest: tuple[str, ...]

    @property
    def exact(self) -> bool:
        """Return whether the name says no more than the split: training_set, Test Images."""
        return not self.rest


def split_name(name: str) -> SplitName | None:
    """Return the split that a folder's name speaks of, or None: seg_train is train of seg."""
    words = _words(name)
    if "".join(words) in ("holdout", "heldout", "holdoutset"):
        return SplitName("test", ())
    kinds = [_WORDS[word] for word in words if word in _WORDS]
    if len(kinds) != 1:
        return None
    rest = (w for w in words if w not in _WORDS and w not in _PLAIN and not w.isdigit())
    return SplitName(kinds[0], tuple(rest))


def without_split(name: str) -> str:
    """Return what a folder's name says beside the split: cat of cat_train."""
    words = [word for word in re.findall(_WORD, name) if word.lower() in _WORDS]
    return re.sub(rf"[\s_.-]*{re.escape(words[0])}[\s_.-]*", " ", name).strip() if words else name


def is_plain(name: str) -> bool:
    """Return whether a folder's name says nothing of its content: images, data, dataset_2."""
    words = _words(name)
    return bool(words) and all(w in _PLAIN or w.isdigit() for w in words) and not name.isdigit()


def are_masks(name: str) -> bool:
    """Return whether a folder's name speaks of masks or annotations."""
    return bool(_MASKS & set(_words(name)))


def are_parts(names: Iterable[str]) -> bool:
    """Return whether all names speak of parts or kinds of a data set: fold_1, augmented."""
    return all(_PARTS & set(_words(name)) or split_name(name) for name in names)


def says_class(name: str) -> bool:
    """Return whether a folder calls itself a class: class 0, class_b."""
    return bool({"class", "classes"} & set(_words(name)))


def are_numbered(names: Sequence[str]) -> bool:
    """Return whether names count the parts of one thing: images_part_1, images_part_2."""
    bare = {re.sub(r"\d+", "", name) for name in names}
    return len(bare) == 1 < len(names) and bool(_COUNTED & set(_words(next(iter(bare)))))


def has_no_labels(name: str) -> bool:
    """Return whether a folder's name speaks of images without labels: seg_pred, unlabeled."""
    return bool(_UNLABELLED & set(_words(name)))


def alike(name: str) -> str:
    """Return what names that differ in case, spaces, - and _ only have in common."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _words(name: str) -> list[str]:
    """Return the words of a name in lower case: TrainingData2 is training, data, 2."""
    return [word.lower() for word in re.findall(_WORD, name)]
