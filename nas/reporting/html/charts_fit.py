"""The heat map of a fit: accuracy over alpha and beta, gamma written into each cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nas.reporting.html.axes import GRID, INK, QUIET, SEARCH, Figure, axes_chart
from nas.reporting.html.markup import escape

ROWS, COLUMNS = 26, 16  # of the map at most, where the grid has more
ROW = 36  # pixels
PALE = "var(--tint)"


@dataclass(frozen=True)
class FitCell:
    """One network at (alpha, beta): what is written there, and its accuracy in each view.

    `weight` tells which of several networks of one cell is shown; `hover` is HTML.
    """

    alpha: float
    beta: float
    gamma: float
    mark: str
    weight: int
    hover: str
    values: tuple[float | None, ...]


def fit_chart(cells: Sequence[FitCell], views: Sequence[str]) -> Figure:
    """Return the map, with a button for each view where there are several."""
    shown = _shown(cells)
    alphas = sorted({cell.alpha for cell in shown})
    betas = sorted({cell.beta for cell in shown})
    top: dict[tuple[float, float], FitCell] = {}
    for cell in sorted(shown, key=lambda each: each.weight):
        top[cell.alpha, cell.beta] = cell
    place = [[top.get((alpha, beta)) for beta in betas] for alpha in alphas]
    named = {"x": [f"{b:g}" for b in betas], "y": [f"{a:g}" for a in alphas]}
    hover = _hover(shown, alphas, betas)
    grey = [[None if cell is None else 0 for cell in row] for row in place]
    under = _layer(named, grey, hover, [[0, GRID], [1, GRID]])
    over = _layer(named, None, hover, [[0, PALE], [1, SEARCH]])
    over |= _view(place, 0) | {"texttemplate": "%{text}", "showscale": True}
    over["colorbar"] = {"title": {"text": "%"}, "thickness": 12, "outlinewidth": 0}
    under |= {"text": _words(place, None), "texttemplate": "%{text}", "textfont": {"color": QUIET}}
    chart = axes_chart([under, over], "β (width)", "α (depth)", 110 + ROW * len(alphas))
    for name in ("xaxis", "yaxis"):
        chart["layout"][name] |= {"type": "category", "showgrid": False}
    chart["layout"]["showlegend"] = False
    if len(views) > 1:
        chart["layout"]["updatemenus"] = [_buttons(place, views)]
        chart["layout"]["margin"] |= {"t": 48}
    return chart


def _shown(cells: Sequence[FitCell]) -> Sequence[FitCell]:
    """Return the cells of a map that can be read: all, or without what is lightest."""
    for least in (0, 1, 2):
        found = [cell for cell in cells if cell.weight >= least]
        if len({c.alpha for c in found}) <= ROWS and len({c.beta for c in found}) <= COLUMNS:
            return found
    return found


Place = Sequence[Sequence[FitCell | None]]


def _layer(
    named: Mapping[str, Any], z: Any, hover: Any, colours: list[list[Any]]
) -> dict[str, Any]:
    return {
        "type": "heatmap",
        **named,
        "z": z,
        "hovertext": hover,
        "hovertemplate": "%{hovertext}<extra></extra>",
        "colorscale": colours,
        "showscale": False,
        "hoverongaps": False,
        "xgap": 2,
        "ygap": 2,
    }


def _view(place: Place, view: int) -> dict[str, Any]:
    """Return the values and the words of the cells that have an accuracy in a view."""
    z = [[cell.values[view] if cell else None for cell in row] for row in place]
    known = [value for row in z for value in row if value is not None]
    span = {"zmin": min(known), "zmax": max(known)} if known else {}
    return {"z": z, "text": _words(place, view), **span}


def _words(place: Place, view: int | None) -> list[list[str]]:
    return [[_word(cell, view) for cell in row] for row in place]


def _word(cell: FitCell | None, view: int | None) -> str:
    if cell is None or (view is None and any(v is not None for v in cell.values)):
        return ""
    gamma = f"{cell.mark}γ {cell.gamma:g}"
    value = None if view is None else cell.values[view]
    if view is None:
        return gamma if cell.weight else ""
    return "" if value is None else f"{gamma}<br>{value:.2f}"


def _hover(
    shown: Sequence[FitCell], alphas: Sequence[float], betas: Sequence[float]
) -> list[list[str]]:
    found: dict[tuple[float, float], list[FitCell]] = {}
    for cell in sorted(shown, key=lambda each: -each.weight):
        found.setdefault((cell.alpha, cell.beta), []).append(cell)
    return [["<br>".join(c.hover for c in found.get((a, b), [])) for b in betas] for a in alphas]


def _buttons(place: Place, views: Sequence[str]) -> dict[str, Any]:
    """Return one button for each view, in a row above the map."""
    buttons = []
    for number, name in enumerate(views):
        new = {key: [value] for key, value in _view(place, number).items()}
        buttons.append({"label": escape(name), "method": "restyle", "args": [new, [1]]})
    where = {"x": 0, "y": 1, "xanchor": "left", "yanchor": "bottom", "pad": {"b": 6}}
    look = {"bgcolor": "var(--paper)", "bordercolor": QUIET, "font": {"color": INK}}
    return {"type": "buttons", "direction": "right", "buttons": buttons, **where, **look}
