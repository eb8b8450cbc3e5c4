"""Evaluations on this machine: in this process, or in `workers` processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
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
    """Worker processes; a task whose worker dies is tried again, three times in all.

    A dead worker takes its neighbours with it, and nothing tells which task was to blame. So all
    that ran then are tried again one at a time: who kills a worker then fails alone.
    """

    def __init__(self, evaluator: str, options: Mapping[str, Any], workers: int) -> None:
        self.slots = workers
        self._evaluator = evaluator, dict(options)
        self._queue: deque[Task] = deque()
        self._suspects: deque[Task] = deque()
        self._tries: dict[int, int] = {}
        self._running: dict[Future[Outcome], Task] = {}
        self._pool = self._fresh_pool()

    def submit(self, task: Task) -> None:
        self._queue.append(task)
        self._fill()

    def wait(self) -> list[Outcome]:
        while True:
            self._fill()
            done, _ = wait(self._running, return_when=FIRST_COMPLETED)
            outcomes = [o for o in (self._collect(future) for future in done) if o]
            if outcomes:
                return outcomes

    def close(self) -> None:
        # taken before the pool forgets them; there is no public way before Python 3.14
        workers = list((self._pool._processes or {}).values())
        for worker in workers:
            worker.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._queue.clear()
        self._running.clear()

    def _fill(self) -> None:
        """Start what may run now: one suspect alone, or tasks up to the number of slots."""
        if self._suspects:
            if not self._running:
                self._start(self._suspects[0])
            return
        while self._queue and len(self._running) < self.slots:
            self._start(self._queue.popleft())

    def _start(self, task: Task) -> None:
        self._tries[task.number] = self._tries.get(task.number, 0) + 1
        try:
            future = self._pool.submit(_perform_here, *self._evaluator, task)
        except BrokenProcessPool:
            self._pool = self._fresh_pool()
            future = self._pool.submit(_perform_here, *self._evaluator, task)
        self._running[future] = task

    def _collect(self, future: Future[Outcome]) -> Outcome | None:
        task = self._running.pop(future)
        try:
            outcome = future.result()
        except BrokenProcessPool:
            if self._tries[task.number] < TRIES:
                if task not in self._suspects:
                    self._suspects.append(task)
                return None
            outcome = Outcome(task.number, {}, f"its worker process died {TRIES} times")
        if task in self._suspects:
            self._suspects.remove(task)
        return outcome

    def _fresh_pool(self) -> ProcessPoolExecutor:
        # spawn: a forked child would share the parent's torch threads and locks
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self.slots, context, _begin_worker)


def _begin_worker() -> None:
    """Leave Ctrl-C, which reaches the whole group, to the parent; end when it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


_made: dict[str, Evaluator] = {}  # of a worker process, which makes its evaluator once


def _perform_here(name: str, options: dict[str, Any], task: Task) -> Outcome:
    try:
        if name not in _made:
            _made[name] = catalog.make("evaluators", name, options=options)
    except Exception as error:
        return Outcome(task.number, {}, f"no evaluator in a worker process: {error}")
    return perform(_made[name], task)
