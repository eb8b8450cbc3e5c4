"""What is known before a search: how well it ranks archs, and how many evaluations it saves.

    scores   Kendall's tau of scores without training (NASWOT, sizes) to trained accuracies
    naswot   the predictor with `--warm-start naswot` and without, on the embedded evaluator
    pool     the predictor's model with the surrogate as its prior, on the trainings of a run
    warm     another target with the trials of an earlier search taken over, and without

    python scripts/bench_priors.py scores --table accel_nasbench.parquet --archs 300
    python scripts/bench_priors.py scores --trials runs/search/NAME/trials.csv --space mbconv_small
    python scripts/bench_priors.py naswot --seeds 10 --trials 30
    python scripts/bench_priors.py pool runs/search/pool
    python scripts/bench_priors.py warm --seeds 8 --output FOLDER

`scores --table` is Accel-NASBench's (5,138 ImageNet proxy trainings of the space mbconv; needs
pyarrow), `--trials` the trials.csv of a search, of which those that were trained to the end count;
a random sample of them is scored. Beside NASWOT stand what is counted without any network: the same
weights of its layers without codes, multiply-adds, parameters, activations, and a line through the
logs of the first two, fitted to the other half of the sample.

`naswot` and `warm` search the space mbconv under the surrogate's prediction plus a fixed normal
draw per arch, as one training shows it. What counts is the true reward (without the draw) of the
arch that looked best after so many new evaluations; medians (quartiles) over the seeds.

`pool` takes the evaluated trials of a finished search (best one with --controller random and
--pruner none) as networks whose accuracies are known. The model of the controller `predictor` picks
from them, one at a time, until it has met one of the --top best: without a prior, with what the
surrogate says of the same choices, and with that turned round, which must be unlearnt.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from lib import flags, plain_search
from lib.processes import mapped
from lib.tables import markdown, spread

from nas.core import registry, run_folder
from nas.evaluation.durations import arch_of, read_rows
from nas.evaluation.naswot import (
    IMAGES,
    SIDE,
    by_channels,
    kernel,
    log_determinant,
    noise,
    score,
)
from nas.interfaces import Choices, EvaluatorSpec, Space, Trial
from nas.models.arch import Arch
from nas.models.cost import count
from nas.models.points import decode
from nas.searching.gp.features import PointFeatures
from nas.searching.gp.surrogate import condition_surrogate, expected_improvement, fit_all
from nas.searching.objective import Bound, Goal, Objective, make_objective
from nas.searching.ranking import agreement, kendall
from nas.searching.samplers import Prior, no_prior, no_violation
from nas.searching.search import search
from nas.searching.start import zero_cost
from nas.searching.start.priors import prior_of_scores, surrogate_prior
from nas.searching.studies.study import SEARCH, read_journal

TARGET = 400_000_000
MARKS = (5, 10, 15, 20, 25, 30, 50, 100, 200, 300)  # new evaluations after which is looked
STARTUP = 4  # random picks from a pool; with a prior every other one is what it thinks best
Trained = tuple[Arch, float]


@flags.in_one_line
def main(words: Sequence[str] | None) -> None:
    given = arguments(words)
    torch.set_num_threads(1)  # seconds of a core
    given.bench(given)


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = flags.parser(__doc__)
    benches = parser.add_subparsers(required=True, metavar="scores, naswot, pool or warm")

    def bench(run: Any) -> argparse.ArgumentParser:
        made = benches.add_parser(run.__name__, help=run.__doc__.splitlines()[0])
        made.set_defaults(bench=run)
        return made

    one = bench(scores)
    source = one.add_mutually_exclusive_group(required=True)
    source.add_argument("--table", type=Path, help="accel_nasbench.parquet")
    source.add_argument("--trials", type=Path, help="trials.csv of a search that trained")
    one.add_argument("--space", default="mbconv", help="of the trials")
    one.add_argument("--archs", type=int, default=300)
    one.add_argument("--images", type=int, default=IMAGES)
    one.add_argument("--side", type=int, default=SIDE, help="pixels")
    one.add_argument("--seed", type=int, default=0, help="of the sample and of the weights")
    one = bench(naswot)
    one.add_argument("--seeds", type=int, default=10)
    one.add_argument("--trials", type=int, default=30)
    one.add_argument("--points", type=int, default=zero_cost.POINTS, help="that are scored")
    one.add_argument("--noise", type=float, default=0.3)
    one.add_argument("--processes", type=int, default=2)
    one = bench(pool)
    one.add_argument("run", type=Path, help="folder of a search run")
    one.add_argument("--seeds", type=int, default=20)
    one.add_argument("--top", type=int, default=3)
    one = bench(warm)
    one.add_argument("--seeds", type=int, default=8)
    one.add_argument("--controllers", nargs="+", default=["tpe", "evolution"])
    one.add_argument("--first", default="400M", help="target of the earlier search")
    one.add_argument("--then", type=float, default=200e6, help="multiply-adds of the new target")
    one.add_argument("--trials", type=int, default=300, help="of the earlier search, and cold")
    one.add_argument("--warm-trials", type=int, default=50)
    one.add_argument("--noise", type=float, default=0.3)
    one.add_argument("--output", type=Path, default=Path("bench"), help="gets warm_start.csv")
    return parser.parse_args(words)


# --- how well scores without training rank real trainings


def scores(given: argparse.Namespace) -> None:
    """Print Kendall's tau, with its interval, of each score to trained accuracies."""
    space: Space = registry.export("spaces", given.space, "SPACE")
    known = read_table(given.table) if given.table else read_trials(given.trials, space)
    sample = random.Random(given.seed).sample(known, min(given.archs, len(known)))
    rows, seconds = [], []
    for arch, _ in sample:
        start = time.process_time()
        rows.append(scores_of(arch, given))
        seconds.append(time.process_time() - start)
    accuracies = [accuracy for _, accuracy in sample]
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
    columns["line through log FLOPs, log params"] = line(columns, accuracies)
    print(f"{len(sample)} of {len(known)} trainings, space {space.name}, {given.images} images of")
    print(f"at most {given.side} pixels, seed {given.seed}\n")
    taus = {name: agreement([(values, accuracies)]) for name, values in columns.items()}
    cells = ((name, f"{t.value:.3f} ({t.low:.3f}–{t.high:.3f})") for name, t in taus.items())
    print(markdown(["score", "tau (95 %)"], cells))
    print(f"\n{statistics.median(seconds) / 2:.2f} s of CPU a network and determinant (median)")


