"""HTML page of a training: scores, curves, confusion matrix, the network."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from nas.core import quoting, run_folder
from nas.core.errors import NasError, RunError
from nas.core.units import format_count, format_seconds
from nas.models import cost
from nas.models.arch import Arch
from nas.reporting.html.axes import (
    GROUPS,
    QUIET,
    SEARCH,
    Figure,
    axes_chart,
    name_lines,
    plot,
    rounded,
)
from nas.reporting.html.drawing import networks
from nas.reporting.html.markup import Page, code, command, date, join
from nas.training import history
from nas.training.result import HeldOutScore, TrainResult, ValScore

ARCH, DATA, ROWS = "arch.json", "data.json", "results.csv"
COUNTS, PICTURE = "confusion_matrix.json", "confusion_matrix.png"
LARGEST = 250_000  # bytes of a picture that the page itself holds
MOST_LETTERS = 120  # of the names of classes in the head
COLOURS = {"train_loss": SEARCH, "val_loss": GROUPS[5], "val_top1": SEARCH} | {
    "val_top1_ema": GROUPS[5],
    "val_top1_raw": SEARCH,
    "val_top5": QUIET,
}
Row = Mapping[str, float]


@dataclass(frozen=True)
class TrainingFiles:
    """The files of a training; `result` is None while it is not finished."""

    folder: Path
    result: TrainResult | None
    args: Mapping[str, Any]
    env: Mapping[str, Any]
    arch: Arch
    data: Mapping[str, Any]
    rows: list[Row]


def holds(folder: Path, args: Mapping[str, Any]) -> bool:
    """Tell whether a folder is that of a training that has finished an epoch."""
    return "arch" in args and all((folder / name).is_file() for name in (ARCH, ROWS))


def read(
    folder: Path, result: TrainResult | None, args: Mapping[str, Any], env: Mapping[str, Any]
) -> TrainingFiles:
    """Return a training.

    Raises:
        RunError: its files are damaged.
    """
    try:
        arch = Arch.from_dict(run_folder.read_json(folder / ARCH))
    except NasError as error:
        raise RunError(f"{folder / ARCH} holds no arch: {error}") from error
    data = run_folder.read_json(folder / DATA) if (folder / DATA).is_file() else {}
    rows = [_numbers(row) for row in run_folder.read_csv(folder / ROWS)]
    return TrainingFiles(
        folder, result, args, env, arch, data, [row for row in rows if "epoch" in row]
    )


def _numbers(row: Mapping[str, Any]) -> Row:
    """Return the cells of a row that are numbers, also those that are not finite."""
    found = {}
    for name, cell in row.items():
        try:
            found[name] = float(cell)
        except (TypeError, ValueError):
            continue
    return found


def page(found: TrainingFiles) -> Page:
    """Return the page of a training."""
    notes = found.data.get("notes") or (found.result.notes if found.result else ())
    context = {
        "run": _run(found),
        "headline": _headline(found),
        "facts": _facts(found),
        "alerts": _alerts(found),
        "notes": [str(note) for note in notes],
        "figures": _figures(found),
        "finished": bool(found.result),
        **_curves(found),
        **_confusion(found),
        "net": networks([(found.arch.name, found.arch)]),
        "uses": _uses(found),
    }
    return Page("train.html", f"{found.arch.name}: report of a training", context)


def _facts(found: TrainingFiles) -> list[tuple[str, object]]:
    result, args = found.result, found.args
    items = [
        ("Arch", join([found.arch.name, ", id ", code(found.arch.id)])),
        ("Images", _images(found)),
        ("Classes", _classes(result.classes if result else ())),
        ("Recipe", _recipe(found)),
        ("Linear probe", _probe(found)),
        ("Trained on", (result and result.device) or str(args.get("device") or "unknown")),
        ("Time", format_seconds(sum(row.get("seconds", 0.0) for row in found.rows))),
        ("Started", date(found.env)),
        (
            "Repeat",
            command("nas", "train", str(args["arch"]), "--config", _file(found, run_folder.ARGS)),
        ),
    ]
    return [(name, value) for name, value in items if value]


def _run(found: TrainingFiles) -> str:
    return str(found.result.run if found.result else found.folder)


def _file(found: TrainingFiles, name: str) -> str:
    return f"{_run(found)}/{name}"


def _headline(found: TrainingFiles) -> str:
    name = f"{found.arch.name} on {_data_name(found)}"
    if found.result and found.result.test:
        return f"{name}: {found.result.test.top1:.2f} % of the test images right"
    best = history.best(found.rows)
    so_far = f", best so far {best[1]:.2f} % of the validation images right" if best else ""
    return f"{name}: not finished, {len(found.rows)} of {_epochs(found)} epochs{so_far}"


def _data_name(found: TrainingFiles) -> str:
    known = found.result.data if found.result else ""
    return known or str(found.data.get("name") or found.args.get("data") or "images")


def _epochs(found: TrainingFiles) -> object:
    known = found.result.epochs if found.result else 0
    return known or found.args.get("epochs") or "the recipe's"


def _images(found: TrainingFiles) -> str:
    result = found.result
    splits = (result and result.splits) or found.data.get("splits") or {}
    counts = ", ".join(f"{count:,} {name}" for name, count in splits.items())
    side = (result and result.imgsz) or found.args.get("imgsz") or found.arch.resolution
    return f"{_data_name(found)}: {counts}; {side} pixels a side"


def _probe(found: TrainingFiles) -> str:
    """Return what the linear probe gave that a fine-tuning began with; "" where there was none."""
    probe = found.result.probe if found.result else None
    took = f"{probe.n:,} val images, after {format_seconds(round(probe.seconds))}" if probe else ""
    return f"{probe.top1:.2f} % of {took}" if probe else ""


def _classes(names: Sequence[str]) -> str:
    shown, letters = 0, 0
    for name in names:
        letters += len(name) + 2
        if letters > MOST_LETTERS:
            break
        shown += 1
    words = [f"{len(names)}: {', '.join(names[:shown])}"] if shown else [f"{len(names)}"]
    words += [f"and {len(names) - shown} more"] if 0 < shown < len(names) else []
    return " ".join(words) if names else ""


def _recipe(found: TrainingFiles) -> str:
    args = found.args
    words = [(found.result and found.result.recipe) or str(args.get("recipe") or "")]
    words += [f"{name} {value}" for name, value in (args.get("recipe_options") or {}).items()]
    words += [f"{_epochs(found)} epochs"]
    words += [f"{args['batch_size']} images a step"] if args.get("batch_size") else []
    words += [f"from the weights of {args['init']}"] if args.get("init") else []
    words += [f"taught by {args['teacher']}"] if args.get("teacher") else []
    words += ["the classifier alone"] if args.get("freeze") else []
    return ", ".join([*words, f"seed {args.get('seed', 'unknown')}"])


def _alerts(found: TrainingFiles) -> list[str]:
    """Return what a reader must know before trusting the figures."""
    warning = found.result.warning if found.result else ""
    alerts = [f"{warning[:1].upper()}{warning[1:]}."] if warning else []
    if not found.result:
        again = quoting.command("nas", "resume", _run(found))
        alerts.append(f"Not finished: `{again}` goes on. The test images are not read yet.")
    return alerts


def _figures(found: TrainingFiles) -> list[tuple[str, str, str]]:
    counted = cost.count(found.arch)
    flops = f"multiply-adds at {found.arch.resolution} pixels"
    figures = [
        ("FLOPs", format_count(counted.flops), flops),
        ("parameters", format_count(counted.params), "weights and biases"),
    ]
    result = found.result
    if result and result.test and result.val:
        split = [
            (
                "test top-1",
                _score(result.test),
                f"of {result.test.n:,} images, read once, at the end",
            ),
            ("validation top-1", _score(result.val), f"epoch {result.best_epoch}, chosen by it"),
        ]
        figures = [*split, *figures]
    return figures


def _score(score: ValScore | HeldOutScore) -> str:
    return f"{score.top1:.2f} ± {score.standard_error:.2f} %"


def _curves(found: TrainingFiles) -> dict[str, object]:
    """Return loss and accuracy over the epochs, and what the loss's axis leaves out."""
    if not found.rows:
        return {"loss": "", "accuracy": "", "lost": ""}
    curves = [history.curve(found.rows, column) for column in history.LOSSES]
    lost = history.curve_notes(curves)
    return {
        "loss": plot(_loss_chart(found.rows, curves)),
        "accuracy": plot(_accuracy_chart(found)),
        "lost": f"{lost[:1].upper()}{lost[1:]}",
    }


