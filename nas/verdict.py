"""Say in one sentence why this trial is handed over and not that one. Light: screens show it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CURSE = "the best of many observations is partly luck (the winner's curse)"


def why(result: Mapping[str, Any]) -> str:
    """Return in one sentence why this trial is handed over; "" where no model was asked."""
    best = result.get("best")
    if best and result.get("pareto"):
        return _front(result)
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


def _front(result: Mapping[str, Any]) -> str:
    """Return why a net of a front, of which none beats another in both objectives, is taken."""
    cost, best = result["pareto"], result["best"]
    most = "has the best reward" if result.get("targets") else "is the most accurate"
    return (
        f"Handed over is trial {best['number']}, which {most}. The nets of the front are not "
        f"ranked: none is better than another in both accuracy and {cost}. Their accuracies are "
        "as observed, no model was asked which are luck."
    )


def _told(row: Mapping[str, Any]) -> str:
    believed, seen = row["posterior"], row["metrics"]["accuracy"]
    return (
        f"trial {row['number']} (reward {row['reward']:.3f}, accuracy {seen:.2f} observed, "
        f"{believed['accuracy']:.2f} ±{believed['accuracy_std']:.2f} posterior)"
    )
