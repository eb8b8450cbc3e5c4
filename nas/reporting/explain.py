"""Explain: trained models and image files in, a picture of where each model looks out."""

from __future__ import annotations

import base64
import os
import re
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nas.core import run_folder
from nas.core.errors import OptionError, RunError, did_you_mean
from nas.core.system import processors
from nas.data import augment
from nas.data.class_folders import class_above
from nas.data.images import Array, quiet
from nas.data.walk import printable
from nas.hardware.torch_device import torch_device
from nas.models.build import Model
from nas.models.cam import check_method
from nas.models.cam import explain as evidence_of
from nas.reporting.explained import (
    ExplainedImage,
    ExplainedModel,
    ExplainResult,
    Explanation,
)
from nas.reporting.html.markup import MarkupTable, render
from nas.reporting.pictures import Cell, heat_maps, need
from nas.training import trained
from nas.training.predict import image_files, read_image, views_of
from nas.training.weights.sources import refuse_named

SCHEMA = 1
OUTPUT, RESULT = "explain.png", "result.json"
SUFFIXES = (".png", ".html")
MODELS = ("train", "scale", "search")  # whose runs may be named
SCALED = ("family.csv", "baseline.json")  # in the folder of a scale run
MOST = 24  # images of one picture
BATCH = 8
NOTE = (
    "Bright: what speaks for the class, each map from its least to its greatest value. Two maps "
    "tell where, not how strongly; the probability tells that."
)


@dataclass(frozen=True)
class Seen:
    """What a model saw of an image, and what it made of it; `map` (h, w) as the net computes it."""

    view: Array
    row: Explanation
    map: Tensor


@dataclass(frozen=True)
class Column:
    """What one model sees of each image, or why an image cannot be read."""

    classes: Sequence[str]
    seen: list[Seen | str]


def explain(
    paths: str | Path | Sequence[str | Path],
    *,
    models: str | Path | Sequence[str | Path] = (),
    method: str = "auto",
    class_name: str | None = None,
    output: str | Path | None = None,
    device: str = "auto",
    project: str | Path = "runs",
    name: str | None = None,
) -> ExplainResult:
    """Draw class activation maps of images, a column for each model; return their figures.

    `paths` are image files and folders of them, or one, and may name models too; of a scale run all
    members that were trained are taken. Each map is of the class that the model finds likeliest, or
    of `class_name`; `true` is the class whose folder an image lies in, or None. Writes `output`, a
    .png or .html that does not exist yet, by default explain.png in project/explain/name. An image
    that cannot be read is a row with its `error`; if none can be, nothing is written.

    Raises:
        OptionError: no images, no trained model, no such method or class; `output` is taken or has
            another suffix.
        MissingError: Pillow or matplotlib is not installed.
        RunError: the picture cannot be written, or a model's files are damaged.
    """
    paths = [paths] if isinstance(paths, str | Path) else paths
    models = [models] if isinstance(models, str | Path) else models
    sources, files = _sorted_out(paths, models)
    run_folder.check_place(output, name)
    target, place = _target(output), torch_device(device)
    check_method(method)
    need()
    labels = _labels(sources)
    columns = [
        _column(label, source, files, method, class_name, place)
        for label, source in zip(labels, sources, strict=True)
    ]
    lines = zip(*(column.seen for column in columns), strict=True)
    classes = list(dict.fromkeys(name for column in columns for name in column.classes))
    rows = tuple(_row(file, line, classes) for file, line in zip(files, lines, strict=True))
    named = zip(labels, sources, strict=True)
    result = ExplainResult(
        schema=SCHEMA,
        models=tuple(ExplainedModel(name=label, source=source) for label, source in named),
        images=rows,
        failed=sum(bool(row.error) for row in rows),
    )
    if result.failed == len(rows):
        return result
    picture = _picture([column.seen for column in columns], labels, rows)
    if target:
        result = replace(result, output=target)
        _write(target, picture, result)
        return result
    arguments: dict[str, Any] = {"paths": list(map(str, paths)), "method": method}
    arguments |= {"models": list(map(str, models)), "class_name": class_name, "device": device}
    folder = run_folder.create("explain", name, Path(project), arguments)
    result = replace(result, run=folder, output=folder / OUTPUT)
    _keep(folder, picture, result)
    return result


