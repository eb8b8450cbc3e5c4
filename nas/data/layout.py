"""How the images of a folder are laid out: which folders are splits, which are classes.

Names and structure decide together. What is unambiguous is read and said in a note, what is not is
refused with a way out.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nas.core.errors import OptionError
from nas.data.class_folders import (
    ClassFolder,
    check_parts,
    class_folders,
    copies,
    innermost,
    matched,
)
from nas.data.dataset import SPLITS, some
from nas.data.images import SUFFIXES
from nas.data.split_names import (
    SplitName,
    alike,
    are_masks,
    has_no_labels,
    is_plain,
    split_name,
    without_split,
)
from nas.data.walk import Tree, label_of, printable

EXPECTED = "one folder per class is expected, as {0}/cat/1.jpg, or {0}/train/cat/1.jpg"

Splits = dict[str, list[ClassFolder]]


@dataclass
class Layout:
    """`splits`: the class folders of each; `places`: the folder that each split was found in.

    `above`: folders that hold folders and whose own images belong to no class. `warnings`: those
    of the notes that may mean a mistake.
    """

    splits: Splits = field(default_factory=dict)
    places: dict[str, Path] = field(default_factory=dict)
    above: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def find_layout(tree: Tree, known: Sequence[str] | None = None) -> Layout:
    """Return the layout of a tree's root.

    With the `known` classes of a trained model the images are there to be scored: there need be no
    train split, and a single class will do.

    Raises:
        OptionError: folders that look like splits or parts and cannot be told apart; splits without
            train; classes that train lacks.
    """
    layout, scored = Layout(), known is not None
    place = _unwrapped(tree, frozenset(map(alike, known or ())), layout)
    children = tree.folders(place)
    if found := _class_and_split(tree, children):
        layout.notes.append(f"split and class are read from the names: {_some(children)}")
        layout.splits = found
    elif found := _splits_in_classes(tree, children):
        layout.notes.append(f"splits are read inside of each class: {_some(children)}")
        layout.splits, layout.above = found, [*layout.above, *children]
    elif folders := _split_folders(tree, place, children, layout, scored=scored):
        layout.places = {split: innermost(tree, path) for split, path in folders.items()}
        layout.above += [path for split in folders for path in _way(folders, layout.places, split)]
    else:
        layout.places = {"train": place}
        if warning := check_parts(tree, place, children):
            layout.warnings.append(warning)
    for split, folder in layout.places.items():
        layout.splits[split] = _classes(tree, folder, layout)
    if not scored:
        _check_labels(tree, place, layout)
    return layout


def _way(folders: Mapping[str, Path], places: Mapping[str, Path], split: str) -> list[Path]:
    """Return the folders from a split's own to the one above that which holds its classes."""
    place, way = places[split], []
    while place != folders[split]:
        place = place.parent
        way.append(place)
    return way


def _unwrapped(tree: Tree, known: Collection[str], layout: Layout) -> Path:
    """Return the folder inside wrappers such as data/data or dataset/images.

    A wrapper is the only folder with images, or, among folders without classes, the one of a plain
    name such as images; it has folders with images itself.
    """
    place = tree.root
    while inner := _wrapped(tree, place, known):
        if beside := [path for path in tree.folders(place) if path != inner]:
            layout.notes.append(f"left out what lies beside {inner.name}: {_some(beside)}")
        layout.above.append(place)
        place = inner
    if place != tree.root:
        layout.notes.append(f"read from {_inside(tree, place)}")
    return place


def _wrapped(tree: Tree, place: Path, known: Collection[str]) -> Path | None:
    children = tree.folders(place)
    deep = [path for path in children if tree.folders(path) and alike(path.name) not in known]
    if len(children) == 1:
        return next((path for path in deep if not _is_split(path)), None)
    if any(_is_split(path) for path in children):
        return None
    content = [path for path in children if not are_masks(path.name)]
    if len(content) == 1 and content[0] in deep:
        return content[0]
    plain = [path for path in deep if is_plain(path.name) and len(tree.folders(path)) > 1]
    others = [path for path in deep if path not in plain and not are_masks(path.name)]
    return plain[0] if len(plain) == 1 and not others else None


def _is_split(folder: Path) -> bool:
    return bool(_kind(folder))


def _class_and_split(tree: Tree, children: Sequence[Path]) -> Splits | None:
    """Return the splits where each folder is one class of one split: cat_train, dog_test."""
    found: Splits = defaultdict(list)
    for path in children:
        name = split_name(path.name)
        if name is None or name.exact or tree.folders(path):
            return None
        found[name.split].append(ClassFolder(label_of(without_split(path.name)), path))
    labels = {split: [one.label for one in folders] for split, folders in found.items()}
    train = set(labels.get("train", ()))
    sound = all(len(set(ones)) == len(ones) and train >= set(ones) for ones in labels.values())
    return _in_order(found) if sound and len(train) > 1 and len(labels) > 1 else None


