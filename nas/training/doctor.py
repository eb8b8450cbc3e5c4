"""Doctor: look at data and machine before a search does, and say what to do about each finding."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nas.core.errors import MissingError, NasError
from nas.core.system import cache_folder, processors
from nas.data import checks
from nas.data.checks import ELONGATED, Finding
from nas.data.dataset import SMALL, Dataset, Split, open_dataset
from nas.data.images import SUFFIXES, Decoding, Header, decode, fitting_side, header, values
from nas.data.loader import stored_side
from nas.data.photographs import photographs
from nas.data.pixels import in_order, reason_of
from nas.data.policies import vision
from nas.data.splits import make_splits
from nas.hardware import facts as computer
from nas.hardware.torch_device import torch_device
from nas.models.cost import count
from nas.models.load import baselines
from nas.training.amount import INHERITED_IMAGES, candidate, inheriting
from nas.training.auto import Situation, batch_for, plan
from nas.training.result import DoctorResult
from nas.training.weights.packages import PACKAGES, file_of

SCHEMA = 1
_GROUPS_SHOWN = 20


class _Image(NamedTuple):
    """A readable image of a split."""

    split: str
    label: int
    name: str
    height: int
    width: int
    header: Header
    digest: bytes  # of its pixels
    levels: int  # gray levels from its least to its greatest value, after decoding
    values: tuple[float, float] | None  # the least and the greatest, of more than 8 bits


class _Broken(NamedTuple):
    name: str
    reason: str


def doctor(
    data: str | None,
    *,
    download: bool = False,
    image_column: str | None = None,
    label_column: str | None = None,
) -> DoctorResult:
    """Return what is known about data and machine; `nas doctor --json` prints `to_dict()` of it.

    Every image is decoded once. `data` has counts per class and split (after carving), sizes,
    formats, broken and duplicate images; `findings` has level (error: nas will stop, warning,
    note), finding and advice, the worst first. What cannot be read is a finding of level error,
    not an exception.
    """
    machine = computer.machine()
    machine["disks"] = {"cache": computer.disk(cache_folder()), "runs": computer.disk(Path("runs"))}
    machine["disks"]["cache"]["used"] = computer.size_of(cache_folder())
    found = [*checks.of_machine(machine), *_torchvision(machine)]
    report = None
    if data is not None:
        report, more = _examine(
            data, download=download, image_column=image_column, label_column=label_column
        )
        found += more
        if report is not None:
            found += checks.of_data(report, machine)
    findings = tuple(checks.in_order(found))
    return DoctorResult(schema=SCHEMA, data=report, machine=machine, findings=findings)


def suggest(short_side: float) -> dict[str, Any]:
    """Return the space and the side in pixels that fit images of this short side."""
    imgsz = fitting_side(short_side)
    return {"space": "mbconv_small" if imgsz <= SMALL else "mbconv", "imgsz": imgsz}


def _torchvision(machine: dict[str, Any]) -> Iterator[Finding]:
    try:
        vision("AutoAugment, RandAugment or data by name")
    except MissingError as error:
        level = "note" if machine["versions"]["torchvision"] is None else "warning"
        rule, _, fix = str(error).partition(": pip ")
        yield Finding(level, rule, f"pip {fix}; all else works without it")


def _examine(data: str, **options: Any) -> tuple[dict[str, Any] | None, list[Finding]]:
    """Return the report on a data set, and what keeps it from being used."""
    try:
        dataset = open_dataset(data, **options)
    except NasError as error:
        return None, [Finding("error", f"{data} cannot be used", str(error))]
    try:
        carved, problems = make_splits(dataset), []
    except NasError as error:
        carved, problems = dataset, [Finding("error", "the data cannot be split", str(error))]
    start = time.perf_counter()
    images, broken = _look(carved)
    seconds = time.perf_counter() - start
    report = _report(dataset, carved, images, broken)
    report["images_per_second"] = round(report["images"] / max(seconds, 1e-9), 1)
    return report, problems


def _look(dataset: Dataset) -> tuple[list[_Image], list[_Broken]]:
    """Decode every image of every split."""
    images: list[_Image] = []
    broken: list[_Broken] = []
    for name, split in dataset.splits.items():

        def several(positions: range, name: str = name, split: Split = split) -> list[Any]:
            return [_one(name, split, i) for i in positions]

        for found in in_order(several, len(split), processors()):
            (images if isinstance(found, _Image) else broken).append(found)
    return images, broken


def _one(name: str, split: Split, i: int) -> _Image | _Broken:
    try:
        data = split.read(i)
        head, pixels = header(data), decode(data, decoding=split.decoding)
        deep = values(data) if isinstance(data, bytes) else None
    except (NasError, MemoryError):
        raise
    except Exception as error:  # a reader may be the user's
        return _Broken(split.names[i], reason_of(error))
    height, width = pixels.shape[:2]
    digest = hashlib.blake2b(pixels.data, digest_size=16, salt=f"{height}".encode()[:16])
    label = int(split.labels[i])
    levels = int(pixels.max()) - int(pixels.min()) + 1
    between = None if deep is None else (float(np.nanmin(deep)), float(np.nanmax(deep)))
    return _Image(
        name, label, split.names[i], height, width, head, digest.digest(), levels, between
    )


def _report(
    dataset: Dataset, carved: Dataset, images: list[_Image], broken: list[_Broken]
) -> dict[str, Any]:
    weights = _weights(carved)
    return {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "images": len(images) + len(broken),
        "source": {name: len(split) for name, split in dataset.splits.items()},
        "splits": {name: len(split) for name, split in carved.splits.items()},
        "classes": _classes(carved),
        "imbalance": _imbalance(dataset),
        "notes": list(carved.notes),
        "sizes": _sizes(images),
        "formats": _counted(image.header.format for image in images),
        "modes": _counted(image.header.mode for image in images),
        "depth": _depth(images, carved.splits["train"].decoding),
        "flat": _flat(images),
        "warnings": list(carved.warnings),
        "turned": sum(image.header.turned for image in images),
        "misnamed": sum(_is_misnamed(image) for image in images),
        "broken": [found._asdict() for found in broken],
        "duplicates": _duplicates(images, dataset.classes),
        "elongated": sum(_is_elongated(image) for image in images),
        "suggestion": _suggestion(images),
        "weights": weights,
        "training": _training(carved, images, weights),
    }


def _weights(carved: Dataset) -> dict[str, Any] | None:
    """Return the package whose weights nas starts from by default; None: images are no photographs.

    Of those that are installed the first, else the first of all.
    """
    train = carved.splits.get("train")
    if not train or not photographs(train):
        return None
    package = next((row for row in PACKAGES if file_of(row)), PACKAGES[0])
    return {
        "package": package.distribution,
        "baseline": package.baseline,
        "installed": file_of(package) is not None,
    }


def _training(
    carved: Dataset, images: list[_Image], weights: dict[str, Any] | None
) -> dict[str, Any] | None:
    """Return the optimiser steps and views of a training and of a candidate, as nas has them."""
    train, side = carved.splits.get("train"), _suggestion(images)
    if not train or side is None:
        return None
    n, classes = len(train), len(carved.classes)
    if weights and weights["installed"]:
        arch = baselines()[weights["baseline"]]
        given = Situation(
            *(n, classes, arch.resolution, count(arch)),
            start="weights",
            device=torch_device("auto"),
            validated=len(carved.splits.get("val", ())),
        )
        alone = plan(given).amount
        few = min(n, INHERITED_IMAGES)
        short = inheriting(few, batch_for(few))
    else:
        alone = plan(Situation(n, classes, side["imgsz"])).amount
        short = candidate(n, alone.batch)
    return {
        name: {**dataclasses.asdict(amount), "steps": amount.steps, "views": amount.views}
        for name, amount in (("train", alone), ("search", short))
    }


def _depth(images: list[_Image], decoding: Decoding) -> dict[str, Any]:
    """Return what images of more than 8 bits hold, by mode, and how they are decoded.

    `values`: the least and the greatest; `levels`: the median of their gray levels after decoding.
    """
    deep: dict[str, list[_Image]] = defaultdict(list)
    for image in images:
        if image.values is not None:
            deep[image.header.mode].append(image)
    found = {
        mode: {
            "images": len(some),
            "values": [min(i.values[0] for i in some), max(i.values[1] for i in some)],  # type: ignore[index]
            "levels": float(np.median([image.levels for image in some])),
        }
        for mode, some in deep.items()
    }
    return {"modes": found, "decoding": dataclasses.asdict(decoding)}


def _flat(images: list[_Image]) -> dict[str, Any]:
    """Return how many images show next to nothing, with the names of some."""
    names = [image.name for image in images if image.levels <= checks.FLAT_LEVELS]
    return {"images": len(names), "names": names[:_GROUPS_SHOWN]}


def _suggestion(images: list[_Image]) -> dict[str, Any] | None:
    """Return the space and side that fit, how many images are smaller, and the memory of all."""
    if not images:
        return None
    shorts = np.array([min(image.height, image.width) for image in images])
    chosen = suggest(float(np.median(shorts)))
    return {
        **chosen,
        "enlarged": int((shorts < chosen["imgsz"]).sum()),
        "decoded_bytes": _decoded_bytes(images, chosen["imgsz"]),
    }


def _is_elongated(image: _Image) -> bool:
    return max(image.height, image.width) > ELONGATED * min(image.height, image.width)


def _counted(words: Iterator[str]) -> dict[str, int]:
    return dict(Counter(words).most_common())


def _classes(dataset: Dataset) -> list[dict[str, Any]]:
    """Return a row per class: its name and its images in each split."""
    counts = {
        name: np.bincount(split.labels, minlength=len(dataset.classes)).tolist()
        for name, split in dataset.splits.items()
    }
    return [
        {"name": word, **{name: found[i] for name, found in counts.items()}}
        for i, word in enumerate(dataset.classes)
    ]


def _imbalance(dataset: Dataset) -> float:
    """Return images of the largest class over those of the smallest that has any."""
    counts = np.bincount(dataset.splits["train"].labels)
    return round(float(counts.max() / counts[counts > 0].min()), 2)


def _sizes(images: list[_Image]) -> dict[str, dict[str, float]]:
    """Return min, median and max of height, width and short side in pixels, as decoded."""
    sides = {
        "height": [image.height for image in images],
        "width": [image.width for image in images],
        "short": [min(image.height, image.width) for image in images],
    }
    return {
        name: {"min": min(found), "median": float(np.median(found)), "max": max(found)}
        for name, found in sides.items()
        if found
    }


def _is_misnamed(image: _Image) -> bool:
    promised = SUFFIXES.get(os.path.splitext(image.name)[1].lower())
    return promised is not None and promised != image.header.format


def _duplicates(images: list[_Image], classes: Sequence[str]) -> dict[str, Any]:
    """Return the groups of images that are equal pixel for pixel.

    `inside`: surplus copies within a split; `across`: val and test images that are also in an
    earlier split; `contradicting`: groups under more than one class.
    """
    by_pixels: dict[bytes, list[_Image]] = defaultdict(list)
    for image in images:
        by_pixels[image.digest].append(image)
    groups = [group for group in by_pixels.values() if len(group) > 1]
    across = [group for group in groups if len({image.split for image in group}) > 1]
    contradicting = [group for group in groups if len({image.label for image in group}) > 1]
    # the worst first
    shown = sorted(groups, key=lambda g: (g not in contradicting, g not in across))
    return {
        "inside": sum(len(group) - len({image.split for image in group}) for group in groups),
        "across": sum(len({image.split for image in group}) - 1 for group in groups),
        "contradicting": len(contradicting),
        "groups": [
            [{"name": i.name, "split": i.split, "class": classes[i.label]} for i in group]
            for group in shown[:_GROUPS_SHOWN]
        ],
    }


def _decoded_bytes(images: list[_Image], imgsz: int) -> int:
    """Return the memory of all images at the size they are kept at to train at `imgsz`."""
    side = stored_side(imgsz)
    scales = (min(1.0, side / min(image.height, image.width)) for image in images)
    areas = (image.height * image.width for image in images)
    return round(sum(3 * area * scale**2 for area, scale in zip(areas, scales, strict=True)))
