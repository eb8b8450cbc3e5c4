"""Quiet HTML: escaped text, tables, and networks drawn stage by stage. Pure functions.

`Html` is text that may go into a page as it is; everything else is escaped on its way in.
"""

from __future__ import annotations

import html
import math
from collections.abc import Collection, Iterable, Sequence
from itertools import zip_longest

from nas import catalog, cost
from nas.arch import Arch, Stage
from nas.units import format_count

BOX, GAP, COLUMN, TALL, ROW = 11, 2, 92, 66, 182  # pixels of the drawing
Parts = tuple[str, ...]


class Html(str):
    """Text that is HTML already."""


def escape(value: object) -> Html:
    """Return a value as HTML; what is HTML already stays."""
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def join(parts: Iterable[object], between: str = "\n") -> Html:
    """Return the escaped parts as one text."""
    return Html(between.join(escape(part) for part in parts))


def tag(name: str, *content: object, **attributes: object) -> Html:
    """Return an element; `class_` is the attribute class, underscores become hyphens."""
    named = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}
    text = "".join(f' {key}="{escape(value)}"' for key, value in named.items() if value != "")
    return Html(f"<{name}{text}>{join(content, '')}</{name}>")


def table(
    head: Sequence[object],
    rows: Sequence[Sequence[object]],
    *,
    words: int = 1,
    marked: Collection[int] = (),
    label: str = "",
) -> Html:
    """Return a table in a box of its own that scrolls; the first `words` columns are text.

    The rows numbered in `marked` are set in bold.
    """

    def line(kind: str, cells: Sequence[object], style: str = "") -> Html:
        sides = ("l" if index < words else "" for index in range(len(cells)))
        made = (tag(kind, cell, class_=side) for cell, side in zip(cells, sides, strict=True))
        return tag("tr", *made, class_=style)

    body = (line("td", row, "mark" if i in marked else "") for i, row in enumerate(rows))
    inner = tag("thead", line("th", head)) + tag("tbody", join(body))
    named = {"role": "region", "aria_label": label, "tabindex": 0} if label else {}
    return tag("div", tag("table", Html(inner)), class_="scroll", **named)