def _splits_in_classes(tree: Tree, children: Sequence[Path]) -> Splits | None:
    """Return the splits where each class has folders of its own for them: cat/train, cat/test."""
    found: Splits = defaultdict(list)
    for path in children:
        inner = {folder: split_name(folder.name) for folder in tree.folders(path)}
        kinds = [name.split for name in inner.values() if name and name.exact]
        if split_name(path.name) or "train" not in kinds or len(kinds) != len(inner):
            return None
        if len(set(kinds)) < len(kinds) or any(map(tree.folders, inner)):
            return None
        for kind, folder in zip(kinds, inner, strict=True):
            found[kind].append(ClassFolder(label_of(path.name), folder))
    return _in_order(found) if len(children) > 1 and len(found) > 1 else None


def _in_order(found: Splits) -> Splits:
    """Return train, val and test in this order; eval takes the place of one that is not there."""
    splits = dict(found)
    if "eval" in splits:
        spare = "test" if "test" not in splits else "val"
        splits.setdefault(spare, splits.pop("eval"))
    return {split: splits[split] for split in SPLITS if split in splits}


def _split_folders(
    tree: Tree, place: Path, children: Sequence[Path], layout: Layout, *, scored: bool
) -> dict[str, Path]:
    """Return the folder of each split among the children of a folder; {} where they are no splits.

    Raises:
        OptionError: two folders for one split, or split folders without train.
    """
    named = _named(tree, children)
    train = [path for path, name in named.items() if name.split == "train"]
    # a class may be called train, as may any other word be a class: what is below decides
    deep = [path for path in named if tree.folders(path)]
    if not (deep if scored else set(train) & set(deep)):
        if deep or (named and len(named) == len(children) and not scored):
            raise OptionError(_no_train(tree, place, list(named), train))
        return {}
    found = _by_split(place, named, deep, layout)
    beside = [path for path in children if path not in found.values()]
    if plain := [path for path in beside if not has_no_labels(path.name)]:
        layout.notes.append(f"left out folders beside the splits: {_some(plain)}")
    layout.notes += [_unlabelled(tree, path, ()) for path in beside if path not in plain]
    layout.above.append(place)
    return found


def _named(tree: Tree, children: Sequence[Path]) -> dict[Path, SplitName]:
    """Return the folders whose names are those of splits: exactly, or with the same words around.

    The same words, as in seg_train and seg_test, must name train and another split; those that
    hold folders share the names of some.
    """
    parsed = {path: name for path in children if (name := split_name(path.name))}
    found = {path: name for path, name in parsed.items() if name.exact}
    families: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for path, name in parsed.items():
        families[name.rest].append(path)
    for rest, family in families.items():
        splits = {parsed[path].split for path in family}
        others = [path for path in children if path not in family]
        lone = all(has_no_labels(path.name) for path in others)
        if rest and "train" in splits and (len(splits) > 1 or lone) and _alike(tree, family):
            found |= {path: parsed[path] for path in family}
    return found


def _alike(tree: Tree, family: Sequence[Path]) -> bool:
    """Return whether the folders that hold folders share the names of some."""
    deep = [innermost(tree, path) for path in family if tree.folders(path)]
    inner = [[path.name for path in tree.folders(place)] for place in deep]
    # test/test holds images without labels
    names = [set(map(alike, each)) for each in inner if len(each) > 1 or not _says_nothing(each[0])]
    return bool(names) and bool(set.intersection(*names))


def _by_split(
    place: Path, named: Mapping[Path, SplitName], deep: Collection[Path], layout: Layout
) -> dict[str, Path]:
    """Return train, val and test among folders with the names of splits.

    Of two for one split the one is taken that alone holds folders, or is called so exactly.

    Raises:
        OptionError: neither tells them apart.
    """
    by_kind: dict[str, list[Path]] = defaultdict(list)
    for path, name in named.items():
        by_kind[name.split].append(path)
    found = {}
    for split, paths in by_kind.items():
        paths = [path for path in paths if path in deep] or paths
        paths = [path for path in paths if named[path].exact] or paths
        if len(paths) > 1:
            raise OptionError(
                f"{printable(str(place))} has both {printable(paths[0].name)} and "
                f"{printable(paths[1].name)} for the {split} split: keep one"
            )
        found[split] = paths[0]
    if "eval" in found:
        path = found.pop("eval")
        spare = next((split for split in ("test", "val") if split not in found), None)
        found |= {spare: path} if spare else {}
    found = {split: found[split] for split in SPLITS if split in found}
    odd = [f"{s} is {printable(p.name)}" for s, p in found.items() if not _plainly(p.name, s)]
    if odd:
        layout.notes.append(f"splits by the names of their folders: {', '.join(odd)}")
    return found