def _loss_chart(rows: Sequence[Row], curves: Sequence[history.Curve]) -> Figure:
    chart = _chart(rows, history.LOSSES, "Loss")
    if (top := history.ceiling(curves)) is not None:
        chart["layout"]["yaxis"]["range"] = [0, top]
    return chart


def _accuracy_chart(found: TrainingFiles) -> Figure:
    rows = found.rows
    chart = _chart(rows, history.accuracies(rows), "Accuracy (%)")
    known = found.result.best_epoch if found.result else 0
    best = known or (history.best(rows) or (0,))[0]
    if best:
        epochs = [row["epoch"] for row in rows]
        name_lines(chart["layout"], {f"best, epoch {best:g}": float(best)}, epochs)
    return chart


def _chart(rows: Sequence[Row], lines: Mapping[str, str], title: str) -> Figure:
    drawn = [_line(rows, column, name) for column, name in lines.items()]
    chart = axes_chart(drawn, "Epoch", title, 340)
    if len(rows) <= 10:  # no ticks between epochs
        chart["layout"]["xaxis"]["dtick"] = 1
    return chart


def _line(rows: Sequence[Row], column: str, name: str) -> dict[str, Any]:
    points, colour = history.curve(rows, column), COLOURS[column]
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(points) <= 30 else "lines",
        "name": name,
        "x": [epoch for epoch, _ in points],
        "y": [rounded(value) for _, value in points],
        "line": {"color": colour, "width": 2},
        "marker": {"color": colour, "size": 5},
        "hovertemplate": "epoch %{x}: %{y:.4g}",
    }


def _confusion(found: TrainingFiles) -> dict[str, str]:
    """Return the picture of the confusion matrix, and itself as a URL where it is small enough."""
    path = found.folder / PICTURE
    if not path.is_file():
        return {"picture": "", "source": ""}
    data = path.read_bytes()
    source = f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"
    return {"picture": PICTURE, "source": source if len(data) <= LARGEST else ""}


def _uses(found: TrainingFiles) -> list[Markup]:
    if not found.result:
        return []
    lines = [("predict", _run(found), "IMAGE"), ("explain", "IMAGE", "--models", _run(found))]
    lines.append(("export", _run(found), "--format", "onnx"))
    return [command("nas", *words) for words in lines]
