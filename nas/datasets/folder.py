"""A folder of class folders, with splits inside or as one tree.

    flowers/train/rose/1.jpg        flowers/rose/1.jpg
    flowers/test/rose/2.jpg         flowers/tulip/a/2.png

Split folders are train with any of val, valid, validation, dev, test and eval (in any case);
`eval` is the test split where there is no test, else the val split. Files in folders below a class
folder count for it. What is inside a file decides, not its suffix.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nas.data.dataset import SPLIT_WORDS, SPLITS, Dataset, Split, fingerprint, shards, some
from nas.data.images import SUFFIXES
from nas.errors import OptionError

_EXPECTED = "one folder per class is expected, as {0}/cat/1.jpg, or {0}/train/cat/1.jpg"


@dataclass
class _Left:
    """What was left out or deserves a word, counted by kind."""

    others: Counter[str] = field(default_factory=Counter)  # files that are no images, by suffix
    hidden: int = 0
    deeper: int = 0
    loose: int = 0  # images outside of class folders
    folders: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _File:
    label: str
    path: str  # inside the data set's folder
    size: int
    changed: int


def matches(data: str) -> bool:
    """Return whether this is a folder that does not hold parquet files."""
    return os.path.isdir(data) and not shards(Path(data))


def read(data: str, *, download: bool) -> Dataset:
    """Return the images of a folder; classes are sorted by name.

    Raises:
        OptionError: the folder cannot be read, has no class folders, or its splits have
            different classes.
    """
    root, left = Path(data).absolute(), _Left()
    folders = _splits(root, left)
    files = {name: _split_files(root, folder, left) for name, folder in folders.items()}
    files = {name: found for name, found in files.items() if found}
    if "train" not in files:
        raise OptionError(_nothing(root, folders.get("train", root), left))
    classes = tuple(sorted({file.label for file in files["train"]}))
    _check_classes(root, folders, files, classes)
    facts = [(name, file) for name, found in files.items() for file in found]
    return Dataset(
        root.resolve().name,
        classes,
        {name: _split(root, found, classes) for name, found in files.items()},
        fingerprint(facts),
        tuple(_notes(left)),
    )


def _split(root: Path, files: list[_File], classes: tuple[str, ...]) -> Split:
    label_of = {name: i for i, name in enumerate(classes)}
    labels = np.array([label_of[file.label] for file in files], dtype=np.int64)
    paths = [file.path for file in files]

    def read_file(i: int) -> bytes:
        return (root / paths[i]).read_bytes()

    return Split(labels, [_printable(path) for path in paths], read_file)


def _splits(root: Path, left: _Left) -> dict[str, Path]:
    """Return the folder of each split; the whole tree is the train split where there are none.

    Raises:
        OptionError: two folders for one split, or split folders without train.
    """
    entries = _entries(root, _Left())
    folders = {entry.name: Path(entry.path) for entry in entries if _is_dir(entry)}
    named = {name: path for name, path in folders.items() if name.lower() in SPLIT_WORDS}
    train = [path for name, path in named.items() if SPLIT_WORDS[name.lower()] == "train"]
    # a class may be called train, as may any other word be a class: what is below decides
    deep = {name for name, path in named.items() if _has_folders(path)}
    if not train or not (deep & {path.name for path in train}):
        if deep or (named and len(named) == len(folders)):
            raise OptionError(_no_train(root, sorted(named), bool(train)))
        return {"train": root}
    left.folders += sorted(set(folders) - set(named))
    left.loose += sum(_counts_as_image(e, left) for e in _entries(root, left) if not _is_dir(e))
    return _by_split(root, named, left)


def _no_train(root: Path, names: list[str], train: bool) -> str:
    if train:
        return f"{root}/train has no class folders: {_EXPECTED.format(root)}"
    return (
        f"{root} has {some(names)} but no train folder: name it train, or rename "
        f"what is a class and no split"
    )


def _by_split(root: Path, named: dict[str, Path], left: _Left) -> dict[str, Path]:
    """Return train, val and test among folders with the names of splits."""
    found: dict[str, Path] = {}
    for name in sorted(named, key=lambda name: (name.lower() == "eval", name)):
        split = SPLIT_WORDS[name.lower()]
        if split == "eval":
            split = next((s for s in ("test", "val") if s not in found), "")
            if not split:
                left.folders.append(name)
                continue
        if split in found:
            raise OptionError(
                f"{root} has both {found[split].name} and {name} for the {split} split: keep one"
            )
        found[split] = named[name]
    return {split: found[split] for split in SPLITS if split in found}


def _split_files(root: Path, folder: Path, left: _Left) -> list[_File]:
    """Return the images of a split's class folders, sorted by class and path."""
    found = []
    for entry in _entries(folder, left):
        if not _is_dir(entry):
            left.loose += _counts_as_image(entry, left)
            continue
        images = list(_class_files(root, Path(entry.path), _class_name(entry.name), left))
        if not images:
            left.empty.append(_printable(_inside(root, entry.path)))
        found += images
    return sorted(found, key=lambda file: (file.label, file.path))


