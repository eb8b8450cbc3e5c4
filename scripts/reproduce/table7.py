"""Reproduce the FLOPs of Table 7 of Tan and Le 2019: B0 by depth, width, resolution, and compound.

Published: arXiv 1905.11946v5, Table 7, with top-1 on ImageNet. At the printed coefficients the
rows of one dimension cost less than printed; beside each stands the multiple of 0.1 whose FLOPs are
nearest to the printed. The accuracies are not reproduced here.

    python scripts/reproduce/table7.py --out table7.csv
"""

from __future__ import annotations

from typing import NamedTuple

import paper_table
from paper_table import Figure, flops, scaled, value

from nas.models.compound import Multipliers
from nas.models.cost import count

BASE = "efficientnet_b0"
FINEST = 0.1  # the steps in which coefficients are tried
MOST = 6.0
LOW = "the printed coefficient costs less than the printed FLOPs"
MEETS = "what meets the printed FLOPs"


class Row(NamedTuple):
    """One row as printed: coefficients, FLOPs, top-1 in per cent."""

    scaling: str
    asked: Multipliers
    published: str
    top1: float
    note: str = ""


ROWS = (
    Row("baseline", Multipliers(1, 1, 1), "0.4B", 77.3, "Table 2 prints 77.1 for the same net"),
    Row("depth", Multipliers(4, 1, 1), "1.8B", 79.0, LOW),
    Row("width", Multipliers(1, 2, 1), "1.8B", 78.9, LOW),
    Row("resolution", Multipliers(1, 1, 2), "1.9B", 79.1, LOW),
    Row("compound", Multipliers(1.4, 1.2, 1.3), "1.8B", 81.1, "B3, 9 pixels smaller"),
)


def main(arguments: list[str] | None = None) -> None:
    given = paper_table.parser(__doc__).parse_args(arguments)
    note = "The accuracies are the paper's, on ImageNet; none was trained here."
    paper_table.present("Table 7: B0 scaled in one dimension or in all", figures(), given.out, note)


def figures() -> list[Figure]:
    """Return each row at the printed coefficients, and where these miss at those that meet it."""
    rows = []
    for row in ROWS:
        rows.append(_figure(row, row.asked, f"top-1 {row.top1} %; {row.note}"))
        if row.note == LOW:
            rows.append(_figure(row, meeting(row), MEETS))
    return rows


def meeting(row: Row) -> Multipliers:
    """Return the coefficient of a row's own dimension whose FLOPs are nearest to the printed."""
    steps = (1 + FINEST * step for step in range(round((MOST - 1) / FINEST) + 1))
    candidates = [row.asked._replace(**{row.scaling: round(step, 1)}) for step in steps]
    goal = value(row.published)
    return min(candidates, key=lambda asked: abs(count(scaled(BASE, asked)).flops - goal))


def _figure(row: Row, asked: Multipliers, note: str) -> Figure:
    return flops(BASE, row.scaling, asked, row.published, scaled(BASE, asked), note)


if __name__ == "__main__":
    main()
