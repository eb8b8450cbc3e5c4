"""Evaluations on this machine: in this process, or in `workers` processes of their own."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from nas import catalog
from nas.evaluation import perform
from nas.interfaces import Evaluator, Executor, Outcome, Task

TRIES = 3


def make(evaluator: str, options: Mapping[str, Any], *, workers: int = 1) -> Executor:
    """Return the executor. workers: processes; 1 evaluates in this process, one at a time."""
    return InProcess(evaluator, options) if workers == 1 else Processes(evaluator, options, workers)


class InProcess:
    """One task at a time, in this process."""

    slots = 1

    def __init__(self, evaluator: str, options: Mapping[str, Any]) -> None:
        self._evaluator: Evaluator = catalog.make("evaluators", evaluator, options=options)
        self._queue: deque[Task] = deque()

    def submit(self, task: Task) -> None:
        self._queue.append(task)

    def wait(self) -> list[Outcome]:
        return [perform(self._evaluator, self._queue.popleft())]

    def close(self) -> None:
        self._queue.clear()


class Processes:
    """Worker processes; a task whose worker dies is tried again, three times in all."""

    def __init__(self, evaluator: str, options: Mapping[str, Any], workers: int) -> None:
        self.slots = workers
        self._start = (evaluator, dict(options))
        self._tries: dict[int, int] = {}
        self._running: dict[Future[Outcome], Task] = {}
        self._pool = self._fresh_pool()

    def submit(self, task: Task) -> None:
        self._tries[task.number] = self._tries.get(task.number, 0) + 1
        try:
            future = self._pool.submit(_perform_here, task)
        except BrokenProcessPool:
            self._pool = self._fresh_pool()
            future = self._pool.submit(_perform_here, task)
        self._running[future] = task

    def wait(self) -> list[Outcome]:
        while True:
            done, _ = wait(self._running, return_when=FIRST_COMPLETED)
            outcomes = [o for o in (self._collect(future) for future in done) if o]
            if outcomes:
                return outcomes

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._running.clear()

    def _collect(self, future: Future[Outcome]) -> Outcome | None:
        task = self._running.pop(future)
        try:
            return future.result()
        except BrokenProcessPool:
            if self._tries[task.number] < TRIES:
                self.submit(task)
                return None
            return Outcome(task.number, {}, f"its worker process died {TRIES} times")

    def _fresh_pool(self) -> ProcessPoolExecutor:
        # spawn: a forked child would share the parent's torch threads and locks
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self.slots, context, _load_evaluator, self._start)


_evaluators: list[Evaluator] = []


def _load_evaluator(name: str, options: Mapping[str, Any]) -> None:
    """Make the evaluator of a worker process, once."""
    _evaluators[:] = [catalog.make("evaluators", name, options=options)]


def _perform_here(task: Task) -> Outcome:
    return perform(_evaluators[0], task)
