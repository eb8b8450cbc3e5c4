"""Evaluations on this machine: in this process, or in `workers` processes of their own."""

from __future__ import annotations

import os
from collections import deque

from nas import catalog
from nas.evaluation import make_evaluator, perform
from nas.interfaces import Evaluator, Executor, Fleet, Outcome, Task, Work
from nas.workers import Processes


def make(work: Work, *, workers: int = 0, isolate: bool = False) -> Executor:
    """Return the executor.

    workers: processes; 1, the default, evaluates in this process, unless the evaluator trains or
    `isolate` asks for a process of its own, which a time limit needs. Training processes share the
    cores, and take the GPUs in turn.
    """
    trains = getattr(catalog.load("evaluators", work.evaluator), "TRAINS", False)
    if workers <= 1 and not isolate and not trains:
        return InProcess(work)
    slots = max(1, workers)
    return Processes(work, [_share(slot, slots) if trains else {} for slot in range(slots)])


class InProcess:
    """One task at a time, in this process."""

    slots = 1

    def __init__(self, work: Work) -> None:
        self._evaluator: Evaluator = make_evaluator(work)
        self._queue: deque[Task] = deque()

    def submit(self, task: Task) -> None:
        self._queue.append(task)

    def wait(self) -> list[Outcome]:
        return [perform(self._evaluator, self._queue.popleft())]

    def fleet(self) -> Fleet:
        return Fleet(1, len(self._queue))

    def close(self) -> None:
        self._queue.clear()


def _share(slot: int, slots: int) -> dict[str, str]:
    """Return the environment of one of several training processes: its cores and its GPU."""
    from nas.data.pixels import processors

    threads = max(1, processors() // slots)
    share = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    if devices and torch.cuda.is_available():
        share["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
    return share
