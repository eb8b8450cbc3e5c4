"""Figures of families that were trained: accuracy against what it costs. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from nas.pages.charts import GROUPS, QUIET, SEARCH, Axis, Figure, axes_chart, rounded
from nas.pages.drawing import escape


class Spot(NamedTuple):
    """One net: its name, cost as the data has it, accuracy and standard error in percent."""

    name: str
    cost: float
    accuracy: float
    std: float


def accuracy_chart(curves: Mapping[str, Sequence[Spot]], axis: Axis) -> Figure:
    """Return test accuracy against a cost, a line for each rule, the family's own first."""
    data = [
        _curve(name, spots, axis, SEARCH if number == 0 else GROUPS[number % len(GROUPS)])
        for number, (name, spots) in enumerate(curves.items())
    ]
    chart = axes_chart(data, axis.title, "Test accuracy (%)", 380)
    chart["layout"]["xaxis"] |= {"type": "log", "nticks": 6}
    return chart


def _curve(name: str, spots: Sequence[Spot], axis: Axis, colour: str) -> dict[str, Any]:
    ordered = sorted(spots, key=lambda spot: spot.cost)
    return {
        "type": "scatter",
        "mode": "lines+markers+text",
        "name": escape(name),
        "x": [rounded(spot.cost / axis.factor) for spot in ordered],
        "y": [rounded(spot.accuracy) for spot in ordered],
        "text": [escape(spot.name) for spot in ordered],
        "textposition": "top left",
        "textfont": {"color": QUIET, "size": 11},
        "cliponaxis": False,
        "error_y": {
            "array": [rounded(spot.std) for spot in ordered],
            "color": colour,
            "thickness": 1,
            "width": 3,
        },
        "line": {"color": colour, "width": 1.5},
        "marker": {"color": colour, "size": 7},
        "hovertemplate": "%{text}: %{y:.2f} % at %{x}<extra>" + escape(name) + "</extra>",
    }