def pairs(items: Iterable[tuple[object, object]]) -> Html:
    """Return names and values as a definition list."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in items))


def signed(value: float, digits: int = 2) -> str:
    """Return +1.20 or −0.35, with a true minus."""
    return f"{value:+.{digits}f}".replace("-", "−")


def power(value: float) -> Html:
    """Return 432, or 1.04 × 10¹¹ from a million on."""
    if value < 1e6:
        return escape(f"{value:,.0f}")
    # a space may have more points than a float can hold
    digits = len(str(int(value))) - 1
    return Html(f"{int(value) // 10 ** (digits - 2) / 100:.2f} × 10<sup>{digits}</sup>")


def block(stage: Stage) -> Parts:
    """Return what the blocks of a stage are made of: op, kernel, expansion, SE, shortcut."""
    reads = catalog.load("ops", stage.op).READS
    found = [stage.op]
    if "kernel" in reads:
        found.append(f"k{stage.kernel}")
    if "expansion" in reads:
        found.append(f"e{stage.expansion:g}")
    if "se" in reads:
        found.append(f"SE {stage.se:g}" if stage.se else "no SE")
    if stage.skip != "identity":
        found.append("no skip" if stage.skip == "none" else f"{stage.skip} skip")
    return tuple(found)


def stage_table(arch: Arch, name: str, other: Arch | None, other_name: str) -> Html:
    """Return the stages of an arch as a table, beside those of another with differences marked."""
    archs = [arch, other] if other else [arch]
    head = ["stage", "map", *_heading(name)]
    if other:
        head += ["map", *_heading(other_name)]
    columns = [_cells(each) for each in archs]
    marks = _differing(arch, other)
    rows = []
    for index, group in enumerate(zip_longest(*columns, fillvalue=("",) * 6)):
        first = [*group[0]]
        for cell in marks.get(index, ()):
            first[cell] = tag("span", first[cell], class_="diff")
        label = columns[max(range(len(archs)), key=lambda i: len(columns[i]))][index][0]
        rows.append([label, *first[1:], *(cell for each in group[1:] for cell in each[1:])])
    return table(head, rows, label="Stages")


def _heading(name: str) -> list[object]:
    return [f"{name}: blocks", "channels × layers", "params", "FLOPs share"]


def _cells(arch: Arch) -> list[tuple[object, ...]]:
    """Return label, map, block, shape, params and share of FLOPs of the stem, stages and head."""
    rows = cost.stages(arch)
    total = sum(row.flops for row in rows)
    inner = [(", ".join(block(s)), f"{s.channels} × {s.layers}") for s in arch.stages]
    head = "conv k1, linear" if arch.head.channels else "linear"
    ends = (f"conv k{arch.stem.kernel}", str(arch.stem.channels)), (head, str(rows[-1].channels))
    shapes = [ends[0], *inner, ends[1]]
    return [
        (row.name, _map(row.size), *shape, format_count(row.params), f"{row.flops / total:.1%}")
        for row, shape in zip(rows, shapes, strict=True)
    ]


def _map(size: tuple[int, int]) -> str:
    return f"{size[0]}²" if size[0] == size[1] else f"{size[0]} × {size[1]}"


def _differing(arch: Arch, other: Arch | None) -> dict[int, list[int]]:
    """Return which cells of which rows differ in kind or shape; none if stages do not align."""
    if other is None or len(arch.stages) != len(other.stages):
        return {}
    both = zip(arch.stages, other.stages, strict=True)
    return {
        number: [2] * (block(a) != block(b))
        + [3] * ((a.channels, a.layers) != (b.channels, b.layers))
        for number, (a, b) in enumerate(both, 1)
    }


def drawing(nets: Sequence[tuple[str, Arch]]) -> Html:
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
    return [max(COLUMN, 16 + count * (BOX + GAP)) for count in most]


def _row(
    name: str, arch: Arch, last: Arch, widths: list[int], span: tuple[int, int], y: int
) -> Html:
    """Draw one network, its title at the height y."""
    own, marks = cost.count(arch), _differing(arch, last)
    facts = f"{format_count(own.flops)} multiply-adds, {format_count(own.params)} parameters"
    middle = y + 38 + TALL / 2
    parts = [
        Html(f'<text x="2" y="{y + 12}">{tag("tspan", name, class_="name")} {escape(facts)}</text>'),
        Html(f'<line x1="2" x2="{sum(widths)}" y1="{middle}" y2="{middle}" class="axis"/>'),
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


def _boxes(stage: Stage | None, x: float, middle: float, height: float) -> Html:
    """Draw the blocks of a stage side by side; no stage is the stem or the head."""
    kind = f"k{min(stage.kernel, 7)}" if stage else "end"
    shapes = []
    for number in range(stage.layers if stage else 1):
        left, upper = x + number * (BOX + GAP), middle - height / 2
        size = f'width="{BOX}" height="{height:.1f}"'
        shapes.append(f'<rect x="{left:g}" y="{upper:.1f}" {size} class="{kind}"/>')
        if stage and stage.se:
            shapes.append(f'<circle cx="{left + BOX / 2:g}" cy="{upper - 5:.1f}" r="2.2"/>')
    return Html("".join(shapes))


def _notes(
    cells: Sequence[object], stage: Stage | None, marks: list[int] | None, x: float, y: int
) -> Html:
    """Write under a stage its map, op, block, shape and share of the FLOPs."""
    parts = block(stage) if stage else (str(cells[2]),)
    share = float(str(cells[5]).rstrip("%"))
    lines = [
        (f"{cells[0]}, {cells[1]}", "quiet"),
        (parts[0], "diff" if 2 in (marks or ()) else ""),
        (" ".join(parts[1:]), "diff" if 2 in (marks or ()) else ""),
        (str(cells[3]), "diff" if 3 in (marks or ()) else ""),
        (f"{share:.1f} %", "quiet"),
    ]
    heights = (26, 118, 131, 144, 157)
    texts = (
        tag("text", text, x=f"{x:g}", y=y + height, class_=style)
        for (text, style), height in zip(lines, heights, strict=True)
        if text
    )
    bar = f'<rect x="{x:g}" y="{y + 161}" width="{share * 0.8:.1f}" height="3" class="bar"/>'
    return Html(join(texts, "") + bar)
