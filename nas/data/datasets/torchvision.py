"""The labelled image sets of torchvision, by name: cifar10, flowers102, food101 and others.

They lie in a folder each below $NAS_CACHE/torchvision (else ~/.cache/nas/torchvision), and are
downloaded with --download only. Nothing is unpickled but what torchvision itself reads after
comparing its checksum.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nas.core.errors import MissingError, NasError, OptionError, first_line
from nas.core.system import cache_folder
from nas.data.dataset import Dataset, Index, Split, subset
from nas.data.identity import File, fingerprint, of_arrays, of_files

_Options = Mapping[str, Mapping[str, Any]]

_TRAIN = {"train": {"train": True}, "test": {"train": False}}
_TWO: _Options = {"train": {"split": "train"}, "test": {"split": "test"}}
_THREE: _Options = {**_TWO, "val": {"split": "val"}}
_ONE: _Options = {"train": {}}

# name: torchvision's class, and what it takes for each split
SETS: dict[str, tuple[str, _Options]] = {
    "cifar10": ("CIFAR10", _TRAIN),
    "cifar100": ("CIFAR100", _TRAIN),
    "country211": ("Country211", {**_TWO, "val": {"split": "valid"}}),
    "dtd": ("DTD", _THREE),
    "eurosat": ("EuroSAT", _ONE),
    "fashion_mnist": ("FashionMNIST", _TRAIN),
    "fgvc_aircraft": ("FGVCAircraft", _THREE),
    "flowers102": ("Flowers102", _THREE),
    "food101": ("Food101", _TWO),
    "gtsrb": ("GTSRB", _TWO),
    "imagenette": ("Imagenette", {"train": {"split": "train"}, "val": {"split": "val"}}),
    "kmnist": ("KMNIST", _TRAIN),
    "mnist": ("MNIST", _TRAIN),
    "oxford_iiit_pet": ("OxfordIIITPet", {**_TWO, "train": {"split": "trainval"}}),
    "rendered_sst2": ("RenderedSST2", _THREE),
    "stanford_cars": ("StanfordCars", _TWO),
    "stl10": ("STL10", _TWO),
    "sun397": ("SUN397", _ONE),
    "svhn": ("SVHN", _TWO),
    "usps": ("USPS", _TRAIN),
}
NAMES = tuple(SETS)


def matches(data: str) -> bool:
    """Return whether this is one of the names, however it is hyphenated or capitalised."""
    return _name(data) is not None and not os.path.exists(data)


def read(data: str, *, download: bool) -> Dataset:
    """Return a data set of torchvision.

    Raises:
        MissingError: torchvision, or what it needs for this set, is not installed or not usable.
        OptionError: it is not there and may not be downloaded, or is damaged.
        NasError: the download failed.
    """
    name = _name(data)
    assert name is not None
    from nas.data.policies import vision  # loads torch

    vision(f"--data {name}")
    root = cache_folder() / "torchvision" / name
    if not root.is_dir():
        if not download:
            raise OptionError(f"{name} is not in {root}: add --download to fetch it")
        _download(name, root)
    parts = {split: _part(name, split, root) for split in SETS[name][1]}
    labels = {split: _labels(part) for split, part in parts.items()}
    classes = _classes(parts["train"], labels["train"])
    splits = {split: _split(root, split, part, labels[split]) for split, part in parts.items()}
    facts = [(split, len(found), *_file_facts(parts[split])) for split, found in splits.items()]
    former = fingerprint([name, *facts])
    own = _identity(root, parts, labels)
    return Dataset(name, classes, splits, own, former_fingerprint=former)


def _name(data: str) -> str | None:
    if not re.fullmatch(r"[\w-]+", data):
        return None
    plain = {name.replace("_", ""): name for name in NAMES}
    return plain.get(re.sub(r"[-_]", "", data.lower()))


def _make(name: str, split: str, root: Path, download: bool) -> Any:
    from torchvision import datasets

    kind, options = SETS[name]
    return getattr(datasets, kind)(str(root), download=download, **options[split])


def _part(name: str, split: str, root: Path) -> Any:
    """Return a split as torchvision reads it."""
    with _needs(name):
        try:
            return _make(name, split, root, download=False)
        except ImportError:
            raise
        except Exception as error:  # each set fails in its own way
            raise OptionError(
                f"{name} in {root} cannot be read ({first_line(error)}): "
                "delete that folder and fetch it again with --download"
            ) from error


def _download(name: str, root: Path) -> None:
    """Fetch a data set; its folder appears whole or not at all.

    Raises:
        NasError: no network, a full disk, or the source is gone.
    """
    fresh = None
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".new-{name}-", dir=root.parent))
        with _needs(name), contextlib.redirect_stdout(None):
            for split in SETS[name][1]:
                _make(name, split, fresh, download=True)
        fresh.rename(root)
    except NasError:
        raise
    except Exception as error:  # urllib, sockets, tarfile, zipfile, checksums
        if not root.is_dir():  # else another process fetched it meanwhile
            raise NasError(
                f"cannot download {name}: {first_line(error)}; fetch it where there is a network "
                f"and copy it to {root}"
            ) from error
    finally:
        if fresh is not None:
            shutil.rmtree(fresh, ignore_errors=True)


@contextlib.contextmanager
def _needs(name: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        package = error.name or "it"
        raise MissingError(f"{name} needs {package} to be read: pip install {package}") from error


def _pairs(part: Any) -> list[tuple[Any, int]] | None:
    """Return path and label of each image, where the set keeps them together."""
    return getattr(part, "_samples", None) or getattr(part, "samples", None)


def _files(part: Any) -> list[Path] | None:
    """Return the path of each image; None for sets that are arrays."""
    if (pairs := _pairs(part)) is not None:
        return [Path(path) for path, _ in pairs]
    found = getattr(part, "_image_files", None) or getattr(part, "_images", None)
    return None if found is None else [Path(path) for path in found]


def _labels(part: Any) -> Index:
    if (pairs := _pairs(part)) is not None:
        return np.array([label for _, label in pairs], dtype=np.int64)
    names = ("_labels", "targets", "labels")
    found = next(getattr(part, name) for name in names if hasattr(part, name))
    return np.asarray(found, dtype=np.int64)


def _classes(train: Any, labels: Index) -> tuple[str, ...]:
    """Return the names of the classes; their numbers, where the set gives none."""
    found = getattr(train, "classes", None)
    if not found:
        return tuple(str(i) for i in range(int(labels.max()) + 1))
    return tuple(name if isinstance(name, str) else name[0] for name in found)


def _split(root: Path, name: str, part: Any, labels: Index) -> Split:
    files = _files(part)
    if files is None:
        images = _images(part)
        names = [f"{name} image {i}" for i in range(len(labels))]
        return Split(labels, names, lambda i: np.ascontiguousarray(images[i]))
    shown = [str(path.relative_to(root)) for path in files]
    order = np.argsort(np.array(shown), kind="stable")  # some sets list them as the disk does
    return subset(Split(labels, shown, lambda i: files[i].read_bytes()), order)


def _images(part: Any) -> Any:
    """Return uint8 images (N, H, W) or (N, H, W, 3) of a set that is one array."""
    images = np.asarray(part.data)
    # SVHN and STL10 keep the colours first
    return np.moveaxis(images, 1, -1) if images.ndim == 4 and images.shape[1] == 3 else images


def _identity(root: Path, parts: Mapping[str, Any], labels: Mapping[str, Index]) -> str:
    """Return what a set is by its images and labels, be they files or arrays."""
    files, arrays = list[File](), list[Any]()
    for split, part in parts.items():
        if (paths := _files(part)) is None:
            arrays += [_images(part), labels[split]]
            continue
        known = sorted(zip(paths, labels[split].tolist(), strict=True))
        files += [File(p, (split, label, str(p.relative_to(root)))) for p, label in known]
    return of_files(files, *parts, of_arrays(arrays))


def _file_facts(part: Any) -> Iterator[tuple[str, int, int]]:
    for path in sorted(_files(part) or ()):
        with contextlib.suppress(OSError):
            status = path.stat()
            yield path.name, status.st_size, status.st_mtime_ns