def by_units(channels: int, positions: int) -> float:
    """Return the number of units: what a layer counts in the paper."""
    return float(channels * positions)


def scores_of(arch: Arch, given: argparse.Namespace) -> dict[str, float]:
    """Return what ranks an arch without training it."""
    images = noise(arch, images=given.images, side=given.side, seed=given.seed)
    ours, paper = (
        kernel(arch, images, seed=given.seed, weigh=weigh) for weigh in (by_channels, by_units)
    )
    cost = count(arch)
    return {
        "naswot, by channels": log_determinant(ours),
        "naswot, by units (the paper)": log_determinant(paper),
        "the roots of the channels alone": ours[0, 0],
        "FLOPs": cost.flops,
        "params": cost.params,
        "activations": cost.activations,
    }


def line(columns: Mapping[str, Any], accuracies: list[float]) -> list[float]:
    """Return what a line fitted to one half of the archs expects of the other half."""
    logs = [np.log(columns[name]) for name in ("FLOPs", "params")]
    x, y = np.stack([np.ones(len(accuracies)), *logs], axis=1), np.array(accuracies)
    half = np.arange(len(y)) % 2 == 0
    expected = np.empty(len(y))
    for fitted, judged in ((half, ~half), (~half, half)):
        expected[judged] = x[judged] @ np.linalg.lstsq(x[fitted], y[fitted], rcond=None)[0]
    return expected.tolist()


def read_table(path: Path) -> list[Trained]:
    """Return the archs that Accel-NASBench trained, each once, and their top-1."""
    archs = ((arch_of(row), row["val_top1"]) for row in read_rows(path))
    return list({arch.id: (arch, top1) for arch, top1 in archs}.values())


def read_trials(path: Path, space: Space) -> list[Trained]:
    """Return the archs that were trained to the end, and their accuracies."""
    found = []
    for row in run_folder.read_csv(path):
        if row["state"] == "done":
            choices = {
                name: next(option for option in options if str(option) == row[name])
                for name, options in space.choices.items()
            }
            found.append((space.decode(choices), float(row["accuracy"])))
    return found


