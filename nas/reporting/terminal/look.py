"""What a person sees of plans, archs, costs and lists, on stdout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from nas.core.units import format_bytes, format_count, format_seconds
from nas.reporting.terminal.search import accuracy
from nas.searching.result import PlanResult

Row = Mapping[str, Any]


def show_plan(found: PlanResult, console: Console) -> None:
    """Print what a search can reach and will take."""
    size, choices = found.size, found.choices
    console.print(f"space {found.space}: {size:,} archs ({size:.3g}), {choices} choices")
    for name, reach in found.reachable.items():
        unit = {"flops": " multiply-adds", "latency_ms": " ms"}.get(name, "")
        low, high = format_count(reach.least), format_count(reach.most)
        console.print(f"reachable {name}: {low} to {high}{unit}")
    for name, share in found.shares.items():
        console.print(
            f"of {found.random_archs} random archs: {share.at_or_under:.1%} at or under "
            f"{name} {format_count(share.target)}, {share.within_5_percent:.1%} within 5 %"
        )
    console.print(f"reward = {found.objective}")
    console.print(f"evaluator: {found.evaluator}")
    if found.warm_start:
        console.print(found.warm_start)
    for line in (*found.notes, *_projection(found)):
        console.print(line)


def _projection(found: PlanResult) -> list[str]:
    """Return what is said of the time, the work and its cost."""
    if found.problem:
        return [f"no times: {found.problem}"]
    if found.seconds_per_trial is None:
        return ["no times: this evaluator cannot be timed beforehand"]
    finals = found.final_trainings
    longer = f", each as long as {found.final_ratio:.3g}" if found.final_ratio != 1 else ""
    rest = f" + {finals} trainings of finals{longer}" if finals else ""
    first = f", {found.references} references first" if found.references else ""
    alone = "" if found.workers > 1 else " (--workers plans for more)"
    limit = f" (--time-limit {format_seconds(found.time_limit)})" if found.time_limit else ""
    return [
        f"{found.trials} evaluations (random search included{first}){rest}, at "
        f"{format_seconds(found.seconds_per_trial)} on {found.workers} worker(s){alone}: "
        f"{format_seconds(found.projected_seconds or 0.0)}{limit}; besides, controller "
        f"{found.controller} takes {format_seconds(found.seconds_per_proposal)} a proposal "
        "at the start",
        _work(found),
    ]


def _work(found: PlanResult) -> str:
    """Return the worker-hours, and what they cost where a price was given."""
    gpus, cost = found.gpu_hours, found.cost
    hours = f"{_hours(found.worker_hours or 0.0)} worker-hours"
    if gpus is not None:
        hours += f" = {_hours(gpus)} GPU-hours"
    if cost is not None:
        unit = "worker-hour" if gpus is None else "GPU-hour"
        hours += f", cost {cost:,.2f} at {found.price:g} a {unit}"
    stops = ", less what early stopping saves" if found.early_stopping else ""
    return f"work: {hours}{stops}; timed on one typical arch, on this machine"


def _hours(hours: float) -> str:
    return f"{hours:,.2f}" if hours >= 0.01 else "under 0.01"


def show_arch(found: Row, console: Console) -> None:
    """Print an arch stage by stage."""
    arch = found["arch"]
    table = Table(box=None, pad_edge=False)
    for title in (
        "stage",
        "op",
        "k",
        "exp",
        "SE",
        "skip",
        "stride",
        "input",
        "channels",
        "layers",
        "params",
        "FLOPs",
    ):
        table.add_column(title, justify="left" if title in ("stage", "op") else "right")
    stem, head = arch["stem"], arch["head"]
    ends = {
        "stem": ["conv", stem["kernel"], "", "", "", stem["stride"]],
        "head": ["conv 1x1, pool, linear" if head["channels"] else "pool, linear", *[""] * 5],
    }
    for row in found["stages"]:
        index = int(row["name"].split()[-1]) - 1 if row["name"] not in ends else None
        stage = arch["stages"][index] if index is not None else None
        cells = (
            ends[row["name"]]
            if stage is None
            else [
                stage["op"],
                stage["kernel"],
                f"{stage['expansion']:.3g}",
                f"{stage['se']:g}",
                stage["skip"],
                stage["stride"],
            ]
        )
        size = f"{row['size'][0]}×{row['size'][1]}"
        layers = stage["layers"] if stage else 1
        costs = [format_count(row["params"]), format_count(row["flops"])]
        shown = [row["name"], *cells, size, row["channels"], layers, *costs]
        table.add_row(*(str(cell) for cell in shown))
    console.print(f"{found['name']}  id {found['id']}")
    console.print(table)
    if arch["padding"] == "same":
        console.print("padding      same: TensorFlow's, on the right and below first")
    _print_costs(found, console)
    _print_claims(found, console)


def _print_claims(found: Row, console: Console) -> None:
    """Print what is published and what the surrogate predicts."""
    figures, predicted = found["published"], found["predicted"]
    if figures:
        numbers = [f"top-1 {figures['top1']} %"] if figures["top1"] else []
        numbers += [f"params {format_count(figures['params'])}"] if figures["params"] else []
        numbers += [f"FLOPs {format_count(figures['flops'])}"] if figures["flops"] else []
        console.print(f"published    {', '.join(numbers)} ({figures['source']})")
        if figures["note"]:
            console.print(f"             {figures['note']}")
    if predicted:
        console.print(f"predicted    {accuracy(predicted)} % by {predicted['evaluator']}")


def show_cost(found: Row, console: Console) -> None:
    """Print what an arch costs, and what other counters say of it."""
    console.print(f"{found['name']} at {found['resolution']} pixels")
    _print_costs(found, console)
    for name, counts in found.get("counters", {}).items():
        numbers = ", ".join(f"{key} {value:,}" for key, value in counts.items())
        console.print(f"{name:<12} {numbers}")
    if "counters" in found:
        console.print("torch's operations are halved; thop's extra is batch norm and pooling")


def show_costs(found: Row, console: Console) -> None:
    """Print several archs beside each other, their FLOPs also as shares of the first one's."""
    rows = found["archs"]
    first = rows[0]
    table = Table(box=None, pad_edge=False)
    titles = ("arch", "pixels", "params", "FLOPs (MACs)", "× the first", "activations")
    for title in (*titles, "training memory an image", "inference memory"):
        table.add_column(title, justify="left" if title == "arch" else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row["source"],
            str(row["resolution"]),
            format_count(row["params"]),
            format_count(row["flops"]),
            f"{row['flops'] / first['flops']:.3g}",
            format_count(row["activations"]),
            format_bytes(row["training_bytes_per_image"]),
            format_bytes(row["inference_bytes"]),
        )
    console.print(table)
    for row in rows:
        for name, counts in row.get("counters", {}).items():
            numbers = ", ".join(f"{key} {value:,}" for key, value in counts.items())
            console.print(f"{row['source']}, {name}: {numbers}", markup=False)
    console.print("FLOPs are multiply-adds (MACs); memory is estimated, in float32")


