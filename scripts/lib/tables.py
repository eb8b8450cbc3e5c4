"""What measurements show: medians with their spread, and tables in Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence


def markdown(columns: Sequence[str], rows: Iterable[Sequence[object]] = ()) -> str:
    """Return a table; without rows its head, for rows that are printed as they come."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(map(line, lines))


def line(cells: Iterable[object]) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the quartiles, interpolated; between a number and never (inf) lies never."""
    order = sorted(values)

    def at(share: float) -> float:
        place = share * (len(order) - 1)
        low, high = order[math.floor(place)], order[math.ceil(place)]
        if math.isinf(low) or low == high:
            return low
        return low + (high - low) * (place - math.floor(place))

    return at(0.25), at(0.5), at(0.75)


def spread(values: Sequence[float], digits: int) -> str:
    """Return median (quartiles); – where nothing was measured."""
    if not values:
        return "–"
    found = [f"{v:,.{digits}f}" if v < math.inf else "never" for v in quartiles(values)]
    low, middle, high = found
    return middle if low == high else f"{middle} ({low}–{high})"
