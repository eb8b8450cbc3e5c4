"""What a person sees of a scaling: lines on stderr while it works, the family on stdout."""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table

from nas.core.quoting import command
from nas.core.units import format_bytes, format_count, format_seconds
from nas.hardware.timing import MOST_UNREST
from nas.models.compound import AIMED, TOLERANCE
from nas.reporting.terminal.fit import show_fit
from nas.scaling.fit.conclude import label
from nas.scaling.progress import ScalingProgress
from nas.scaling.result import Member, MemberTraining, ScaleResult

NEAR = 0.05  # of 2^φ: what a family may be off without a word


class ScalingScreen(ScalingProgress):
    """One line for each thing that is told."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, text: str) -> None:
        """Show one line."""
        if text:
            self._console.print(text, highlight=False, soft_wrap=True, markup=False)


def show_family(result: ScaleResult, console: Console) -> None:
    """Print a scaled family: what was asked, what came of it, what it costs."""
    if result.fit:
        show_fit(result.fit, console)
    if not result.members:
        console.print(f"{result.stopped}: no family yet; what was trained is in {result.run}")
        return
    base = result.baseline
    console.print(
        f"rule {result.rule} on {base.name}: {format_count(base.flops)} multiply-adds, "
        f"{format_count(base.params)} params"
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
    for member in result.members:
        table.add_row(*_member(member))
    console.print(table)
    if result.trained_on:
        console.print(_trained(result))
    console.print(
        "depth and width: asked → after rounding. FLOPs are multiply-adds. Training memory: an "
        "estimate per image in float32; weights, gradients and optimiser come on top"
    )
    if lost := rounding_misses(result):
        console.print(lost)
    if result.coefficients:
        found = result.coefficients
        console.print(f"coefficients {label(found[:3])}: {found.origin}")
    console.print(f"saved   {result.run}  (report.html, family.csv, b*/arch.json)")


def _trained(result: ScaleResult) -> Table:
    """Return what the trainings gave, the members in the order of the family."""
    table = Table(box=None, pad_edge=False)
    titles = ("member", "val top-1 %", "test top-1 %", "latency ms", "memory", "estimate")
    for title in (*titles, "images/s", "training", "where"):
        table.add_column(title, justify="left" if title == "member" else "right", no_wrap=True)
    for member in result.members:
        found = member.training
        if found is None:
            why = "failed" if member.name in (result.missing or {}) else "not trained yet"
            table.add_row(member.name, why)
            continue
        memory = found.memory_bytes
        table.add_row(
            member.name,
            f"{found.accuracy:.2f} ±{found.accuracy_std:.2f}",
            f"{found.test_accuracy:.2f} ±{found.test_accuracy_std:.2f}",
            f"{found.latency_ms:.1f} ({found.latency_p10_ms:.1f}-"
            f"{found.latency_p90_ms:.1f}{unsteady(found)})",
            "" if memory is None else format_bytes(memory),
            format_bytes(found.memory_estimate),
            f"{found.images_per_second:.0f}",
            format_seconds(found.training_seconds),
            " ".join(word for word in (found.place, found.device) if word),
        )
    return table


def rounding_misses(result: ScaleResult) -> str:
    """Return which members of a rule that aims at 2^φ miss it by rounding, "" for none."""
    if result.rule not in AIMED:
        return ""
    ratios = [(each, each.flops_ratio / each.two_to_phi - 1) for each in result.members]
    lost = [f"{each.name} {_off(each, miss)}" for each, miss in ratios if abs(miss) > NEAR]
    if not lost:
        return ""
    return (
        f"rounding misses 2^φ by more than {NEAR:.0%}: {', '.join(lost)}; --rule exact keeps "
        f"within {TOLERANCE:.0%}, in the shape of the formula"
    )


def _off(member: Member, miss: float) -> str:
    """Return by how much a member misses 2^φ, and the multiplier that rounding changed most."""
    powers = {"depth": 1, "width": 2, "resolution": 2}
    pairs = zip(powers, member.requested, member.rounded, strict=True)
    changed = {name: (asked, left) for name, asked, left in pairs}
    most = max(changed, key=lambda name: powers[name] * _change(*changed[name]))
    asked, left = changed[most]
    return f"{miss:+.1%} ({most} {asked:.2f} → {left:.2f})"


def _change(asked: float, left: float) -> float:
    return abs(math.log(left / asked))


def unsteady(found: MemberTraining) -> str:
    """Return a word on a latency that a second measurement would not repeat, else ""."""
    return "" if found.latency_unrest <= MOST_UNREST else ", unsteady"


def missing(result: ScaleResult) -> str:
    """Return in one line which members a family lacks because they failed, "" for none."""
    lacks = result.missing or {}
    if not lacks:
        return ""
    reasons = "; ".join(f"{name}: {reason}" for name, reason in lacks.items())
    return (
        f"{len(lacks)} of {len(result.members)} members are missing ({reasons}); what is "
        f"trained stays, and `{command('nas', 'resume', str(result.run))}` tries them again"
    )


def _member(member: Member) -> list[str]:
    return [
        member.name,
        f"{member.phi:g}",
        f"{member.depth:.2f} → {member.rounded_depth:.2f}",
        f"{member.width:.2f} → {member.rounded_width:.2f}",
        str(member.resolution),
        format_count(member.flops),
        f"{member.flops_ratio:.2f}",
        f"{member.two_to_phi:.4g}",
        format_count(member.params),
        format_count(member.activations),
        format_bytes(member.training_bytes_per_image),
    ]
