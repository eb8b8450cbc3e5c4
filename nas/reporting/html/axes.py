"""The frame of a figure as plotly JSON: colours, axes, ticks, lines with a name. Pure functions.

A colour such as var(--search) is looked up by the page's script in its style sheet, so light, dark
and print each get their own.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from nas.reporting.html.markup import escape, packed

Figure = dict[str, Any]
INK, QUIET, RULE, GRID = "var(--ink)", "var(--quiet)", "var(--rule)", "var(--grid)"
SEARCH, RANDOM, WINNER = "var(--search)", "var(--random)", "var(--winner)"
REFERENCE = "var(--reference)"
GROUPS = tuple(f"var(--group{number})" for number in range(1, 9))
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
HALO = ", ".join(f"{x}px {y}px 1px var(--paper)" for x in (-1, 1) for y in (-1, 1))
LONG = 20_000  # characters of a chart's data from which on they are packed
TICKS = 8  # on a logarithmic axis at most
NAME_HEIGHT = 16  # pixels of one name of a line
# a line this many times further out than the data is left out: it would squeeze them to nothing
FAR = 2.0
# where a label may stand, the first that is free; pixels of a plot, a letter, a line and a point
SIDES = ("bottom right", "top right", "bottom left", "top left", "middle right", "middle left")
PLOT, LETTER, LINE, MARK = (1000.0, 380.0), 7.0, 16.0, 10.0


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


def plot(chart: Figure) -> Markup:
    """Return the place of a chart in the page, with its data: JSON, packed where it is long."""
    text = json.dumps(_finite(chart), ensure_ascii=False, separators=(",", ":"))
    height = chart["layout"]["height"]
    start = f'<div class="plot" style="min-height:{height}px">'
    return Markup(f"{start}{embedded(text)}</div>")


def embedded(text: str) -> Markup:
    """Return JSON as a data block of a page, which the page's script reads."""
    if len(text) > LONG:
        return packed(gzip.compress(text.encode(), mtime=0))
    # a name may hold a closing tag: inside a script only JSON's own escape protects the page
    data = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return Markup(f'<script type="application/json">{data}</script>')


def axes_chart(data: list[dict[str, Any]], x: str, y: str, height: int) -> Figure:
    """Return a figure of these traces with titled axes, `height` in pixels."""
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


def logarithmic(axis: dict[str, Any], values: Sequence[float]) -> None:
    """Make an axis logarithmic over positive values, with ticks that are written in full.

    Plotly writes only the first digit of a tick between two powers of ten: where none of these
    is in sight, a 5 may be .05 or 500.
    """
    low, high = math.log10(min(values)), math.log10(max(values))
    pad = max(0.06 * (high - low), 0.08)
    low, high = low - pad, high + pad
    steps = {
        "D2": [math.log10(digit) for digit in (1, 2, 5)],
        1: [0.0],
        "D1": [math.log10(digit) for digit in range(1, 10)],
    }
    counts = {step: _within(ticks, low, high) for step, ticks in steps.items()}
    dtick: object = next((step for step, count in counts.items() if 3 <= count <= TICKS), None)
    if dtick is None and counts[1] > TICKS:
        dtick = math.ceil((high - low) / 6)
    if dtick is None:  # less than a decade: even steps
        dtick = f"L{_nice((10**high - 10**low) / 4):.10g}"
    # six digits without trailing zeros, never an exponent
    ticks = {"dtick": dtick, "tickformat": "~r", "minor": {"showgrid": False}}
    axis |= {"type": "log", "range": [round(low, 4), round(high, 4)], **ticks}


def _within(steps: Sequence[float], low: float, high: float) -> int:
    """Return how many ticks there are from `low` to `high`, as logarithms."""
    decades = range(math.floor(low), math.ceil(high) + 1)
    return sum(low <= decade + step <= high for decade in decades for step in steps)


def _nice(step: float) -> float:
    """Return the largest of 1, 2, 5 times a power of ten that is not above a step."""
    power = 10.0 ** math.floor(math.log10(step))
    return power * max((digit for digit in (1, 2, 5) if digit * power <= step), default=1)


