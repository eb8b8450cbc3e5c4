"""What `--warm-start naswot` saves: the predictor with it and without, on the embedded evaluator.

    python scripts/bench_naswot_prior.py --seeds 10 --trials 30

Space mbconv, T = 400M multiply-adds, the surrogate's prediction plus a fixed normal draw per arch
as one training shows it. What counts is the true reward (without the draw) of the arch that looked
best so far. `naswot` is the prior that a search makes, `channels` counts the roots of the channels
without a network.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import plain_search
import torch

from nas import catalog, scored
from nas.gaussian import Array
from nas.interfaces import Space, Trial, Work
from nas.naswot import kernel, noise, score
from nas.objective import Bound, Goal, make_objective, reward
from nas.points import decode
from nas.priors import standing
from nas.samplers import Prior, no_excess, no_prior

TARGET = 400_000_000
BUDGETS = (5, 10, 15, 20, 30, 50, 100)


class Job(NamedTuple):
    prior: str
    reward: str
    seed: int
    trials: int
    noise: float
    scores: dict[str, list[float]]


def main(words: Sequence[str] | None = None) -> None:
    given = arguments(words)
    torch.set_num_threads(1)
    known = scores(given.points)
    jobs = [
        Job(prior, kind, seed, given.trials, given.noise, known)
        for kind, seed, prior in product(("hard", "soft"), range(given.seeds), ("none", *known))
    ]
    with ProcessPoolExecutor(given.processes) as pool:
        found = dict(zip((job[:3] for job in jobs), pool.map(run, jobs), strict=True))
    print(f"{given.seeds} seeds, noise {given.noise}; true reward, median (quartiles)")
    for kind in ("hard", "soft"):
        table(kind, {key: curve for key, curve in found.items() if key[1] == kind})


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--points", type=int, default=scored.POINTS, help="that are scored")
    parser.add_argument("--noise", type=float, default=0.3)
    parser.add_argument("--processes", type=int, default=2)
    return parser.parse_args(words)


def scores(points: int) -> dict[str, list[float]]:
    """Return what some random points score, by NASWOT and by their channels alone."""
    space: Space = catalog.export("spaces", "mbconv", "SPACE")
    archs = [decode(space, point) for point in scored.drawn(space, no_excess, 0, points)]
    start = time.perf_counter()
    naswot = [score(arch) for arch in archs]
    print(f"{points} networks scored in {time.perf_counter() - start:.0f} s")
    counts = [math.log(kernel(arch, noise(arch, images=2, side=32))[0, 0]) for arch in archs]
    return {"naswot": naswot, "channels": counts}


def prior_of(job: Job, space: Space) -> Prior:
    if job.prior == "none":
        return no_prior
    values = job.scores[job.prior]
    return standing(space, scored.drawn(space, no_excess, 0, len(values)), values)[0]


def run(job: Job) -> Array:
    """Return the true reward of the arch that looked best after each evaluation."""
    torch.set_num_threads(1)
    space: Space = catalog.export("spaces", "mbconv", "SPACE")
    goal = Goal(make_objective(job.reward, None, (Bound("flops", TARGET),), ()))
    truth = catalog.make("evaluators", "surrogate", options={})
    work = Work("surrogate", {"noise": job.noise, "seed": job.seed})
    fixed: dict[str, Any] = {"seed": job.seed, "goal": goal, "prior": prior_of(job, space)}
    sampler = catalog.make("controllers", "predictor", space, options={}, **fixed)
    finished: list[Trial] = []
    executor = catalog.make("executors", "local", work, options={})

    def watch(trial: Trial) -> None:
        if trial.state == "done":
            finished.append(trial)

    plain_search.run(space, goal, sampler, executor, seed=job.seed, trials=job.trials, watch=watch)
    curve, best = [], finished[0]
    for trial in finished:
        best = max(best, trial, key=lambda each: each.values[0])
        accuracy = truth.evaluate(decode(space, best.choices))["accuracy"]
        curve.append(reward({**best.metrics, "accuracy": accuracy}, goal.objective))
    return np.array(curve)


def table(kind: str, found: dict[Any, Array]) -> None:
    """Print what each prior had found by when."""
    shortest = min(len(curve) for curve in found.values())
    budgets = [budget for budget in BUDGETS if budget <= shortest]
    print(f"\n{kind} reward\n\n| prior |", " | ".join(map(str, budgets)), "|")
    print("|---|" + "---|" * len(budgets))
    for prior in dict.fromkeys(key[0] for key in found):
        curves = [curve for key, curve in found.items() if key[0] == prior]
        cells = [spread([float(curve[budget - 1]) for curve in curves]) for budget in budgets]
        print(f"| {prior} |", " | ".join(cells), "|")


def spread(values: list[float]) -> str:
    """Return median (quartiles)."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f}–{high:.2f})"


if __name__ == "__main__":
    main()
