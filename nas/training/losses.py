"""Which part of loss curves is worth seeing where a training diverged. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

FAR, CUT = 10.0, 3.0  # times the loss at the start: from which on an axis is cut, and where
Curve = Sequence[tuple[float, float]]  # epochs and losses


def ceiling(curves: Sequence[Curve]) -> float | None:
    """Return where to cut the axis of loss curves, None where there is no need.

    A loss of 1e14 at the end of a training would press all that came before onto the axis.
    """
    finite = [[y for _, y in curve if math.isfinite(y)] for curve in curves]
    known = [values for values in finite if values]
    if not known:
        return None
    least, starts = min(map(min, known)), [values[0] for values in known]
    usual = max(least, min(starts))
    return CUT * usual if max(map(max, known)) > FAR * usual > 0 else None


def said(curves: Sequence[Curve]) -> str:
    """Return in words what a cut axis hides, and from when on a loss was no number; or ""."""
    notes, cut = [], ceiling(curves)
    points = [point for curve in curves for point in curve]
    if cut is not None:
        epoch, loss = max((p for p in points if math.isfinite(p[1])), key=lambda p: p[1])
        notes.append(f"cut at {cut:.3g}: the loss went up to {loss:.2g} in epoch {epoch:g}")
    broken = [epoch for epoch, loss in points if not math.isfinite(loss)]
    if broken:
        notes.append(f"not a finite number in epoch {min(broken):g}")
    return "; ".join(notes)
