"""The section of a family that was trained: accuracy against its costs, other rules beside it."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from nas.core.units import format_bytes, format_count, format_seconds
from nas.hardware.timing import MOST_UNREST
from nas.reporting.html.axes import Axis, plot
from nas.reporting.html.charts_family import Spot, accuracy_chart
from nas.reporting.html.markup import MarkupTable, tag
from nas.reporting.terminal.scale import unsteady
from nas.scaling.result import Member, MemberTraining, ScaleResult, TrainedOn

LATENCY = "latency_ms"
AXES = (
    ("flops", Axis("multiply-adds", "millions", 1e6)),
    ("params", Axis("parameters", "millions", 1e6)),
    (LATENCY, Axis("latency", "ms", 1.0)),
)
HEAD = (
    *("net", "FLOPs", "val top-1 %", "test top-1 %", "latency, ms", "p10 to p90", "memory"),
    *("estimate", "images/s", "training", "where"),
)


def comparable(result: ScaleResult, other: ScaleResult) -> bool:
    """Tell whether two families are of one base, trained alike on the same images."""
    mine, theirs = result.trained_on, other.trained_on
    return bool(mine and mine == theirs and result.baseline.arch == other.baseline.arch)


def section(result: ScaleResult, beside: Sequence[ScaleResult]) -> dict[str, object] | None:
    """Return what training gave, None without; `beside`: comparable families, by other rules."""
    on = result.trained_on
    if on is None:
        return None
    facts = [
        ("Data", f"{on.data}: {', '.join(f'{n} {k}' for k, n in on.splits.items())} images"),
        ("Recipe", _recipe(on)),
        ("Seed", on.seed),
        ("Latency", "; ".join(sorted(_devices(result)))),
    ]
    trained = _trained(result)
    return {
        "facts": facts,
        "alerts": _alerts(result),
        "table": MarkupTable(HEAD, [_line(*each) for each in trained], label="Trainings"),
        "beside": "; ".join(f"{other.rule}, {other.run}" for other in beside),
        "figures": [_figure(result, beside, key, axis) for key, axis in AXES if trained],
    }


def _recipe(on: TrainedOn) -> str:
    options = "".join(f", {k}={v}" for k, v in on.recipe_options.items())
    start = f", from the grown weights of {on.init}" if on.init else ""
    return f"{on.recipe}{options}, {on.epochs} epochs, {on.batch_size} images a step{start}"


def _trained(result: ScaleResult) -> list[tuple[Member, MemberTraining]]:
    """Return the members that were trained, with what that gave."""
    return [(member, member.training) for member in result.members if member.training]


def _alerts(result: ScaleResult) -> list[str]:
    """Return a line for what is not there."""
    missing = result.missing or {}
    lines = [f"{name} is missing: {why}" for name, why in missing.items()]
    lacks = {*missing, *(member.name for member, _ in _trained(result))}
    late = [member.name for member in result.members if member.name not in lacks]
    if late:
        lines.append(f"Not trained yet: {', '.join(late)}.")
    return lines


def _figure(
    result: ScaleResult, beside: Sequence[ScaleResult], key: str, axis: Axis
) -> tuple[Markup, str]:
    """Return accuracy against a cost, with what is to be said of it."""
    curves: dict[str, list[Spot]] = {}
    for family in (result, *beside):
        name = family.rule
        if spots := _spots(family, key, _devices(result)):
            curves[name if name not in curves else f"{name}, {family.run}"] = spots
    words = f"Test accuracy against {axis.name}, logarithmic; one colour for each rule."
    if not all(spot.steady for spots in curves.values() for spot in spots):
        words += (
            f" Open circles: the measurement was unsteady (by more than {MOST_UNREST:.0%}), so no "
            "line joins the nets."
        )
    return plot(accuracy_chart(curves, axis)), words


def _devices(result: ScaleResult) -> set[str]:
    return {found.latency_device for _, found in _trained(result)}


def _spots(family: ScaleResult, key: str, devices: set[str]) -> list[Spot]:
    """Return the members as points; of latencies only those of the same devices."""
    return [
        Spot(
            member.name,
            float(getattr(found if key == LATENCY else member, key)),
            found.test_accuracy,
            found.test_accuracy_std,
            steady=key != LATENCY or not unsteady(found),
        )
        for member, found in _trained(family)
        if key != LATENCY or found.latency_device in devices
    ]


def _line(member: Member, found: MemberTraining) -> list[object]:
    memory = found.memory_bytes
    return [
        tag("a", member.name, href=f"{found.member}/README.md"),
        format_count(member.flops),
        f"{found.accuracy:.2f} ±{found.accuracy_std:.2f}",
        f"{found.test_accuracy:.2f} ±{found.test_accuracy_std:.2f}",
        f"{found.latency_ms:.2f}{unsteady(found)}",
        f"{found.latency_p10_ms:.2f} to {found.latency_p90_ms:.2f}",
        "" if memory is None else format_bytes(memory),
        format_bytes(found.memory_estimate),
        f"{found.images_per_second:.0f}",
        format_seconds(found.training_seconds),
        " ".join(word for word in (found.place, found.device) if word),
    ]
