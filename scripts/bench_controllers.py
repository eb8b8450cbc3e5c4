"""Compare controllers on the embedded evaluator, with the noise of one training per arch.

Each arch's accuracy is the surrogate's prediction plus a fixed normal draw (--noise, points), as
one training would show it. What counts is the true reward (without the draw) of the arch that
looked best so far, and its FLOPs. Every controller runs through the same engine and journal as
`nas search`.

    python scripts/bench_controllers.py --seeds 20 --trials 1000 --out controllers.csv
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import NamedTuple

TARGET = 400_000_000
POINTS = (25, 50, 100, 200, 300, 400, 1000)


class Job(NamedTuple):
    controller: str
    reward: str
    seed: int
    trials: int
    noise: float
    options: tuple[tuple[str, int], ...]


class Row(NamedTuple):
    controller: str
    reward: str
    seed: int
    trials: int
    observed: float
    true: float
    flops: float
    seconds: float


def main() -> None:
    given = arguments()
    names = given.controllers.split(",")
    options = tuple((k, int(v)) for k, v in (pair.split("=") for pair in given.option))
    jobs = [
        Job(name, reward, seed, given.trials, given.noise, options)
        for reward, seed, name in product(given.rewards.split(","), range(given.seeds), names)
    ]
    with ProcessPoolExecutor(given.processes) as pool:
        rows = [row for rows in pool.map(run, jobs) for row in rows]
    if given.out:
        with given.out.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([Row._fields, *rows])
    print_tables(rows, given.seeds)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--controllers", default="random,evolution,nsga2,tpe")
    parser.add_argument("--rewards", default="hard,soft")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--noise", type=float, default=0.3)
    parser.add_argument("--option", action="append", default=[], help="of the controllers, k=v")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def run(job: Job) -> list[Row]:
    """Run one controller with one seed; return what it had found by each of POINTS."""
    import torch

    from nas import catalog
    from nas.engine import Engine
    from nas.interfaces import Trial, Work
    from nas.objective import Bound, Goal, make_objective, reward
    from nas.samplers import distributions
    from nas.studies.study import SEARCH, Journal

    torch.set_num_threads(1)
    space = catalog.export("spaces", "mbconv", "SPACE")
    objective = make_objective(job.reward, None, (Bound("flops", TARGET),), ())
    truth = catalog.make("evaluators", "surrogate", options={})
    work = Work("surrogate", {"noise": job.noise, "seed": job.seed})
    executor = catalog.make("executors", "local", work, options={})
    sampler = catalog.make(
        "controllers", job.controller, space, options=dict(job.options), seed=job.seed
    )
    finished: list[Trial] = []

    def watch(trial: Trial) -> None:
        if trial.state == "done":
            finished.append(trial)

    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal.log", distributions(space))
        log = journal.log(SEARCH, ["maximize"], sampler)
        Engine(
            log,
            space,
            Goal(objective),
            executor,
            seed=job.seed,
            finished=[],
            known={},
            stop=lambda: "",
            watch=watch,
        ).run(job.trials)
    seconds = time.process_time() - start
    rows = []
    for count in (point for point in POINTS if point <= len(finished)):
        best = max(finished[:count], key=lambda trial: trial.values[0])
        accuracy = truth.evaluate(space.decode(best.choices))["accuracy"]
        true = reward({**best.metrics, "accuracy": accuracy}, objective)
        shown = best.values[0], true, best.metrics["flops"]
        rows.append(Row(job.controller, job.reward, job.seed, count, *shown, seconds))
    return rows


def print_tables(rows: Iterable[Row], seeds: int) -> None:
    """Print per reward: the median true reward at each point with its quartiles, and the end."""
    groups: dict[tuple[str, str, int], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.reward, row.controller, row.trials].append(row)
    for kind in dict.fromkeys(reward for reward, _, _ in groups):
        points = sorted({trials for reward, _, trials in groups if reward == kind})
        print(
            f"\n{kind} reward, T = 400M multiply-adds, {seeds} seeds: true reward of the best seen"
        )
        print(b0(kind))
        print("| controller |", " | ".join(map(str, points)), "| FLOPs at the end | CPU s |")
        print("|---|" + "---|" * (len(points) + 2))
        for name in dict.fromkeys(c for r, c, _ in groups if r == kind):
            cells = [spread([r.true for r in groups[kind, name, p]], 2) for p in points]
            last = groups[kind, name, points[-1]]
            flops = spread([row.flops / 1e6 for row in last], 0)
            seconds = statistics.median(row.seconds for row in last)
            print(f"| {name} |", " | ".join(cells), f"| {flops}M | {seconds:.0f} |")


def b0(kind: str) -> str:
    """Return the reward of EfficientNet-B0's own choices."""
    from nas import catalog
    from nas.load import load_arch
    from nas.objective import Bound, make_objective, reward
    from nas.points import cost_metrics

    arch = load_arch("efficientnet_b0")
    objective = make_objective(kind, None, (Bound("flops", TARGET),), ())
    metrics = catalog.make("evaluators", "surrogate", options={}).evaluate(arch)
    value = reward({**metrics, **cost_metrics(arch)}, objective)
    error = f"{metrics['accuracy']:.2f} ±{metrics['accuracy_std']:.2f} %"
    return (
        f"EfficientNet-B0's own choices: reward {value:.2f} (predicted proxy top-1 {error}, 385.8M)"
    )


def spread(values: list[float], digits: int) -> str:
    """Return median (quartiles)."""
    if len(values) < 2:
        return f"{values[0]:.{digits}f}"
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


if __name__ == "__main__":
    main()
