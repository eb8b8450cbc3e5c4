"""The report's figures as plotly JSON, and the script that draws them. Pure functions.

Figures are plain data, so that nothing of plotly is needed but its plotly.js, which the page holds
once. A colour such as var(--search) is looked up by the script in the page's style sheet, so light,
dark and print each get their own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nas.pages.drawing import Html, escape, signed, tag

Figure = dict[str, Any]
INK, QUIET, RULE, GRID = "var(--ink)", "var(--quiet)", "var(--rule)", "var(--grid)"
SEARCH, RANDOM, WINNER = "var(--search)", "var(--random)", "var(--winner)"
REFERENCE = "var(--reference)"
GROUPS = tuple(f"var(--group{number})" for number in range(1, 9))
HALO = ", ".join(f"{x}px {y}px 1px var(--paper)" for x in (-1, 1) for y in (-1, 1))
DASHES = ("dash", "dot", "dashdot")
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
BASE = "base"  # the name of the net that a family was scaled from
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


@dataclass(frozen=True)
class Axis:
    """A cost as an axis: its name and unit, and how many units of the data one of the axis is."""

    name: str
    unit: str
    factor: float

    @property
    def title(self) -> str:
        """Return the name with the unit."""
        name = escape(self.name[:1].upper() + self.name[1:])
        return f"{name} ({self.unit})" if self.unit else name


def plotly_js() -> str:
    """Return the source of plotly.js."""
    from plotly.offline import get_plotlyjs

    source: str = get_plotlyjs()
    return source


def plot(chart: Figure) -> Html:
    """Return the place of a chart in the page, with its data."""
    text = json.dumps(_finite(chart), ensure_ascii=False, separators=(",", ":"))
    height = chart["layout"]["height"]
    # a name may hold a closing tag: inside a script only JSON's own escape protects the page
    data = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    start = f'<div class="plot" style="min-height:{height}px">'
    return Html(f'{start}<script type="application/json">{data}</script></div>')


def figure(chart: Figure, note: object) -> Html:
    """Return a chart with its caption."""
    return tag("figure", plot(chart), tag("figcaption", note))


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
        _references(references, scale),
        _star(winner, scale),
    ]
    chart = axes_chart([trace for trace in data if trace["x"]], axis.title, "Accuracy (%)", 480)
    seen = [*trials, *rivals, *references]
    values = [point.accuracy for point in seen]
    _frame(chart["layout"]["yaxis"], values, [point.accuracy for point in [*references, winner]])
    for label, value in bounds.items():
        _line(chart["layout"], value / scale, label)
    return chart


def curve_chart(
    series: Mapping[str, Sequence[float]], levels: Mapping[str, float], title: str
) -> Figure:
    """Return a value after each evaluation for one or two searches, with levels to compare."""
    colours = {"search": SEARCH, "random search": RANDOM}
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "x": list(range(1, len(values) + 1)),
            "y": [rounded(value) for value in values],
            "line": {"color": colours[name], "width": 2, "shape": "hv"},
            "hovertemplate": "after %{x}: %{y:.2f}",
        }
        for name, values in series.items()
    ]
    most = max(len(values) for values in series.values())
    for (name, level), dash in zip(levels.items(), DASHES, strict=False):
        data.append(_level(name, level, most, dash))
    chart = axes_chart(data, "Evaluations", title, 360)
    chart["layout"]["hovermode"] = "x unified"
    if most <= 10:
        chart["layout"]["xaxis"]["dtick"] = 1
    chart["layout"]["xaxis"]["range"] = [0, most * 1.01 + 1]
    known = [value for values in series.values() for value in values if math.isfinite(value)]
    _frame(chart["layout"]["yaxis"], known, levels.values())
    return chart


def importance_chart(importances: Sequence[tuple[str, str, float]]) -> Figure:
    """Return one bar per choice, given as (group, attribute, share), coloured by group."""
    groups = sorted({group for group, _, _ in importances}, key=_natural)
    data = []
    for number, group in enumerate(groups):
        own = [(f"{g} {what}".strip(), share) for g, what, share in importances if g == group]
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": escape(f"{group} ({100 * sum(share for _, share in own):.0f} %)"),
                "x": [rounded(100 * share) for _, share in own],
                "y": [escape(name) for name, _ in own],
                "marker": {"color": GROUPS[number % len(GROUPS)]},
                "hovertemplate": "%{y}: %{x:.1f} %<extra></extra>",
            }
        )
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
    _logarithmic(chart)
    return chart


def size_chart(names: Sequence[str], flops: Sequence[float], params: Sequence[float]) -> Figure:
    """Return the parameters of a family against its FLOPs, the base first."""
    costs, sizes = [value / 1e9 for value in flops], [value / 1e6 for value in params]
    family = _labelled("family", names, costs, sizes)
    family["hovertemplate"] = "%{text}: %{y:.2f}M at %{x:.3g}G<extra></extra>"
    chart = axes_chart([family], "FLOPs (billion multiply-adds)", "Parameters (million)", 360)
    _logarithmic(chart)
    return chart


def _labelled(
    name: str, labels: Sequence[str], x: Sequence[float], y: Sequence[float]
) -> dict[str, Any]:
    order = sorted(range(len(labels)), key=lambda index: x[index])
    return {
        "type": "scatter",
        "mode": "lines+markers+text",
        "name": name,
        "x": [x[index] for index in order],
        "y": [y[index] for index in order],
        "text": [escape(labels[index]) for index in order],
        # beside a rising line both corners are free; the first label would cross the axis
        "textposition": ["bottom right", *["top left"] * (len(order) - 1)],
        "textfont": {"color": QUIET, "size": 11},
        "cliponaxis": False,
        "line": {"color": SEARCH, "width": 1.5},
        "marker": {"color": SEARCH, "size": 7},
    }


def _logarithmic(chart: Figure) -> None:
    for name in ("xaxis", "yaxis"):
        chart["layout"][name] |= {"type": "log", "dtick": "D2", "minor": {"showgrid": False}}


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


def _references(points: Sequence[Point], scale: float) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers+text",
        "name": "reference nets",
        **_places(points, scale),
        "text": [escape(point.name) for point in points],
        "textposition": "bottom right",
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


def _line(layout: dict[str, Any], x: float, label: str) -> None:
    """Add a vertical line with its name at the top."""
    ends = {"x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "layer": "below"}
    line = {"type": "line", **ends, "line": {"color": QUIET, "width": 1, "dash": "dash"}}
    layout.setdefault("shapes", []).append(line)
    note = {"x": x, "y": 0, "yref": "paper", "text": escape(label), "showarrow": False}
    where = {"xanchor": "left", "yanchor": "bottom", "font": {"color": QUIET, "size": 12}}
    layout.setdefault("annotations", []).append(note | where)


def _frame(axis: dict[str, Any], values: Sequence[float], shown: Collection[float] = ()) -> None:
    """Set the range of an axis so that a long tail below does not flatten what matters.

    What is in `shown` stays within; double-click shows everything.
    """
    ordered = sorted(values)
    if not ordered:
        return
    high = max([ordered[-1], *shown])
    low = min([ordered[len(ordered) // 20], *shown])
    if ordered[0] < low - (high - low):
        axis["range"] = [low - 0.25 * (high - low), high + 0.08 * (high - low)]


def _natural(name: str) -> tuple[str, int]:
    head = name.rstrip("0123456789")
    return head, int(name[len(head) :] or 0)


def rounded(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _finite(value: Any) -> Any:
    """Return data that JSON can hold: no nan, no infinity."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def axes_chart(data: list[dict[str, Any]], x: str, y: str, height: int) -> Figure:
    axis = {
        "gridcolor": GRID,
        "linecolor": RULE,
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": RULE,
        "ticklen": 4,
        "automargin": True,
    }
    clear = "rgba(0,0,0,0)"
    label = {"bgcolor": "var(--paper)", "bordercolor": RULE, "align": "left"}
    layout = {
        "height": height,
        "autosize": True,
        "margin": {"l": 8, "r": 16, "t": 8, "b": 8},
        "paper_bgcolor": clear,
        "plot_bgcolor": clear,
        "font": {"family": FONT, "size": 12, "color": INK},
        "hoverlabel": {**label, "font": {"color": INK, "size": 12}},
        "hovermode": "closest",
        "showlegend": len(data) > 1,
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": 1.02,
            "yanchor": "bottom",
            "traceorder": "normal",
        },
        "xaxis": {**axis, "title": {"text": x, "standoff": 8}, "showline": True},
        "yaxis": {**axis, "title": {"text": y, "standoff": 8}},
    }
    return {"data": data, "layout": layout}
