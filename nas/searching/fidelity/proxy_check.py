"""Proxy check: how short may a training be and still rank archs as a long one does?"""

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
from nas.searching.fidelity.proxies import judge
from nas.searching.fidelity.result import ProxyCheckResult
from nas.searching.fidelity.settings import FREE, ProxySettings
from nas.searching.fidelity.study import (
    Lab,
    Slot,
    Training,
    gathered,
    open_lab,
    read_rows,
    row_of,
    train,
)
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
    chosen = ProxySettings.model_validate({"data": data, **settings})
    given = chosen.model_dump()
    asked = {key: value for key, value in given.items() if key not in FREE}
    folder = find_run("proxy-check", Path(project), name, asked) if resume else None
    lab = open_lab(chosen)
    for line in filter(None, (*lab.notes, opening(folder, resume))):
        say(line)
    folder = folder or run_folder.create("proxy-check", name, Path(project), given)
    with run_folder.lease(folder):
        run_folder.write_environment(folder)
        rows, stopped = _train_all(lab, folder, say, interrupted)
        result = _result(lab, folder, rows, stopped)
        run_folder.write_json(folder / RESULT, result.to_dict())
        return result


class _Stopped(Exception):
    """A person asked to stop."""


def _train_all(
    lab: Lab, folder: Path, say: Callable[[str], None], interrupted: Callable[[], bool]
) -> tuple[list[Training], str]:
    """Do every training that has no row yet; return all rows and why it ended early, or ""."""
    table = _Table(lab, read_rows(lab, folder), say)

    def watch(epoch: Row) -> None:
        if interrupted():
            raise _Stopped

    def task(number: int, slot: Slot) -> Task:
        place = f"{slot.arch}-{slot.budget}-{slot.repeat}".replace(":", "-")
        arch = lab.candidates[slot.arch].arch.to_dict()
        return Task(number, arch, slot.seed, slot.budget.epochs, str(folder / TRAINING / place))

    tasks = [(slot, task(number, slot)) for number, slot in enumerate(lab.slots())]
    try:
        reason = run_all(
            tasks,
            _Here([slot for slot, _ in tasks], partial(train, lab, watch=watch, say=say)),
            table,
            lambda: INTERRUPTED if interrupted() else "",
        )
    except _Stopped:
        return table.ledger.rows, INTERRUPTED
    if not reason:
        shutil.rmtree(folder / TRAINING, ignore_errors=True)
    return table.ledger.rows, reason


@dataclass
class _Here:
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
class _Table:
    """The finished trainings of a check."""

    lab: Lab
    ledger: Ledger[Training]
    say: Callable[[str], None]

    def __contains__(self, item: tuple[Slot, Task]) -> bool:
        slot, _ = item
        return (slot.arch, str(slot.budget), slot.repeat) in self._done()

    def finish(self, slot: Slot, task: Task, outcome: Outcome) -> None:
        row = row_of(self.lab, slot, outcome)
        self.ledger.append(row)
        number, trainings = len(self.ledger.rows), len(self.lab.slots())
        self.say(_line(row, number, trainings, self._left()))

    def _done(self) -> set[tuple[int, str, int]]:
        return {(row.arch, row.budget, row.repeat) for row in self.ledger.rows}

    def _left(self) -> float:
        """Return the seconds that the rest takes at the speed so far."""
        seconds, done = sum(row.seconds for row in self.ledger.rows if not row.error), self._done()
        weights = {(s.arch, str(s.budget), s.repeat): self.lab.weight(s) for s in self.lab.slots()}
        spent = sum(weight for key, weight in weights.items() if key in done)
        return seconds * (sum(weights.values()) / spent - 1)


def _line(row: Training, number: int, trainings: int, left: float) -> str:
    head = f"{number}/{trainings} arch {row.arch + 1} ({format_count(row.flops)}) {row.budget}"
    if row.error:
        return f"{head} failed: {row.error}"
    rest = f"; {format_seconds(round(left))} left" if number < trainings else ""
    return f"{head} seed {row.seed}: {row.accuracy:.2f} % in {format_seconds(row.seconds)}{rest}"


def _result(lab: Lab, folder: Path, rows: Sequence[Training], stopped: str) -> ProxyCheckResult:
    """Return what the trainings show.

    Raises:
        NasError: every training failed.
    """
    kept, trained = gathered(lab, rows)
    failed = [row for row in rows if row.error]
    if not kept and failed and not stopped:
        raise NasError(f"no arch came through all its trainings: {failed[-1].error}")
    flops = [lab.candidates[arch].flops for arch in kept]
    shorts, long = [trained[budget] for budget in lab.budgets], trained[lab.long]
    known = {
        "schema": SCHEMA,
        "run": str(folder),
        "stopped": stopped,
        "data": lab.settings.data,
        "split": "val",
        "space": lab.space.name,
        "recipe": lab.settings.recipe,
        "device": lab.device,
        "seeds": lab.settings.seeds,
        "fraction": lab.settings.fraction,
        "trainings": len(rows),
        "notes": _notes(lab),
        "failed": [
            {"arch_id": row.arch_id, "budget": row.budget, "seed": row.seed, "error": row.error}
            for row in failed
        ],
        "archs": [_arch(lab, arch, rows) for arch in kept],
        **judge(shorts, long, flops, lab.settings.threshold),
    }
    return ProxyCheckResult.from_dict(known)


def _notes(lab: Lab) -> list[str]:
    """Return what was understood or left out, of the images too where they were opened."""
    opened = (note for data in lab.opened.values() for note in data.notes)
    return list(dict.fromkeys((*lab.notes, *opened)))


def _arch(lab: Lab, arch: int, rows: Sequence[Training]) -> dict[str, Any]:
    candidate = lab.candidates[arch]
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
