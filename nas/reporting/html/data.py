"""A search read from its files: trials as points, and the best so far."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.core import run_folder
from nas.core.errors import RunError
from nas.core.units import amount
from nas.interfaces import SCORED, SPENT, Metrics
from nas.reporting.html.axes import Axis
from nas.reporting.html.charts import Point
from nas.reporting.html.markup import escape
from nas.searching.objective import hypervolume, pareto_front
from nas.searching.outcome.explanation import as_candidate
from nas.searching.result import BestArch, Candidate, SearchResult

TITLES = {
    "efficientnet_b0": "EfficientNet-B0",
    "mnasnet_a1": "MnasNet-A1",
    "mobilenet_v2": "MobileNetV2",
}
AXES = {
    "flops": Axis("FLOPs", "million multiply-adds", 1e6),
    "params": Axis("parameters", "million", 1e6),
    "latency_ms": Axis("latency", "ms", 1.0),
}
# the tables of a search, and the columns that are read of each
TABLES = (
    ("trials", ("number", "state")),
    ("random", ("number", "state")),
    ("pareto", ("number",)),
    ("importance", ("choice", "importance")),
)
SHORT = {"expansion": "e", "kernel": "k", "layers": "n", "se": "se"}
RANDOM = "random search"


@dataclass(frozen=True)
class SearchFiles:
    """The files of a search; `cost` is the metric that accuracy is traded against."""

    result: SearchResult
    args: dict[str, Any]
    env: dict[str, Any]
    trials: list[dict[str, str]]
    rivals: list[dict[str, str]]
    front: list[dict[str, str]]
    importance: list[dict[str, str]]
    cost: str

    @property
    def axis(self) -> Axis:
        """Return the cost as an axis of a chart."""
        return AXES.get(self.cost, Axis(self.cost, "", 1.0))

    @property
    def best(self) -> BestArch:
        """Return the best network of a search that evaluated anything."""
        if not self.result.winner:
            raise LookupError("best")
        return self.result.winner


def read(
    folder: Path, result: SearchResult, args: dict[str, Any], env: dict[str, Any]
) -> SearchFiles:
    """Return a search with its tables; those that are not there are empty."""
    # a study that evaluated nothing has tables without a header
    tables = TABLES if result.winner else ((name, ()) for name, _ in TABLES)
    trials, rivals, front, shares = (
        _table(folder / f"{name}.csv", *columns) for name, columns in tables
    )
    if not trials and result.trials:
        raise RunError(f"{folder}/trials.csv lacks the {result.trials} trials: was it edited?")
    cost = result.pareto or next(iter(result.targets), "flops")
    return SearchFiles(result, args, env, trials, rivals, front, shares, cost)


def _table(path: Path, *columns: str) -> list[dict[str, str]]:
    """Return the rows of a table of the run.

    Raises:
        RunError: it has another header than it was written with.
    """
    rows = run_folder.read_csv(path)
    if rows and (absent := [name for name in columns if rows[0].get(name) is None]):
        raise RunError(f"{path} has no column {absent[0]!r}: was it edited?")
    return rows


def title(name: str) -> str:
    """Return the name of a reference net as its paper writes it; others as they are."""
    return TITLES.get(name, name)


def label(entry: BestArch) -> str:
    """Return where a net came from: `search #3`, or the name of a reference."""
    return title(entry.label) if entry.label else f"trial {entry.number}"


def accuracy(metrics: Metrics) -> str:
    """Return an accuracy with its standard deviation, a dash where there is none."""
    if "accuracy" not in metrics:
        return "–"
    return spread(metrics["accuracy"], metrics.get("accuracy_std"))


def spread(mean: float, std: float | None) -> str:
    """Return a mean with its deviation, where that is known."""
    return f"{mean:.2f}" + (f" ± {std:.2f}" if std else "")


def references(result: SearchResult) -> list[Candidate]:
    """Return the references that have an accuracy, with what they showed as candidates."""
    return [as_candidate(result, entry) for entry in result.references]


def compared(result: SearchResult) -> list[Candidate]:
    """Return the entries that the winner is compared with, with what they showed as candidates."""
    random = [as_candidate(result, result.random)] if result.random else []
    return [*references(result), *random]


def number(text: object) -> float:
    """Return a cell of a table as a number, nan if it is none."""
    try:
        return float(str(text))
    except ValueError:
        return math.nan


def points(found: SearchFiles, rows: list[dict[str, str]]) -> list[Point]:
    """Return the evaluated trials of a table that have an accuracy and the cost."""
    names = list(next(iter(found.result.leaders), found.best).choices)
    found_points = []
    for row in rows:
        accuracy, cost = number(row.get("accuracy")), number(row.get(found.cost))
        if row.get("state") in SCORED and math.isfinite(accuracy) and math.isfinite(cost):
            reward = number(row.get("reward"))
            choices = {name: row.get(name) for name in names}
            hover = _hover(found, f"trial {row['number']}", accuracy, cost, reward, choices)
            found_points.append(Point(row["number"], cost, accuracy, reward, hover=hover))
    return found_points


def entry_point(found: SearchFiles, entry: Candidate) -> Point | None:
    """Return the winner or a reference as a point, None without the cost or an accuracy."""
    metrics, name = entry.metrics, title(entry.name)
    if isinstance(entry, BestArch):
        name = f"winner, {label(entry)}"
    if found.cost not in metrics or "accuracy" not in metrics:
        return None
    accuracy, cost = metrics["accuracy"], metrics[found.cost]
    hover = _hover(found, name, accuracy, cost, entry.reward, entry.choices)
    std = metrics.get("accuracy_std", 0.0)
    return Point(name, cost, accuracy, entry.reward, std, hover)


def _hover(
    found: SearchFiles,
    name: str,
    accuracy: float,
    cost: float,
    reward: float,
    choices: Mapping[str, object],
) -> str:
    lines = [
        f"<b>{escape(name)}</b>",
        f"{accuracy:.2f} %, {escape(amount(found.cost, cost))}, reward {reward:.2f}",
    ]
    groups: dict[str, list[str]] = {}
    for choice, value in choices.items():
        group, what = split(choice)
        groups.setdefault(group, []).append(f"{SHORT.get(what, what + ' ')}{value}")
    lines += [escape(f"{group} {' '.join(values)}") for group, values in groups.items()]
    return "<br>".join(lines)


def split(choice: str) -> tuple[str, str]:
    """Return ("block 3", "kernel") for block3_kernel, ("", name) for a name without a number."""
    group, _, what = choice.partition("_")
    head = group.rstrip("0123456789")
    if not what or head in ("", group):
        return "", choice
    return f"{head} {group[len(head) :]}", what


def evaluated(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return the trials that cost an evaluation: not the duplicates and the rejected."""
    return [row for row in rows if row.get("state") in SPENT]


