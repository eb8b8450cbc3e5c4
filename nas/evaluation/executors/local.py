"""Evaluations on this machine: in this process, or in `workers` processes of their own."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path

from nas.core import registry
from nas.core.errors import OptionError
from nas.evaluation.evaluate import make_evaluator, perform
from nas.evaluation.retries import Retries
from nas.evaluation.workers import VISIBLE, Processes
from nas.interfaces import Evaluator, EvaluatorSpec, Executor, ExecutorStatus, Outcome, Task

MOST = 1024  # processes: beyond, they would take all memory before the first evaluation


def make(
    spec: EvaluatorSpec, *, workers: int = 0, isolate: bool = False, folder: Path | None = None
) -> Executor:
    """Return the executor.

    workers: processes; 1, the default, evaluates in this process, unless the evaluator trains or
    `isolate` asks for a process of its own, which a time limit needs. Training processes share the
    cores, and take the GPUs in turn; a task that asks for some of its own waits for them. folder:
    the run's, where it is kept how often an evaluation has ended the process that it ran in.
    """
    trains = getattr(registry.load("evaluators", spec.evaluator), "TRAINS", False)
    if workers <= 1 and not isolate and not trains:
        return InProcess(spec, Retries(folder=folder))
    if workers > MOST:
        raise OptionError(f"--workers takes at most {MOST} on one machine, not {workers}")
    slots = max(1, workers)
    gpus = _gpus() if trains else []
    shares = [_share(slot, slots, gpus) if trains else {} for slot in range(slots)]
    return Processes(spec, shares, gpus, Retries(folder=folder))


class InProcess:
    """One task at a time, in this process."""

    slots = 1

    def __init__(self, spec: EvaluatorSpec, retries: Retries) -> None:
        self._evaluator: Evaluator = make_evaluator(spec)
        self._queue: deque[Task] = deque()
        self._retries = retries

    def submit(self, task: Task) -> None:
        self._queue.append(task)

    def wait(self) -> list[Outcome]:
        task = self._queue.popleft()
        if failure := self._retries.begin(task):
            return [failure]
        outcome = perform(self._evaluator, task)
        self._retries.done(task.number)
        return [outcome]

    def status(self) -> ExecutorStatus:
        return ExecutorStatus(1, len(self._queue))

    def close(self) -> None:
        self._queue.clear()
        self._retries.leave()


def _share(slot: int, slots: int, gpus: list[str]) -> dict[str, str]:
    """Return the environment of one of several training processes: its cores and its GPU."""
    from nas.core.system import processors

    threads = max(1, processors() // slots)
    share = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
    # without a GPU the user's choice of some must not be taken for what this training was given
    if gpus or VISIBLE in os.environ:
        share[VISIBLE] = gpus[slot % len(gpus)] if gpus else ""
    return share


def _gpus() -> list[str]:
    """Return the names of the GPUs that this process may use."""
    import torch

    if not torch.cuda.is_available():
        return []
    visible = os.environ.get(VISIBLE)
    return visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
