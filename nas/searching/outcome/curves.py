"""The learning curves of a search that trains, as a table: one row a trial and rung."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.core import run_folder
from nas.interfaces import SPENT, TRAINING_FLOPS, Metrics, Trial
from nas.searching.objective import Goal

RUNGS = "rungs.csv"
COLUMNS = (
    "study",
    "trial",
    "state",
    "epochs",
    "accuracy",
    "reward",
    "flops",
    "training_flops",
    "seconds",
)


def write_rungs(folder: Path, studies: Mapping[str, Sequence[Trial]], goal: Goal) -> None:
    """Write rungs.csv; nothing where nothing was trained. `seconds` are of each rung alone."""
    rows = [row for name, trials in studies.items() for row in _rows(name, trials, goal)]
    if rows:
        run_folder.write_csv(folder / RUNGS, COLUMNS, rows)


def _rows(study: str, trials: Sequence[Trial], goal: Goal) -> Iterator[list[Any]]:
    for trial in trials:
        if trial.state not in SPENT or TRAINING_FLOPS not in trial.metrics:
            continue
        head = [study, trial.number, trial.state]
        for rung in trial.rungs:
            yield [*head, rung.epochs, *_cells(rung.metrics, rung.reward), rung.seconds]
        if trial.state == "done":
            last = trial.seconds - sum(rung.seconds for rung in trial.rungs)
            reward = goal.reward_of(trial)
            # of a training of a set time rungs are hundredths of it
            epochs = int(trial.metrics.get("time_share") or trial.metrics.get("epochs", 0))
            yield [*head, epochs, *_cells(trial.metrics, reward), last]


def _cells(metrics: Metrics, reward: float) -> list[Any]:
    return [metrics["accuracy"], reward, metrics["flops"], metrics[TRAINING_FLOPS]]
