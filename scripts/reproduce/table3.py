"""Reproduce the FLOPs of Table 3 of Tan and Le 2019: MobileNets and ResNet-50, scaled.

Published: arXiv 1905.11946v5, Table 3; there is no MobileNetV1 scaled by depth. Ours is counted.

    python scripts/reproduce/table3.py --out table3.csv
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import paper_table
from paper_table import Figure, flops, scaled

from nas.models.arch import Arch
from nas.models.compound import Multipliers

SWAPPED = "the paper's FLOPs of the rows d=4 and w=2 look swapped: it prints {} for the other"
UNPRINTED = "coefficients are not printed; these are MobileNetV1's"


class Row(NamedTuple):
    """One row: multipliers of depth, width and resolution, and what is printed."""

    net: str
    scaling: str
    published: str
    asked: Multipliers = Multipliers(1, 1, 1)
    note: str = ""


COMPOUND = Multipliers(1.4, 1.2, 1.3)
V1, V2, R50 = "mobilenet_v1", "mobilenet_v2", "resnet50"
ROWS = (
    Row(V1, "baseline", "0.6B"),
    Row(V1, "width", "2.2B", Multipliers(1, 2, 1)),
    Row(V1, "resolution", "2.2B", Multipliers(1, 1, 2), note="2.272 rounds to 2.3, not to 2.2"),
    Row(V1, "compound", "2.3B", COMPOUND, "layers rounded up; the paper's code is not out"),
    Row(V2, "baseline", "0.3B"),
    Row(V2, "depth", "1.2B", Multipliers(4, 1, 1)),
    Row(V2, "width", "1.1B", Multipliers(1, 2, 1)),
    Row(V2, "resolution", "1.2B", Multipliers(1, 1, 2)),
    Row(V2, "compound", "1.3B", COMPOUND, UNPRINTED),
    Row(R50, "baseline", "4.1B"),
    Row(R50, "depth", "16.2B", Multipliers(4, 1, 1), note=SWAPPED.format("14.7B")),
    Row(R50, "width", "14.7B", Multipliers(1, 2, 1), note=SWAPPED.format("16.2B")),
    Row(R50, "resolution", "16.4B", Multipliers(1, 1, 2)),
    Row(R50, "compound", "16.7B", COMPOUND, UNPRINTED),
)


def main(arguments: list[str] | None = None) -> None:
    given = paper_table.parser(__doc__).parse_args(arguments)
    paper_table.present("Table 3: FLOPs of scaled nets", figures(), given.out)


def figures() -> list[Figure]:
    """Return every row of the table; compound ones also with layers to the nearest whole."""
    rows = []
    for row in ROWS:
        plain = (row.net, row.scaling, row.asked, row.published)
        rows.append(flops(*plain, scaled(row.net, row.asked), row.note))
        if row.scaling == "compound":
            rows.append(flops(*plain, nearest(row), "the same, layers to the nearest whole"))
    return rows


def nearest(row: Row) -> Arch:
    """Return the net of a row with its layers rounded to the nearest whole, not up."""
    arch = scaled(row.net, row.asked._replace(depth=1.0))
    stages = (
        dataclasses.replace(stage, layers=max(1, round(stage.layers * row.asked.depth)))
        for stage in arch.stages
    )
    return dataclasses.replace(arch, stages=tuple(stages))


if __name__ == "__main__":
    main()
