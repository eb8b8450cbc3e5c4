"""Proxy check: the shortest training that still ranks archs as a long one does."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nas.core import run_folder
from nas.core.errors import NasError
from nas.core.ledger import Ledger
from nas.core.resume import find_run, opening
from nas.core.settings import takes
from nas.core.units import format_count, format_seconds
from nas.evaluation.run_all import run_all
from nas.interfaces import ExecutorStatus, Outcome, Task
from nas.searching.fidelity.proxies import rank_budgets
from nas.searching.fidelity.result import ProxyCheckResult
from nas.searching.fidelity.settings import FREE, ProxySettings
from nas.searching.fidelity.study import (
    FidelityStudy,
    ProxyTraining,
    Slot,
    group_trainings,
    open_study,
    read_rows,
    row_of,
    train,
)
from nas.searching.inheritance import with_weights_paths
from nas.training.state import Row

SCHEMA, INTERRUPTED = 1, "interrupted"
RESULT, TRAINING = "result.json", "training"


@takes(ProxySettings)
def proxy_check(
    data: str,
    *,
    project: str | Path = "runs",
    name: str | None = None,
    resume: bool = False,
    say: Callable[[str], None] = lambda text: None,
    interrupted: Callable[[], bool] = lambda: False,
    **settings: Any,
) -> ProxyCheckResult:
    """Train some archs shortly and long; return how well each short budget ranks them.

    `settings` are the command's flags with underscores (`ProxySettings` of the file beside):
    `nas.proxy_check("digits", archs=12, budget=["2", "4:0.5"], max_flops="20M")`. Random archs,
    one of each stratum of FLOPs, are trained `seeds` times with each budget and long, each time
    on a schedule and with a seed of its own. Accuracies are of the validation split after the last
    epoch; the test split is not read.

    Each finished training is a row of project/proxy-check/name/trainings.csv; `resume` goes on
    with the run of that name, or with the latest one, of these settings. `say` gets a line on each
    training; after an epoch in which `interrupted` the result is of the archs finished so far.

    Raises:
        OptionError: a setting is wrong, the data cannot be used, or the space has too few archs.
        RunError: the run folder is in use, damaged, or of other settings.
        NasError: every training failed.
    """
    settings = with_weights_paths(settings, Path(project))
    chosen = ProxySettings.model_validate({"data": data, **settings})
    given = chosen.model_dump()
    asked = {key: value for key, value in given.items() if key not in FREE}
    folder = find_run("proxy-check", Path(project), name, asked) if resume else None
    study = open_study(chosen)
    for line in filter(None, (*study.notes, opening(folder, resume))):
        say(line)
    folder = folder or run_folder.create("proxy-check", name, Path(project), given)
    with run_folder.lease(folder):
        run_folder.write_environment(folder)
        rows, stopped = _train_all(study, folder, say, interrupted)
        result = _result(study, folder, rows, stopped)
        run_folder.write_json(folder / RESULT, result.to_dict())
        return result


class _Stopped(Exception):
    """A person asked to stop."""


def _train_all(
    study: FidelityStudy, folder: Path, say: Callable[[str], None], interrupted: Callable[[], bool]
) -> tuple[list[ProxyTraining], str]:
    """Do every training that has no row yet; return all rows and why it ended early, or ""."""
    table = _ProxyTable(study, read_rows(study, folder), say)

    def watch(epoch: Row) -> None:
        if interrupted():
            raise _Stopped

    def task(number: int, slot: Slot) -> Task:
        place = f"{slot.arch}-{slot.budget}-{slot.repeat}".replace(":", "-")
        arch = study.candidates[slot.arch].arch.to_dict()
        return Task(number, arch, slot.seed, slot.budget.epochs, str(folder / TRAINING / place))

    tasks = [(slot, task(number, slot)) for number, slot in enumerate(study.slots())]
    try:
        reason = run_all(
            tasks,
            InProcessExecutor(
                [slot for slot, _ in tasks], partial(train, study, watch=watch, say=say)
            ),
            table,
            lambda: INTERRUPTED if interrupted() else "",
        )
    except _Stopped:
        return table.ledger.rows, INTERRUPTED
    if not reason:
        shutil.rmtree(folder / TRAINING, ignore_errors=True)
    return table.ledger.rows, reason


@dataclass
class InProcessExecutor:
    """An executor in this process, whose images and checkpoints the trainings share."""

    trainings: Sequence[Slot]
    train: Callable[[Slot, Task], Outcome]
    slots: int = 1
    task: Task | None = None

    def submit(self, task: Task) -> None:
        self.task = task

    def wait(self) -> list[Outcome]:
        task, self.task = self.task, None
        return [self.train(self.trainings[task.number], task)] if task else []

    def status(self) -> ExecutorStatus:
        return ExecutorStatus(1, int(self.task is not None))

    def close(self) -> None:
        self.task = None


@dataclass(frozen=True)
class _ProxyTable:
    """The finished trainings of a check."""

    study: FidelityStudy
    ledger: Ledger[ProxyTraining]
    say: Callable[[str], None]

    def __contains__(self, item: tuple[Slot, Task]) -> bool:
        slot, _ = item
        return (slot.arch, str(slot.budget), slot.repeat) in self._done()

    def finish(self, slot: Slot, task: Task, outcome: Outcome) -> None:
        row = row_of(self.study, slot, outcome)
        self.ledger.append(row)
        number, trainings = len(self.ledger.rows), len(self.study.slots())
        self.say(_line(row, number, trainings, self._left()))

    def _done(self) -> set[tuple[int, str, int]]:
        return {(row.arch, row.budget, row.repeat) for row in self.ledger.rows}

    def _left(self) -> float:
        """Return the seconds that the rest takes at the speed so far."""
        seconds, done = sum(row.seconds for row in self.ledger.rows if not row.error), self._done()
        weights = {
            (s.arch, str(s.budget), s.repeat): self.study.weight(s) for s in self.study.slots()
        }
        spent = sum(weight for key, weight in weights.items() if key in done)
        return seconds * (sum(weights.values()) / spent - 1)


def _line(row: ProxyTraining, number: int, trainings: int, left: float) -> str:
    head = f"{number}/{trainings} arch {row.arch + 1} ({format_count(row.flops)}) {row.budget}"
    if row.error:
        return f"{head} failed: {row.error}"
    rest = f"; {format_seconds(round(left))} left" if number < trainings else ""
    return f"{head} seed {row.seed}: {row.accuracy:.2f} % in {format_seconds(row.seconds)}{rest}"


def _result(
    study: FidelityStudy, folder: Path, rows: Sequence[ProxyTraining], stopped: str
) -> ProxyCheckResult:
    """Return what the trainings show.

    Raises:
        NasError: every training failed.
    """
    kept, trained = group_trainings(study, rows)
    failed = [row for row in rows if row.error]
    if not kept and failed and not stopped:
        raise NasError(f"no arch came through all its trainings: {failed[-1].error}")
    flops = [study.candidates[arch].flops for arch in kept]
    shorts, long = [trained[budget] for budget in study.budgets], trained[study.long]
    known = {
        "schema": SCHEMA,
        "run": str(folder),
        "stopped": stopped,
        "data": study.settings.data,
        "split": "val",
        "space": study.space.name,
        "recipe": study.settings.recipe,
        "device": study.device,
        "seeds": study.settings.seeds,
        "fraction": study.settings.fraction,
        "trainings": len(rows),
        "notes": _notes(study),
        "failed": [
            {"arch_id": row.arch_id, "budget": row.budget, "seed": row.seed, "error": row.error}
            for row in failed
        ],
        "archs": [_arch(study, arch, rows) for arch in kept],
        **rank_budgets(shorts, long, flops, study.settings.threshold),
    }
    return ProxyCheckResult.from_dict(known)


def _notes(study: FidelityStudy) -> list[str]:
    """Return what was understood or left out, of the images too where they were opened."""
    opened = (note for data in study.opened.values() for note in data.notes)
    return list(dict.fromkeys((*study.notes, *opened)))


def _arch(study: FidelityStudy, arch: int, rows: Sequence[ProxyTraining]) -> dict[str, Any]:
    candidate = study.candidates[arch]
    accuracies: dict[str, list[float]] = {}
    for row in rows:
        if row.arch == arch:
            accuracies.setdefault(row.budget, []).append(row.accuracy)
    return {
        "arch_id": candidate.arch.id,
        "flops": candidate.flops,
        "choices": candidate.choices,
        "accuracies": accuracies,
    }
