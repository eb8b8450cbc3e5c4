"""What a person sees of a scaling: lines on stderr while it works, the family on stdout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from nas.units import format_bytes, format_count

Row = Mapping[str, Any]


class Lines:
    """One line for each thing that is told."""

    patient = True

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, text: str) -> None:
        """Show one line."""
        if text:
            self._console.print(text, highlight=False, soft_wrap=True, markup=False)


def silent() -> Lines:
    """Return a screen that shows nothing."""
    return Lines(Console(quiet=True))


def show_family(result: Row, console: Console) -> None:
    """Print a scaled family: what was asked, what came of it, what it costs."""
    base = result["baseline"]
    console.print(
        f"rule {result['rule']} on {base['name']}: {format_count(base['flops'])} multiply-adds, "
        f"{format_count(base['params'])} params"
    )
    table = Table(box=None, pad_edge=False)
    titles = (
        "member",
        "φ",
        "depth",
        "width",
        "pixels",
        "FLOPs",
        "× base",
        "2^φ",
        "params",
        "activations",
        "training memory",
    )
    for title in titles:
        table.add_column(title, justify="left" if title == "member" else "right", no_wrap=True)
    for member in result["members"]:
        table.add_row(*_member(member))
    console.print(table)
    console.print(
        "depth and width: asked → after rounding. FLOPs are multiply-adds. Training memory: an "
        "estimate per image in float32; weights, gradients and optimiser come on top"
    )
    console.print(f"saved   {result['run']}  (report.html, family.csv, b*/arch.json)")


def _member(member: Row) -> list[str]:
    return [
        member["name"],
        f"{member['phi']:g}",
        f"{member['depth']:.2f} → {member['rounded_depth']:.2f}",
        f"{member['width']:.2f} → {member['rounded_width']:.2f}",
        str(member["resolution"]),
        format_count(member["flops"]),
        f"{member['flops_ratio']:.2f}",
        f"{member['two_to_phi']:.4g}",
        format_count(member["params"]),
        format_count(member["activations"]),
        format_bytes(member["training_bytes_per_image"]),
    ]
