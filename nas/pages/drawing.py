"""Networks drawn stage by stage, and their stages as a table. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from markupsafe import Markup

from nas import catalog, cost
from nas.arch import Arch, Stage
from nas.pages.markup import Table, escape, join, tag
from nas.units import format_count

BOX, GAP, COLUMN, WIDE, TALL, ROW = 12, 2, 92, 1050, 66, 194  # pixels of the drawing
Parts = tuple[str, ...]


@dataclass(frozen=True)
class Networks:
    """One or two networks as a page shows them, and what to add to the key of their drawing."""

    drawing: Markup
    stages: Table
    note: str = ""


def networks(nets: Sequence[tuple[str, Arch]], note: str = "") -> Networks:
    """Return networks drawn, and their stages as a table."""
    return Networks(drawing(nets), stage_table(nets), note)


def block(stage: Stage) -> Parts:
    """Return what the blocks of a stage are made of: op, kernel, expansion, SE, shortcut."""
    reads = catalog.load("ops", stage.op).READS
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


def stage_table(nets: Sequence[tuple[str, Arch]]) -> Table:
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
    return Table(head, rows, left=left, label="Stages")


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
    """Return networks as one SVG, a row each: a box per block, its height the channels.

    The kernel is the shade, a dot above a block is squeeze-and-excitation. What differs from the
    last of the nets in a stage is marked, where there are as many stages.
    """
    widths = _widths([arch for _, arch in nets])
    top = max(_channels(arch)[i] for _, arch in nets for i in range(len(_channels(arch))))
    least = min(min(_channels(arch)) for _, arch in nets)
    rows = [
        _row(name, arch, nets[-1][1], widths, (least, top), y * ROW)
        for y, (name, arch) in enumerate(nets)
    ]
    wide, high = sum(widths) + 4, len(nets) * ROW
    label = "Networks drawn stage by stage: " + ", ".join(name for name, _ in nets)
    box = f"0 0 {wide} {high}"
    svg = tag("svg", *rows, viewBox=box, width=wide, height=high, role="img", aria_label=label)
    return tag("div", svg, class_="scroll net")


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
) -> Markup:
    """Draw one network, its title at the height y."""
    own, marks = cost.count(arch), _differing(arch, last)
    facts = f"{format_count(own.flops)} multiply-adds, {format_count(own.params)} parameters"
    middle = y + 38 + TALL / 2
    parts = [
        Markup(
            f'<text x="2" y="{y + 12}">{tag("tspan", name, class_="name")} {escape(facts)}</text>'
        ),
        Markup(f'<line x1="2" x2="{sum(widths)}" y1="{middle}" y2="{middle}" class="axis"/>'),
    ]
    x = 2.0
    for index, (cells, width) in enumerate(zip(_cells(arch), widths, strict=False)):
        inner = 0 < index <= len(arch.stages)
        stage = arch.stages[index - 1] if inner else None
        height = _height(_channels(arch)[index], span)
        parts += [_boxes(stage, x, middle, height), _notes(cells, stage, marks.get(index), x, y)]
        x += width
    return tag("g", *parts)


def _height(channels: int, span: tuple[int, int]) -> float:
    reach = math.log(span[1] / span[0]) or 1.0
    return 12 + (TALL - 12) * math.log(channels / span[0]) / reach


def _boxes(stage: Stage | None, x: float, middle: float, height: float) -> Markup:
    """Draw the blocks of a stage side by side; no stage is the stem or the head."""
    kind = f"k{min(stage.kernel, 7)}" if stage else "end"
    shapes = []
    for number in range(stage.layers if stage else 1):
        left, upper = x + number * (BOX + GAP), middle - height / 2
        size = f'width="{BOX}" height="{height:.1f}"'
        shapes.append(f'<rect x="{left:g}" y="{upper:.1f}" {size} class="{kind}"/>')
        if stage and stage.se:
            shapes.append(f'<circle cx="{left + BOX / 2:g}" cy="{upper - 5:.1f}" r="2.2"/>')
    return Markup("".join(shapes))


def _notes(
    cells: Sequence[object], stage: Stage | None, marks: list[int] | None, x: float, y: int
) -> Markup:
    """Write under a stage its map, op, block, shape and share of the FLOPs."""
    parts = block(stage) if stage else (str(cells[2]),)
    share = float(str(cells[5]).rstrip(" %"))
    lines = [
        (f"{cells[0]}, {cells[1]}", "quiet"),
        (parts[0], "diff" if 2 in (marks or ()) else ""),
        (" ".join(parts[1:3]), "diff" if 2 in (marks or ()) else ""),
        (" ".join(parts[3:]), "diff" if 2 in (marks or ()) else ""),
        (str(cells[3]), "diff" if 3 in (marks or ()) else ""),
        (f"{share:.1f} %", "quiet"),
    ]
    heights = (26, 118, 131, 144, 157, 170)
    texts = (
        tag("text", text, x=f"{x:g}", y=y + height, class_=style)
        for (text, style), height in zip(lines, heights, strict=True)
        if text
    )
    bar = f'<rect x="{x:g}" y="{y + 174}" width="{share * 0.8:.1f}" height="3" class="bar"/>'
    return join(texts) + Markup(bar)
