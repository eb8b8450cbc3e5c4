"""What a person sees of a proxy check: one table, and what it means."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from nas.core.quoting import command
from nas.core.units import format_count, format_seconds
from nas.searching.fidelity.proxies import describe
from nas.searching.fidelity.result import BudgetResult, ProxyCheckResult


def show_proxy_check(found: ProxyCheckResult, console: Console) -> None:
    """Print how well each budget ranks, what it costs, and which to take."""
    console.print(
        f"{found.n} archs of {found.space} on {found.data}, {found.seeds} seeds each; "
        f"validation accuracy; {found.recipe} recipe; {found.device}"
    )
    console.print(_table(found))
    console.print(
        "budget: epochs:fraction:pixels. Costs are of one training (multiply-adds of forward and "
        "backward). tau: Kendall's tau-b of one training to the mean of the long ones, with its "
        "95 % interval over archs; (tau + 1) / 2 of the pairs are in the right order"
    )
    console.print(f"FLOPs alone rank with tau {describe(found.flops_alone)}")
    for failure in found.failed:
        console.print(f"failed  arch {failure.arch_id} {failure.budget}: {failure.error}")
    for warning in found.warnings:
        console.print(f"note    {warning}")
    console.print(f"result  {found.verdict}")
    console.print(f"saved   {found.run}  (result.json, trainings.csv)")
    if found.chosen:
        console.print(f"next    {_search(found, found.chosen)}")


def _table(found: ProxyCheckResult) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("budget", no_wrap=True)
    titles = ("time", "multiply-adds", "of long", "accuracy %", "tau", "seed against seed")
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("ranks well enough", no_wrap=True)
    for row in found.budgets:
        table.add_row(row.budget, *_costs(row), describe(row.tau), *_last(row, row.enough))
    long = found.long
    table.add_row(f"{long.budget} (long)", *_costs(long), "", *_last(long, ""))
    return table


def _costs(row: BudgetResult) -> list[str]:
    share = row.share_of_long
    shown = "–" if row.accuracy is None else f"{row.accuracy:.2f}"
    if row.accuracy_std is not None:
        shown += f" ±{row.accuracy_std:.2f}"
    return [
        format_seconds(row.seconds),
        format_count(row.training_flops),
        "" if share is None else f"{share:.1%}",
        shown,
    ]


def _last(row: BudgetResult, enough: str) -> list[str]:
    return [describe(row.own_tau), enough]


def _search(found: ProxyCheckResult, chosen: BudgetResult) -> str:
    """Return the command of a search with the chosen budget."""
    words = ["nas", "search", "--data", found.data, "--space", found.space]
    words += ["--epochs", str(chosen.epochs)]
    fraction = found.fraction * chosen.fraction
    if fraction < 1:
        words += ["--fraction", f"{fraction:g}"]
    if chosen.imgsz != found.long.imgsz:
        words += ["--train-imgsz", str(chosen.imgsz)]
    return command(*words)
