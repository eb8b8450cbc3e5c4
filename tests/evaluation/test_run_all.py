"""Running tasks to the end: none twice, none lost, and stopping on request."""

from __future__ import annotations

from collections import deque

import pytest

from nas.evaluation.run_all import run_all
from nas.interfaces import ExecutorStatus, Outcome, Task

TASKS = [(f"net {number}", Task(number, {}, seed=number % 3)) for number in range(7)]


class Kept:
    """Outcomes in memory."""

    def __init__(self, *names: str) -> None:
        self.names = [*names]

    def __contains__(self, item: tuple[str, Task]) -> bool:
        return item[0] in self.names

    def finish(self, owner: str, task: Task, outcome: Outcome) -> None:
        assert outcome.number == task.number and owner not in self.names
        self.names.append(owner)


class Desk:
    """An executor that ends the task that came last, and now and then none."""

    def __init__(self, slots: int = 2) -> None:
        self.slots, self.given, self._queue, self._turn = slots, list[int](), deque[Task](), 0

    def submit(self, task: Task) -> None:
        self.given.append(task.number)
        self._queue.append(task)

    def wait(self) -> list[Outcome]:
        self._turn += 1
        return [] if self._turn % 3 == 0 else [Outcome(self._queue.pop().number, {})]

    def status(self) -> ExecutorStatus:
        return ExecutorStatus(self.slots, len(self._queue))

    def close(self) -> None:
        self._queue.clear()


@pytest.mark.parametrize("patient", [True, False])
@pytest.mark.parametrize("slots", [1, 3, 9])
def test_all_are_run_but_those_on_file(slots: int, patient: bool) -> None:
    kept, desk = Kept("net 2", "net 5"), Desk(slots)
    assert run_all(TASKS, desk, kept, lambda: "", patient=patient) == ""
    assert desk.given == [0, 1, 3, 4, 6]
    assert sorted(kept.names) == [name for name, _ in TASKS]


@pytest.mark.parametrize("slots", [1, 2, 4])
@pytest.mark.parametrize("begun", [0, 1, 3, 6])
def test_on_request_no_more_are_begun_and_what_runs_is_kept(begun: int, slots: int) -> None:
    kept, desk = Kept(), Desk(slots)
    reason = run_all(TASKS, desk, kept, lambda: "enough" if len(desk.given) >= begun else "")
    assert reason == "enough" and len(desk.given) == len(kept.names) == begun
    rest = Desk(slots)
    assert run_all(TASKS, rest, kept, lambda: "") == ""
    assert sorted(desk.given + rest.given) == list(range(7))


def test_an_impatient_caller_has_all_given_at_once_and_leaves_what_runs() -> None:
    kept, desk = Kept(), Desk(1)
    stop = lambda: "enough" if len(kept.names) == 2 else ""  # noqa: E731
    assert run_all(TASKS, desk, kept, stop, patient=False) == "enough"
    assert desk.given == list(range(7)) and kept.names == ["net 6", "net 5"]


def test_a_request_after_the_last_outcome_is_none() -> None:
    for patient in (True, False):
        kept = Kept()
        stop = lambda kept=kept: "late" if len(kept.names) == 7 else ""  # noqa: E731
        assert run_all(TASKS, Desk(2), kept, stop, patient=patient) == ""
