"""The report of a run: one HTML file that shows what was found, offline, for people.

It is made from the run's files alone, so it can be written again at any time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import nas
from nas.core import run_folder
from nas.core.errors import MissingError, NasError, RunError
from nas.core.quoting import command
from nas.reporting import pictures
from nas.reporting.html import data, family, scale, search, train
from nas.reporting.html.markup import render
from nas.scaling.result import ScaleResult
from nas.searching.result import SearchResult
from nas.training.result import TrainResult

Result = TypeVar("Result", bound=Mapping[str, Any])
REPORT, RESULT, SCHEMA = "report.html", "result.json", 1
CURVES, MATRIX = "results.png", "confusion_matrix.png"
TABLES = ("trials.csv", "random.csv", "pareto.csv", "importance.csv", "family.csv")
# what a result that was edited raises where it is read
WRONG = (LookupError, TypeError, ValueError, AttributeError)
FILES = (
    *TABLES,
    "results.csv",
    CURVES,
    MATRIX,
    "README.md",
    RESULT,
    run_folder.ARGS,
    run_folder.ENVIRONMENT,
    "best/arch.json",
)


def reported(work: Callable[[], Result], say: Callable[[str], None] = lambda text: None) -> Result:
    """Return what a verb returns, and write the report of its run: also where it fails midway.

    Raises:
        RunError: the report cannot be written.
    """
    try:
        result = work()
    except NasError as error:
        with contextlib.suppress(NasError):  # the first error is the one to tell
            _write_new(error.run, say)
        raise
    _write_new(result.get("run"), say)
    return result


def _write_new(run: str | None, say: Callable[[str], None]) -> None:
    """Write the report of a run that has a result, unless it was written after that."""
    if not run or not (Path(run) / RESULT).exists():
        return
    report = Path(run) / REPORT
    if not report.exists() or _newer(Path(run) / RESULT, report):
        write(Path(run), say)
        _write_beside(Path(run))


def _write_beside(folder: Path) -> None:
    """Write the reports that show a family: its search's, and those of its base's other families.

    A courtesy: `nas report` says what is wrong with one that cannot be written.
    """
    result = _json(folder / RESULT)
    if "members" not in result:
        return
    with contextlib.suppress(*WRONG):
        _write_around(folder, ScaleResult.from_dict(result))


def _write_around(folder: Path, result: ScaleResult) -> None:
    others = [folder.parent / other.run.name for other in families_beside(folder, result)]
    base = Path(result.base)
    if base.is_absolute() and (base / "best").is_dir():
        others.append(base)
    for other in others:
        with contextlib.suppress(NasError):
            write(other)


def _newer(path: Path, other: Path) -> bool:
    return path.stat().st_mtime_ns > other.stat().st_mtime_ns


def write(folder: Path, say: Callable[[str], None] = lambda text: None) -> Path:
    """Write report.html into the folder of a search, scale or train run; return its path.

    `folder`: or the run's name. A training may be unfinished; of a finished one the pictures are
    drawn, too. A search shows the latest family that was scaled from it under the same project.

    Raises:
        RunError: the folder is none of these, is damaged, or cannot be written.
    """
    folder = run_folder.find(folder)
    args = run_folder.read_args(folder) if (folder / run_folder.ARGS).is_file() else {}
    training = train.holds(folder, args)
    result = _json(folder / RESULT) if training else _result(folder)
    env = _json(folder / run_folder.ENVIRONMENT)
    try:
        if training:
            found = train.read(folder, TrainResult.from_dict(result) if result else None, args, env)
            if found.result:
                _draw(found, found.result, say)
            page = train.page(found)
        elif "members" in result:
            made = ScaleResult.from_dict(result)
            page = scale.page(made, env, families_beside(folder, made))
        else:
            found_search = SearchResult.from_dict(result)
            family_made = _family(folder, found_search)
            page = search.page(data.read(folder, found_search, args, env), family_made)
    except WRONG as error:
        raise RunError(
            f"{folder / RESULT} lacks what a report needs ({type(error).__name__}: {error}); "
            "was it edited?"
        ) from error
    footer = _footer(folder, args, env)
    run_folder.write_text(
        folder / REPORT, render(page.template, title=page.title, footer=footer, **page.context)
    )
    return folder / REPORT


def _draw(found: train.TrainingFiles, result: TrainResult, say: Callable[[str], None]) -> None:
    """Draw the curves and the confusion matrix of a finished training, as PNG files."""
    counts = _json(found.folder / train.COUNTS)
    try:
        pictures.curves(found.rows, found.folder / CURVES)
        if counts:
            pictures.confusion(counts["counts"], counts["classes"], found.folder / MATRIX)
    except MissingError as error:
        return say(f"no pictures: {error}")
    if not (found.folder / MATRIX).exists():
        number = len(result.classes)
        say(f"no {MATRIX}: {number:,} classes are too many to draw; `nas val` lists them")


def _result(folder: Path) -> dict[str, Any]:
    found = _json(folder / RESULT)
    if not found and (folder / run_folder.ARGS).is_file():
        raise RunError(
            f"{folder} has no {RESULT} yet: finish it first, with "
            f"`{command('nas', 'resume', str(folder))}`"
        )
    if not ({"members", "baseline"} <= set(found) or {"space", "states"} <= set(found)):
        raise RunError(
            f"{folder} is no run that can be reported: a folder of `nas search`, `nas scale` or "
            f"`nas train`, with {run_folder.ARGS} and {RESULT}, is expected"
        )
    if found.get("schema") != SCHEMA:
        raise RunError(
            f"{folder / RESULT} has schema {found.get('schema')!r}, this version reads {SCHEMA}: "
            "report with the version that made the run"
        )
    return found


def _json(path: Path) -> dict[str, Any]:
    """Return the object of a JSON file, an empty one if there is no file."""
    return run_folder.read_object(path) if path.exists() else {}


def _family(folder: Path, result: SearchResult) -> dict[str, object] | None:
    """Return the section of the latest family of a search, if there is one."""
    if not result.winner:
        return None
    for other in reversed(run_folder.runs("scale", folder.resolve().parent.parent)):
        try:
            made = _result(other) if _comes_from(run_folder.read_args(other), folder) else {}
        except NasError:  # another run's damage is not this one's
            continue
        if "members" in made:
            found = ScaleResult.from_dict(made)
            return scale.in_search(found, found.baseline.arch.id == result.winner.arch.id)
    return None


def families_beside(folder: Path, result: ScaleResult) -> list[ScaleResult]:
    """Return the other trained families of a run's base, of each rule the latest."""
    found: dict[str, ScaleResult] = {}
    for other in run_folder.runs("scale", folder.resolve().parent.parent):
        try:
            made = _result(other) if other.resolve() != folder.resolve() else {}
            theirs = ScaleResult.from_dict(made) if "members" in made else None
        except (NasError, *WRONG):  # another run's damage is not this one's
            continue
        if theirs and family.comparable(result, theirs):
            found[theirs.rule] = theirs
    return list(found.values())


def _comes_from(args: Mapping[str, Any], folder: Path) -> bool:
    """Tell whether a family's base is a search run's folder or its best arch.

    A relative base was typed in a folder above the run that is not on file: any will do.
    """
    if "base" not in args:
        return False
    here, base = folder.resolve(), Path(str(args["base"]))
    places = [base.resolve(), *(above / base for above in here.parents)]
    return any(place in (here, here / "best", here / "best" / "arch.json") for place in places)


def _footer(folder: Path, args: Mapping[str, Any], env: Mapping[str, Any]) -> dict[str, object]:
    """Return what is needed to repeat the run: files, arguments, environment, version."""
    return {
        "files": [name for name in FILES if (folder / name).is_file()],
        "arguments": [(name, value) for name, value in args.items() if value not in (None, {}, [])],
        "environment": _environment(env),
        "version": nas.__version__,
    }


def _environment(env: Mapping[str, Any]) -> list[tuple[object, object]]:
    names = ("python", "platform", "cpus", "commit")
    items: list[tuple[object, object]] = [(name, env[name]) for name in names if env.get(name)]
    items += list((env.get("versions") or {}).items())
    if env.get("command"):
        items.append(("started as", command(*env["command"])))
    return items
