"""What a person sees of a fit: its candidates, what was chosen, and whether that is noise."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from nas.scaling.fit.conclude import label, noise_said
from nas.scaling.fit.result import FitCandidate, FitResult

TITLES = ("candidate", "α·β²·γ²", "× base", "epochs", "accuracy %", "finals", "")


def show_fit(fit: FitResult, console: Console) -> None:
    """Print a fit."""
    console.print(f"fit: {fit.evaluator}; ranked by {fit.objective}")
    table = Table(box=None, pad_edge=False)
    for title in TITLES:
        left = title in ("candidate", "")
        table.add_column(title, justify="left" if left else "right", no_wrap=True)
    for each in fit.ordered():
        table.add_row(*_candidate(fit, each))
    console.print(table)
    chosen, paper = fit.chosen, fit.paper
    console.print(
        f"chosen {label(chosen.point)} (α·β²·γ² = {chosen.product:.3f}) against the "
        f"paper's {label(paper.point)} ({paper.product:.3f})"
    )
    console.print(noise_said(fit))


def _candidate(fit: FitResult, each: FitCandidate) -> list[str]:
    mark = "chosen" if each.point == fit.chosen.point else ""
    notes = (mark, each.role, "" if each.state == "trained" else each.state)
    final, accuracy = each.final_mean, each.accuracy
    return [
        label(each.point),
        f"{each.product:.3f}",
        f"{each.flops_ratio:.2f}",
        str(each.epochs),
        "–" if accuracy is None else f"{accuracy:.2f}",
        "–" if final is None else f"{final:.2f}",
        ", ".join(note for note in notes if note),
    ]
