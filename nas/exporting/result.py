"""What `nas.export` returns: the file, and how far its answers are from the network's. Light."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nas.core.records import Record, Table, optional


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Comparison(Record):
    """The output of a batch that comes nearest to what it may differ by.

    `ratio`, `tolerance` and `rounding` are shares of its `largest` number; `rounding`: what the
    network's own float32 is off, None where it was not asked for. `argmax_equal`: of logits.
    """

    batch: int
    output: str
    max_difference: float
    largest: float
    ratio: float
    tolerance: float
    rounding: float | None
    argmax_equal: int | None = optional(None)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ExportResult(Record):
    """A network as a file, `output`; `run` is None where that was given.

    `trained`: False of fresh weights. `channels` and `strides`: of maps, where there are no logits.
    `next`: the lines that use the file.
    """

    schema: int = 1
    run: Path | None
    source: str
    format: str
    imgsz: int
    batch_size: int
    preprocessing: bool
    features_only: bool
    seed: int
    output: Path
    bytes: int
    arch: str
    arch_id: str
    trained: bool
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    params: int
    multiply_adds: int
    num_classes: int
    channels: tuple[int, ...] | None = optional(None)
    strides: tuple[int, ...] | None = optional(None)
    tolerance: float
    max_difference: float
    max_ratio: float
    rounding: float | None
    comparison: tuple[Comparison, ...]
    seconds: float
    notes: tuple[str, ...]
    next: tuple[str, ...]

    def _summary(self) -> dict[str, object]:
        told: dict[str, object] = {"arch": self.arch, "format": self.format}
        return {**told, "max_ratio": self.max_ratio, "output": self.output}

    def _table(self) -> Table:
        rows = [(e.batch, e.output, f"{e.max_difference:.1e}") for e in self.comparison]
        return Table(("batch", "output", "differs by"), rows)
