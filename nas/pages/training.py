"""What the report of a search that trains says besides: splits, cost, stopped trials, finals."""

from __future__ import annotations

from typing import Any

from nas.pages import data
from nas.pages.drawing import Html, code, table, tag
from nas.units import format_count

HEAD = ("net", "trained anew", "each seed", "in the search", "reward", "arch")


def sections(found: data.Found) -> list[Html]:
    """Return the sections; none where nothing was trained."""
    if not found.result.get("training_flops"):
        return []
    return [*_cost(found.result), *_finals(found.result)]


def _cost(result: dict[str, Any]) -> list[Html]:
    """Return what was trained, on which images, and what it cost."""
    stopped, trials = result["states"].get("stopped", 0), result["trials"]
    lines = [
        "Every accuracy here is measured on validation images that no candidate was trained on. "
        "The test images were not read: nas train reads them, once, at its end.",
        f"{stopped} of {trials} trainings were stopped early. All together took "
        f"{format_count(result['training_flops'])} multiply-adds.",
    ]
    rival = result.get("random")
    if rival:
        lines.append(
            f"Random search was given the same compute: {rival['trials']} trainings, "
            f"{format_count(rival['training_flops'])} multiply-adds."
        )
    return [tag("h2", "What was trained"), tag("ul", *(tag("li", line) for line in lines))]


def _finals(result: dict[str, Any]) -> list[Html]:
    """Return the table of the last round."""
    finals = sorted(result.get("finals") or [], key=lambda entry: -entry["accuracy"])
    if not finals:
        return []
    rows = [
        [
            entry["name"],
            _mean(entry),
            ", ".join(f"{value:.2f}" for value in entry["accuracies"]),
            "–" if entry["searched"] is None else f"{entry['searched']:.2f}",
            f"{entry['reward']:.2f}",
            code(entry["arch_id"]),
        ]
        for entry in finals
    ]
    deviation = finals[0]["seed_deviation"]
    spread = (
        f"one training's standard deviation over seeds is {deviation:.2f} points, pooled over all"
        if deviation
        else "each was trained once, so the spread over seeds is unknown"
    )
    note = (
        "The leaders were trained anew with seeds that had no part in choosing them: a leader's "
        "accuracy in the search is partly luck. Validation accuracy in %, mean ± its standard "
        f"error; {spread}. Marked is what is handed over: the best reward, wherever it came from, "
        "or the cheapest net within one standard error of it."
    )
    marked = {
        place
        for place, entry in enumerate(finals)
        if result["best"] and entry["arch_id"] == result["best"]["arch_id"]
    }
    label = "Finals"
    return [
        tag("h2", "The finals: new seeds for the best few"),
        tag("p", note),
        table(list(HEAD), rows, marked=marked, label=label),
    ]


def _mean(entry: dict[str, Any]) -> str:
    error = entry["accuracy_std"]
    return f"{entry['accuracy']:.2f}" + (f" ± {error:.2f}" if error else "")
