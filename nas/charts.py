"""The report's figures as plotly JSON, and the script that draws them. Pure functions.

Figures are plain data, so that nothing of plotly is needed but its plotly.js, which the page holds
once. A colour such as var(--search) is looked up by the script in the page's style sheet, so light,
dark and print each get their own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nas.drawing import Html, escape

Figure = dict[str, Any]
INK, QUIET, RULE, GRID = "var(--ink)", "var(--quiet)", "var(--rule)", "var(--grid)"
SEARCH, RANDOM, WINNER = "var(--search)", "var(--random)", "var(--winner)"
REFERENCE = "var(--reference)"
GROUPS = tuple(f"var(--group{number})" for number in range(1, 9))
DASHES = ("dash", "dot", "dashdot")
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
MOST = 4000  # points of one series; more are thinned

SCRIPT = """
(() => {
  const plots = [...document.querySelectorAll(".plot")].map((box) => ({
    figure: JSON.parse(box.querySelector("script").textContent),
    target: box.appendChild(document.createElement("div")),
  }));
  const touch = matchMedia("(pointer: coarse)").matches;
  const draw = () => {
    const style = getComputedStyle(document.documentElement);
    const colour = (_, name) => style.getPropertyValue(name).trim();
    const paint = (x) => {
      if (typeof x === "string") return x.replace(/^var\\((--[a-z0-9]+)\\)$/, colour);
      if (Array.isArray(x)) return x.map(paint);
      if (x === null || typeof x !== "object") return x;
      return Object.fromEntries(Object.entries(x).map(([key, value]) => [key, paint(value)]));
    };
    for (const { figure, target } of plots) {
      const { data, layout } = paint(figure);
      target.style.height = `${layout.height}px`;
      const options = { displayModeBar: false, responsive: true };
      Plotly.react(target, data, { ...layout, dragmode: touch ? false : "zoom" }, options);
    }
  };
  draw();
  for (const query of ["print", "(prefers-color-scheme: dark)"]) {
    matchMedia(query).addEventListener("change", draw);
  }
})();
"""


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
        return f"{escape(self.name)} ({self.unit})" if self.unit else escape(self.name)


def plotly_js() -> str:
    """Return the source of plotly.js."""
    from plotly.offline import get_plotlyjs

    source: str = get_plotlyjs()
    return source


def plot(figure: Figure) -> Html:
    """Return the place of a figure in the page, with its data."""
    text = json.dumps(_finite(figure), ensure_ascii=False, separators=(",", ":"))
    height = figure["layout"]["height"]
    # a name may hold a closing tag: inside a script only JSON's own escape protects the page
    data = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    start = f'<div class="plot" style="min-height:{height}px">'
    return Html(f'{start}<script type="application/json">{data}</script></div>')


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
    figure = _figure([trace for trace in data if trace["x"]], axis.title, "Accuracy (%)", 480)
    seen = [*trials, *rivals, *references]
    _frame(figure["layout"]["yaxis"], [point.accuracy for point in seen])
    for label, value in bounds.items():
        _line(figure["layout"], value / scale, label)
    return figure


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
            "y": [_digits(value) for value in values],
            "line": {"color": colours[name], "width": 2, "shape": "hv"},
            "hovertemplate": "after %{x}: %{y:.2f}",
        }
        for name, values in series.items()
    ]
    most = max(len(values) for values in series.values())
    for (name, level), dash in zip(levels.items(), DASHES, strict=False):
        data.append(_level(name, level, most, dash))
    figure = _figure(data, "Evaluations", title, 360)
    figure["layout"]["hovermode"] = "x unified"
    figure["layout"]["xaxis"]["range"] = [0, most * 1.01 + 1]
    known = [value for values in series.values() for value in values if math.isfinite(value)]
    _frame(figure["layout"]["yaxis"], [*known, *levels.values()])
    return figure


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
                "name": escape(f"{group} ({sum(share for _, share in own):.0%})"),
                "x": [_digits(100 * share) for _, share in own],
                "y": [escape(name) for name, _ in own],
                "marker": {"color": GROUPS[number % len(GROUPS)]},
                "hovertemplate": "%{y}: %{x:.1f} %<extra></extra>",
            }
        )
    figure = _figure(data, "Share of the importance (%)", "", 110 + 17 * len(importances))
    order = [escape(f"{group} {what}".strip()) for group, what, _ in importances]
    figure["layout"]["yaxis"] |= {
        "categoryorder": "array",
        "categoryarray": order[::-1],
        "showgrid": False,
        "tickmode": "linear",
        "ticklen": 0,
    }
    figure["layout"] |= {"barmode": "stack", "bargap": 0.3, "hovermode": "closest"}
    return figure


def growth_chart(names: Sequence[str], ideal: Sequence[float], real: Sequence[float]) -> Figure:
    """Return the FLOPs of a family over its base's against 2**phi, beside equality."""
    ends = [min(1.0, *ideal), max(1.0, *ideal)]
    line = {
        "type": "scatter",
        "mode": "lines",
        "name": "2<sup>φ</sup>",
        "x": ends,
        "y": ends,
        "line": {"color": QUIET, "width": 1, "dash": "dash"},
        "hoverinfo": "skip",
    }
    family = _labelled("family", ["base", *names], [1.0, *ideal], [1.0, *real])
    family["hovertemplate"] = "%{text}: %{y:.2f} for %{x:.2f}<extra></extra>"
    figure = _figure([line, family], "2<sup>φ</sup>", "FLOPs over the base's", 360)
    _logarithmic(figure)
    return figure


