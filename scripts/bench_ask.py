"""Time one ask + tell of each controller after 100, 1,000 and 5,000 finished trials.

The trials are random archs with a made-up reward, written through the same journal as a search's.

    python scripts/bench_ask.py
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from nas import catalog
from nas.engine import cost_metrics
from nas.interfaces import Space, Trial
from nas.samplers import distributions
from nas.study import SEARCH, Journal, Log


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--controllers", default="random,evolution,nsga2,tpe")
    parser.add_argument("--finished", default="100,1000,5000")
    parser.add_argument("--repeats", type=int, default=20)
    given = parser.parse_args()
    torch.set_num_threads(1)
    points = [int(text) for text in given.finished.split(",")]
    print("| controller |", " | ".join(f"{n} finished, ms" for n in points), "|")
    print("|---|" + "---|" * len(points))
    for name in given.controllers.split(","):
        print(f"| {name} |", " | ".join(measure(name, points, given.repeats)), "|")


def measure(controller: str, points: list[int], repeats: int) -> list[str]:
    """Return the median CPU time in ms with the quartiles, at each number of finished trials."""
    space: Space = catalog.export("spaces", "mbconv", "SPACE")
    cells = []
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal.log", distributions(space))
        random = catalog.make("controllers", "random", space, options={}, seed=0)
        log = journal.log(SEARCH, ["maximize"], random)
        sampler = catalog.make("controllers", controller, space, options={}, seed=0)
        done = 0
        for point in points:
            log.study.sampler = random
            for _ in range(point - done):
                step(log, space)
            log.study.sampler = sampler
            times = [step(log, space) for _ in range(repeats)]
            low, middle, high = statistics.quantiles(times, n=4)
            cells.append(f"{middle:.1f} ({low:.1f}–{high:.1f})")
            done = point + repeats
    return cells


def step(log: Log, space: Space) -> float:
    """Ask and tell once; return the CPU time in ms, the decoding left out."""
    start = time.process_time()
    number, choices = log.ask(distributions(space))
    asked = time.process_time() - start
    arch = space.decode(choices)
    metrics = cost_metrics(arch)
    trial = Trial(number, "done", choices, arch.id, metrics, (-abs(metrics["flops"] / 4e8 - 1),))
    start = time.process_time()
    log.tell(trial)
    return 1e3 * (asked + time.process_time() - start)


if __name__ == "__main__":
    main()
