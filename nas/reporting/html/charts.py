"""The figures of a search as plotly JSON. Pure functions: nothing of plotly is needed for them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nas.reporting.html.axes import (
    GROUPS,
    HALO,
    RANDOM,
    REFERENCE,
    SEARCH,
    WINNER,
    Axis,
    Figure,
    axes_chart,
    frame,
    label_sides,
    name_lines,
    named_once,
    rounded,
)
from nas.reporting.html.markup import escape

DASHES = ("dash", "dot", "dashdot", "longdash", "longdashdot")
PATTERNS = ("", "/", "x", ".")
MOST = 4000  # points of one series; more are thinned


@dataclass(frozen=True)
class Point:
    """One net in a chart; `hover` is HTML, `reward` and `std` may be missing (nan)."""

    name: str
    cost: float
    accuracy: float
    reward: float = math.nan
    std: float = 0.0
    hover: str = ""


def front_chart(
    trials: Sequence[Point],
    front: Sequence[Point],
    rivals: Sequence[Point],
    references: Sequence[Point],
    winner: Point,
    axis: Axis,
    bounds: Mapping[str, float],
) -> Figure:
    """Return accuracy against cost: every trial, the front, random search, references, winner."""
    scale = axis.factor
    data = [
        _cloud("random search", rivals, RANDOM, scale, 0.35, "diamond"),
        _cloud("search", trials, SEARCH, scale, 0.5, "circle"),
        _steps(front, scale),
        _references(references, scale, [*trials, *rivals, *references]),
        _star(winner, scale),
    ]
    chart = axes_chart([trace for trace in data if trace["x"]], axis.title, "Accuracy (%)", 480)
    seen = [*trials, *rivals, *references]
    values = [point.accuracy for point in seen]
    frame(chart["layout"]["yaxis"], values, [point.accuracy for point in [*references, winner]])
    costs = [point.cost / scale for point in [*seen, winner]]
    name_lines(chart["layout"], {name: x / scale for name, x in bounds.items()}, costs)
    return chart


def curve_chart(
    series: Mapping[str, Sequence[float]], levels: Mapping[str, float], title: str
) -> Figure:
    """Return a value after each evaluation for one or two searches, with levels to compare."""
    colours = {"search": SEARCH, "random search": RANDOM}
    data = [
        {
            "type": "scatter",
            # a line needs two points
            "mode": "lines" if len(values) > 10 else "lines+markers",
            "name": name,
            "x": list(range(1, len(values) + 1)),
            "y": [rounded(value) for value in values],
            "line": {"color": colours[name], "width": 2, "shape": "hv"},
            "hovertemplate": "after %{x}: %{y:.2f}",
        }
        for name, values in series.items()
    ]
    most = max(len(values) for values in series.values())
    for (name, level), dash in zip(levels.items(), itertools.cycle(DASHES), strict=False):
        data.append(_level(name, level, most, dash))
    chart = axes_chart(data, "Evaluations", title, 360)
    chart["layout"]["hovermode"] = "x unified"
    if most <= 10:
        chart["layout"]["xaxis"]["dtick"] = 1
    chart["layout"]["xaxis"]["range"] = [0, most * 1.01 + 1]
    known = [value for values in series.values() for value in values if math.isfinite(value)]
    frame(chart["layout"]["yaxis"], known, levels.values())
    return chart


def importance_chart(importances: Sequence[tuple[str, str, float]]) -> Figure:
    """Return one bar per choice, given as (group, attribute, share), coloured by group.

    A choice without a group is one of its own.
    """
    groups: dict[str, list[tuple[str, float]]] = {}
    for group, what, share in importances:
        groups.setdefault(group or what, []).append((f"{group} {what}".strip(), share))
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": escape(f"{group} ({100 * sum(share for _, share in own):.0f} %)"),
            "x": [rounded(100 * share) for _, share in own],
            "y": [escape(name) for name, _ in own],
            "marker": _fill(number),
            "hovertemplate": "%{y}: %{x:.1f} %<extra></extra>",
        }
        for number, (group, own) in enumerate(sorted(groups.items(), key=lambda g: _natural(g[0])))
    ]
    chart = axes_chart(data, "Share of the importance (%)", "", 110 + 17 * len(importances))
    order = [escape(f"{group} {what}".strip()) for group, what, _ in importances]
    chart["layout"]["yaxis"] |= {
        "categoryorder": "array",
        "categoryarray": order[::-1],
        "showgrid": False,
        "tickmode": "linear",
        "ticklen": 0,
    }
    chart["layout"] |= {"barmode": "stack", "bargap": 0.3, "hovermode": "closest"}
    return chart


def _fill(number: int) -> dict[str, Any]:
    """Return the look of a group's bars: with a pattern where its colour is another's too."""
    turn, colour = divmod(number, len(GROUPS))
    pattern = {"pattern": {"shape": PATTERNS[turn % len(PATTERNS)]}} if turn else {}
    return {"color": GROUPS[colour], **pattern}


def _cloud(
    name: str, points: Sequence[Point], colour: str, scale: float, opacity: float, symbol: str
) -> dict[str, Any]:
    points = points[:: math.ceil(len(points) / MOST) or 1]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        **_places(points, scale),
        "text": [point.hover for point in points],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"color": colour, "size": 6, "opacity": opacity, "symbol": symbol},
    }


def _places(points: Sequence[Point], scale: float) -> dict[str, Any]:
    return {
        "x": [rounded(point.cost / scale) for point in points],
        "y": [rounded(point.accuracy) for point in points],
    }


def _steps(front: Sequence[Point], scale: float) -> dict[str, Any]:
    ordered = sorted(front, key=lambda point: point.cost)
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "Pareto front of the search",
        **_places(ordered, scale),
        "line": {"color": SEARCH, "width": 1.5, "shape": "hv"},
        "marker": {"color": SEARCH, "size": 5},
        "hoverinfo": "skip",
    }


def _references(points: Sequence[Point], scale: float, seen: Sequence[Point]) -> dict[str, Any]:
    places = [(point.cost, point.accuracy) for point in points]
    labels = named_once([point.name for point in points], places)
    return {
        "type": "scatter",
        "mode": "markers+text",
        "name": "reference nets",
        **_places(points, scale),
        "text": [escape(label) for label in labels],
        "textposition": label_sides(labels, places, [(p.cost, p.accuracy) for p in seen]),
        "textfont": {"color": REFERENCE, "size": 12, "shadow": HALO},
        "customdata": [point.hover for point in points],
        "hovertemplate": "%{customdata}<extra></extra>",
        "error_y": _errors(points, REFERENCE),
        "marker": {
            "color": REFERENCE,
            "size": 10,
            "symbol": "square",
            "line": {"color": "var(--paper)", "width": 1},
        },
    }


def _star(winner: Point, scale: float) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": escape(winner.name),
        **_places([winner], scale),
        "text": [winner.hover],
        "hovertemplate": "%{text}<extra></extra>",
        "error_y": _errors([winner], WINNER),
        "marker": {
            "color": WINNER,
            "size": 15,
            "symbol": "star",
            "line": {"color": "var(--paper)", "width": 1},
        },
    }


def _errors(points: Sequence[Point], colour: str) -> dict[str, Any]:
    spread = [rounded(point.std) for point in points]
    return {"array": spread, "color": colour, "thickness": 1.2, "width": 4, "visible": any(spread)}


def _level(name: str, level: float, most: int, dash: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": escape(name),
        "x": [1, most],
        "y": [rounded(level)] * 2,
        "line": {"color": REFERENCE, "width": 1.5, "dash": dash},
        "hoverinfo": "skip",
    }


def _natural(name: str) -> tuple[str, int]:
    head = name.rstrip("0123456789")
    return head, int(name[len(head) :] or 0)
