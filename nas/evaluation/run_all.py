"""Run tasks on an executor until all are done, each put on file as soon as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from nas.interfaces import Executor, Outcome, Task

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class Finished(Protocol[T_contra]):
    """What keeps the outcomes of tasks; each belongs to something, its owner."""

    def __contains__(self, item: tuple[T_contra, Task], /) -> bool:
        """Tell whether a task has an outcome already."""

    def finish(self, owner: T_contra, task: Task, outcome: Outcome) -> None:
        """Put an outcome on file."""


def run_all(
    tasks: Iterable[tuple[T, Task]],
    executor: Executor,
    finished: Finished[T],
    stop: Callable[[], str],
    *,
    patient: bool = True,
) -> str:
    """Run every task that has no outcome yet; return why some are left undone, "" for none.

    `stop`: the reason to begin no more, "" to go on. Then what is running is waited for; with
    `patient` false it is left to the executor, which abandons it when it is closed: that is for
    trainings that keep what they have done. All tasks are given to it at once then.
    """
    waiting = [each for each in tasks if each not in finished]
    running: dict[int, tuple[T, Task]] = {}
    reason = ""
    while waiting or running:
        while waiting and not reason and not (patient and len(running) >= executor.slots):
            if reason := stop():
                break
            owner, task = waiting.pop(0)
            running[task.number] = owner, task
            executor.submit(task)
        if reason and not (patient and running):
            return reason
        for outcome in executor.wait():
            finished.finish(*running.pop(outcome.number), outcome)
        if running and not patient:
            reason = stop()
    return reason
