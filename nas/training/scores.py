"""The score of a teacher, which results of trainings and of searches tell. Light."""

from __future__ import annotations

from dataclasses import dataclass

from nas.core.records import Record
from nas.core.units import format_count


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class TeacherScore(Record):
    """The teacher of a training: `top1` in percent on `n` validation images, as it sees them.

    `probed`: its classifier is a linear probe for these images. `flops`: multiply-adds of one view
    of `pixels` a side, which are not among those of the training.
    """

    source: str
    told: str
    top1: float
    n: int
    probed: bool
    flops: int
    pixels: int

    @property
    def text(self) -> str:
        """Return what the teacher is, how good it is and what it cost, in words."""
        how = ", by a linear probe for these images" if self.probed else ""
        return (
            f"taught by {self.told}, which has val top-1 {self.top1:.2f} % (n = {self.n:,}){how}; "
            f"its {format_count(self.flops)} multiply-adds a view of {self.pixels} pixels are not "
            "among the training's"
        )
