"""Export: a trained model or an arch in, a file for another program out, run and compared."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from nas.core import registry, run_folder
from nas.core.errors import NasError, OptionError, RunError
from nas.exporting.request import ExportRequest, listed, make_facts
from nas.exporting.result import Comparison, ExportResult
from nas.models.arch import Arch
from nas.models.build import Model, check_memory
from nas.models.load import baselines, load_arch
from nas.training.diagnosis import FIELD
from nas.training.trained import load_finite
from nas.training.weights.files import PICKLES
from nas.training.weights.load import open_trained
from nas.training.weights.sources import is_named

Answers = Sequence[torch.Tensor]
SCHEMA = 1
RESULT = "result.json"
_FRESH, _STALE_SECONDS = ".new-nas-export-", 24 * 3600
BATCHES = (1, 2, 5)
# of the largest number of an output; a network that amplifies rounding may have up to MOST, and
# then NOISE times what its own float32 is from its float64
TOLERANCE, MOST, NOISE = 1e-4, 1e-2, 4
# what is in the folder of a run that trains, finished or not
_TRAINS = ("weights", "checkpoints", "data.json", "config.json", "model.safetensors")


def export(
    source: str | Path | Arch | Mapping[str, Any],
    *,
    format: str = "onnx",
    output: str | Path | None = None,
    batch_size: int = 0,
    imgsz: int | None = None,
    preprocessing: bool = False,
    features_only: bool = False,
    seed: int = 0,
    batches: Sequence[int] = BATCHES,
    project: str | Path = "runs",
    name: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> ExportResult:
    """Write a network as a file, run it and compare; `nas export --json` prints `to_dict()` of it.

    `source` is what was trained (a train run, a search run, a member of a family) or an arch as
    `nas.load_arch` takes it, which gets fresh weights from `seed`. `format` is a file of
    nas/exporting/formats. `output` is what to write, by default in project/export/name.
    `batch_size` 0 leaves the number of images free, `batches` are the numbers compared. With
    `preprocessing` it takes uint8 RGB (N, 3, imgsz, imgsz); `features_only`: the maps by stride.

    Raises:
        OptionError, ArchError: an option is wrong, or the format cannot hold the arch.
        MissingError: a package is not installed; the message has the pip line.
        RunError: the source is damaged, or the output cannot be written.
        NasError: the file answers otherwise than the network; it is kept.
    """
    started, exporter = time.monotonic(), _exporter(format)
    options = {"preprocessing": preprocessing, "features_only": features_only}
    _check(batch_size, batches, seed)
    run_folder.check_place(output, name)
    request = _request(source, imgsz, batch_size, seed, options)
    with registry.guard(f"check of {format} fails"):
        exporter.check(request)
    arguments: dict[str, Any] = {"source": _named(source), "format": format}
    arguments |= {"imgsz": request.arch.resolution}
    arguments |= {"batch_size": batch_size, **options, "seed": seed}
    path, folder = _place(exporter, output, Path(project), name, arguments)
    say(f"writing {path}, and comparing it with the network")
    with _kept_if_written(folder):
        _write(exporter, request, path)
    with registry.guard(f"{path} is written, but run of {format} fails", NasError):
        rows = _compare(exporter, request, path, [batch_size] if batch_size else batches)
    result = ExportResult(
        schema=SCHEMA,
        run=folder,
        **arguments,
        output=path,
        bytes=_size(path),
        **_described(request),
        **_compared(rows),
        seconds=time.monotonic() - started,
        notes=tuple(_notes(request, rows)),
        next=tuple(exporter.hint(path, request)),
    )
    if folder:
        run_folder.write_json(folder / RESULT, result.to_dict())
    return result


def _exporter(format: str) -> Any:
    """Return the part of a format.

    Raises:
        OptionError: there is none, or it lacks what an exporter offers.
    """
    for offered in ("FILE", "check", "write", "run", "hint"):
        registry.export("exporters", format, offered)
    return registry.load("exporters", format)


def _check(batch_size: int, batches: Sequence[int], seed: int) -> None:
    if not 0 <= seed < 2**63:
        raise OptionError(f"--seed takes a whole number from 0 below 2^63, not {seed}")
    if batch_size < 0 or isinstance(batch_size, bool):
        raise OptionError(
            f"--batch-size takes a whole number, 0 for any number of images, not {batch_size}"
        )
    if not batches or min(batches) < 1:
        raise OptionError(f"batches takes numbers of images of at least 1, not {list(batches)}")


def _request(
    source: str | Path | Arch | Mapping[str, Any],
    imgsz: int | None,
    batch: int,
    seed: int,
    options: Mapping[str, bool],
) -> ExportRequest:
    """Return what is exported: trained weights where the source has them, else fresh ones.

    Raises:
        OptionError, ArchError: no such source, or an impossible size.
        RunError: the weights are damaged or not finite.
    """
    model, config = _network(source, seed)
    arch = model.arch
    if imgsz is not None:
        if imgsz < 32:
            raise OptionError(f"--imgsz takes at least 32 pixels, not {imgsz}")
        arch = dataclasses.replace(arch, resolution=imgsz)
    elif config:  # what it was trained at
        arch = dataclasses.replace(arch, resolution=int(config["input_size"][-1]))
    if options["preprocessing"] and arch.in_channels != 3:
        raise OptionError(
            f"--preprocessing takes RGB images; {arch.name} takes {arch.in_channels} channels"
        )
    check_memory(arch, images=max(batch, 1))
    return ExportRequest(arch, model, make_facts(arch, config), batch, **options)


def _network(
    source: str | Path | Arch | Mapping[str, Any], seed: int
) -> tuple[Model, dict[str, Any] | None]:
    """Return a model in evaluation mode, and its config.json if it is trained."""
    if isinstance(source, str | Path) and is_named(source):
        return open_trained(source)
    if isinstance(source, str | Path) and str(source) not in baselines():
        source = run_folder.find(source)
        if _trains(source):
            return load_finite(source)
    if str(source).endswith((".safetensors", *PICKLES)):
        raise OptionError(f"export takes the folder of a run, not its weights: not {source}")
    arch = load_arch(source)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Model(arch).eval(), None


def _trains(folder: Path) -> bool:
    """Say whether a folder is of something that was trained, so that fresh weights would lie."""
    return any((home / mark).exists() for home in (folder, folder / "best") for mark in _TRAINS)


def _named(source: object) -> str:
    if isinstance(source, Arch):
        return source.name
    return str(source.get("name", "")) if isinstance(source, Mapping) else str(source)


def _place(
    exporter: ModuleType,
    output: str | Path | None,
    project: Path,
    name: str | None,
    arguments: Mapping[str, Any],
) -> tuple[Path, Path | None]:
    """Return where the file goes, and its run folder unless the place was given.

    Raises:
        OptionError: the place is taken, or its name does not end as the format wants.
    """
    if output is None:
        folder = run_folder.create("export", name, project, arguments)
        run_folder.write_environment(folder)
        return folder / exporter.FILE, folder
    path, suffix = Path(output), Path(exporter.FILE).suffix
    if path.exists():
        kind = f" and is a folder: name a file in it, as {path / exporter.FILE}"
        advice = kind if path.is_dir() and suffix else ": name another, or delete it"
        raise OptionError(f"--output {path} exists{advice}")
    if suffix and path.suffix != suffix:
        raise OptionError(f"--output must end in {suffix}, not {path.name!r}")
    return path, None


@contextlib.contextmanager
def _kept_if_written(folder: Path | None) -> Iterator[None]:
    """Remove a run folder in which nothing could be written."""
    try:
        yield
    except BaseException:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _write(exporter: ModuleType, request: ExportRequest, path: Path) -> None:
    """Write the file beside its place and move it there when it is whole.

    Raises:
        RunError: the disk is full or the folder cannot be written.
        NasError: torch cannot export the arch.
    """
    with _beside(path) as fresh:
        try:
            with registry.user_code():
                exporter.write(request, fresh)
            fresh.replace(path)
        except (NasError, OSError):
            raise
        except (Exception, SystemExit) as error:  # of torch's exporters, or the user's
            first = " ".join(registry.error_text(error).split())[:240]
            raise NasError(f"{request.arch.name} cannot be exported: {first}") from error


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    fresh = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent)
        fresh = Path(tempfile.mkdtemp(prefix=_FRESH, dir=path.parent))
        yield fresh / path.name
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if fresh:
            shutil.rmtree(fresh, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what killed exports left beside their place a day ago or earlier."""
    for left in folder.glob(f"{_FRESH}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def _compare(
    exporter: ModuleType, request: ExportRequest, path: Path, batches: Sequence[int]
) -> list[Comparison]:
    """Return how far the file's answers are from the network's, a row for each batch.

    Each output is measured by its own largest number; a row has the worst of them.

    Raises:
        NasError: farther than the tolerance, or the file cannot be run.
    """
    images = [request.images(number, seed) for seed, number in enumerate(batches)]
    wanted = [request.answer(batch) for batch in images]
    try:
        found = exporter.run(path, images, request)
    except NasError:
        raise
    except Exception as error:  # of the runtime
        first = " ".join(str(error).split())[:200]
        raise NasError(
            f"{path} was written and cannot be run: {type(error).__name__}: {first}"
        ) from error
    gaps = [_gaps(*pair) for pair in zip(wanted, found, strict=True)]
    if TOLERANCE < max(gap["ratio"] for row in gaps for gap in row) <= MOST:
        _allow_for_rounding(gaps, _rounding(request, images, wanted))
    for row in gaps:
        for name, gap in zip(request.outputs, row, strict=True):
            if not gap["ratio"] <= gap["tolerance"]:  # by nan, too
                raise NasError(
                    f"{path} answers otherwise than the network: {name} is "
                    f"{gap['max_difference']:.3g} apart where "
                    f"{gap['tolerance'] * gap['largest']:.3g} is allowed; the file is kept, do not "
                    "use it"
                )
    return [_row(*each, request) for each in zip(wanted, found, gaps, strict=True)]


