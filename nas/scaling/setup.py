"""Setup of a scaling, checked: its settings, its base, its executor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nas.interfaces import EvaluatorSpec, Executor
from nas.models.arch import Arch
from nas.scaling.settings import ScaleSettings
from nas.searching.evaluator_spec import executor_of

if TYPE_CHECKING:
    from nas.data.dataset import Dataset
    from nas.training.weights.sources import Weights

INTERRUPTED = "interrupted"
BASE = "baseline.json"  # of a scaling, as it was when it began
Stop = Callable[[], str]  # the reason to begin nothing more, "" to go on


@dataclass(frozen=True)
class ScaleSetup:
    """`source`: the base as it was named; `project`: the folder that holds the runs.

    `dataset`: what members are trained on, opened and split once; None where none is. `weights`:
    what members start from; None: from nothing.
    """

    settings: ScaleSettings
    arch: Arch
    source: str
    project: Path
    dataset: Dataset | None = None
    weights: Weights | None = None


def open_executor(setup: ScaleSetup, spec: EvaluatorSpec, folder: Path) -> Executor:
    """Return the executor of a scaling, its files in a folder of the run; to be closed."""
    chosen = setup.settings
    return executor_of(chosen).make(
        spec,
        workers=chosen.workers or 0,
        isolate=bool(chosen.trial_time_limit),
        folder=folder.resolve(),
        seconds=0.0,
    )
