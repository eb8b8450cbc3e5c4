"""Worker processes of this machine: each with a pipe of its own, a time limit, JSON in and out."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any

from nas.core.errors import NasError, OptionError
from nas.core.processes import follow_parent
from nas.evaluation.evaluate import FATAL, make_evaluator, perform
from nas.evaluation.retries import PREEMPTED, Retries
from nas.interfaces import Evaluator, EvaluatorSpec, ExecutorStatus, Outcome, Task

VISIBLE = "CUDA_VISIBLE_DEVICES"
PATIENCE = 10.0  # seconds for the running step of a training and its checkpoint


class WorkerDied(Exception):
    """A worker process ended in the middle of a task; the message tells how."""


@dataclass
class Worker:
    """A process, the pipe to it, and what it works on."""

    process: BaseProcess
    pipe: Connection
    task: Task | None = None
    deadline: float = float("inf")
    gpus: tuple[str, ...] = ()


class Processes:
    """Worker processes; a task whose worker dies is tried again, as often as `retries` allows.

    A task that runs out of its time limit has its worker killed, and is not tried again. Each
    worker has a pipe of its own, so one that dies leaves the others running. `shares`: for each
    worker, what its environment has beyond this process's. `gpus`: this machine's, of which a task
    may ask for some of its own; it waits until they are free, and so do those behind it.
    """

    def __init__(
        self,
        spec: EvaluatorSpec,
        shares: list[dict[str, str]],
        gpus: Sequence[str] = (),
        retries: Retries | None = None,
    ) -> None:
        self.slots = len(shares)
        self._spec, self._shares, self._gpus = spec, shares, gpus
        self._queue: deque[Task] = deque()
        self._retries = retries or Retries()
        self._given_up: list[Outcome] = []  # tasks that were tried often enough before
        self._workers: list[Worker | None] = [None] * self.slots
        self._fatal: NasError | None = None

    def submit(self, task: Task) -> None:
        """Give a task to a worker, or queue it.

        Raises:
            OptionError: it asks for more GPUs than there are.
        """
        if task.gpus > len(self._gpus):
            raise OptionError(
                f"{task.gpus} GPUs for one training: this machine has {len(self._gpus)}; lower "
                "--member-gpus, or use --executor ray"
            )
        self._queue.append(task)
        self._fill()

    def wait(self) -> list[Outcome]:
        """Return the outcomes that are ready; block until there is one.

        Raises:
            OptionError, RunError, MissingError: no task could be done; what is ready comes first.
        """
        while True:
            if self._fatal:
                raise self._fatal
            self._fill()
            if self._given_up:
                found, self._given_up = self._given_up, []
                return found
            busy = {w.pipe: w for w in self._workers if w and w.task}
            first = min(worker.deadline for worker in busy.values())
            patience = max(0.0, first - time.monotonic()) if first < float("inf") else None
            outcomes = [self._collect(busy[pipe]) for pipe in wait(busy, patience)]  # type: ignore[index]
            late = [w for w in busy.values() if w.task and w.deadline <= time.monotonic()]
            outcomes += [self._give_up(worker) for worker in late]
            if done := [outcome for outcome in outcomes if outcome]:
                return done

    def status(self) -> ExecutorStatus:
        """Return the workers and how many are busy."""
        busy = sum(1 for worker in self._workers if worker and worker.task)
        return ExecutorStatus(self.slots, busy, retries=self._retries.total)

    def close(self) -> None:
        """End the workers; what is running is abandoned, but a training makes a checkpoint."""
        preempt([worker for worker in self._workers if worker], PATIENCE)
        self._retries.leave()
        self._workers = [None] * self.slots
        self._queue.clear()

    def _fill(self) -> None:
        """Give every idle worker a task; start the workers that are missing for it."""
        for slot in range(self.slots):
            if not self._queue:
                return
            worker = self._workers[slot]
            if worker and worker.task:
                continue
            gpus = self._assigned(slot, self._queue[0].gpus)
            if gpus is None and self._queue[0].gpus:
                return
            if gpus is None:  # another slot's share may be free
                continue
            if worker is None or worker.gpus != gpus:
                worker = self._opened(slot, gpus)
            task = self._queue.popleft()
            if failure := self._retries.begin(task):
                self._given_up.append(failure)
            else:
                send_task(worker, task)

    def _assigned(self, slot: int, count: int) -> tuple[str, ...] | None:
        """Return the GPUs for a task that asks for so many; None: they are not free yet."""
        busy = [worker for worker in self._workers if worker and worker.task]
        if not count:  # its share, which others have too, but not where one has it for its own
            shared = _ids(self._shares[slot])
            own = {gpu for w in busy if w.task and w.task.gpus for gpu in w.gpus}
            return None if own & set(shared) else shared
        taken = {gpu for worker in busy for gpu in worker.gpus}
        free = [gpu for gpu in self._gpus if gpu not in taken]
        return tuple(free[:count]) if len(free) >= count else None

    def _opened(self, slot: int, gpus: tuple[str, ...]) -> Worker:
        """Return a new worker for a slot, which sees these GPUs."""
        if before := self._workers[slot]:
            kill(before)
        share = {**self._shares[slot], **({VISIBLE: ",".join(gpus)} if gpus else {})}
        self._workers[slot] = worker = start_worker(self._spec, share)
        worker.gpus = gpus
        return worker

    def _collect(self, worker: Worker) -> Outcome | None:
        """Return what a worker has sent; None if it died and its task is tried again."""
        task = worker.task
        assert task
        try:
            outcome = read(receive_result(worker))
            return dataclasses.replace(outcome, retries=self._retries.done(task.number))
        except FATAL as error:
            self._fatal = error
            return None
        except WorkerDied as death:
            self._discard(worker)
            if not self._retries.again(task.number, str(death)):
                return self._retries.failed(task.number, str(death))
            self._queue.appendleft(task)
            return None

    def _give_up(self, worker: Worker) -> Outcome:
        task = worker.task
        assert task
        self._discard(worker)
        self._retries.done(task.number)
        return given_up(task)

    def _discard(self, worker: Worker) -> None:
        kill(worker)
        worker.task = None
        self._workers[self._workers.index(worker)] = None


def _ids(share: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(gpu for gpu in share.get(VISIBLE, "").split(",") if gpu)


def start_worker(spec: EvaluatorSpec, share: Mapping[str, str]) -> Worker:
    """Return a new worker whose environment has `share` beyond this process's."""
    # spawn: a forked child would share the parent's torch threads and locks
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe()
    data = json.dumps(dataclasses.asdict(spec))
    process = context.Process(target=_serve, args=(its, data, dict(share)), daemon=False)
    with _nameless_program(), _interrupts_blocked():
        process.start()
    its.close()
    return Worker(process, mine)


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block SIGINT in here: a process that is started keeps it so, before it runs any Python.

    Ctrl-C reaches the whole group, and a worker that is still starting would print a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _nameless_program() -> Iterator[None]:
    """Hide which program this is: a spawned process would run it again up to its last import."""
    program = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = program


