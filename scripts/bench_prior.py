"""What a prior saves on real trainings: replay the trials of a run as a pool, with and without it.

The evaluated trials of a finished search (best one with --controller random, --pruner none) are a
pool of networks whose accuracies are known. The model of the controller `predictor` picks from it,
one at a time, until it has met one of the --top best; first without a prior, then with what the
embedded surrogate says of the same choices, then with that turned round, which must be unlearnt.

    nas search --space mbconv_small --data cifar10 --controller random --pruner none --name pool ...
    python scripts/bench_prior.py runs/search/pool
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from nas import catalog, run
from nas.belief import believed, expected_improvement, parameters_of
from nas.features import Features
from nas.interfaces import Choices, Space, Trial
from nas.objective import Goal, Objective
from nas.priors import surrogate_prior
from nas.ranking import kendall
from nas.samplers import Prior, no_prior
from nas.studies.study import SEARCH, read_journal

STARTUP = 4  # random picks; with a prior every other one is what it thinks best


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a search run")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--top", type=int, default=3)
    given = parser.parse_args(words)
    space, pool = pool_of(given.run)
    told = surrogate_prior(SimpleNamespace(space=space, work=SimpleNamespace(evaluator="")))[0]
    accuracies = [trial.metrics["accuracy"] for trial in pool]
    print(f"{len(pool)} trainings, accuracy {min(accuracies):.1f} to {max(accuracies):.1f} %")
    scores = told([trial.choices for trial in pool])
    print(f"Kendall's tau of the surrogate's accuracy to theirs: {kendall(scores, accuracies):.2f}")
    print(f"{given.seeds} seeds each; a hit is one of the best {given.top}")
    print("| prior | picks until a hit (quartiles) |")
    print("|---|---|")
    priors = {"none": no_prior, "surrogate": told, "surrogate, turned round": turned(told)}
    for name, prior in priors.items():
        features = Features(space, prior)
        counts = [picked(features, pool, seed, given.top) for seed in range(given.seeds)]
        low, middle, high = statistics.quantiles(counts, n=4, method="inclusive")
        print(
            f"| {name} | {middle:.1f} ({low:.1f}–{high:.1f}), mean {statistics.mean(counts):.1f} |"
        )


def pool_of(folder: Path) -> tuple[Space, list[Trial]]:
    """Return the space of a run and its evaluated trials."""
    space: Space = catalog.export("spaces", run.read_args(folder)["space"] or "mbconv", "SPACE")
    trials = read_journal(folder / "journal.log").studies[SEARCH]
    return space, [trial for trial in trials if trial.state == "done"]


def turned(prior: Prior) -> Prior:
    """Return a prior that believes the opposite."""
    return lambda points: -prior(points)


def picked(features: Features, pool: Sequence[Trial], seed: int, top: int) -> int:
    """Return after how many picks one of the best of the pool was met."""
    rng, left, seen = random.Random(seed), list(pool), list[Trial]()
    enough = sorted(trial.metrics["accuracy"] for trial in pool)[-top]
    while True:
        choices = [trial.choices for trial in left]
        trial = left.pop(next_pick(features, choices, seen, rng))
        seen.append(trial)
        if trial.metrics["accuracy"] >= enough:
            return len(seen)


def next_pick(
    features: Features, left: Sequence[Choices], seen: Sequence[Trial], rng: random.Random
) -> int:
    """Return the place of the next pick: as the controller would choose, from the pool alone."""
    trend, goal = features.rows(left).trend, Goal(Objective())
    if len(seen) < STARTUP:
        by_chance = bool(len(seen) % 2) or not trend.any()
        return rng.randrange(len(left)) if by_chance else int(np.argmax(trend))
    belief = believed(features, goal, seen, parameters_of(features, goal, seen), [])
    gain, mean = expected_improvement(belief, [trial.choices for trial in seen])[0](left, 1.0)
    return max(range(len(left)), key=lambda place: (gain[place], mean[place]))


if __name__ == "__main__":
    main()