def best_so_far(rows: list[dict[str, str]]) -> list[float]:
    """Return the best reward after each evaluation, nan before the first that succeeded.

    It begins with the best of what was taken over from an earlier search.
    """
    taken = (number(row.get("reward")) for row in rows if row.get("state") == "earlier")
    best, values = max(taken, default=math.nan), []
    for row in evaluated(rows):
        reward = number(row.get("reward"))
        # a comparison with nan is false
        best = reward if not reward <= best and math.isfinite(reward) else best
        values.append(best)
    return values


def pair(found: SearchFiles, row: dict[str, str]) -> tuple[float, float] | None:
    """Return the accuracy and the negated cost of a trial, None if it has no such."""
    accuracy, cost = number(row.get("accuracy")), number(row.get(found.cost))
    return (accuracy, -cost) if math.isfinite(accuracy) and math.isfinite(cost) else None


def areas(
    pairs: Iterable[tuple[float, float] | None], worst: tuple[float, float], area: float
) -> Iterable[float]:
    """Return what part of `area` above `worst` is dominated after each pair, in per cent."""
    front: list[tuple[float, float]] = []
    value = 0.0
    for new in pairs:
        if new and not any(a >= new[0] and b >= new[1] for a, b in front):
            both = [*front, new]
            front = [both[index] for index in pareto_front(both)]
            value = 100 * hypervolume(front, worst) / area
        yield value
