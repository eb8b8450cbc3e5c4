"""What a search on Ray costs beside its evaluations, on this machine.

    python scripts/bench_ray.py

Everything is measured in one run on one cluster: no-op evaluations as bare Ray tasks, through the
executor's two ways, and in a whole search; how busy 8 workers are with evaluations of 1, 10 and 60
seconds (which sleep, so that two cores suffice); how long it takes to start.
"""

from __future__ import annotations

import dataclasses
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lib import flags

from nas.core import registry
from nas.evaluation.cluster.connection import Share, connect, disconnect
from nas.interfaces import EvaluatorSpec, Task
from nas.searching.samplers import random_choices
from nas.searching.search import search

# takes as long as it is told, and no CPU
SLEEPER = """
import time

def make(*, sleep: float = 0.0):
    return Sleeper(sleep)

class Sleeper:
    title = "sleeps"

    def __init__(self, sleep):
        self.sleep = sleep

    def check(self, arch):
        pass

    def evaluate(self, arch, *, seed=0):
        time.sleep(self.sleep)
        return {"accuracy": 50.0}
"""
WORKERS = 8


def tasks(count: int, first: int = 0) -> list[Any]:
    """Return random archs of the space mbconv as tasks."""

    space, rng = registry.export("spaces", "mbconv", "SPACE"), random.Random(first)
    points = (space.decode(random_choices(space, rng)) for _ in range(count))
    return [Task(first + n, arch.to_dict(), 0) for n, arch in enumerate(points)]


def flow(given: list[Any], slots: int, submit: Any, wait: Any) -> float:
    """Keep `slots` tasks in flight; return the seconds until the last is back."""
    start, waiting, running = time.perf_counter(), iter(given), 0
    for task in waiting:
        submit(task)
        running += 1
        while running >= slots:
            running -= len(wait())
    while running:
        running -= len(wait())
    return time.perf_counter() - start


def bare(given: list[Any]) -> float:
    """Return the seconds of as many Ray tasks that take the same JSON and do nothing with it."""
    import ray

    remote: Any = ray.remote(lambda text: len(text)).options(num_cpus=1)
    live: set[Any] = set()

    def submit(task: Any) -> None:
        live.add(remote.remote(json.dumps(dataclasses.asdict(task))))

    def wait() -> list[Any]:
        ready, _ = ray.wait(list(live), num_returns=1)
        live.difference_update(ready)
        return [ray.get(ref) for ref in ready]

    flow(given[:WORKERS], WORKERS, submit, wait)  # the workers start
    return flow(given, WORKERS, submit, wait)


def through(way: str, folder: Path, address: str, given: list[Any], sleep: float) -> float:
    """Return the seconds of tasks through the executor, its workers having started."""

    work = EvaluatorSpec(str(folder / "sleeper.py"), {"sleep": sleep})
    options = {"address": address, "through": way}
    fixed = {"workers": WORKERS, "folder": folder}
    executor = registry.make("executors", "ray", work, options=options, **fixed)
    try:
        warm = [dataclasses.replace(task, number=-1 - n) for n, task in enumerate(given[:WORKERS])]
        flow(warm, WORKERS, executor.submit, executor.wait)
        return flow(given, WORKERS, executor.submit, executor.wait)
    finally:
        executor.close()


def searched(folder: Path, trials: int, name: str, **executor: Any) -> tuple[float, float]:
    """Return the seconds and the CPU seconds of this process for a random search of no-ops."""

    start, cpu = time.perf_counter(), time.process_time()
    search(
        project=folder,
        name=name,
        evaluator=str(folder / "sleeper.py"),
        controller="random",
        random_search=False,
        trials=trials,
        **executor,
    )
    return time.perf_counter() - start, time.process_time() - cpu


def spread(found: list[float]) -> str:
    """Return median and range of some measurements."""
    return (
        f"{statistics.median(found):8.2f}  ({min(found):.2f} to {max(found):.2f}, n {len(found)})"
    )


def overheads(folder: Path, address: str, asked: Any) -> Iterator[str]:
    """Yield the lines on no-op evaluations, in ms for each."""
    many, few = tasks(asked.tasks), tasks(asked.tuned)

    def reached() -> float:

        connect(address, Share(1, 0), "")
        try:
            return bare(many) / len(many) * 1000
        finally:
            disconnect()

    pairs = [
        (reached(), through("tasks", folder, address, many, 0.0) / len(many) * 1000)
        for _ in range(asked.rounds)
    ]
    ratios = [ours / theirs for theirs, ours in pairs]
    yield f"bare Ray task, ms                {spread([pair[0] for pair in pairs])}"
    yield f"through tasks, ms                {spread([pair[1] for pair in pairs])}"
    yield f"through tasks / bare             {spread(ratios)}"
    tuned = [through("tune", folder, address, few, 0.0) for _ in range(asked.rounds)]
    yield f"through Tune, ms                 {spread([t / len(few) * 1000 for t in tuned])}"
    more = {"executor": "ray", "address": address, "workers": WORKERS}
    base, cpu = searched(folder, 10, "start", **more)
    whole, busy = searched(folder, 10 + asked.tasks, "whole", **more)
    yield f"a whole search, ms a trial       {(whole - base) / asked.tasks * 1000:8.2f}"
    yield f"  of it CPU of the driver        {(busy - cpu) / asked.tasks * 1000:8.2f}"
    alone, _ = searched(folder, asked.tasks, "alone", executor="local")
    yield f"the same in one process          {alone / asked.tasks * 1000:8.2f}"
    yield f"10 trials from start to end, s   {base:8.2f}"


def utilisation(folder: Path, address: str, sleep: float, rounds: int) -> str:
    """Return how busy 8 workers are with evaluations of so many seconds, through both ways."""
    given = tasks(WORKERS * rounds)
    shares = [
        f"{way} {len(given) * sleep / WORKERS / through(way, folder, address, given, sleep):.1%}"
        for way in ("tasks", "tune")
    ]
    return f"busy with {sleep:g} s evaluations{'':{11 - len(f'{sleep:g}')}}{', '.join(shares)}"


@flags.in_one_line
def main(words: Sequence[str] | None) -> int:
    parser = flags.parser(__doc__)
    parser.add_argument("--tasks", type=int, default=1000, help="no-op evaluations of a round")
    parser.add_argument("--tuned", type=int, default=100, help="of them through Tune")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sleeps", default="1,10,60", help="seconds of the longer evaluations")
    parser.add_argument("--each", type=int, default=5, help="longer evaluations of each worker")
    asked = parser.parse_args(words)
    from ray.cluster_utils import Cluster

    start = time.perf_counter()
    head = {"num_cpus": WORKERS, "include_dashboard": False}
    cluster: Any = Cluster(initialize_head=True, head_node_args=head)
    print(f"a cluster of one node, s         {time.perf_counter() - start:8.2f}", flush=True)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            (folder / "sleeper.py").write_text(SLEEPER)
            for line in overheads(folder, cluster.address, asked):
                print(line, flush=True)
            for sleep in asked.sleeps.split(","):
                each = max(2, asked.each if float(sleep) < 30 else 2)
                print(utilisation(folder, cluster.address, float(sleep), each), flush=True)
    finally:
        cluster.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
