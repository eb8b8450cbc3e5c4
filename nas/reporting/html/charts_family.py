"""The figures of a family as plotly JSON: its growth, its size, its accuracy. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from nas.reporting.html.axes import (
    GROUPS,
    QUIET,
    SEARCH,
    Axis,
    Figure,
    axes_chart,
    logarithmic,
    named_once,
    rounded,
)
from nas.reporting.html.markup import escape, signed

BASE = "base"  # the name of the net that a family was scaled from


class Spot(NamedTuple):
    """One net: its name, cost as the data has it, accuracy and standard error in percent.

    `steady` tells whether the cost is one that a second measurement would repeat.
    """

    name: str
    cost: float
    accuracy: float
    std: float
    steady: bool = True


def growth_chart(names: Sequence[str], ideal: Sequence[float], real: Sequence[float]) -> Figure:
    """Return FLOPs over the base's against 2**phi for the base and its family, beside equality."""
    ends = [min(ideal), max(ideal)]
    line = {
        "type": "scatter",
        "mode": "lines",
        "name": "2<sup>φ</sup>",
        "x": ends,
        "y": ends,
        "line": {"color": QUIET, "width": 1, "dash": "dash"},
        "hoverinfo": "skip",
    }
    off = (signed(100 * (mine / wanted - 1), 1) for mine, wanted in zip(real, ideal, strict=True))
    labels = [
        f"{name} {miss} %" if name != BASE else name for name, miss in zip(names, off, strict=True)
    ]
    family = _labelled("family", labels, ideal, real)
    family["hovertemplate"] = "%{text}: %{y:.2f} for %{x:.2f}<extra></extra>"
    chart = axes_chart([line, family], "2<sup>φ</sup>", "FLOPs over the base's", 360)
    logarithmic(chart["layout"]["xaxis"], ideal)
    logarithmic(chart["layout"]["yaxis"], [*real, *ends])
    return chart


def size_chart(names: Sequence[str], flops: Sequence[float], params: Sequence[float]) -> Figure:
    """Return the parameters of a family against its FLOPs, the base first."""
    large = math.sqrt(min(flops) * max(flops)) >= 1e9
    factor, letter, word = (1e9, "G", "billion") if large else (1e6, "M", "million")
    costs, sizes = [value / factor for value in flops], [value / 1e6 for value in params]
    family = _labelled("family", names, costs, sizes)
    family["hovertemplate"] = f"%{{text}}: %{{y:.3g}}M at %{{x:.4g}}{letter}<extra></extra>"
    title = f"FLOPs ({word} multiply-adds)"
    chart = axes_chart([family], title, "Parameters (million)", 360)
    logarithmic(chart["layout"]["xaxis"], costs)
    logarithmic(chart["layout"]["yaxis"], sizes)
    return chart


def _labelled(
    name: str, labels: Sequence[str], x: Sequence[float], y: Sequence[float]
) -> dict[str, Any]:
    order = sorted(range(len(labels)), key=lambda index: x[index])
    named, places = [labels[index] for index in order], [(x[index], y[index]) for index in order]
    return {
        "type": "scatter",
        "mode": "lines+markers+text",
        "name": name,
        "x": [x[index] for index in order],
        "y": [y[index] for index in order],
        "text": [escape(name) for name in named_once(named, places)],
        # beside a rising line both corners are free; the first label would cross the axis
        "textposition": ["bottom right", *["top left"] * (len(order) - 1)],
        "textfont": {"color": QUIET, "size": 11},
        "cliponaxis": False,
        "line": {"color": SEARCH, "width": 1.5},
        "marker": {"color": SEARCH, "size": 7},
    }


def accuracy_chart(curves: Mapping[str, Sequence[Spot]], axis: Axis) -> Figure:
    """Return test accuracy against a cost, a line for each rule, the family's own first.

    Where a cost is unsteady no line joins the nets: its ups and downs would be the clock's.
    """
    data = [
        _curve(name, spots, axis, SEARCH if number == 0 else GROUPS[number % len(GROUPS)])
        for number, (name, spots) in enumerate(curves.items())
    ]
    chart = axes_chart(data, axis.title, "Test accuracy (%)", 380)
    costs = [spot.cost / axis.factor for spots in curves.values() for spot in spots]
    logarithmic(chart["layout"]["xaxis"], costs)
    return chart


def _curve(name: str, spots: Sequence[Spot], axis: Axis, colour: str) -> dict[str, Any]:
    ordered = sorted(spots, key=lambda spot: spot.cost)
    joined = all(spot.steady for spot in spots)
    return {
        "type": "scatter",
        "mode": "lines+markers+text" if joined else "markers+text",
        "name": escape(name),
        "x": [rounded(spot.cost / axis.factor) for spot in ordered],
        "y": [rounded(spot.accuracy) for spot in ordered],
        "text": [
            escape(name)
            for name in named_once(
                [spot.name for spot in ordered], [(s.cost, s.accuracy) for s in ordered]
            )
        ],
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
        "marker": {
            "color": colour,
            "size": 7,
            "symbol": ["circle" if spot.steady else "circle-open" for spot in ordered],
        },
        "hovertemplate": f"%{{text}}: %{{y:.2f}} % at %{{x}}<extra>{escape(name)}</extra>",
    }
