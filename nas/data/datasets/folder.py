"""A folder of class folders, with splits inside or as one tree.

    flowers/train/rose/1.jpg        flowers/rose/1.jpg
    flowers/test/rose/2.jpg         flowers/tulip/a/2.png

Split folders are train with any of val, valid, validation, dev, test, holdout and eval, in any case
and with words around (seg_train, training_set, Test Images); `eval` is the test split where there
is no test, else the val split. Files in folders below a class folder count for it. What is inside a
file decides, not its suffix. `nas.data.layout` tells which folders are what.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nas.core.errors import OptionError
from nas.data.class_folders import ClassFolder, class_called
from nas.data.dataset import Dataset, Split, some
from nas.data.identity import File, fingerprint, of_files
from nas.data.layout import EXPECTED, Layout, find_layout, no_classes
from nas.data.shards import shards
from nas.data.split_names import is_plain
from nas.data.walk import Listing, Tree, printable


@dataclass(frozen=True)
class _File:
    """An image. Runs of earlier versions have noted a hash of its repr: fields stay as they are."""

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
    tree = Tree(Path(data).absolute())
    layout = find_layout(tree)
    files = _files(tree, layout)
    if "train" not in files:
        raise OptionError(no_classes(tree, layout.places.get("train", tree.root), tree.root))
    classes = tuple(sorted({file.label for file in files["train"]}))
    if len(classes) < 2:
        raise OptionError(_one_class(tree, layout.splits["train"][0]))
    return _dataset(tree, layout, files, classes)


def read_labelled(data: str, classes: Sequence[str]) -> Dataset:
    """Return all images of a folder that have labels, to be scored by a net of these classes.

    There need be no train split, nor all classes; other classes than these may come. A folder
    without class folders is a class where it is called like one.

    Raises:
        OptionError: the folder cannot be read, or its images have no labels.
    """
    tree = Tree(Path(data).absolute())
    layout = find_layout(tree, known=classes)
    if not any(layout.splits.values()) and (alone := class_called(tree.root, classes)):
        layout.notes.append(f"all images are of class {alone}, as the folder is called")
        layout.above, layout.splits = [], {"train": [ClassFolder(alone, tree.root)]}
    files = _files(tree, layout)
    if not files:
        why = no_classes(tree, layout.places.get("train", tree.root), tree.root)
        raise OptionError(f"{why}; images without labels are for nas predict")
    found = sorted({file.label for several in files.values() for file in several})
    return _dataset(tree, layout, files, tuple(found))


def _dataset(
    tree: Tree, layout: Layout, files: dict[str, list[_File]], classes: tuple[str, ...]
) -> Dataset:
    facts = [(name, file) for name, found in files.items() for file in found]
    return Dataset(
        tree.root.resolve().name,
        classes,
        {name: _split(tree.root, found, classes) for name, found in files.items()},
        of_files(
            File(tree.root / file.path, (name, file.label, file.path)) for name, file in facts
        ),
        (*layout.warnings, *layout.notes, *_notes(tree, layout)),
        tuple(layout.warnings),
        fingerprint(facts),
    )


def _split(root: Path, files: list[_File], classes: tuple[str, ...]) -> Split:
    label_of = {name: i for i, name in enumerate(classes)}
    labels = np.array([label_of[file.label] for file in files], dtype=np.int64)
    paths = [file.path for file in files]

    def read_file(i: int) -> bytes:
        return (root / paths[i]).read_bytes()

    return Split(labels, [printable(path) for path in paths], read_file)


def _files(tree: Tree, layout: Layout) -> dict[str, list[_File]]:
    """Return the images of each split that has any, sorted by class and path."""
    found = {
        name: [file for folder in folders for file in _class_files(tree, folder)]
        for name, folders in layout.splits.items()
    }
    return {
        name: sorted(files, key=lambda file: (file.label, file.path))
        for name, files in found.items()
        if files
    }


def _class_files(tree: Tree, found: ClassFolder) -> Iterator[_File]:
    for _, listing in tree.walk(found.folder, found.leave):
        for image in listing.images:
            yield _file(tree.root, image, found.label)


def _file(root: Path, entry: os.DirEntry[str], label: str) -> _File:
    path = entry.path[len(str(root)) :].lstrip(os.sep)  # os.path.relpath is slow
    try:
        status = entry.stat()
    except OSError:  # a link to nothing: counted as broken when it is read
        return _File(label, path, -1, -1)
    return _File(label, path, status.st_size, status.st_mtime_ns)


def _one_class(tree: Tree, only: ClassFolder) -> str:
    if is_plain(only.folder.name):
        return no_classes(tree, only.folder.parent, tree.root)
    deeper = [printable(path.name) for path in tree.folders(only.folder)]
    inner = (
        f"; for what is inside of it ({some(deeper)}) give {printable(str(only.folder))}"
        if len(deeper) > 1
        else ""
    )
    return (
        f"{printable(str(only.folder.parent))} has one class with images ({only.label}), and there "
        f"is nothing to tell it from: {EXPECTED.format(printable(str(tree.root)))}{inner}"
    )


def _notes(tree: Tree, layout: Layout) -> Iterator[str]:
    """Yield what was left out or deserves a word, counted by kind."""
    above = {place: tree.listing(place) for place in layout.above}
    classes = [folder for folders in layout.splits.values() for folder in folders]
    below = {
        place: (listing, place != found.folder)
        for found in classes
        for place, listing in tree.walk(found.folder, found.leave)
    }
    visited = {**above, **{place: listing for place, (listing, _) in below.items()}}
    empty = _empty(tree, layout)
    for place in empty:
        visited |= dict(tree.walk(place))
    yield from _left_out(tree, visited)
    if loose := sum(len(listing.images) for listing in above.values()):
        yield f"left out {loose:,} images outside of class folders: they have no label"
    runless = [path for path in empty if not any(x.runs for _, x in tree.walk(path))]
    if runless:
        yield f"left out class folders without images: {some(_inside(tree, runless))}"
    if deeper := sum(len(listing.images) for listing, deep in below.values() if deep):
        yield f"{deeper:,} images lie deeper than their class folder and count for it"


def _left_out(tree: Tree, visited: dict[Path, Listing]) -> Iterator[str]:
    others = sum((listing.others for listing in visited.values()), Counter[str]())
    if others:
        kinds = some([f"{n:,} {suffix}" for suffix, n in others.most_common()])
        yield f"left out {others.total():,} files that are no images ({kinds})"
    if hidden := sum(listing.hidden for listing in visited.values()):
        yield f"left out {hidden:,} hidden files or folders"
    if system := [path for listing in visited.values() for path in listing.system]:
        yield f"left out folders of the system or of other programs: {some(_inside(tree, system))}"
    if runs := [path for listing in visited.values() for path in listing.runs]:
        yield f"left out runs, which are no data: {some(_inside(tree, runs))}"
    if loops := [path for place in visited for path in tree.loops(place)]:
        yield f"left out links to a folder above them: {some(_inside(tree, loops))}"


def _empty(tree: Tree, layout: Layout) -> list[Path]:
    """Return the folders beside the class folders, and in a single tree all, without an image."""
    found = []
    for place in layout.places.values():
        found += [path for path in tree.listing(place).folders if not tree.holds_images(path)]
    return sorted(set(found))


def _inside(tree: Tree, paths: Sequence[Path]) -> list[str]:
    return sorted(printable(str(path.relative_to(tree.root))) for path in paths)
