"""Say in one sentence why this trial is handed over and not that one. Light: screens show it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CURSE = "the best of many observations is partly luck (the winner's curse)"


def why(result: Mapping[str, Any]) -> str:
    """Return in one sentence why this trial is handed over; "" where no model was asked."""
    best = result.get("best")
    if best and result.get("pareto"):
        return "The front is of observed accuracies: no model was asked which are luck."
    if not best or not best.get("posterior"):
        return ""
    if result.get("finals"):
        return f"The finalists were chosen by posterior mean, since {CURSE}."
    mine, other = _told(best), result.get("observed_best")
    if not other:
        return f"Handed over is {mine}: best by posterior mean, and best observed."
    return (
        f"Handed over is {mine}, best by posterior mean. Observed best was {_told(other)}: {CURSE}."
    )


def _told(row: Mapping[str, Any]) -> str:
    believed, seen = row["posterior"], row["metrics"]["accuracy"]
    return (
        f"trial {row['number']} (reward {row['reward']:.3f}, accuracy {seen:.2f} observed, "
        f"{believed['accuracy']:.2f} ±{believed['accuracy_std']:.2f} posterior)"
    )
