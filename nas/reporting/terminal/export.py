"""What a person sees of an export."""

from __future__ import annotations

from rich.console import Console

from nas.core.units import format_bytes, format_count, format_seconds
from nas.exporting.result import Comparison, ExportResult


def show_export(result: ExportResult, console: Console) -> None:
    """Print what was written, how far it is from the network, and how to use it."""

    def line(word: str, text: str) -> None:
        console.print(f"{word:<9}{text}", markup=False)

    line("network", _network(result))
    line("takes", _takes(result))
    line("gives", _gives(result))
    for note in result.notes:
        line("note", note)
    for row in result.comparison:
        line(f"batch {row.batch}", _agreement(row))
    allowed = f"within {result.tolerance:.1e} of the largest number"
    line("agrees", f"{allowed}, in {format_seconds(result.seconds)}")
    line("saved", f"{result.output}  ({format_bytes(result.bytes)})")
    for place, text in enumerate(result.next):
        line("now try" if not place else "", text)


def _agreement(row: Comparison) -> str:
    text = f"differs by at most {row.max_difference:.1e} of {row.largest:.3g}"
    if row.argmax_equal is None:
        return f"{text} ({row.output})"
    return f"{text}, same class {row.argmax_equal} of {row.batch}"


def _network(result: ExportResult) -> str:
    weights = "trained" if result.trained else "fresh weights"
    return (
        f"{result.arch}, {weights}: {format_count(result.params)} params, "
        f"{format_count(result.multiply_adds)} multiply-adds (MACs) at {result.imgsz} pixels"
    )


def _takes(result: ExportResult) -> str:
    number = result.batch_size or "N"
    shape = f"({number}, {len(result.mean)}, {result.imgsz}, {result.imgsz})"
    if result.preprocessing:
        return f"uint8 RGB {shape}, 0 to 255"
    mean, std = ("/".join(f"{v:.3g}" for v in values) for values in (result.mean, result.std))
    return f"float32 {shape}, (pixels / 255 - {mean}) / {std}"


def _gives(result: ExportResult) -> str:
    if not result.features_only:
        return f"logits of {result.num_classes} classes"
    pairs = zip(result.channels or (), result.strides or (), strict=True)
    return "maps: " + ", ".join(f"{channels} channels at 1/{stride}" for channels, stride in pairs)