def _plainly(name: str, split: str) -> bool:
    """Return whether a folder's name is the split's, or its word written out or short."""
    return name.lower() in (split, f"{split}ing", "valid", "validation")


def _no_train(tree: Tree, place: Path, named: Sequence[Path], train: Sequence[Path]) -> str:
    empty = [path for path in tree.listing(place).folders if _kind(path) == "train"]
    if train or empty:
        return no_classes(tree, (*train, *empty)[0], place)
    return (
        f"{printable(str(place))} has {_some(named)} but no train folder: name it train, or "
        f"rename what is a class and no split"
    )


def _kind(folder: Path) -> str:
    name = split_name(folder.name)
    return name.split if name and name.exact else ""


def no_classes(tree: Tree, folder: Path, root: Path) -> str:
    """Return the message on a folder that should have class folders and has none with images."""
    where = EXPECTED.format(printable(str(root)))
    listings = dict(tree.walk(folder))
    if images := sum(len(listing.images) for listing in listings.values()):
        found = [*listings.values(), tree.listing(root)]
        tables = {table.name for listing in found for table in listing.tables}
        tables = {name for name in tables if "submission" not in name.lower()}
        beside = f"; if {some(sorted(tables))} has their labels, sort them by it" if tables else ""
        names = [image.name for listing in listings.values() for image in listing.images]
        return (
            f"{printable(str(folder))} holds {images:,} images but no class folders: "
            f"{where}{beside or _begin_with(names)}"
        )
    others = sum((listing.others for listing in listings.values()), Counter[str]())
    what = some([f"{n:,} {suffix}" for suffix, n in others.most_common()])
    held = f"no images, only {what}" if what else "no images"
    return f"{printable(str(folder))} holds {held}: {where} ({' '.join(SUFFIXES)})"


def _begin_with(names: Sequence[str]) -> str:
    """Return a hint where files are called after classes: cat.0.jpg, dog.1.jpg."""
    words = Counter(found[0] for name in names if (found := re.match(r"[^\W\d_]+", name)))
    common = [printable(word) for word, n in words.most_common() if n > 1]
    if len(common) < 2 or words.total() < len(names):
        return ""
    return f"; the files' names begin with {some(common)}: sort them into folders called so"


def _classes(tree: Tree, place: Path, layout: Layout) -> list[ClassFolder]:
    """Return the class folders of a split, and note what repeats the classes inside of one."""
    layout.above.append(place)
    if again := copies(tree, place):
        holders = sorted({path.parent for path in again})
        layout.warnings.append(
            f"left out {_some(again, tree)}: folders with the names of the classes inside of "
            f"{_some(holders, tree)} are a copy of the data or a part of it"
        )
    return class_folders(tree, place)


def _check_labels(tree: Tree, root: Path, layout: Layout) -> None:
    """Give the classes of val and test the names of train's; leave out a split without labels.

    Raises:
        OptionError: a split has other classes than train.
    """
    train = layout.splits["train"]
    for split in [name for name in layout.splits if name != "train" and train]:
        folders, lacking = matched(layout.splits[split], train)
        layout.splits[split] = folders
        place = layout.places.get(split, root)
        if not folders or (len(folders) == len(lacking) == 1 and _says_nothing(lacking[0])):
            del layout.splits[split]
            layout.above = [path for path in layout.above if path != place]
            layout.notes.append(_unlabelled(tree, place, lacking))
        elif lacking:
            none = " (it has none of train's)" if len(lacking) == len(folders) else ""
            home = layout.places.get("train", root)
            raise OptionError(
                f"{printable(str(place))} has classes that {printable(home.name)} lacks: "
                f"{some(lacking)}{none}; rename or remove them, or add them to "
                f"{printable(str(home))}"
            )


def _says_nothing(label: str) -> bool:
    """Return whether a folder's name is no class: images, test1, unknown."""
    return is_plain(label) or split_name(label) is not None or has_no_labels(label)


def _unlabelled(tree: Tree, place: Path, lacking: Sequence[str]) -> str:
    images = sum(len(listing.images) for _, listing in tree.walk(place))
    why = f"{lacking[0]} is no class of train" if lacking else "they lie in no class folders"
    return (
        f"left out {_inside(tree, place)}: its {images:,} images have no labels ({why}); "
        "nas predict takes them"
    )


def _inside(tree: Tree, path: Path) -> str:
    return printable(str(path.relative_to(tree.root)))


def _some(paths: Sequence[Path], tree: Tree | None = None) -> str:
    return some([_inside(tree, path) if tree else printable(path.name) for path in paths])
