"""The last round of a search that trains: the best few again, with seeds that chose nobody.

The best observation of a search is partly luck. So the leaders of the search and of random search
and references are trained anew with several new seeds, long enough to tell what an arch gives, and
their means are compared. The spread over seeds is pooled over all of them.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from nas.core import run_folder
from nas.core.errors import RunError
from nas.interfaces import TRAINING_FLOPS, Executor, Metrics, Outcome, Task
from nas.models.arch import Arch

FINALS = "finals.csv"
COLUMNS = (
    *("name", "arch_id", "seed", "accuracy", "seconds", "folder", "error", TRAINING_FLOPS),
    "length",
)
FIRST = 1_000  # seeds of the finals are far from those of searches
T = TypeVar("T")


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
class Standing:
    """What the last round showed of one arch: accuracies in percent, one a seed."""

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


def play(
    folder: Path,
    finalists: list[Finalist],
    executor: Executor,
    *,
    epochs: int,
    seeds: int,
    seed: int,
    stop: Callable[[], str],
    say: Callable[[str], None],
    limit: float = 0.0,
    retry: bool = False,
    length: str = "",
) -> list[Standing]:
    """Train every finalist with every seed; return the standings in the order given.

    Each training is a row of finals.csv as soon as it is done; those that are there are not
    repeated, but with `retry` those that failed. A finalist whose trainings all failed has no
    standing. `limit`: seconds of one training, 0: any. `length` tells trainings of another length
    apart, which are kept in the table.

    Raises:
        RunError: finals.csv is damaged or cannot be written.
    """
    every = [row for row in _on_file(folder) if row["accuracy"] or not retry]
    rows = [row for row in every if (row.get("length") or "") == length]
    others = [row for row in every if row not in rows]
    done = {(row["arch_id"], int(row["seed"])) for row in rows}
    fresh = _tasks(folder, finalists, epochs, seeds, seed, done, length)
    tasks = [(finalist, replace(task, limit=limit)) for finalist, task in fresh]
    for count, (outcome, finalist, task) in enumerate(outcomes(executor, tasks, stop), 1):
        rows.append({**_row(outcome, finalist, task), "length": length})
        # rows of an earlier version lack the last columns
        cells = [[row.get(name, "") for name in COLUMNS] for row in (*others, *rows)]
        run_folder.write_csv(folder / FINALS, COLUMNS, cells, checked=True)
        shutil.rmtree(Path(task.folder) / "checkpoints", ignore_errors=True)
        left = len(tasks) - count
        say(f"final {finalist.name} seed {task.seed}: {_result(outcome)}; {left} to go")
    return _standings(finalists, rows)


def all_trained(folder: Path, finalists: Sequence[Finalist], length: str) -> bool:
    """Tell whether each finalist has had a training of that length, failed or not.

    Where the time was over before, the others have nothing to be compared with.
    """
    rows = (row for row in _on_file(folder) if (row.get("length") or "") == length)
    return {finalist.arch.id for finalist in finalists} <= {row["arch_id"] for row in rows}


def _on_file(folder: Path) -> list[dict[str, str]]:
    """Return the rows of finals.csv.

    Raises:
        RunError: they are damaged.
    """
    path = folder / FINALS
    try:
        rows = run_folder.read_csv(path)
        for row in rows:
            _ = row["arch_id"], row["folder"], int(row["seed"]), float(row["seconds"])
            _ = float(row["accuracy"] or 0), float(row.get(TRAINING_FLOPS) or 0)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise RunError(
            f"{path} is damaged ({type(error).__name__}: {error}): delete it, and the finals are "
            "trained again"
        ) from error
    return rows


def _tasks(
    folder: Path,
    finalists: list[Finalist],
    epochs: int,
    seeds: int,
    seed: int,
    done: set[tuple[str, int]],
    length: str,
) -> Iterator[tuple[Finalist, Task]]:
    number = 0
    for turn in range(seeds):
        for finalist in finalists:
            chosen = FIRST * (seed + 1) + turn
            tail = f"-{length}" if length else ""
            place = folder / "finals" / f"{finalist.arch.id}-{chosen}{tail}"
            if (finalist.arch.id, chosen) not in done:
                task = Task(number, finalist.arch.to_dict(), chosen, epochs, str(place))
                yield finalist, task
            number += 1


def outcomes(
    executor: Executor, tasks: list[tuple[T, Task]], stop: Callable[[], str]
) -> Iterator[tuple[Outcome, T, Task]]:
    """Run tasks with every slot busy; yield each as it is done, with what it was paired with.

    `stop`: the reason to begin no more, "" to go on.
    """
    waiting, running = list(tasks), dict[int, tuple[T, Task]]()
    while True:
        while waiting and len(running) < executor.slots and not stop():
            owner, task = waiting.pop(0)
            running[task.number] = owner, task
            executor.submit(task)
        if not running:
            return
        for outcome in executor.wait():
            yield outcome, *running.pop(outcome.number)


def _row(outcome: Outcome, finalist: Finalist, task: Task) -> dict[str, str]:
    accuracy = outcome.metrics.get("accuracy", "")
    cells = (finalist.name, finalist.arch.id, task.seed, accuracy)
    cost = outcome.metrics.get(TRAINING_FLOPS, "")
    rest = (f"{outcome.seconds:.4g}", Path(task.folder).name, outcome.error, cost)
    return {name: str(cell) for name, cell in zip(COLUMNS[:-1], (*cells, *rest), strict=True)}


def _result(outcome: Outcome) -> str:
    return outcome.error or f"{outcome.metrics['accuracy']:.2f} %"


def _standings(finalists: list[Finalist], rows: list[dict[str, str]]) -> list[Standing]:
    groups = {
        finalist.arch.id: [r for r in rows if r["arch_id"] == finalist.arch.id and r["accuracy"]]
        for finalist in finalists
    }
    found = {name: [float(row["accuracy"]) for row in group] for name, group in groups.items()}
    deviation = pooled_deviation(list(found.values()))
    standings = []
    for finalist in finalists:
        group = groups[finalist.arch.id]
        if group:
            best = max(group, key=lambda row: float(row["accuracy"]))
            mine = tuple(found[finalist.arch.id])
            standings.append(Standing(finalist, mine, deviation, best["folder"]))
    return standings


def pooled_deviation(groups: list[list[float]]) -> float:
    """Return the standard deviation within groups, 0 if none holds two values."""
    squares = sum((x - sum(g) / len(g)) ** 2 for g in groups for x in g)
    freedom = sum(len(g) - 1 for g in groups if g)
    return math.sqrt(squares / freedom) if freedom else 0.0


def entry(standing: Standing) -> dict[str, Any]:
    """Return a standing as JSON data."""
    return {
        "name": standing.finalist.name,
        "origin": standing.finalist.origin,
        "arch_id": standing.finalist.arch.id,
        "accuracies": list(standing.accuracies),
        "accuracy": standing.mean,
        "accuracy_std": standing.error or None,
        "seed_deviation": standing.deviation or None,
        "searched": standing.finalist.metrics.get("accuracy"),
        "searched_std": standing.finalist.metrics.get("accuracy_std"),
    }


def trained(folder: Path, arch_id: str) -> Path | None:
    """Return the folder of the best training that an arch has had for the finals of a run.

    Whatever its length: the time limit may have ended the finals before they compared anything.
    """
    rows = [row for row in _on_file(folder) if row["arch_id"] == arch_id and row["accuracy"]]
    best = max(rows, key=lambda row: float(row["accuracy"]), default=None)
    return folder / "finals" / best["folder"] if best else None


def hand_over(training: Path | None, best: Path, facts: Mapping[str, Any]) -> bool:
    """Copy the weights of a training, with its config, to the folder `best`; tell if there are any.

    Without a training, what an earlier winner left there goes. facts: what its config says besides.

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
