"""Which folders are the classes of a split, and whether val and test have those of train."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from nas.core.errors import OptionError
from nas.data.dataset import some
from nas.data.split_names import alike, are_numbered, are_parts, is_plain, says_class, split_name
from nas.data.walk import Tree, label_of, printable

# folders that share the names of so many folders inside are no classes
_ALIKE = 4


@dataclass(frozen=True)
class ClassFolder:
    """The images of a class of a split: those below `folder`, but for the folders of `leave`."""

    label: str
    folder: Path
    leave: frozenset[Path] = frozenset()


def class_folders(tree: Tree, place: Path) -> list[ClassFolder]:
    """Return the class folders in a folder; `leave` are those that repeat the classes inside one.

    A folder with nothing else in it is no class.
    """
    children = tree.folders(place)
    names = {label_of(path.name) for path in children}
    found = [(path, frozenset(_copies(tree, path, names))) for path in children]
    return [
        ClassFolder(label_of(path.name), path, leave)
        for path, leave in found
        if any(listing.images for _, listing in tree.walk(path, leave))
    ]


def copies(tree: Tree, place: Path) -> list[Path]:
    """Return the folders below the class folders of a place that repeat its classes."""
    names = {label_of(path.name) for path in tree.folders(place)}
    return [copy for path in tree.folders(place) for copy in _copies(tree, path, names)]


def _copies(tree: Tree, folder: Path, classes: Collection[str]) -> list[Path]:
    """Return the folders below a class folder that are named as two classes or more are."""
    found: list[Path] = []
    for place, _ in tree.walk(folder):
        same = [path for path in tree.folders(place) if label_of(path.name) in classes]
        if len(same) > 1 and not any(place.is_relative_to(path) for path in found):
            found += same
    return found


def innermost(tree: Tree, place: Path) -> Path:
    """Return the folder that holds the classes of a split: seg_train/seg_train, train/images."""
    while True:
        children = tree.folders(place)
        if len(children) != 1 or not tree.folders(children[0]):
            return place
        name, only = split_name(place.name), children[0]
        again = alike(only.name) == alike(place.name) or (name and split_name(only.name) == name)
        if not again and not is_plain(only.name):
            return place
        place = only


def check_parts(tree: Tree, place: Path, children: Sequence[Path]) -> str:
    """Check that class folders do not each hold the same folders, which would be the classes.

    Returns a warning where they do and may be classes nevertheless, else "".

    Raises:
        OptionError: they share many, or their names are those of parts.
    """
    if len(children) < 2:
        return ""
    called = [path.name for path in children]
    names = some([printable(name) for name in called])
    way = f"give one of them (--data {printable(str(children[0]))}), or rename them"
    inner = [_inner_names(tree, folder) for folder in children]
    common, most = set.intersection(*inner), max(map(len, inner))
    shared = len(common) > 1 and 2 * len(common) >= most
    what = f"{names} each hold folders of the same names ({some(sorted(common))})"
    if shared and len(common) > 0.8 * most and (len(common) >= _ALIKE or are_parts(called)):
        raise OptionError(
            f"{printable(str(place))}: {what}: parts or kinds of one data set, it seems, and no "
            f"classes; {way} train, val and test"
        )
    plain = all(is_plain(name) and not says_class(name) for name in called)
    if plain or are_numbered(called):
        raise OptionError(
            f"{printable(str(place))}: {names} are called like data or parts of it and not like "
            f"classes; {way} after what they show"
        )
    said = f"{what}: if those are the classes, give one of the folders above them as --data"
    return said if shared else ""


def _inner_names(tree: Tree, folder: Path) -> set[str]:
    """Return what the folders in a folder are called, or in the only one inside of it."""
    found = tree.folders(folder)
    while len(found) == 1 and tree.folders(found[0]):
        found = tree.folders(found[0])
    return {alike(path.name) for path in found}


def matched(
    split: Sequence[ClassFolder], train: Sequence[ClassFolder]
) -> tuple[list[ClassFolder], list[str]]:
    """Return class folders with the labels of train, and the labels that train lacks.

    Labels that differ in case, spaces, - and _ only are the same, where that is unambiguous.
    """
    exact = {one.label for one in train}
    near = by_likeness(exact)
    found, lacking = [], []
    for one in split:
        label = one.label if one.label in exact else near.get(alike(one.label), "")
        found.append(dataclasses.replace(one, label=label or one.label))
        lacking += [] if label else [one.label]
    return found, sorted(lacking)


def class_above(file: Path, classes: Collection[str]) -> str | None:
    """Return the class that an image's folder, or the one above it, is called after, if any."""
    called = (class_called(folder, classes) for folder in file.absolute().parents[:2])
    return next((name for name in called if name), None)


def class_called(folder: Path, classes: Collection[str]) -> str | None:
    """Return the class that a folder is called after, if any."""
    label = label_of(folder.name)
    return label if label in classes else by_likeness(classes).get(alike(label))


def by_likeness(classes: Collection[str]) -> dict[str, str]:
    """Return the classes by what those that differ in case, spaces, - and _ have in common.

    Those that have it in common with another are not there.
    """
    counted = Counter(map(alike, classes))
    return {alike(label): label for label in classes if counted[alike(label)] == 1}
