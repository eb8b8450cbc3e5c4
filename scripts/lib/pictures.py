"""Pictures of measurements: medians with their range over a count, on a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# told apart by people who see fewer colours: Okabe & Ito 2008; first what is compared with
COLOURS = ("#777777", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31")
Ranges = Mapping[int, tuple[float, float, float]]  # count -> low, middle, high


class Picture:
    """Some panels side by side."""

    def __init__(self, panels: int, columns: int) -> None:
        from matplotlib.figure import Figure

        columns, rows = min(columns, panels), math.ceil(panels / columns)
        self.figure = Figure(figsize=(5.5 * columns, 4.4 * rows), layout="constrained")
        self.panels = list(self.figure.subplots(rows, columns, squeeze=False).flat)
        for axis in self.panels[panels:]:
            axis.remove()

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.figure.savefig(path, dpi=120)


def curve(axis: Any, ranges: Ranges, number: int, label: str, **style: Any) -> None:
    """Draw medians with bars, in the colour of a number, moved so that bars do not hide another."""
    if ranges:
        low, middle, high = zip(*ranges.values(), strict=True)
        bars = [[m - v for m, v in zip(middle, low, strict=True)]]
        bars += [[v - m for m, v in zip(middle, high, strict=True)]]
        x = [count * 1.03**number for count in ranges]
        shown: dict[str, Any] = {"color": COLOURS[number % len(COLOURS)], "capsize": 2, "ms": 3}
        axis.errorbar(x, middle, bars, label=label, **{"marker": "o", **shown, **style})


def over_counts(axis: Any, counts: Sequence[int], name: str) -> None:
    """Give an axis the counts as its logarithmic ticks."""
    axis.set(xlabel=name, xscale="log", xlim=(counts[0] / 1.3, counts[-1] * 1.5))
    axis.set_xticks(counts, [f"{count:,}" for count in counts])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
