"""What an architecture and what a teacher added to the accuracy of a search's result, told apart.

All finalists have the teacher. So the difference of the result to the parent, both with it, is the
architecture's; that of the result to itself without the teacher, with the same seeds, is the
teacher's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from nas.searching.outcome.finals import FinalScore
from nas.searching.result import TeacherGain
from nas.training.scores import TeacherScore


def teacher_gain(
    info: TeacherScore,
    with_it: Mapping[str, FinalScore],
    without_it: Mapping[str, FinalScore],
    best: str,
    reference: str,
) -> TeacherGain:
    """Return what both added to the net `best`; of what was not trained nothing is told.

    with_it, without_it: scores of the finals with the teacher and without, by arch id, as `best`
    and `reference` (the parent within the targets) are; "" where there is no reference.
    """
    mine, over, without = with_it.get(best), with_it.get(reference), without_it.get(best)
    over = None if reference == best else over
    return TeacherGain(
        info=info,
        over=over.finalist.name if over else "",
        architecture=mine.mean - over.mean if mine and over else None,
        architecture_std=_error(mine, over),
        teacher=mine.mean - without.mean if mine and without else None,
        teacher_std=_error(mine, without),
    )


def _error(one: FinalScore | None, other: FinalScore | None) -> float | None:
    """Return the standard error of the difference of two means; None where it is unknown."""
    if not one or not other or not one.error or not other.error:
        return None
    return math.hypot(one.error, other.error)