def _class_files(root: Path, folder: Path, label: str, left: _Left) -> Iterator[_File]:
    """Yield the images below a class folder; a folder reached twice by links counts once."""
    seen, waiting = set(), [folder]
    while waiting:
        place = waiting.pop()
        status = place.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in _entries(place, left):
            if _is_dir(entry):
                waiting.append(Path(entry.path))
            elif _counts_as_image(entry, left):
                left.deeper += place != folder
                yield _file(root, entry, label)


def _file(root: Path, entry: os.DirEntry[str], label: str) -> _File:
    path = _inside(root, entry.path)
    try:
        status = entry.stat()
    except OSError:  # a link to nothing: counted as broken when it is read
        return _File(label, path, -1, -1)
    return _File(label, path, status.st_size, status.st_mtime_ns)


def _inside(root: Path, path: str) -> str:
    """Return the path of what was found below the root, from there; os.path.relpath is slow."""
    return path[len(str(root)) :].lstrip(os.sep)


def _entries(folder: Path, left: _Left) -> list[os.DirEntry[str]]:
    """Return what lies in a folder and is not hidden, by name.

    Raises:
        OptionError: the folder cannot be read.
    """
    try:
        found = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise OptionError(f"cannot read {folder}: {error.strerror}") from error
    shown = [e for e in found if not e.name.startswith(".") and e.name != "__MACOSX"]
    left.hidden += len(found) - len(shown)
    return shown


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_image(entry: os.DirEntry[str]) -> bool:
    """Return whether this is a file, or a link to nothing, with the suffix of an image."""
    if os.path.splitext(entry.name)[1].lower() not in SUFFIXES or _is_dir(entry):
        return False
    try:
        # opening a pipe would wait for ever
        return stat.S_ISREG(entry.stat().st_mode)
    except OSError:
        return True


def _counts_as_image(entry: os.DirEntry[str], left: _Left) -> bool:
    image = _is_image(entry)
    if not image:
        left.others[os.path.splitext(entry.name)[1].lower() or "no suffix"] += 1
    return image


def _has_folders(folder: Path) -> bool:
    return any(_is_dir(entry) for entry in _entries(folder, _Left()))


def _class_name(name: str) -> str:
    # a folder copied from a Mac has its accents apart
    return unicodedata.normalize("NFC", _printable(name))


def _printable(name: str) -> str:
    """Return a file name that is text, whatever bytes it has."""
    return os.fsencode(name).decode(errors="replace")


def _check_classes(
    root: Path,
    folders: dict[str, Path],
    files: dict[str, list[_File]],
    classes: tuple[str, ...],
) -> None:
    """Check that val and test have no class that train lacks, and that there are two.

    Raises:
        OptionError: see above; the message names the folders.
    """
    for name, found in files.items():
        if extra := sorted({file.label for file in found} - set(classes)):
            raise OptionError(
                f"{folders[name]} has classes that {folders['train'].name} lacks: {some(extra)}; "
                f"rename or remove them, or add them to {folders['train']}"
            )
    if len(classes) < 2:
        below = folders["train"] / classes[0]
        inner = f"; for what is inside of it give {below}" if _has_folders(below) else ""
        raise OptionError(
            f"{folders['train']} has one class with images ({classes[0]}), and there is nothing "
            f"to tell it from: {_EXPECTED.format(root)}{inner}"
        )


def _nothing(root: Path, train: Path, left: _Left) -> str:
    if left.loose:
        return f"{train} holds {left.loose:,} images but no class folders: " + _EXPECTED.format(
            root
        )
    what = some([f"{n:,} {suffix}" for suffix, n in left.others.most_common()])
    held = f"no images, only {what}" if what else "no images"
    return f"{train} holds {held}: {_EXPECTED.format(root)} ({' '.join(SUFFIXES)})"


def _notes(left: _Left) -> Iterator[str]:
    if left.others:
        kinds = some([f"{n:,} {suffix}" for suffix, n in left.others.most_common()])
        yield f"left out {left.others.total():,} files that are no images ({kinds})"
    if left.hidden:
        yield f"left out {left.hidden:,} hidden files or folders"
    if left.loose:
        yield f"left out {left.loose:,} images outside of class folders: they have no label"
    if left.folders:
        yield f"left out folders beside the splits: {some(left.folders)}"
    if left.empty:
        yield f"left out class folders without images: {some(left.empty)}"
    if left.deeper:
        yield f"{left.deeper:,} images lie deeper than their class folder and count for it"