def _gaps(wanted: Answers, found: Answers) -> list[dict[str, Any]]:
    """Return for each output how far it is off, also as a share of its own largest number."""
    shapes = [[tuple(value.shape) for value in answer] for answer in (wanted, found)]
    if shapes[0] != shapes[1]:
        raise NasError(f"the file gives {shapes[1]} where the network gives {shapes[0]}")
    rows = []
    for one, other in zip(wanted, found, strict=True):
        apart, largest = float((other - one).abs().max()), float(one.abs().max())
        row: dict[str, Any] = {"max_difference": apart, "largest": largest}
        row |= {"ratio": _share(apart, largest), "tolerance": TOLERANCE, "rounding": None}
        rows.append(row)
    return rows


def _share(apart: float, largest: float) -> float:
    """Return a difference by the largest number; inf where all are 0, or it is no number."""
    share = apart / largest if largest else math.inf if apart else 0.0
    return math.inf if math.isnan(share) else share


def _allow_for_rounding(gaps: list[list[dict[str, Any]]], rounding: list[list[float]]) -> None:
    """Widen the tolerance of the outputs that need it, by what rounding does to each."""
    for row, noises in zip(gaps, rounding, strict=True):
        for gap, noise in zip(row, noises, strict=True):
            if gap["ratio"] > TOLERANCE:
                gap["rounding"] = noise
                gap["tolerance"] = max(TOLERANCE, min(MOST, NOISE * noise))