# --- what NASWOT as a prior saves


class Job(NamedTuple):
    prior: str
    reward: str
    seed: int
    trials: int
    noise: float
    scores: dict[str, list[float]]  # of each prior, of random points of the space


def naswot(given: argparse.Namespace) -> None:
    """Print the true reward by when with a prior from NASWOT, from channels alone, and without."""
    known = scores_of_points(given.points)
    jobs = [
        Job(prior, kind, seed, given.trials, given.noise, known)
        for kind, seed, prior in product(("hard", "soft"), range(given.seeds), ("none", *known))
    ]
    curves = list(mapped(searched, jobs, given.processes))
    print(f"{given.seeds} seeds, noise {given.noise}; true reward, median (quartiles)\n")
    rows = [
        ((job.reward, job.prior), number, true)
        for job, curve in zip(jobs, curves, strict=True)
        for number, true in enumerate(curve, 1)
        if number in MARKS
    ]
    print(by_marks(("reward", "prior"), rows))


def scores_of_points(points: int) -> dict[str, list[float]]:
    """Return what some random points score, by NASWOT and by their channels alone."""
    space: Space = registry.export("spaces", "mbconv", "SPACE")
    archs = [
        decode(space, point) for point in zero_cost.sample_points(space, no_violation, 0, points)
    ]
    start = time.perf_counter()
    values = [score(arch) for arch in archs]
    print(f"{points} networks scored in {time.perf_counter() - start:.0f} s")
    counts = [math.log(kernel(arch, noise(arch, images=2, side=32))[0, 0]) for arch in archs]
    return {"naswot": values, "channels": counts}


def prior_of(job: Job, space: Space) -> Prior:
    if job.prior == "none":
        return no_prior
    values = job.scores[job.prior]
    return prior_of_scores(
        space, zero_cost.sample_points(space, no_violation, 0, len(values)), values
    )[0]


def searched(job: Job) -> list[float]:
    """Return the true reward of the arch that looked best after each evaluation."""
    torch.set_num_threads(1)
    space: Space = registry.export("spaces", "mbconv", "SPACE")
    goal = Goal(make_objective(job.reward, None, (Bound("flops", TARGET),), ()))
    fixed: dict[str, Any] = {"seed": job.seed, "goal": goal, "prior": prior_of(job, space)}
    sampler = registry.make("controllers", "predictor", space, options={}, **fixed)
    spec = EvaluatorSpec("surrogate", {"noise": job.noise, "seed": job.seed})
    executor = registry.make("executors", "local", spec, options={})
    found: list[Trial] = []
    limits: dict[str, int] = {"seed": job.seed, "trials": job.trials}
    plain_search.run(space, goal, sampler, executor, **limits, watch=found.append)
    return plain_search.leaders([t for t in found if t.state == "done"], space, goal.objective)


def by_marks(names: Sequence[str], rows: Sequence[tuple[tuple[str, ...], int, float]]) -> str:
    """Return a table of medians (quartiles) by what a row is of and by new evaluations."""
    marks = sorted({mark for _, mark, _ in rows})
    groups = dict.fromkeys(of for of, _, _ in rows)
    cells = (
        [*of, *(spread([v for k, m, v in rows if (k, m) == (of, mark)], 2) for mark in marks)]
        for of in groups
    )
    return markdown([*names, *map(str, marks)], cells)


# --- what a prior saves on real trainings


