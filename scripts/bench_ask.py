"""Time one ask + tell of each controller after 100, 1,000 and 5,000 finished trials.

The trials are random archs with a made-up reward, written through the same journal as a search's,
or into a database that drivers share. With 64 in flight there are always 63 proposals without a
result when the next one is made, and the oldest of them is told. The first step of a cell is left
out. One driver proposes for all, so --workers stay busy if a trial takes at least as many times as
long as the mean step.

    python scripts/bench_ask.py
    python scripts/bench_ask.py --wall --storage postgresql://user:password@host/database
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
from lib import flags
from lib.tables import line, markdown, spread

from nas.core import registry
from nas.interfaces import Choices, Evaluator, Metrics, Space, Trial
from nas.models.arch import Arch
from nas.models.points import cost_metrics
from nas.searching.objective import Bound, Goal, make_objective
from nas.searching.samplers import distributions
from nas.searching.studies.database import opened, split
from nas.searching.studies.shared import Shared, requeue
from nas.searching.studies.study import SEARCH, Journal, Log

Clock = Callable[[], float]
Flying = deque[tuple[int, Choices]]
GOAL = Goal(make_objective("hard", None, (Bound("flops", 4e8),), ()))
LEAST = 3  # steps of a cell, however long they take


class Bench(NamedTuple):
    """What is measured: `finished` trials, `flying` at once, how often, up to how many seconds."""

    finished: Sequence[int]
    flying: int
    repeats: int
    seconds: float
    clock: Clock
    storage: str | None


@flags.in_one_line
def main(words: Sequence[str] | None) -> None:
    given = arguments(words)
    torch.set_num_threads(1)
    points = [int(text) for text in given.finished.split(",")]
    clock = time.perf_counter if given.wall else time.process_time
    kind = "wall" if given.wall else "CPU"
    print(f"{kind} ms of one ask + tell, median (quartiles); trials that this feeds a second;")
    print(f"seconds that a trial must take at least for {given.workers} workers to stay busy\n")
    print(markdown(["controller", "in flight", *(f"{n:,} finished" for n in points)]))
    names = given.controllers.split(",") if given.controllers else registry.names("controllers")
    for name in names:
        for flying in map(int, given.in_flight.split(",")):
            bench = Bench(points, flying, given.repeats, given.seconds, clock, given.storage)
            cells = [cell(times, bench, given.workers) for times in measure(name, bench)]
            print(line([name, flying, *cells]), flush=True)


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = flags.parser(__doc__)
    parser.add_argument("--controllers", help="names or paths, by commas (default: all)")
    parser.add_argument("--finished", default="100,1000,5000")
    parser.add_argument("--in-flight", default="1,64")
    parser.add_argument("--workers", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument(
        "--seconds",
        type=float,
        default=60.0,
        help=f"of a cell, by the clock, after {LEAST} steps; a step that takes as long is given up",
    )
    parser.add_argument("--wall", action="store_true", help="time by the clock, not of this CPU")
    parser.add_argument(
        "--storage", help="a database, in place of a journal; studies are left in it"
    )
    return parser.parse_args(words)


def cell(times: Sequence[float], bench: Bench, workers: int) -> str:
    """Return the times of a cell in ms, and what they feed."""
    if not times:
        return f"over {bench.seconds:g} s"
    # some proposals learn for many: their time is shared by all, so the mean counts
    mean = statistics.fmean(times)
    shown = spread(times, 0 if statistics.median(times) >= 100 else 1)
    return f"{shown}; {1000 / mean:.3g}/s; {workers * mean / 1000:.3g} s"


def measure(controller: str, bench: Bench) -> Iterator[list[float]]:
    """Yield the times of steps in ms at each number of finished trials; [] if one is too long."""
    space: Space = registry.export("spaces", "mbconv", "SPACE")
    database = opened(*split(bench.storage), requeue) if bench.storage else nullcontext()
    with tempfile.TemporaryDirectory() as name, database as there:
        kept: Journal | Shared = Journal(Path(name) / "journal.log", distributions(space))
        if there:
            study = f"bench {time.time_ns()}"
            kept = Shared(there, study, distributions(space), Path(name), {})
        random = registry.make("controllers", "random", space, options={}, seed=0)
        log = kept.log(SEARCH, ["maximize"], random)
        told = {"seed": 0, "goal": GOAL}
        sampler = registry.make("controllers", controller, space, options={}, **told)
        flying: Flying = deque(log.ask(distributions(space)) for _ in range(bench.flying - 1))
        done, slow = 0, False  # `done`: finished trials
        for point in bench.finished:
            log.study.sampler = random
            for _ in range(0 if slow else point - done):
                step(log, space, bench.clock, flying)
            log.study.sampler = sampler
            times = [] if slow else timed(log, space, bench, flying)
            done, slow = point + 1 + len(times), not times
            yield times
        log.close()


def timed(log: Log, space: Space, bench: Bench, flying: Flying) -> list[float]:
    """Return the times of steps; the first few of a slow controller, [] of one that is too slow."""
    times: list[float] = []
    start = time.monotonic()
    try:
        with limited(bench.seconds):
            step(log, space, bench.clock, flying)  # learns at once what a search had learnt before
        while len(times) < bench.repeats:
            if len(times) >= LEAST and time.monotonic() - start > bench.seconds:
                break
            with limited(bench.seconds):
                times.append(step(log, space, bench.clock, flying))
    except TooSlow:
        return []
    return times


class TooSlow(BaseException):
    """A step took longer than all of a cell may; no handler of a sampler's is to catch it."""


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """End a step that takes longer by the clock: a timer of CPU time would coarsen CPU times."""

    def end(*_: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def made_up(arch: Arch) -> Metrics:
    evaluator: Evaluator = registry.make("evaluators", "synthetic", options={"noise": 0.3})
    return evaluator.evaluate(arch)


def step(log: Log, space: Space, clock: Clock, flying: Flying) -> float:
    """Ask, look at what others do, tell the oldest; return the time in ms, without the decoding."""
    start = clock()
    flying.append(log.ask(distributions(space)))
    log.look()
    asked = clock() - start
    number, choices = flying.popleft()
    arch = space.decode(choices)
    metrics = {**made_up(arch), **cost_metrics(arch)}
    trial = Trial(number, "done", choices, arch.id, metrics, GOAL.values(metrics))
    start = clock()
    log.tell(trial)
    return 1e3 * (asked + clock() - start)


if __name__ == "__main__":
    main()
