"""Which files below a folder are images: one walk for training, val, predict and explain.

Links to folders are followed, and each folder is looked into once. Left out are hidden files,
what systems and other programs leave behind, run folders (args.yaml), and links to a folder above.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from nas.core.errors import OptionError
from nas.core.run_folder import ARGS
from nas.data.images import SUFFIXES

# folders of operating systems, storage boxes, editors and trackers, in lower case
SYSTEM = frozenset(
    (
        *("__macosx", "$recycle.bin", "recycler", "system volume information", "lost+found"),
        *("@eadir", "@recycle", "#recycle", "@tmp", "#snapshot", "__pycache__", "node_modules"),
        *("wandb", "mlruns", "lightning_logs"),
    )
)


TABLES = (".csv", ".tsv", ".txt", ".json", ".jsonl")


@dataclass(frozen=True)
class Listing:
    """What lies directly in a folder, by name. `key` tells folders apart however reached."""

    key: tuple[int, int]
    images: tuple[os.DirEntry[str], ...]
    folders: tuple[Path, ...]
    others: Counter[str]  # files that are no images, by suffix
    tables: tuple[Path, ...]  # files that may tell labels
    hidden: int
    system: tuple[Path, ...]
    runs: tuple[Path, ...]


class Tree:
    """The folders below a root; each is read once, when it is first asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listings: dict[Path, Listing] = {}
        self._full: dict[Path, bool] = {}

    def listing(self, folder: Path) -> Listing:
        """Return what lies in a folder.

        Raises:
            OptionError: it cannot be read.
        """
        if folder not in self._listings:
            self._listings[folder] = _listing(folder)
        return self._listings[folder]

    def folders(self, folder: Path) -> list[Path]:
        """Return the folders in a folder that hold images, at any depth; none that is above."""
        return [path for path in self._below(folder) if self.holds_images(path)]

    def holds_images(self, folder: Path) -> bool:
        """Return whether there is an image in a folder or below."""
        if folder not in self._full:
            self._full[folder] = any(found.images for _, found in self.walk(folder))
        return self._full[folder]

    def walk(self, folder: Path, leave: Collection[Path] = ()) -> Iterator[tuple[Path, Listing]]:
        """Yield a folder and those below, each once, but for those of `leave`."""
        seen, waiting = set(), [folder]
        while waiting:
            place = waiting.pop()
            found = self.listing(place)
            if found.key in seen:
                continue
            seen.add(found.key)
            yield place, found
            waiting += [path for path in reversed(self._below(place)) if path not in leave]

    def loops(self, folder: Path) -> list[Path]:
        """Return the links in a folder that lead to it or to a folder above."""
        return sorted(set(self.listing(folder).folders) - set(self._below(folder)))

    def _below(self, folder: Path) -> list[Path]:
        children = self.listing(folder).folders
        if not any(path.is_symlink() for path in children):
            return list(children)
        above = {_key(path) for path in (folder, *folder.parents) if path.is_relative_to(self.root)}
        return [path for path in children if _key(path) not in above]


def images_below(folder: Path) -> list[Path]:
    """Return the images in a folder and below, sorted.

    Raises:
        OptionError: the folder, or one below, cannot be read.
    """
    found = Tree(folder).walk(folder)
    return sorted(place / image.name for place, listing in found for image in listing.images)


def printable(name: str) -> str:
    """Return a file name that is text, whatever bytes it has."""
    return os.fsencode(name).decode(errors="replace")


def label_of(name: str) -> str:
    """Return the class that a folder's name stands for."""
    # a folder copied from a Mac has its accents apart
    return unicodedata.normalize("NFC", printable(name))


def _listing(folder: Path) -> Listing:
    try:
        key = _key(folder)
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise OptionError(f"cannot read {printable(str(folder))}: {error.strerror}") from error
    shown = [entry for entry in entries if not entry.name.startswith(".")]
    folders = [Path(entry.path) for entry in shown if _is_dir(entry)]
    system = tuple(path for path in folders if path.name.lower() in SYSTEM)
    runs = tuple(path for path in folders if path not in system and _is_run(path))
    images = tuple(entry for entry in shown if _is_image(entry))
    others = [entry for entry in shown if not _is_dir(entry) and entry not in images]
    return Listing(
        key,
        images,
        tuple(path for path in folders if path not in system and path not in runs),
        Counter(_suffix(entry) or "no suffix" for entry in others),
        tuple(Path(entry.path) for entry in others if _suffix(entry) in TABLES),
        len(entries) - len(shown),
        system,
        runs,
    )


def _key(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _is_run(folder: Path) -> bool:
    return os.path.isfile(folder / ARGS)


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _suffix(entry: os.DirEntry[str]) -> str:
    return os.path.splitext(entry.name)[1].lower()


def _is_image(entry: os.DirEntry[str]) -> bool:
    """Return whether this is a file, or a link to nothing, with the suffix of an image."""
    if _suffix(entry) not in SUFFIXES or _is_dir(entry):
        return False
    try:
        # opening a pipe would wait for ever
        return stat.S_ISREG(entry.stat().st_mode)
    except OSError:
        return True
