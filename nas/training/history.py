"""What of a training's epochs is drawn: its losses, its accuracies, where an axis is cut. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

FAR, CUT = 10.0, 3.0  # times the loss at the start: from which on an axis is cut, and where
# columns of results.csv, with what a legend calls them
LOSSES = {"train_loss": "training", "val_loss": "validation"}
SPLIT = {"val_top1_ema": "top-1, averaged weights", "val_top1_raw": "top-1, raw weights"}
Curve = Sequence[tuple[float, float]]  # epochs and values
Rows = Sequence[Mapping[str, Any]]


def curve(rows: Rows, column: str) -> Curve:
    """Return epochs and values of a column where it is a number, finite or not."""
    pairs = [(float(row["epoch"]), row.get(column)) for row in rows]
    return [(epoch, float(value)) for epoch, value in pairs if isinstance(value, int | float)]


def finite(points: Curve) -> Curve:
    """Return the points with a finite value."""
    return [(epoch, value) for epoch, value in points if math.isfinite(value)]


def accuracies(rows: Rows) -> dict[str, str]:
    """Return the accuracy columns that tell something: val_top1 where it is not split up."""
    split = any(finite(curve(rows, column)) for column in SPLIT)
    # with five classes or fewer it is 100 % from the start to the end
    fifth = any(value < 100 for _, value in curve(rows, "val_top5"))
    return (SPLIT if split else {"val_top1": "top-1"}) | ({"val_top5": "top-5"} if fifth else {})


def best(rows: Rows) -> tuple[float, float] | None:
    """Return epoch and value of the best top-1, the first of equals."""
    return max(finite(curve(rows, "val_top1")), key=lambda point: point[1], default=None)


def ceiling(curves: Sequence[Curve]) -> float | None:
    """Return where to cut the axis of loss curves, None where there is no need.

    A loss of 1e14 at the end of a training would press all that came before onto the axis.
    """
    known = [[loss for _, loss in finite(points)] for points in curves if finite(points)]
    if not known:
        return None
    least, starts = min(map(min, known)), [values[0] for values in known]
    usual = max(least, min(starts))
    return CUT * usual if max(map(max, known)) > FAR * usual > 0 else None


def curve_notes(curves: Sequence[Curve]) -> str:
    """Return in words what a cut axis hides, and from when on a loss was no number; or ""."""
    notes, cut = [], ceiling(curves)
    points = [point for each in curves for point in each]
    if cut is not None:
        epoch, loss = max((p for p in points if math.isfinite(p[1])), key=lambda p: p[1])
        notes.append(f"cut at {cut:.3g}: the loss went up to {loss:.2g} in epoch {epoch:g}")
    broken = [epoch for epoch, loss in points if not math.isfinite(loss)]
    if broken:
        notes.append(f"not a finite number in epoch {min(broken):g}")
    return "; ".join(notes)
