"""The leaderboard of a search's page: the best trials, the references, random search's best."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nas.core.units import amount
from nas.interfaces import Metrics
from nas.reporting.html import data
from nas.reporting.html.markup import MarkupTable, code
from nas.searching.result import Candidate, Leader, Posterior, RandomSearch, SearchResult

COUNTS = {"flops": "FLOPs", "params": "params", "activations": "activations"}


def section(found: data.SearchFiles) -> dict[str, object]:
    """Return the table with its title; the result is in bold."""
    result = found.result
    shown = {entry.arch_id for entry in result.leaders}
    others = [e for e in data.compared(result) if e.arch_id not in shown]
    entries = [*result.leaders, *others]
    extra = ["latency_ms"] * ("latency_ms" in found.best.metrics)
    judged = any(entry.posterior for entry in entries)
    units = {key: _unit(entries, key) for key in COUNTS}
    flops, params, activations = (f"{name} ({units[key][0]})" for key, name in COUNTS.items())
    head = ["net", "reward", "accuracy (%)", *["posterior (%)"] * judged, flops, params]
    head += ["latency (ms)"] * len(extra) + [activations, "arch"]
    rows = []
    for place, entry in enumerate(entries, 1):
        metrics = entry.metrics
        rank = f"{place}. " if isinstance(entry, Leader) and not result.pareto else ""
        name = f"{rank}{_name(entry)}"
        counts = [_in_unit(metrics, key, units[key][1]) for key in COUNTS]
        slow = [f"{metrics[key]:.2f}" if key in metrics else "–" for key in extra]
        posterior = [_posterior(entry.posterior)] * judged
        numbers = [_reward(entry), data.accuracy(metrics), *posterior, *counts[:2], *slow]
        rows.append([name, *numbers, counts[2], code(entry.arch_id)])
    beside = ["references"] if result.references else []
    beside += [data.RANDOM] if result.random else []
    best, title = found.best.arch_id, _title(result)
    marked = [place for place, entry in enumerate(entries) if entry.arch_id == best]
    return {
        "title": f"{title}, with {' and '.join(beside)}" if beside else title,
        "table": MarkupTable(head, rows, marked=marked, label="Leaderboard"),
        "counted": _counted(result),
    }


def _title(result: SearchResult) -> str:
    shown = len(result.leaders)
    if not result.pareto:
        return "The best trial" if shown == 1 else "The best trials"
    some = f"{shown} nets of the front of {result.front}" if shown > 1 else "The net of the front"
    return f"{some}, most accurate first; in bold what is handed over"


def _counted(result: SearchResult) -> str:
    """Return the references that were counted and not evaluated."""
    return "; ".join(
        f"{data.title(entry.name)} ({amount('flops', entry.metrics['flops'])}, "
        f"{amount('params', entry.metrics['params'])}): {entry.reason}"
        for entry in result.references_counted
    )


def _reward(entry: Candidate) -> str:
    return "–" if math.isnan(entry.reward) else f"{entry.reward:.2f}"


def _name(entry: Candidate) -> str:
    if isinstance(entry, RandomSearch):
        return f"best of {entry.trials:,} random trials"
    if not isinstance(entry, Leader):
        return data.title(entry.name)
    named = f", {data.title(entry.reference)}" if entry.reference else ""
    return f"trial {entry.number}{named}{' (earlier)' * (entry.state == 'earlier')}"


def _posterior(found: Posterior | None) -> str:
    return data.spread(found.accuracy, found.accuracy_std) if found else "–"


def _unit(entries: Sequence[Candidate], key: str) -> tuple[str, float]:
    """Return the unit of a column, in which its smallest number has two digits or more."""
    least = min((e.metrics[key] for e in entries if e.metrics.get(key)), default=1e6)
    return ("M", 1e6) if least >= 1e5 else ("k", 1e3)


def _in_unit(metrics: Metrics, key: str, unit: float) -> str:
    return f"{metrics[key] / unit:,.2f}" if key in metrics else "–"
