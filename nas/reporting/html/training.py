"""Sections of the report of a search that trains: splits, cost, stopped trials, finals."""

from __future__ import annotations

from nas.core.units import format_count
from nas.reporting.html import data
from nas.reporting.html.markup import MarkupTable, code
from nas.searching.result import SearchResult

HEAD = ("net", "trained anew", "each seed", "in the search", "reward", "arch")


def sections(found: data.SearchFiles) -> dict[str, object]:
    """Return what the template is told; `trained` is None where nothing was trained."""
    if not found.result.training_flops:
        return {"trained": None, "finals": None}
    return {"trained": _cost(found.result), "finals": _finals(found.result)}


def _cost(result: SearchResult) -> dict[str, object]:
    """Return how much was trained and stopped, and what random search was given."""
    rival = result.random
    return {
        "stopped": result.states.get("stopped", 0),
        "trials": result.trials,
        "flops": format_count(result.training_flops),
        "random": {"trials": rival.trials, "flops": format_count(rival.training_flops)}
        if rival
        else None,
    }


def _finals(result: SearchResult) -> dict[str, object] | None:
    """Return the table of the last round, and how far the seeds of one net lie apart."""
    finals = sorted(result.finals, key=lambda entry: -entry.accuracy)
    if not finals:
        return None
    rows = [
        [
            entry.name,
            data.spread(entry.accuracy, entry.accuracy_std),
            ", ".join(f"{value:.2f}" for value in entry.accuracies),
            "–" if entry.searched is None else f"{entry.searched:.2f}",
            f"{entry.reward:.2f}",
            code(entry.arch_id),
        ]
        for entry in finals
    ]
    deviation = finals[0].seed_deviation
    spread = (
        f"one training's standard deviation over seeds is {deviation:.2f} points, pooled over all"
        if deviation
        else "each was trained once, so the spread over seeds is unknown"
    )
    marked = {
        place
        for place, entry in enumerate(finals)
        if result.winner and entry.arch_id == result.winner.arch_id
    }
    return {"spread": spread, "table": MarkupTable(HEAD, rows, marked=marked, label="Finals")}