def _keep(folder: Path, picture: bytes, result: ExplainResult) -> None:
    """Write the picture and the result into a new run folder, or leave no folder."""
    try:
        run_folder.write_environment(folder)
        _write(folder / OUTPUT, picture, result)
        run_folder.write_json(folder / RESULT, result.to_dict())
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _sorted_out(
    paths: Sequence[str | Path], models: Sequence[str | Path]
) -> tuple[list[Path], list[Path]]:
    """Return the folders of the models and the files of the images."""
    for source in (*paths, *models):
        refuse_named(source, "explain")
    given = [Path(path) for path in paths]
    named = [run_folder.find(model, MODELS) for model in models]
    runs = [path for path in given if _is_models(path)]
    sources = [member for path in [*named, *runs] for member in _members(path) or [path]]
    if not sources:
        raise OptionError(
            "explain needs trained models: --models RUN, a train run or a family that was trained"
        )
    files = image_files([path for path in given if path not in runs])
    if not files:
        raise OptionError("explain needs images: name files or folders")
    if len(files) > MOST:
        raise OptionError(
            f"explain draws up to {MOST} images at a time, not {len(files)}: name some of them"
        )
    return list(dict.fromkeys(sources)), files


def _is_models(folder: Path) -> bool:
    """Tell whether a path that may be images is a trained run, or a scale run with such members."""
    if trained.holds(folder):
        return True
    return any((folder / mark).is_file() for mark in SCALED) and bool(_members(folder))


def _members(folder: Path) -> list[Path]:
    """Return the trained models of a folder: itself, or the members of a family, b2 before b10."""
    if trained.holds(folder):
        return [folder]
    if not folder.is_dir():
        return []
    found = [child for child in folder.iterdir() if child.is_dir() and trained.holds(child)]
    return sorted(found, key=_natural)


def _natural(path: Path) -> list[tuple[float, str]]:
    parts = re.findall(r"\d+(?:\.\d+)?|\D+", path.name)
    return [(float(part), "") if part[0].isdigit() else (-1.0, part) for part in parts]


def _labels(sources: Sequence[Path]) -> list[str]:
    """Return a short name for each path: its own, with as many above it as tell them apart."""
    # not resolved: a link has the name that was given to it
    whole = [Path(os.path.abspath(source)).parts for source in sources]
    for depth in range(1, max(map(len, whole)) + 1):
        short = ["/".join(parts[-depth:]) for parts in whole]
        if len(set(short)) == len(short):
            return short
    return [str(source) for source in sources]  # one is named twice


def _target(output: str | Path | None) -> Path | None:
    """Return the file to write; None is one in a run folder.

    Raises:
        OptionError: its suffix is neither .png nor .html, it exists, or its folder does not.
    """
    if output is None:
        return None
    path = Path(output)
    if path.suffix.lower() not in SUFFIXES:
        raise OptionError(f"--output takes a file that ends in {' or '.join(SUFFIXES)}, not {path}")
    if not path.parent.is_dir():
        raise OptionError(f"--output {path}: there is no folder {path.parent}; make it first")
    if os.path.lexists(path):
        raise OptionError(f"--output {path} exists: name another, or delete it")
    return path


def _column(
    label: str,
    source: Path,
    files: Sequence[Path],
    method: str,
    class_name: str | None,
    device: str,
) -> Column:
    model, config = trained.load_finite(source)
    model, taken = model.to(device), trained.trained_input(config)
    classes = config["classes"] or [str(place) for place in range(model.arch.head.classes)]
    wanted = _class_index(class_name, classes, source)
    with ThreadPoolExecutor(processors()) as pool, quiet():
        images = list(pool.map(lambda file: read_image(file, taken), files))
    good = [image for image in images if not isinstance(image, str)]
    seen: list[Seen] = []
    for start in range(0, len(good), BATCH):
        views = views_of(good[start : start + BATCH], taken)
        x = augment.finish(views.to(device), *taken.scale(device))
        seen += _explained(label, model, x, views, classes, wanted, method)
    turn = iter(seen)
    return Column(classes, [i if isinstance(i, str) else next(turn) for i in images])


def _class_index(name: str | None, classes: Sequence[str], source: Path) -> int | None:
    if name is None or name in classes:
        return None if name is None else classes.index(name)
    known = f"{', '.join(classes[:20])}{', ...' if len(classes) > 20 else ''}"
    raise OptionError(
        f"{source} knows no class {name!r}{did_you_mean(name, classes)}; it knows {known}"
    )