def _print_costs(found: Row, console: Console) -> None:
    """Print costs in both conventions of FLOPs."""
    flops = found["flops"]
    per_image = format_bytes(found["training_bytes_per_image"])
    console.print(f"params       {found['params']:,}  (+ {found['buffers']:,} norm statistics)")
    console.print(
        f"FLOPs        {flops:,} multiply-adds (MACs); {2 * flops:,} counting both operations"
    )
    console.print(f"activations  {found['activations']:,}")
    console.print(
        f"memory       float32, estimated: training {per_image} an image + "
        f"{format_bytes(found['training_bytes'])}; inference "
        f"{format_bytes(found['inference_bytes'])}"
    )


def show_listing(rows: list[dict[str, Any]], console: Console) -> None:
    """Print rows as a table."""
    if not rows:
        console.print("none yet")
        return
    table = Table(box=None, pad_edge=False)
    for title in rows[0]:
        justify: Any = "right" if _is_number(rows[0][title]) else "left"
        table.add_column(title, justify=justify, no_wrap=not console.is_terminal)
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    console.print(table)


# columns of a terminal from which on the objectives of runs have room, and their settings too
NARROW, WIDE = 100, 120


def show_runs(rows: list[dict[str, Any]], console: Console) -> None:
    """Print runs, the latest last, with what they found."""
    if not rows:
        console.print("none yet")
        return
    table = Table(box=None, pad_edge=False)
    numbers = ("accuracy %", "FLOPs", "reward")
    titles = ("run", "started", "finished", *numbers, "objective", "settings")
    wide = (console.width >= NARROW) + (console.width >= WIDE) if console.is_terminal else 2
    shown = len(titles) - 2 + wide
    for title in titles[:shown]:
        justify: Any = "right" if title in numbers else "left"
        whole = title not in ("objective", "settings") or not console.is_terminal
        table.add_column(title, justify=justify, no_wrap=whole, overflow="fold")
    for row in rows:
        found = (row["accuracy"], row["reward"])
        accuracy, reward = ("" if value is None else f"{value:.2f}" for value in found)
        flops = "" if row["flops"] is None else format_count(row["flops"])
        started = row["date"][:16].replace("T", " ")
        words = (row["name"], started, _cell(row["finished"]))
        cells = (*words, accuracy, flops, reward, row["objective"] or "", row["about"])
        table.add_row(*cells[:shown])
    console.print(table)
    if shown < len(titles):
        for row in rows:
            if row["about"].startswith("damaged"):
                console.print(f"{row['name']} is {row['about']}")
        console.print(f"left out in this width: {', '.join(titles[shown:])}")
    console.print(
        "times are UTC; accuracy: of a search its winner's by the search's evaluator, of a "
        "training the test top-1"
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return " ".join(f"{key}={inner}" for key, inner in value.items())
    if isinstance(value, int):
        return f"{value:,}"
    return "" if value is None else str(value)
