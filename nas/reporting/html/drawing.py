"""Networks drawn stage by stage, and their stages as a table. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from markupsafe import Markup

from nas.core import registry
from nas.core.units import format_count
from nas.models import cost
from nas.models.arch import Arch, Stage
from nas.reporting.html.markup import MarkupTable, render, tag

BOX, GAP, COLUMN, WIDE, TALL, ROW = 12, 2, 92, 1050, 66, 194  # pixels of the drawing
Parts = tuple[str, ...]


@dataclass(frozen=True)
class Networks:
    """One or two networks as a page shows them, and what to add to the key of their drawing."""

    drawing: Markup
    stages: MarkupTable
    note: str = ""


def networks(nets: Sequence[tuple[str, Arch]], note: str = "") -> Networks:
    """Return networks drawn, and their stages as a table."""
    return Networks(drawing(nets), stage_table(nets), note)


def block(stage: Stage) -> Parts:
    """Return what the blocks of a stage are made of: op, kernel, expansion, SE, shortcut."""
    reads = registry.load("ops", stage.op).READS
    found = [stage.op]
    if "kernel" in reads:
        found.append(f"k{stage.kernel}")
    if "expansion" in reads:
        found.append(f"e{stage.expansion:.3g}")
    if "se" in reads:
        found.append(f"SE {stage.se:g}" if stage.se else "no SE")
    if stage.skip != "identity":
        found.append("no skip" if stage.skip == "none" else f"{stage.skip} skip")
    return tuple(found)


def stage_table(nets: Sequence[tuple[str, Arch]]) -> MarkupTable:
    """Return the stages of one or two nets side by side, with what differs marked."""
    columns = [_cells(arch) for _, arch in nets]
    marks = _differing(nets[0][1], nets[-1][1])
    longest = max(columns, key=len)
    maps = [[row[1] for row in column] for column in columns]
    # the maps of both nets are nearly always the same: once is enough
    wide = [True, *(each != maps[0] for each in maps[1:])]
    head: list[object] = ["stage"]
    for (name, _), own in zip(nets, wide, strict=True):
        head += ["map"] * own + [name, "ch. × layers", "params", "FLOPs"]
    rows = []
    for index, cells in enumerate(zip_longest(*columns, fillvalue=("",) * 6)):
        row: list[object] = [longest[index][0]]
        for net, (each, own) in enumerate(zip(cells, wide, strict=True)):
            differ = () if net else marks.get(index, ())
            marked = [_mark(cell, at in differ) for at, cell in enumerate(each)]
            row += marked[1 if own else 2 :]
        rows.append(row)
    left = [0, *(at for at, name in enumerate(head) if name in dict(nets))]
    return MarkupTable(head, rows, left=left, label="Stages")


def _cells(arch: Arch) -> list[tuple[object, ...]]:
    """Return label, map, block, shape, params and share of FLOPs of the stem, stages and head."""
    rows = cost.stages(arch)
    total = sum(row.flops for row in rows)
    inner = [(", ".join(block(s)), f"{s.channels} × {s.layers}") for s in arch.stages]
    head = "conv k1, linear" if arch.head.channels else "linear"
    ends = (f"conv k{arch.stem.kernel}", str(arch.stem.channels)), (head, str(rows[-1].channels))
    shapes = [ends[0], *inner, ends[1]]
    sums = [(format_count(row.params), f"{100 * row.flops / total:.1f} %") for row in rows]
    return [
        (row.name, _map(row.size), *shape, *own)
        for row, shape, own in zip(rows, shapes, sums, strict=True)
    ]


def _mark(cell: object, differs: bool) -> object:
    return tag("span", cell, class_="diff") if differs else cell


def _map(size: tuple[int, int]) -> str:
    return f"{size[0]}²" if size[0] == size[1] else f"{size[0]} × {size[1]}"


def _differing(arch: Arch, other: Arch) -> dict[int, list[int]]:
    """Return which cells of which rows differ in kind or shape; none if stages do not align."""
    if len(arch.stages) != len(other.stages):
        return {}
    both = zip(arch.stages, other.stages, strict=True)
    return {
        number: [2] * (block(a) != block(b))
        + [3] * ((a.channels, a.layers) != (b.channels, b.layers))
        for number, (a, b) in enumerate(both, 1)
    }


def drawing(nets: Sequence[tuple[str, Arch]]) -> Markup:
    """Return networks as one SVG, a row each.

    What differs from the last of the nets in a stage is marked, where there are as many stages.
    """
    archs = [arch for _, arch in nets]
    widths, channels = _widths(archs), [n for arch in archs for n in _channels(arch)]
    span = min(channels), max(channels)
    rows = [
        _row(name, arch, archs[-1], widths, span, index * ROW)
        for index, (name, arch) in enumerate(nets)
    ]
    wide, high = sum(widths) + 4, len(nets) * ROW
    return Markup(render("network.html", nets=rows, wide=wide, high=high, box=BOX))


def _channels(arch: Arch) -> list[int]:
    head = arch.head.channels or arch.stages[-1].channels
    return [arch.stem.channels, *(stage.channels for stage in arch.stages), head]


def _widths(archs: list[Arch]) -> list[int]:
    layers = [[1, *(stage.layers for stage in arch.stages), 1] for arch in archs]
    most = [max(column) for column in zip_longest(*layers, fillvalue=1)]
    least = max(COLUMN, WIDE // len(most))
    return [max(least, 16 + count * (BOX + GAP)) for count in most]


def _row(
    name: str, arch: Arch, last: Arch, widths: list[int], span: tuple[int, int], y: int
) -> dict[str, object]:
    """Return what is drawn of one network, its title at the height y."""
    own, marks = cost.count(arch), _differing(arch, last)
    stages, x = [], 2
    ends: list[Stage | None] = [None, *arch.stages, None]
    for index, (stage, cells, width) in enumerate(zip(ends, _cells(arch), widths, strict=False)):
        height = _height(_channels(arch)[index], span)
        stages.append(_column(stage, cells, marks.get(index, ()), x) | {"height": height})
        x += width
    return {
        "name": name,
        "facts": f"{format_count(own.flops)} multiply-adds, {format_count(own.params)} parameters",
        "y": y,
        "middle": y + 38 + TALL / 2,
        "stages": stages,
    }


def _height(channels: int, span: tuple[int, int]) -> float:
    reach = math.log(span[1] / span[0]) or 1.0
    return 12 + (TALL - 12) * math.log(channels / span[0]) / reach


def _column(
    stage: Stage | None, cells: Sequence[object], marks: Collection[int], x: int
) -> dict[str, object]:
    """Return the boxes of a stage side by side and what is written above and below them.

    No stage is the stem or the head. A note is a text, its style and its height below the title.
    """
    parts = block(stage) if stage else (str(cells[2]),)
    share = float(str(cells[5]).rstrip(" %"))
    kind, shape = ("diff" if cell in marks else "" for cell in (2, 3))
    return {
        "lefts": [x + number * (BOX + GAP) for number in range(stage.layers if stage else 1)],
        "kind": f"k{min(stage.kernel, 7)}" if stage else "end",
        "se": bool(stage and stage.se),
        "share": share,
        "notes": [
            (f"{cells[0]}, {cells[1]}", "quiet", 26),
            (parts[0], kind, 118),
            (" ".join(parts[1:3]), kind, 131),
            (" ".join(parts[3:]), kind, 144),
            (str(cells[3]), shape, 157),
            (f"{share:.1f} %", "quiet", 170),
        ],
    }
