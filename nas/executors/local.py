"""Evaluations on this machine: in this process, or in `workers` processes of their own."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import os
import signal
import time
from collections import deque
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from nas import catalog
from nas.evaluation import FATAL, make_evaluator, perform
from nas.interfaces import Evaluator, Executor, Outcome, Task, Work
from nas.processes import follow_parent

TRIES = 3


def make(work: Work, *, workers: int = 1, isolate: bool = False) -> Executor:
    """Return the executor.

    workers: processes; 1 evaluates in this process, unless the evaluator trains or `isolate` asks
    for a process of its own, which a time limit needs. Training processes share the cores, and
    take the GPUs in turn.
    """
    trains = getattr(catalog.load("evaluators", work.evaluator), "TRAINS", False)
    if workers == 1 and not isolate and not trains:
        return InProcess(work)
    shares = [_share(slot, workers) if trains else {} for slot in range(workers)]
    return Processes(work, shares)


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

    def close(self) -> None:
        self._queue.clear()


@dataclass
class _Worker:
    """A process, the pipe to it, and what it works on."""

    process: BaseProcess
    pipe: Connection
    task: Task | None = None
    deadline: float = float("inf")


class Processes:
    """Worker processes; a task whose worker dies is tried again, three times in all.

    A task that runs out of its time limit has its worker killed, and is not tried again. Each
    worker has a pipe of its own, so one that dies takes no neighbour with it.
    """

    def __init__(self, work: Work, shares: list[dict[str, str]]) -> None:
        self.slots = len(shares)
        self._work, self._shares = work, shares
        self._queue: deque[Task] = deque()
        self._tries: dict[int, int] = {}
        self._workers: list[_Worker | None] = [None] * self.slots

    def submit(self, task: Task) -> None:
        self._queue.append(task)
        self._tries[task.number] = 0
        self._fill()

    def wait(self) -> list[Outcome]:
        while True:
            self._fill()
            busy = {w.pipe: w for w in self._workers if w and w.task}
            first = min(worker.deadline for worker in busy.values())
            patience = max(0.0, first - time.monotonic()) if first < float("inf") else None
            outcomes = [self._collect(busy[pipe]) for pipe in wait(busy, patience)]  # type: ignore[index]
            late = [w for w in busy.values() if w.task and w.deadline <= time.monotonic()]
            outcomes += [self._give_up(worker) for worker in late]
            if found := [outcome for outcome in outcomes if outcome]:
                return found

    def close(self) -> None:
        for worker in self._workers:
            if worker:
                _end(worker)
        self._workers = [None] * self.slots
        self._queue.clear()

    def _fill(self) -> None:
        """Give every idle worker a task; start the workers that are missing for it."""
        for slot in range(self.slots):
            if not self._queue:
                return
            worker = self._workers[slot] or _start(self._work, self._shares[slot])
            self._workers[slot] = worker
            if worker.task is None:
                task = self._queue.popleft()
                self._tries[task.number] += 1
                worker.task = task
                worker.deadline = time.monotonic() + (task.limit or float("inf"))
                with contextlib.suppress(OSError):  # it has died: its pipe will tell
                    worker.pipe.send_bytes(json.dumps(dataclasses.asdict(task)).encode())

    def _collect(self, worker: _Worker) -> Outcome | None:
        """Return what a worker has sent; None if it died and its task is tried again."""
        task = worker.task
        assert task
        try:
            answer = json.loads(worker.pipe.recv_bytes())
        except (EOFError, OSError):
            worker.process.join(1)  # it is about to end, by itself
            cause = _cause(worker.process.exitcode)
            self._discard(worker)
            if self._tries[task.number] < TRIES:
                self._queue.appendleft(task)
                return None
            return Outcome(task.number, {}, f"its worker process died {TRIES} times: {cause}")
        worker.task, worker.deadline = None, float("inf")
        if "fatal" in answer:
            raise next(kind for kind in FATAL if kind.__name__ == answer["fatal"])(
                answer["message"]
            )
        return Outcome(**answer)

    def _give_up(self, worker: _Worker) -> Outcome:
        task = worker.task
        assert task
        self._discard(worker)
        return Outcome(task.number, {}, "stopped at its time limit", task.limit)

    def _discard(self, worker: _Worker) -> None:
        _end(worker)
        worker.task = None
        self._workers[self._workers.index(worker)] = None


def _start(work: Work, share: dict[str, str]) -> _Worker:
    # spawn: a forked child would share the parent's torch threads and locks
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe()
    data = json.dumps(dataclasses.asdict(work))
    process = context.Process(target=_serve, args=(its, data, share), daemon=False)
    process.start()
    its.close()
    return _Worker(process, mine)


def _end(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.join()
    worker.pipe.close()


def _cause(exitcode: int | None) -> str:
    """Return what ended a process, as multiprocessing tells it: a negative code is a signal."""
    if exitcode is None or exitcode >= 0:
        return f"exit code {exitcode}"
    names = {each.value: each.name for each in signal.Signals}
    name = names.get(-exitcode, f"signal {-exitcode}")
    return name + ", which the system sends where memory runs out" * (name == "SIGKILL")


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


def _serve(pipe: Connection, data: str, share: dict[str, str]) -> None:
    """Evaluate what comes through the pipe, until it is closed. The body of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the group: it is the parent's
    follow_parent()
    os.environ.update(share)  # read by torch when it is first imported
    threads = share.get("OMP_NUM_THREADS", "").partition(",")[0]  # a list is for nested loops
    if threads.isdecimal():
        import torch  # the script that a spawned process imports first may have done so

        torch.set_num_threads(int(threads))
    made: Evaluator | None = None
    while True:
        try:
            task = Task(**json.loads(pipe.recv_bytes()))
        except (EOFError, OSError):
            return
        try:
            made = made or make_evaluator(Work(**json.loads(data)))
            answer = dataclasses.asdict(perform(made, task))
        except FATAL as error:
            name = next(kind.__name__ for kind in FATAL if isinstance(error, kind))
            answer = {"fatal": name, "message": str(error)}
        except Exception as error:  # of the evaluator's making
            reason = f"no evaluator in a worker process: {type(error).__name__}: {error}"
            answer = {"fatal": "OptionError", "message": reason}
        pipe.send_bytes(json.dumps(answer).encode())
