"""Time one ask + tell of each controller after 100, 1,000 and 5,000 finished trials.

The trials are random archs with a made-up reward, written through the same journal as a search's,
or into a database that drivers share.

    python scripts/bench_ask.py
    python scripts/bench_ask.py --wall --storage postgresql://user:password@host/database
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from nas import catalog
from nas.interfaces import Space, Trial
from nas.points import cost_metrics
from nas.samplers import distributions
from nas.studies.database import opened, split
from nas.studies.shared import Shared
from nas.studies.study import SEARCH, Journal, Log

Clock = Callable[[], float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--controllers", default="random,evolution,nsga2,tpe")
    parser.add_argument("--finished", default="100,1000,5000")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--wall", action="store_true", help="time by the clock, not of this CPU")
    parser.add_argument(
        "--storage", help="a database, in place of a journal; studies are left in it"
    )
    given = parser.parse_args()
    clock = time.perf_counter if given.wall else time.process_time
    torch.set_num_threads(1)
    points = [int(text) for text in given.finished.split(",")]
    print("| controller |", " | ".join(f"{n} finished, ms" for n in points), "|")
    print("|---|" + "---|" * len(points))
    for name in given.controllers.split(","):
        print(
            f"| {name} |",
            " | ".join(measure(name, points, given.repeats, clock, given.storage)),
            "|",
        )


def measure(
    controller: str, points: list[int], repeats: int, clock: Clock, storage: str | None
) -> list[str]:
    """Return the median time in ms with the quartiles, at each number of finished trials."""
    space: Space = catalog.export("spaces", "mbconv", "SPACE")
    cells, place = [], split(storage) if storage else (None, None)
    with tempfile.TemporaryDirectory() as name, opened(*place) as there:
        kept: Journal | Shared = Journal(Path(name) / "journal.log", distributions(space))
        if there:
            study = f"bench {time.time_ns()}"
            kept = Shared(there, study, distributions(space), Path(name), {})
        random = catalog.make("controllers", "random", space, options={}, seed=0)
        log = kept.log(SEARCH, ["maximize"], random)
        sampler = catalog.make("controllers", controller, space, options={}, seed=0)
        done = 0
        for point in points:
            log.study.sampler = random
            for _ in range(point - done):
                step(log, space, clock)
            log.study.sampler = sampler
            times = [step(log, space, clock) for _ in range(repeats)]
            low, middle, high = statistics.quantiles(times, n=4)
            cells.append(f"{middle:.1f} ({low:.1f}–{high:.1f})")
            done = point + repeats
        log.close()
    return cells


def step(log: Log, space: Space, clock: Clock) -> float:
    """Ask, look at what others do and tell once; return the time in ms, the decoding left out."""
    start = clock()
    number, choices = log.ask(distributions(space))
    log.look()
    asked = clock() - start
    arch = space.decode(choices)
    metrics = cost_metrics(arch)
    trial = Trial(number, "done", choices, arch.id, metrics, (-abs(metrics["flops"] / 4e8 - 1),))
    start = clock()
    log.tell(trial)
    return 1e3 * (asked + clock() - start)


if __name__ == "__main__":
    main()
