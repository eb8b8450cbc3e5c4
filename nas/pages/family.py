"""The section of a family that was trained: accuracy against its costs, other rules beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas.machines.timing import MOST_UNREST
from nas.pages.axes import Axis, figure
from nas.pages.charts_family import Spot, accuracy_chart
from nas.pages.drawing import Html, escape, join, pairs, table, tag
from nas.screens.scale import unsteady
from nas.units import format_bytes, format_count, format_seconds

Result = Mapping[str, Any]
AXES = (
    ("flops", Axis("multiply-adds", "millions", 1e6)),
    ("params", Axis("parameters", "millions", 1e6)),
    ("latency_ms", Axis("latency", "ms", 1.0)),
)
HEAD = (
    *("net", "FLOPs", "val top-1 %", "test top-1 %", "latency, ms", "p10 to p90", "memory"),
    *("estimate", "images/s", "training", "where"),
)


def comparable(result: Result, other: Result) -> bool:
    """Tell whether two families are of one base, trained alike on the same images."""
    mine, theirs = result.get("trained_on"), other.get("trained_on")
    same = result["baseline"]["arch"] == other["baseline"]["arch"]
    return bool(mine and mine == theirs and same)


def section(result: Result, beside: Sequence[Result]) -> list[Html]:
    """Return what training gave; `beside`: comparable families, by other rules."""
    on = result["trained_on"]
    items = [
        ("Data", f"{on['data']}: {', '.join(f'{n} {k}' for k, n in on['splits'].items())} images"),
        ("Recipe", _recipe(on)),
        ("Seed", on["seed"]),
        ("Latency", "; ".join(sorted(_devices(result)))),
    ]
    body = [tag("h2", "Trained and measured"), pairs(items), *_alerts(result)]
    if not _trained(result):
        return body
    figures = [_figure(result, beside, key, axis) for key, axis in AXES]
    notes = [
        "± and bars: the standard error from the number of test images; one training each, so two "
        "members that differ by less than some of these are not told apart. Latency: one image, "
        "median, where it was trained. Memory: the peak on the GPU, on a CPU what the process grew "
        "by; the estimate is in float32 without what the convolution library takes.",
    ]
    if beside:
        notes.append(
            "Beside it, of the same base trained alike: "
            + "; ".join(f"{other['rule']}, {other['run']}" for other in beside)
            + "."
        )
    notes_html = [tag("p", note, class_="quiet") for note in notes]
    return [*body, _table(result), *notes_html, tag("div", *figures, class_="two")]


def _recipe(on: Mapping[str, Any]) -> str:
    options = "".join(f", {k}={v}" for k, v in on.get("recipe_options", {}).items())
    return f"{on['recipe']}{options}, {on['epochs']} epochs, {on['batch_size']} images a step"


def _trained(result: Result) -> list[Mapping[str, Any]]:
    return [member for member in result["members"] if "training" in member]


def _alerts(result: Result) -> list[Html]:
    """Return a line for what is not there."""
    lines = [f"{name} is missing: {why}" for name, why in result["missing"].items()]
    lacks = set(result["missing"]) | {member["name"] for member in _trained(result)}
    late = [member["name"] for member in result["members"] if member["name"] not in lacks]
    if late:
        lines.append(f"Not trained yet: {', '.join(late)}.")
    return [tag("p", line, class_="alert") for line in lines]


def _figure(result: Result, beside: Sequence[Result], key: str, axis: Axis) -> Html:
    curves: dict[str, list[Spot]] = {}
    for family in (result, *beside):
        name = str(family["rule"])
        if spots := _spots(family, key, _devices(result)):
            curves[name if name not in curves else f"{name}, {family['run']}"] = spots
    words = f"Test accuracy against {axis.name}, logarithmic; one colour for each rule."
    if not all(spot.steady for spots in curves.values() for spot in spots):
        words += (
            f" Open circles: the measurement was unsteady (by more than {MOST_UNREST:.0%}), so no "
            "line joins the nets."
        )
    return figure(accuracy_chart(curves, axis), words)


def _devices(result: Result) -> set[str]:
    return {member["training"]["latency_device"] for member in _trained(result)}


def _spots(family: Result, key: str, devices: set[str]) -> list[Spot]:
    """Return the members as points; of latencies only those of the same devices."""
    return [
        Spot(
            member["name"],
            float(member[key] if key in member else member["training"][key]),
            member["training"]["test_accuracy"],
            member["training"]["test_accuracy_std"],
            steady=key != "latency_ms" or not unsteady(member["training"]),
        )
        for member in _trained(family)
        if key in member or member["training"]["latency_device"] in devices
    ]


def _table(result: Result) -> Html:
    rows = [_line(member) for member in _trained(result)]
    return table(list(HEAD), rows, label="Trainings")


def _line(member: Mapping[str, Any]) -> list[object]:
    found = member["training"]
    memory = found.get("memory_bytes")
    return [
        tag("a", member["name"], href=f"{found['member']}/README.md"),
        format_count(member["flops"]),
        f"{found['accuracy']:.2f} ±{found['accuracy_std']:.2f}",
        f"{found['test_accuracy']:.2f} ±{found['test_accuracy_std']:.2f}",
        f"{found['latency_ms']:.2f}{unsteady(found)}",
        f"{found['latency_p10_ms']:.2f} to {found['latency_p90_ms']:.2f}",
        "" if memory is None else format_bytes(memory),
        format_bytes(found["memory_estimate"]),
        f"{found['images_per_second']:.0f}",
        format_seconds(found["training_seconds"]),
        join([escape(word) for word in (found["place"], found["device"]) if word], " "),
    ]
