"""A virtual cluster: real evaluations in this process, on a clock that only tasks move.

For what cannot be rented. A search of a thousand trainings on a thousand workers is known in
seconds: what a controller proposes while so much is in flight, how busy the workers are, when the
driver becomes the narrow place. The evaluator gives the metrics; the seconds are virtual.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from nas.core.errors import OptionError
from nas.evaluation.durations import observed, read_times
from nas.evaluation.evaluate import make_evaluator, perform
from nas.interfaces import VIRTUAL as VIRTUAL_PLACE
from nas.interfaces import EvaluatorSpec, Executor, ExecutorStatus, Outcome, Task, TrainingEvaluator
from nas.models.arch import Arch

VIRTUAL = True  # no processes and no waiting: what is tested about these passes it by
TRIES = 3


def make(
    spec: EvaluatorSpec,
    *,
    workers: int = 0,
    seed: int = 0,
    stragglers: float = 0.0,
    slowdown: float = 4.0,
    failures: float = 0.0,
    overhead: float = 0.0,
    times: str = "",
) -> Executor:
    """Return a virtual cluster, whose seconds are not real.

    workers: virtual workers, 1 by default. seed: of all that is drawn. stragglers: share of the
    tries that take `slowdown` times as long. failures: chance that a try dies on the way; it is
    tried three times in all. overhead: seconds the driver needs for each dispatch, one after
    another. times: a .csv or .parquet table of the seconds of archs (`arch_id` and `seconds`, as
    trials.csv of a run has them, or Accel-NASBench itself); those of other archs are estimated.

    Raises:
        OptionError: an option is out of its range, or no such table.
    """
    if workers < 0:
        raise OptionError(f"a virtual cluster has 1 worker or more, not {workers}")
    for name, value in (("stragglers", stragglers), ("failures", failures)):
        if not 0 <= value <= 1:
            raise OptionError(f"{name} is a share of the tries, 0 to 1, not {value!r}")
    if not (slowdown >= 1 and overhead >= 0):
        raise OptionError(
            f"slowdown is a factor of 1 or more and overhead is seconds of 0 or more, "
            f"not {slowdown!r} and {overhead!r}"
        )
    table = read_times(Path(times)) if times else {}
    chances = Chances(seed, stragglers, slowdown, failures)
    return SimulatedCluster(make_evaluator(spec), max(1, workers), chances, overhead, table)


class Try(NamedTuple):
    """One try of a task: how long it holds its worker, and how it ends."""

    seconds: float
    end: Literal["result", "death", "limit"]


@dataclass(frozen=True)
class Chances:
    """What may happen to a try: a pure function of the seed, the task and the try's number."""

    seed: int
    stragglers: float
    slowdown: float
    failures: float

    def stream(self, task: Task, tries: int) -> random.Random:
        """Return the random numbers of one try."""
        return random.Random(f"{self.seed}/{task.number}/{task.seed}/{task.epochs}/{tries}")

    def fate(self, seconds: float, chance: random.Random) -> Try:
        """Return what becomes of a try that would take so long."""
        slow, dies, moment = chance.random(), chance.random(), chance.random()
        if slow < self.stragglers:
            seconds *= self.slowdown
        died = dies < self.failures
        return Try(seconds * moment, "death") if died else Try(seconds, "result")


@dataclass(frozen=True)
class SimulatedTask:
    """A task with what its earlier tries have taken, in virtual seconds."""

    task: Task
    tries: int = 0
    seconds: float = 0.0


class Event(NamedTuple):
    """The end of a try, in the order of time; `order` tells events of one moment apart."""

    time: float
    order: int
    worker: int
    job: SimulatedTask
    tried: Try