def send_task(worker: Worker, task: Task) -> None:
    """Have a task done by an idle worker."""
    worker.task = task
    worker.deadline = time.monotonic() + (task.timeout_s or float("inf"))
    with contextlib.suppress(OSError):  # it has died: its pipe will tell
        worker.pipe.send_bytes(json.dumps(dataclasses.asdict(task)).encode())


def receive_result(worker: Worker) -> dict[str, Any]:
    """Return the answer of a worker whose pipe is ready, which is idle then.

    Raises:
        WorkerDied: it has none, as its process has ended.
    """
    try:
        found: dict[str, Any] = json.loads(worker.pipe.recv_bytes())
    except (EOFError, OSError) as error:
        worker.process.join(1)  # it is about to end, by itself
        raise WorkerDied(_cause(worker.process.exitcode)) from error
    worker.task, worker.deadline = None, float("inf")
    return found


def kill(worker: Worker) -> None:
    """Kill a worker."""
    worker.process.kill()
    worker.process.join()
    worker.pipe.close()


def preempt(workers: Sequence[Worker], patience: float) -> None:
    """Tell workers to end (SIGTERM): a training makes a checkpoint first, all else stops at once.

    Those that are left after so many seconds are killed.
    """
    for worker in workers:
        worker.process.terminate()
    deadline = time.monotonic() + patience
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        kill(worker)


def _cause(exitcode: int | None) -> str:
    """Return what ended a process, as multiprocessing tells it: a negative code is a signal."""
    if exitcode == 128 + signal.SIGTERM:
        return PREEMPTED
    if exitcode is None or exitcode >= 0:
        return f"exit code {exitcode}"
    names = {each.value: each.name for each in signal.Signals}
    name = names.get(-exitcode, f"signal {-exitcode}")
    return name + ", which the system sends where memory runs out" * (name == "SIGKILL")


def answer(evaluator: Callable[[], Evaluator], task: Task) -> dict[str, Any]:
    """Return what a worker sends back: an Outcome, or `fatal` where no task could be done."""
    try:
        return dataclasses.asdict(perform(evaluator(), task))
    except FATAL as error:
        name = next(kind.__name__ for kind in FATAL if isinstance(error, kind))
        return {"fatal": name, "message": str(error)}
    except Exception as error:  # of the evaluator's making
        reason = f"no evaluator in a worker process: {type(error).__name__}: {error}"
        return {"fatal": "OptionError", "message": reason}


def read(found: Mapping[str, Any]) -> Outcome:
    """Return the outcome that an answer holds.

    Raises:
        OptionError, RunError, MissingError: no task could be done.
    """
    if "fatal" in found:
        raise next(kind for kind in FATAL if kind.__name__ == found["fatal"])(found["message"])
    return Outcome(**found)


def given_up(task: Task) -> Outcome:
    """Return the outcome of a task that ran out of its time limit."""
    return Outcome(task.number, {}, "stopped at its time limit", task.timeout_s)


def _serve(pipe: Connection, data: str, share: dict[str, str]) -> None:
    """Evaluate what comes through the pipe, until it is closed. The body of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the group: it is the parent's
    follow_parent()
    os.environ.update(share)  # read by torch when it is first imported
    threads = share.get("OMP_NUM_THREADS", "").partition(",")[0]  # a list is for nested loops
    if threads.isdecimal():
        import torch

        torch.set_num_threads(int(threads))
    evaluator = cache(lambda: make_evaluator(EvaluatorSpec(**json.loads(data))))
    while True:
        try:
            task = Task(**json.loads(pipe.recv_bytes()))
        except (EOFError, OSError):
            return
        found = json.dumps(answer(evaluator, task)).encode()
        try:
            pipe.send_bytes(found)
        except OSError:  # the parent has died meanwhile
            return