def pool(given: argparse.Namespace) -> None:
    """Print after how many picks one of the best trainings of a run is met, by prior."""
    name = run_folder.read_args(given.run)["space"] or "mbconv"
    space: Space = registry.export("spaces", name, "SPACE")
    trials = read_journal(given.run / "journal.log").studies[SEARCH]
    trained = [trial for trial in trials if trial.state == "done"]
    told = surrogate_prior(SimpleNamespace(space=space, spec=SimpleNamespace(evaluator="")))[0]
    accuracies = [trial.metrics["accuracy"] for trial in trained]
    tau = kendall(told([trial.choices for trial in trained]), accuracies)
    print(f"{len(trained)} trainings, accuracy {min(accuracies):.1f} to {max(accuracies):.1f} %")
    print(f"Kendall's tau of the surrogate's accuracy to theirs: {tau:.2f}")
    print(f"{given.seeds} seeds each; a hit is one of the best {given.top}")
    print(markdown(["prior", "picks until a hit (quartiles)"]))
    priors: dict[str, Prior] = {
        "none": no_prior,
        "surrogate": told,
        "surrogate, turned round": lambda points: -told(points),
    }
    for name, prior in priors.items():
        features = PointFeatures(space, prior)
        counts = [picked(features, trained, seed, given.top) for seed in range(given.seeds)]
        print(f"| {name} | {spread(counts, 1)}, mean {statistics.mean(counts):.1f} |")


def picked(features: PointFeatures, trained: Sequence[Trial], seed: int, top: int) -> int:
    """Return after how many picks one of the best of the pool was met."""
    rng, left, seen = random.Random(seed), list(trained), list[Trial]()
    enough = sorted(trial.metrics["accuracy"] for trial in trained)[-top]
    while not seen or seen[-1].metrics["accuracy"] < enough:
        choices = [trial.choices for trial in left]
        seen.append(left.pop(next_pick(features, choices, seen, rng)))
    return len(seen)


def next_pick(
    features: PointFeatures, left: Sequence[Choices], seen: Sequence[Trial], rng: random.Random
) -> int:
    """Return the place of the next pick: as the controller would choose, from the pool alone."""
    trend, goal = features.inputs(left).trend, Goal(Objective())
    if len(seen) < STARTUP:
        by_chance = bool(len(seen) % 2) or not trend.any()
        return rng.randrange(len(left)) if by_chance else int(np.argmax(trend))
    model = condition_surrogate(features, goal, seen, fit_all(features, goal, seen), [])
    gain, mean = expected_improvement(model, [trial.choices for trial in seen])[0](left, 1.0)
    return max(range(len(left)), key=lambda place: (gain[place], mean[place]))


# --- what the trials of an earlier search save


def warm(given: argparse.Namespace) -> None:
    """Print the true reward by when at another target, begun with an earlier search and without."""
    rows = [
        row
        for controller in given.controllers
        for seed in range(given.seeds)
        for row in measure(controller, seed, given)
    ]
    table = [(*of, seed, new, true) for of, seed, new, true in rows]
    columns = ("controller", "start", "seed", "new", "true")
    run_folder.write_csv(given.output / "warm_start.csv", columns, table)
    print(by_marks(("controller", "begins with"), [(of, new, true) for of, _, new, true in rows]))


def measure(
    controller: str, seed: int, given: argparse.Namespace
) -> list[tuple[tuple[str, str], int, int, float]]:
    """Return controller and start, seed, new evaluations, true reward: of both searches."""
    with tempfile.TemporaryDirectory() as project:
        common: dict[str, Any] = {
            "project": project,
            "controller": controller,
            "random_search": False,
            "evaluator_options": {"noise": given.noise, "seed": seed},
        }
        search(**common, name="a", target_flops=given.first, trials=given.trials, seed=seed)
        later = {**common, "target_flops": int(given.then), "seed": seed + 1000}
        cold = search(**later, name="cold", trials=given.trials)
        warm = search(**later, name="warm", trials=given.warm_trials, warm_start="a")
        return [
            ((controller, start), seed, new, true)
            for start, found in (("nothing", cold), ("the earlier trials", warm))
            for new, true in curve(Path(found["run"]), given.then)
        ]


def curve(folder: Path, target: float) -> list[tuple[int, float]]:
    """Return the true reward of what looked best after each mark of new evaluations."""
    space: Space = registry.export("spaces", "mbconv", "SPACE")
    trials = read_journal(folder / "journal.log").studies[SEARCH]
    known = [trial for trial in trials if trial.state in ("done", "earlier")]
    objective = Objective(targets=(Bound("flops", target),))
    found, new = [], 0
    for trial, true in zip(known, plain_search.leaders(known, space, objective), strict=True):
        new += trial.state == "done"
        if new in MARKS and trial.state == "done":
            found.append((new, true))
    return found


if __name__ == "__main__":
    main()