class SimulatedCluster:
    """Virtual workers. `now`: the clock; `busy_seconds`: what workers were held, all together.

    A task goes to the worker that has been free the longest, in the order of submission; one whose
    try has died goes first, from its beginning.
    """

    def __init__(
        self,
        evaluator: TrainingEvaluator,
        workers: int,
        chances: Chances,
        overhead: float,
        times: Mapping[str, float],
    ) -> None:
        self.slots = workers
        self.now = self.busy_seconds = 0.0
        self._evaluator, self._chances, self._times = evaluator, chances, times
        self._overhead, self._driver = overhead, 0.0  # when the driver is free again
        self._free, self._queue = deque(range(workers)), deque[SimulatedTask]()
        self._events: list[Event] = []
        self._trained: dict[str, int] = {}  # epochs, by folder
        self._order = self._retries = 0

    @property
    def utilisation(self) -> float:
        """Return the share of the workers' virtual time in which they were held by a task."""
        return self.busy_seconds / (self.slots * self.now) if self.now else 0.0

    def status(self) -> ExecutorStatus:
        busy = self.slots - len(self._free)
        hours, share = f"{self.now / 3600:.2f}", f"{self.utilisation:.0%}"
        note = f"a simulation: {hours} virtual hours until now, {share} of them busy"
        return ExecutorStatus(self.slots, busy, retries=self._retries, message=note)

    def submit(self, task: Task) -> None:
        """Start a task at this moment, or queue it."""
        self._queue.append(SimulatedTask(task))
        self._dispatch()

    def wait(self) -> list[Outcome]:
        """Move the clock to the next result; return all of that moment."""
        found: list[Outcome] = []
        while not found or (self._events and self._events[0].time == self.now):
            found += self._step()
        return found

    def close(self) -> None:
        """Forget what is running."""
        self._queue.clear()
        self._events.clear()
        self._free = deque(range(self.slots))

    def _dispatch(self) -> None:
        """Give queued tasks to free workers, each when the driver has come to it."""
        while self._queue and self._free:
            job, worker = self._queue.popleft(), self._free.popleft()
            self._driver = max(self._driver, self.now) + self._overhead
            tried = self._tried(job)
            self._order += 1
            event = Event(self._driver + tried.seconds, self._order, worker, job, tried)
            heapq.heappush(self._events, event)

    def _tried(self, job: SimulatedTask) -> Try:
        """Return the next try of a task, ended by the task's time limit."""
        task = job.task
        chance = self._chances.stream(task, job.tries)
        tried = self._chances.fate(self._duration(task, chance), chance)
        return Try(task.timeout_s, "limit") if 0 < task.timeout_s < tried.seconds else tried

    def _duration(self, task: Task, chance: random.Random) -> float:
        """Return the seconds of a try that nothing befalls."""
        arch = Arch.from_dict(task.arch)
        whole = observed(arch, chance)  # drawn in any case: a table changes no other chance
        whole = self._times.get(arch.id, whole)
        if not task.epochs:
            return whole
        last = max(task.epochs, *self._evaluator.rungs, 1)
        return whole * max(0, task.epochs - self._trained.get(task.folder, 0)) / last

    def _step(self) -> list[Outcome]:
        """Take the next event: a result, or a death after which the task is tried again."""
        self.now, _, worker, job, tried = heapq.heappop(self._events)
        self.busy_seconds += tried.seconds
        job = SimulatedTask(job.task, job.tries + 1, job.seconds + tried.seconds)
        again = tried.end == "death" and job.tries < TRIES
        if again:
            self._retries += 1
            self._queue.appendleft(job)
        self._free.append(worker)
        self._dispatch()
        return [] if again else [self._outcome(job, worker, tried)]

    def _outcome(self, job: SimulatedTask, worker: int, tried: Try) -> Outcome:
        task = job.task
        if tried.end == "result":
            found = perform(self._evaluator, task)
            self._trained[task.folder] = task.epochs
        else:
            died = f"its virtual worker died {job.tries} times"
            reason = died if tried.end == "death" else "stopped at its time limit"
            found = Outcome(task.number, {}, reason)
        node = f"{VIRTUAL_PLACE} worker {worker}"
        return replace(found, seconds=job.seconds, node=node, retries=job.tries - 1)
