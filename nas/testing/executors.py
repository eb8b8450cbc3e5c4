"""The contract of an executor: each task comes back once, with what this process would give."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nas.core import registry
from nas.core.errors import MissingError, NasError, OptionError, RunError
from nas.interfaces import EvaluatorSpec, Executor, Outcome, Task
from nas.models.arch import Arch
from nas.testing.contract import Contract, draw, space_of

# appends each arch it is asked about to a file, and fails or dies where it is told to
LEDGER = """
import os, time
from nas.core import errors

{trains}

def make(*, ledger: str = "", fail: str = "", kind: str = "", kill: str = "", hang: str = ""):
    return Ledger(ledger, fail, kind, kill, hang)

class Ledger:
    title = "ledger"

    def __init__(self, *given):
        self.ledger, self.fail, self.kind, self.kill, self.hang = given

    def check(self, arch):
        pass

    def evaluate(self, arch, *, seed=0):
        with open(self.ledger, "a") as file:
            file.write(arch.id + "\\n")
        if arch.id == self.fail:
            raise ValueError("no luck today")
        if self.kind:
            raise getattr(errors, self.kind)("not the arch's fault")
        if arch.id == self.kill:
            os.kill(os.getpid(), 9)
        if self.hang in (arch.id, "all"):
            time.sleep(600)
        return {{"accuracy": 50.0, "process": float(os.getpid())}}
"""


def work(executor: Executor, tasks: list[Task]) -> dict[int, Outcome]:
    """Keep every slot busy until all tasks have come back."""
    waiting, outcomes, running = list(tasks), dict[int, Outcome](), 0
    while waiting or running:
        while waiting and running < executor.slots:
            executor.submit(waiting.pop(0))
            running += 1
        for outcome in executor.wait():
            assert outcome.number not in outcomes, "a task came back twice"
            outcomes[outcome.number] = outcome
            running -= 1
    return outcomes


class _Tasks(Contract):
    room = "executors"

    @pytest.fixture
    def tasks(self) -> list[Task]:
        space = space_of(type(self), "mbconv")
        archs = [space.decode(point) for point in draw(space, 12)]
        return [Task(number, arch.to_dict(), 0) for number, arch in enumerate(archs)]

    @pytest.fixture
    def opened(self) -> Iterator[list[Executor]]:
        """Where a test puts its executors to have them closed."""
        executors: list[Executor] = []
        yield executors
        for executor in executors:
            executor.close()

    def start(self, evaluator: str | Path, workers: int = 2, **options: Any) -> Executor:
        """Return an executor of the evaluator, by name or file."""
        executor: Executor = registry.make(
            *(self.room, self.named(), EvaluatorSpec(str(evaluator), options)),
            options=self.options,
            workers=workers,
        )
        return executor

    def ledger(self, folder: Path, *, trains: bool = False) -> tuple[Path, str]:
        """Write an evaluator that notes what it is asked; return it and the path of its notes."""
        path = folder / "ledger.py"
        path.write_text(LEDGER.format(trains="TRAINS = True" if trains else ""), encoding="utf-8")
        return path, str(folder / "ledger.txt")


class ExecutorContract(_Tasks):
    """Tests of a file whose `make(spec, *, workers, ...)` gives an executor."""

    @pytest.mark.parametrize("workers", [1, 2])
    def test_outcomes_are_those_of_this_process(
        self, opened: list[Executor], tasks: list[Task], workers: int
    ) -> None:
        opened.append(self.start("synthetic", workers, noise=0.5))
        evaluator = registry.make("evaluators", "synthetic", options={"noise": 0.5})
        found = work(opened[0], tasks)
        assert sorted(found) == [task.number for task in tasks]
        for task in tasks:
            arch = Arch.from_dict(task.arch)
            assert found[task.number].metrics == evaluator.evaluate(arch, seed=0)

    def test_a_task_that_fails_fails_alone_and_once(
        self, opened: list[Executor], tasks: list[Task], tmp_path: Path
    ) -> None:
        path, notes = self.ledger(tmp_path)
        failing = Arch.from_dict(tasks[2].arch).id
        opened.append(self.start(path, ledger=notes, fail=failing))
        found = work(opened[0], tasks)
        assert Counter(Path(notes).read_text().split()).most_common(1)[0][1] == 1
        failed = {n: outcome.error for n, outcome in found.items() if outcome.error}
        assert failed == {2: "ValueError: no luck today"}

    @pytest.mark.parametrize("workers", [1, 2])
    @pytest.mark.parametrize("kind", [RunError, OptionError, MissingError])
    def test_what_is_no_archs_fault_ends_the_work_with_its_own_error(
        self,
        opened: list[Executor],
        tasks: list[Task],
        tmp_path: Path,
        kind: type[NasError],
        workers: int,
    ) -> None:
        path, notes = self.ledger(tmp_path)
        opened.append(self.start(path, workers, ledger=notes, kind=kind.__name__))
        with pytest.raises(kind, match=r"^not the arch's fault$"):
            work(opened[0], tasks[:1])

    def test_an_arch_that_is_at_fault_ends_alone(
        self, opened: list[Executor], tasks: list[Task], tmp_path: Path
    ) -> None:
        path, notes = self.ledger(tmp_path)
        opened.append(self.start(path, 1, ledger=notes, kind="NasError"))
        assert work(opened[0], tasks[:1])[0].error == "NasError: not the arch's fault"


class ProcessContract(_Tasks):
    """Tests of an executor whose workers are processes of this machine, which it may lose."""

    def test_who_kills_its_worker_is_tried_three_times_and_fails_alone(
        self, opened: list[Executor], tasks: list[Task], tmp_path: Path
    ) -> None:
        path, notes = self.ledger(tmp_path, trains=True)
        killer = Arch.from_dict(tasks[1].arch).id
        opened.append(self.start(path, ledger=notes, kill=killer))
        found = work(opened[0], tasks[:6])
        assert [n for n, outcome in found.items() if outcome.error] == [1]
        assert found[1].error.startswith("its worker process died 3 times: SIGKILL")
        assert found[1].metrics == {}
        tries = Counter(Path(notes).read_text().split())
        assert tries.pop(killer) == 3 and set(tries.values()) == {1}

    def test_close_stops_what_runs_and_leaves_no_process(
        self, tasks: list[Task], tmp_path: Path
    ) -> None:
        path, notes = self.ledger(tmp_path, trains=True)
        executor = self.start(path, ledger=notes, hang="all")
        for task in tasks[:2]:
            executor.submit(task)
        begun = Path(notes)
        for _ in range(6000):
            if begun.exists():
                break
            time.sleep(0.05)
        assert begun.exists(), "no task was begun in five minutes"
        executor.close()
        assert multiprocessing.active_children() == []