def _rounding(
    request: ExportRequest, images: Sequence[torch.Tensor], wanted: Sequence[Answers]
) -> list[list[float]]:
    """Return how far the network's float32 is from its float64, for each batch and output.

    As a share of the output's largest number.
    """
    exact = copy.deepcopy(request.module).double()
    with torch.inference_mode():
        answers = [listed(exact(x if request.preprocessing else x.double())) for x in images]
    pairs = zip(wanted, answers, strict=True)
    return [[gap["ratio"] for gap in _gaps(answer, precise)] for answer, precise in pairs]


def _row(
    wanted: Answers, found: Answers, gaps: Sequence[dict[str, Any]], request: ExportRequest
) -> Comparison:
    """Return what is told of a batch: the output that comes nearest to what it may differ by."""
    pairs = zip(request.outputs, gaps, strict=True)
    output, worst = max(pairs, key=lambda pair: pair[1]["ratio"] / pair[1]["tolerance"])
    same = None
    if not request.features_only:
        same = int((wanted[0].argmax(1) == found[0].argmax(1)).sum())
    return Comparison(batch=len(wanted[0]), output=output, **worst, argmax_equal=same)


def _compared(rows: Sequence[Comparison]) -> dict[str, Any]:
    """Return the comparison: ratio, tolerance and rounding are shares of an output's largest."""
    noises = [row.rounding for row in rows if row.rounding is not None]
    return {
        "tolerance": max(row.tolerance for row in rows),
        "max_difference": max(row.max_difference for row in rows),
        "max_ratio": max(row.ratio for row in rows),
        "rounding": max(noises) if noises else None,
        "comparison": tuple(rows),
    }


def _described(request: ExportRequest) -> dict[str, Any]:
    """Return what is in the file."""
    keys = ("arch", "arch_id", "trained", "classes", "mean", "std", "params", "multiply_adds")
    found = {key: request.facts[key] for key in keys}
    found |= {key: tuple(found[key]) for key in ("classes", "mean", "std")}
    found["num_classes"] = request.arch.head.classes
    if request.features_only:
        infos = request.model.feature_info
        found["channels"] = tuple(info["num_chs"] for info in infos)
        found["strides"] = tuple(info["reduction"] for info in infos)
    return found


def _notes(request: ExportRequest, rows: Sequence[Comparison]) -> list[str]:
    notes = [request.facts[FIELD]] if FIELD in request.facts else []
    if not request.facts["trained"]:
        notes = ["fresh weights: the source has no trained ones; the answers mean nothing"]
        if request.arch.in_channels == 3:
            notes.append("mean and std are ImageNet's: no images were seen")
    wide = [row for row in rows if row.rounding is not None]
    if wide:
        worst = max(wide, key=lambda row: row.tolerance)
        notes.append(
            f"this network amplifies rounding: its own float32 is {worst.rounding:.1e} of the "
            f"largest number from its float64, so {worst.tolerance:.1e} instead of "
            f"{TOLERANCE:.0e} was allowed"
        )
    return notes


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
