"""The teacher of the finals of a search: named, made once and kept in the run.

All finalists have it. The result and the reference that it is compared with are trained without
it too, with the same seeds: so what the architecture and what the teacher added can be told apart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nas.core import registry
from nas.core.errors import OptionError
from nas.evaluation.evaluate import make_evaluator
from nas.evaluation.teacher import check_teacher
from nas.interfaces import EvaluatorSpec
from nas.searching.feasibility import check_space
from nas.searching.final_length import Length
from nas.searching.setup import Setup

FOLDER, OPTION = "teacher", "teacher"


def check(setup: Setup, folder: Path | None) -> None:
    """Check that there is a teacher for the finals, before anything is searched.

    `folder`: of a run that is resumed.

    Raises:
        OptionError: there is none, its classes are others, or nothing is trained in finals.
    """
    source = setup.settings.teacher
    if not source:
        return
    if OPTION not in registry.option_defaults("evaluators", setup.spec.evaluator):
        raise OptionError(
            f"--teacher belongs to trainings, and {setup.spec.evaluator} trains nothing that it "
            "could teach: leave it out, or give --data"
        )
    if not setup.finalists:
        raise OptionError("--teacher teaches the finals, and --finalists 0 has none: leave one out")
    check_teacher(source, setup.evaluator.classes, folder and folder / FOLDER)


def keep(setup: Setup, folder: Path, say: Callable[[str], None]) -> None:
    """Make the teacher of a run and keep it in its folder, once."""
    source = setup.settings.teacher
    if not source:
        return
    # all images, of which candidates may get a part
    whole = {**setup.spec.options, "fraction": 1.0}
    evaluator: Any = make_evaluator(dataclasses.replace(setup.spec, options=whole))
    evaluator.keep_teacher(folder / FOLDER, source, _side(setup), say)


def with_teacher(spec: EvaluatorSpec, setup: Setup, folder: Path) -> EvaluatorSpec:
    """Return the evaluator spec of the finals, with the teacher if there is one."""
    if not setup.settings.teacher:
        return spec
    kept = str((folder / FOLDER).resolve())
    return dataclasses.replace(spec, options={**spec.options, OPTION: kept})


def label(setup: Setup, length: Length) -> str:
    """Return what tells the trainings of the finals apart in finals.csv."""
    return "-".join(filter(None, (length.label, "taught" if setup.settings.teacher else "")))


def compared_with(setup: Setup) -> str:
    """Return the id of the reference that the result is compared with: the parent; "" of none."""
    return next((r.arch.id for r in setup.references if r.arch.id in setup.parents and r.fits), "")


def _side(setup: Setup) -> int:
    """Return the pixels that finalists have, as far as that is known before."""
    if setup.settings.train_imgsz:
        return setup.settings.train_imgsz
    arch = next((r.arch for r in setup.references if r.fits), None)
    return (arch or check_space(setup.space)).resolution