def size_chart(names: Sequence[str], flops: Sequence[float], params: Sequence[float]) -> Figure:
    """Return the parameters of a family against its FLOPs, the base first."""
    costs, sizes = [value / 1e9 for value in flops], [value / 1e6 for value in params]
    family = _labelled("family", names, costs, sizes)
    family["hovertemplate"] = "%{text}: %{y:.2f}M at %{x:.3g}G<extra></extra>"
    figure = _figure(
        [family], "FLOPs (billion multiply-adds)", "Parameters (million)", 360
    )
    _logarithmic(figure)
    return figure


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
        "textposition": "top left",
        "textfont": {"color": QUIET, "size": 11},
        "cliponaxis": False,
        "line": {"color": SEARCH, "width": 1.5},
        "marker": {"color": SEARCH, "size": 7},
    }


def _logarithmic(figure: Figure) -> None:
    for name in ("xaxis", "yaxis"):
        figure["layout"][name] |= {"type": "log", "dtick": "D2", "minor": {"showgrid": False}}


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
        "marker": {"color": colour, "size": 5, "opacity": opacity, "symbol": symbol},
    }


def _places(points: Sequence[Point], scale: float) -> dict[str, Any]:
    return {
        "x": [_digits(point.cost / scale) for point in points],
        "y": [_digits(point.accuracy) for point in points],
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
        "textfont": {"color": REFERENCE, "size": 12},
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
    spread = [_digits(point.std) for point in points]
    return {"array": spread, "color": colour, "thickness": 1.2, "width": 4, "visible": any(spread)}


def _level(name: str, level: float, most: int, dash: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": escape(name),
        "x": [1, most],
        "y": [_digits(level)] * 2,
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


def _frame(axis: dict[str, Any], values: Sequence[float]) -> None:
    """Set the range of an axis so that a long tail below does not flatten what matters.

    Double-click shows everything.
    """
    ordered = sorted(values)
    low, high = ordered[len(ordered) // 20], ordered[-1]
    if ordered and ordered[0] < low - (high - low):
        axis["range"] = [low - 0.25 * (high - low), high + 0.08 * (high - low)]


def _natural(name: str) -> tuple[str, int]:
    head = name.rstrip("0123456789")
    return head, int(name[len(head) :] or 0)


def _digits(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _finite(value: Any) -> Any:
    """Return data that JSON can hold: no nan, no infinity."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _figure(data: list[dict[str, Any]], x: str, y: str, height: int) -> Figure:
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
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": {**axis, "title": {"text": x, "standoff": 8}, "showline": True},
        "yaxis": {**axis, "title": {"text": y, "standoff": 8}},
    }
    return {"data": data, "layout": layout}
