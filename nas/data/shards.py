"""Which parquet files of a folder are one data set, and which split each belongs to.

Files are called train-*, validation-*, test-* (-00000-of-00002, with a hash after it or not), or
lie in folders called so. The Hugging Face hub keeps a folder for each configuration of a data set:
one is read, of several one has to be named.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nas.core.errors import OptionError
from nas.data.dataset import SPLIT_WORDS, SPLITS, some
from nas.data.images import SUFFIXES
from nas.data.split_names import SplitName, split_name

# entries of a folder that are looked at: a class folder may have very many
_LOOKED_AT = 1000
_NUMBERED = re.compile(r"(.*?)([-_.]?\d+([-_.]of[-_.]\d+)?([-_.][0-9a-f]{6,})?)?")


@dataclass(frozen=True)
class Shards:
    """The files of each split; paths in messages are told from `home`."""

    home: Path
    splits: dict[str, list[Path]]
    notes: list[str] = field(default_factory=list)


def shards(path: Path) -> list[Path]:
    """Return the parquet files at a path: the file itself, or those of a data set's folder.

    They lie in the folder, in data/, in a folder for each split, or in one for a configuration.
    """
    if not os.path.isdir(path):
        return [path] if path.suffix.lower() == ".parquet" else []
    if own := _files(path):
        return own
    return [file for folder in _configurations(path) for file in _files(folder)]


def find_shards(root: Path) -> Shards:
    """Return the files of each split; all are for training where none has the name of a split.

    Raises:
        OptionError: there are several configurations, no training files, or files of which it is
            not plain what they are.
    """
    if not root.is_dir():
        return Shards(root.parent, {"train": [root]})
    files, notes, others = _files(root), list[str](), _configurations(root)
    if files and others:
        notes.append(
            f"left out {some([folder.name for folder in others])}: other configurations, to be "
            f"read as {others[0]}"
        )
    elif len(others) > 1:
        raise OptionError(
            f"{root} holds {len(others)} configurations of a data set, "
            f"{some([folder.name for folder in others])}: give one of them, as {others[0]}"
        )
    elif not files:
        files = _files(others[0])
        notes.append(f"read from {others[0].name}, the only configuration")
    splits = _by_split(root, files, notes)
    if "train" not in splits:
        raise OptionError(f"{root} has {some(list(splits))} files but none called train-*.parquet")
    return Shards(root, splits, notes)


def _files(folder: Path) -> list[Path]:
    inner = (p for p in _entries(folder) if p.name.lower() in ("data", *SPLIT_WORDS))
    found = (p for place in (folder, *inner) if place.is_dir() for p in _entries(place))
    # a table beside images, in the hub's layout of class folders
    return sorted(p for p in found if p.suffix.lower() == ".parquet" and p.stem != "metadata")


def _configurations(root: Path) -> list[Path]:
    """Return the folders that hold parquet files and no images, beside data/ and splits."""
    known = ("data", *SPLIT_WORDS)
    folders = (p for p in _entries(root) if p.name.lower() not in known and p.is_dir())
    return sorted(
        folder
        for folder in folders
        if not folder.name.startswith(".")
        and _files(folder)
        and not any(p.suffix.lower() in SUFFIXES for p in _entries(folder))
    )


def _entries(folder: Path) -> Iterator[Path]:
    try:
        with os.scandir(folder) as found:
            listed = [Path(entry.path) for entry in itertools.islice(found, _LOOKED_AT)]
    except OSError:  # the folder reader says why
        return iter(())
    return iter(listed)


def _by_split(root: Path, paths: Sequence[Path], notes: list[str]) -> dict[str, list[Path]]:
    named = {path: _name(path, root) for path in paths}
    if not any(named.values()):
        return {"train": list(paths)}
    odd = [path for path, name in named.items() if not name]
    kinds = {name.split for name in named.values() if name and name.exact}
    rests = {name.rest for name in named.values() if name}
    if kinds:  # train_small beside train is a part of it
        spare = [p for p, name in named.items() if name and not name.exact and name.split in kinds]
        odd += [p for p, n in named.items() if n and not n.exact and n.split not in kinds]
        if spare:
            notes.append(f"left out {some([p.name for p in spare])}: parts or variants of a split")
        paths = [p for p in paths if p not in spare]
    elif len(rests) > 1:
        odd = [path for path, name in named.items() if name]
    if odd:
        raise OptionError(
            f"{root}: it is not plain which split {some([path.name for path in odd])} belongs to: "
            "name it train-*, validation-* or test-*, or move it away"
        )
    return _settled({path: name.split for path in paths if (name := named[path])})


def _settled(splits: dict[Path, str]) -> dict[str, list[Path]]:
    spare = "val" if "test" in splits.values() else "test"
    named = {path: spare if split == "eval" else split for path, split in splits.items()}
    found = {split: [path for path, name in named.items() if name == split] for split in SPLITS}
    return {split: several for split, several in found.items() if several}


def _name(path: Path, root: Path) -> SplitName | None:
    """Return the split that a file's name speaks of, or else its folder's."""
    match = _NUMBERED.fullmatch(path.stem)
    found = split_name(match[1] if match else path.stem)
    if (found is None or not found.exact) and path.parent != root:
        folder = split_name(path.parent.name)
        found = folder if folder and folder.exact else found
    return found