def _explained(
    label: str,
    model: Model,
    x: Tensor,
    views: Tensor,
    classes: Sequence[str],
    wanted: int | None,
    method: str,
) -> list[Seen]:
    """Return what a model makes of one batch."""
    chosen = None if wanted is None else torch.full((len(x),), wanted, device=x.device)
    found = evidence_of(model, x, chosen, method)
    shares = found.logits.float().softmax(1).cpu()
    seen = []
    for index, place in enumerate(found.classes.tolist()):
        likeliest = int(shares[index].argmax())
        row = Explanation(
            model=label,
            method=found.method,
            name=classes[place],
            probability=float(shares[index, place]),
            predicted=classes[likeliest],
            predicted_probability=float(shares[index, likeliest]),
            logit=float(found.logits[index, place]),
            bias=float(found.bias[index]),
            map=found.maps[index].cpu().tolist(),
        )
        view = views[index].permute(1, 2, 0).contiguous().numpy()
        seen.append(Seen(view, row, found.maps[index].float().cpu()))
    return seen


def _row(file: Path, line: Sequence[Seen | str], classes: Sequence[str]) -> ExplainedImage:
    """Return what the models make of one image."""
    told = []
    for seen in line:
        if isinstance(seen, str):
            return ExplainedImage(path=file, error=seen)
        told.append(seen.row)
    return ExplainedImage(path=file, true=class_above(file, classes), models=tuple(told))


def _picture(
    columns: Sequence[Sequence[Seen | str]],
    labels: Sequence[str],
    rows: Sequence[ExplainedImage],
) -> bytes:
    """Return the picture of all images that could be read."""
    lines = []
    names = _labels([row.path for row in rows])
    for line, name, row in zip(zip(*columns, strict=True), names, rows, strict=True):
        seen = [each for each in line if isinstance(each, Seen)]
        if len(seen) == len(labels):
            finest = max(seen, key=lambda each: each.view.shape[0])
            first = Cell(finest.view, f"{name}\ntrue: {row.true}" if row.true else name)
            lines.append([first, *(Cell(each.view, _caption(each), heat(each)) for each in seen)])
    return heat_maps(lines, ["image", *_titles(labels, rows)])


def _titles(labels: Sequence[str], rows: Sequence[ExplainedImage]) -> list[str]:
    """Return the heads of the columns; what is not the exact method is named."""
    seen = next(row.models for row in rows if row.models)
    told = (f" ({each.method})" if each.method != "cam" else "" for each in seen)
    return [label + more for label, more in zip(labels, told, strict=True)]


def heat(seen: Seen) -> Any:
    """Return the map of an image at its view's size, bilinear, from 0 (least) to 1 (greatest)."""
    side = seen.view.shape[0]
    fine = functional.interpolate(seen.map[None, None], (side, side), mode="bilinear")[0, 0]
    low, high = float(fine.min()), float(fine.max())
    # a flat map, as of images that shrink to one cell, differs by rounding only
    flat = high - low <= 1e-5 * max(abs(high), abs(low))
    return (torch.zeros_like(fine) if flat else (fine - low) / (high - low)).numpy()


def _caption(seen: Seen) -> str:
    row = seen.row
    said = f"{row.name} {100 * row.probability:.1f} %"
    if row.predicted == row.name:
        return said
    return f"{said}\n(says {row.predicted} {100 * row.predicted_probability:.1f} %)"


def _write(target: Path, picture: bytes, result: ExplainResult) -> None:
    data = _page(picture, result).encode() if target.suffix.lower() == ".html" else picture
    try:
        with target.open("xb") as file:  # what is there is never written over
            file.write(data)
    except OSError as error:
        raise RunError(f"cannot write {target}: {error.strerror}") from error


def _page(picture: bytes, result: ExplainResult) -> str:
    """Return the picture and its figures as one HTML page."""
    source = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    labels = [model.name for model in result.models]
    head = ["image", "true class", *_titles(labels, result.images)]
    rows = [
        [printable(str(row.path)), row.true or "–", *(_told(each) for each in row.models)]
        if row.models
        else [printable(str(row.path)), "", row.error, *[""] * (len(head) - 3)]
        for row in result.images
    ]
    table = MarkupTable(head, rows, left=range(len(head)))
    context = {"source": source, "note": NOTE, "models": table, "footer": None}
    return render("explain.html", title="Where the models look", **context)


def _told(row: Explanation) -> str:
    return f"{row.name} {100 * row.probability:.1f} %"
