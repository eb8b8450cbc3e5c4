"""What a paper prints about a net, beside which we hold what we count."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """Printed figures of one net; None where nothing is printed.

    `top1` and `top5` are per cent on the ImageNet validation set, `flops` are multiply-adds,
    `source` says where they are printed. `note` says why a count cannot agree with the print.
    """

    top1: float | None
    top5: float | None
    params: int | None
    flops: int | None
    source: str
    note: str = ""