def name_lines(
    layout: dict[str, Any], bounds: Mapping[str, float], values: Sequence[float]
) -> None:
    """Draw vertical lines with their names at the foot, where data of these `values` are.

    Names stand one above the other, so that those of near lines do not overlap; a name to the
    right of the middle is written to the left of its line, so that it is not cut.
    """
    low, high = min(values, default=0.0), max(values, default=0.0)
    reach = max(high - low, 0.05 * abs(high)) or 1.0
    near = {n: x for n, x in bounds.items() if low - FAR * reach <= x <= high + FAR * reach}
    if not near:
        return
    low, high = min(low, *near.values()), max(high, *near.values())
    pad = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    layout["xaxis"]["range"] = [low - pad, high + pad]
    for row, (name, x) in enumerate(sorted(near.items(), key=lambda item: item[1])):
        _name_line(layout, x, name, row, left=x > (low + high) / 2)


def _name_line(layout: dict[str, Any], x: float, name: str, row: int, *, left: bool) -> None:
    ends = {"x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "layer": "below"}
    line = {"type": "line", **ends, "line": {"color": QUIET, "width": 1, "dash": "dash"}}
    layout.setdefault("shapes", []).append(line)
    note = {"x": x, "y": 0, "yref": "paper", "text": escape(name), "showarrow": False}
    side = {
        "xanchor": "right" if left else "left",
        "yanchor": "bottom",
        "yshift": row * NAME_HEIGHT,
    }
    look = {"font": {"color": QUIET, "size": 12, "shadow": HALO}}
    layout.setdefault("annotations", []).append(note | side | look)


def named_once(names: Sequence[str], places: Sequence[tuple[float, float]]) -> list[str]:
    """Return the labels of points: those of one place together, at the first of them."""
    together: dict[tuple[float, float], list[str]] = {}
    for name, place in zip(names, places, strict=True):
        together.setdefault(place, []).append(name)
    return [", ".join(together.pop(place, [])) for place in places]


def label_sides(
    labels: Sequence[str],
    places: Sequence[tuple[float, float]],
    seen: Sequence[tuple[float, float]],
) -> list[str]:
    """Return on which side of its point each label stands, so that none covers another or a point.

    `seen`: the points between which the axes run. Where no side is free, all but the first share
    the one below on the right.
    """
    taken = [_box(mark, "", "middle center", seen) for mark in places]
    sides = []
    for label, place in zip(labels, places, strict=True):
        own = _box(place, "", "middle center", seen)
        boxes = {side: _box(place, label, side, seen) for side in SIDES}
        others = [box for box in taken if box != own]
        free = (s for s, box in boxes.items() if not any(_meet(box, other) for other in others))
        sides.append(next(free, SIDES[0]) if label else SIDES[0])
        taken += [boxes[sides[-1]]] * bool(label)
    return sides


Box = tuple[float, float, float, float]


def _box(
    place: tuple[float, float], label: str, side: str, seen: Sequence[tuple[float, float]]
) -> Box:
    """Return left, right, bottom and top of a label in pixels, of a mark where it is empty."""
    at = []
    for value, values, pixels in zip(place, zip(*seen, strict=True), PLOT, strict=True):
        low, high = min(values), max(values)
        at.append(pixels * (value - low) / (high - low or 1.0))
    (x, y), (wide, high) = at, (LETTER * len(label) or MARK, LINE if label else MARK)
    down, _, across = side.partition(" ")
    left = {"right": x, "left": x - wide, "center": x - wide / 2}[across]
    bottom = {"bottom": y - high, "top": y, "middle": y - high / 2}[down]
    return left, left + wide, bottom, bottom + high


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]


def frame(axis: dict[str, Any], values: Sequence[float], shown: Collection[float] = ()) -> None:
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


def rounded(value: float) -> float | None:
    """Return five digits of a number, None if it is not finite."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _finite(value: Any) -> Any:
    """Return data that JSON can hold: no nan, no infinity."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
