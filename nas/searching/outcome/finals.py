"""Finals: the last round of a search that trains, with seeds that no finalist was selected by.

The best observation of a search is biased upwards. So the leaders of the search and of random
search and references are trained anew with several new seeds, long enough to rank archs, and their
means are compared. The deviation over seeds is pooled over all of them.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nas.core import run_folder
from nas.core.errors import RunError
from nas.core.ledger import Ledger
from nas.evaluation.run_all import run_all
from nas.interfaces import TRAINING_FLOPS, Executor, Metrics, Outcome, Task
from nas.models.arch import Arch

FINALS = "finals.csv"
FIRST = 1_000  # seeds of the finals are far from those of searches


@dataclass(frozen=True)
class Finalist:
    """An arch of the last round: `name` and `origin` say where it came from.

    `metrics`: what is known of it before; of a reference that was no trial its cost alone.
    """

    name: str
    arch: Arch
    metrics: Metrics
    origin: str = ""


@dataclass(frozen=True)
class FinalScore:
    """The result of the finals for one arch: accuracies in percent, one a seed."""

    finalist: Finalist
    accuracies: tuple[float, ...]
    deviation: float  # of one training, in points, pooled over all finalists
    weights: str  # folder of its best training

    @property
    def mean(self) -> float:
        return sum(self.accuracies) / len(self.accuracies)

    @property
    def error(self) -> float:
        """Return the standard error of the mean in points."""
        return self.deviation / math.sqrt(len(self.accuracies))


@dataclass(frozen=True)
class FinalTraining:
    """One training of the finals, a row of finals.csv: accuracy in percent, or an error.

    `folder`: within finals/. `length` tells trainings apart that are longer than a candidate's.
    """

    name: str
    arch_id: str
    seed: int
    accuracy: float | None
    seconds: float
    folder: str
    error: str
    training_flops: float | None = None
    length: str = ""


def trainings(folder: Path) -> Ledger[FinalTraining]:
    """Return the trainings for the finals of a run.

    Raises:
        RunError: finals.csv is damaged.
    """
    return Ledger(folder / FINALS, FinalTraining)


def run_finals(
    folder: Path,
    finalists: list[Finalist],
    executor: Executor,
    *,
    epochs: int,
    seeds: int,
    seed: int,
    stop: Callable[[], str],
    say: Callable[[str], None],
    timeout_s: float = 0.0,
    retry: bool = False,
    length: str = "",
) -> tuple[list[FinalScore], str]:
    """Train every finalist with every seed; return their scores in the order given.

    Beside them comes the reason of `stop` where trainings are left undone, else "". Each training
    is a row of finals.csv as soon as it is done; those that are there are not repeated, but with
    `retry` those that failed. A finalist whose trainings all failed has no score. `timeout_s`:
    seconds of one training, 0: any. `length` tells trainings of another length apart, which are
    kept in the table.

    Raises:
        RunError: finals.csv is damaged or cannot be written.
    """
    ledger = trainings(folder)
    if retry:
        ledger.forget(lambda row: row.accuracy is None)
    tasks = [
        (finalist, replace(task, timeout_s=timeout_s))
        for finalist, task in _tasks(folder, finalists, epochs, seeds, seed, length)
    ]
    table = _FinalsTable(ledger, length, say)
    table.left = sum(task not in table for task in tasks)
    reason = run_all(tasks, executor, table, stop)
    return _scores(finalists, table.rows), reason


@dataclass
class _FinalsTable:
    """The trainings of one length; `left`: how many are still to come."""

    ledger: Ledger[FinalTraining]
    length: str
    say: Callable[[str], None]
    left: int = 0

    @property
    def rows(self) -> list[FinalTraining]:
        return [row for row in self.ledger.rows if row.length == self.length]

    def __contains__(self, item: tuple[Finalist, Task]) -> bool:
        finalist, task = item
        return (finalist.arch.id, task.seed) in {(row.arch_id, row.seed) for row in self.rows}

    def finish(self, finalist: Finalist, task: Task, outcome: Outcome) -> None:
        """Append a training to the ledger, report it, and remove its checkpoints."""
        row = FinalTraining(
            finalist.name,
            finalist.arch.id,
            task.seed,
            outcome.metrics.get("accuracy"),
            float(f"{outcome.seconds:.4g}"),
            Path(task.folder).name,
            outcome.error,
            outcome.metrics.get(TRAINING_FLOPS),
            self.length,
        )
        self.ledger.append(row)
        shutil.rmtree(Path(task.folder) / "checkpoints", ignore_errors=True)
        self.left -= 1
        shown = outcome.error or f"{outcome.metrics['accuracy']:.2f} %"
        self.say(f"final {finalist.name} seed {task.seed}: {shown}; {self.left} to go")


def all_trained(folder: Path, finalists: Sequence[Finalist], length: str) -> bool:
    """Tell whether each finalist has had a training of that length, failed or not.

    Where the time was over before, there is no comparison.
    """
    found = {row.arch_id for row in trainings(folder).rows if row.length == length}
    return {finalist.arch.id for finalist in finalists} <= found


def _tasks(
    folder: Path, finalists: list[Finalist], epochs: int, seeds: int, seed: int, length: str
) -> Iterator[tuple[Finalist, Task]]:
    """Yield the trainings seed by seed, so that an early end leaves the finalists even."""
    tail = f"-{length}" if length else ""
    for turn in range(seeds):
        chosen = FIRST * (seed + 1) + turn
        for number, finalist in enumerate(finalists, turn * len(finalists)):
            place = folder / "finals" / f"{finalist.arch.id}-{chosen}{tail}"
            yield finalist, Task(number, finalist.arch.to_dict(), chosen, epochs, str(place))


def _scores(finalists: list[Finalist], rows: Sequence[FinalTraining]) -> list[FinalScore]:
    """Return the score of each finalist that has an accuracy."""
    found: dict[str, list[tuple[float, str]]] = {each.arch.id: [] for each in finalists}
    for row in rows:
        if row.arch_id in found and row.accuracy is not None:
            found[row.arch_id].append((row.accuracy, row.folder))
    shown = {name: tuple(accuracy for accuracy, _ in own) for name, own in found.items()}
    deviation = pooled_deviation([list(each) for each in shown.values()])
    return [
        FinalScore(each, shown[each.arch.id], deviation, _best(found[each.arch.id]))
        for each in finalists
        if shown[each.arch.id]
    ]


def _best(found: Sequence[tuple[float, str]]) -> str:
    """Return the folder of the most accurate training, "" of none."""
    return max(found, key=lambda each: each[0], default=(0.0, ""))[1]


def pooled_deviation(groups: list[list[float]]) -> float:
    """Return the standard deviation within groups, 0 if none holds two values."""
    squares = sum((x - sum(g) / len(g)) ** 2 for g in groups for x in g)
    freedom = sum(len(g) - 1 for g in groups if g)
    return math.sqrt(squares / freedom) if freedom else 0.0


def trained(folder: Path, arch_id: str) -> Path | None:
    """Return the folder of the best training that an arch has had for the finals of a run.

    Whatever its length: the time limit may have ended the finals before they compared anything.
    """
    rows = [row for row in trainings(folder).rows if row.arch_id == arch_id]
    best = _best([(row.accuracy, row.folder) for row in rows if row.accuracy is not None])
    return folder / "finals" / best if best else None


def copy_weights(training: Path | None, best: Path, facts: Mapping[str, Any]) -> bool:
    """Copy the weights of a training, with its config, to the folder `best`; tell if there are any.

    Without a training, what an earlier result left there is removed. facts: added to its config.

    Raises:
        RunError: they cannot be written, as on a full disk.
    """
    weights, config = best / "model.safetensors", best / "config.json"
    source = training / "weights" / "best.safetensors" if training else None
    there = source and source.is_file() and (source.parents[1] / config.name).is_file()
    try:
        if not source or not there:
            weights.unlink(missing_ok=True)
            config.unlink(missing_ok=True)
            return False
        told = run_folder.read_object(source.parents[1] / config.name)
        best.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, best / f".{weights.name}")
        (best / f".{weights.name}").replace(weights)
        run_folder.write_json(config, {**told, **facts})
    except OSError as error:
        raise RunError(f"cannot write in {best}: {error.strerror}; make room there") from error
    return True
