"""Compare searching with and without early stopping, on the learning curves of a finished search.

The file is rungs.csv of a run of `nas search --data ... --pruner none`: a row for each trial and
rung with trial, epochs, reward and training_flops (all multiply-adds of the training so far);
several files, and the studies of one, are taken together. Trials without a whole
curve are left out. The trials are put in random orders (one a seed) and proposed one after another;
at each rung but the last the pruner decides, through Optuna's own report and should_prune, as in
`nas search`. What counts is the best reward of the trainings that ran to their end, at equal
compute. One unit of compute is the mean whole training.

    python scripts/bench_early_stopping.py runs/search/x/rungs.csv --seeds 40 --out stopping.csv
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import optuna
from lib import flags
from lib.tables import markdown, spread

from nas.core import registry, run_folder
from nas.core.errors import OptionError
from nas.core.tables import read_rows

FIELDS = ("trial", "epochs", "reward", "training_flops")
SHARES = (0.1, 0.15, 0.2, 0.3, 0.5, 1.0)  # of the compute of all trainings


class Rung(NamedTuple):
    epochs: int
    reward: float
    training_flops: float


Curve = tuple[Rung, ...]


class Event(NamedTuple):
    """A search after one more trial. `best`: of the trainings that ran to their end."""

    compute: float
    best: float
    started: int
    finished: int


class Row(NamedTuple):
    """What one search had found when it had spent `compute` whole trainings.

    `exhausted`: it had tried every trial before, and would have gone on with new ones.
    """

    pruner: str
    seed: int
    compute: float
    best: float
    started: int
    finished: int
    exhausted: bool


@flags.in_one_line
def main(words: Sequence[str] | None) -> None:
    given = arguments(words)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    curves = [curve for path in given.files for curve in read_curves(path)]
    check_curves(curves)
    searches = {
        name: [replay(curves, name, seed) for seed in range(given.seeds)]
        for name in ["none", *given.pruners.split(",")]
    }
    points = [share * len(curves) for share in SHARES]
    rows = [
        at(name, seed, compute, events)
        for name, replays in searches.items()
        for seed, events in enumerate(replays)
        for compute in points
    ]
    if given.out:
        run_folder.write_csv(given.out, Row._fields, rows)
    best = max(curve[-1].reward for curve in curves)
    print_table(rows, points, curves, best, given.seeds)
    print_reached(searches, best, given.within, len(curves))


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = flags.parser(__doc__)
    parser.add_argument("files", nargs="+", type=Path, help=".csv or .parquet tables of rungs")
    parser.add_argument("--pruners", default="halving,hyperband,median")
    parser.add_argument("--seeds", type=int, default=20, help="random orders of the trials")
    parser.add_argument("--within", type=float, default=0.5, help="points of reward from the best")
    parser.add_argument("--out", type=Path)
    return parser.parse_args(words)


def read_curves(path: Path) -> list[Curve]:
    """Return the whole curves of a file; trials that were stopped or failed are left out.

    Raises:
        OptionError: the file cannot be read, or a row lacks a field or holds no number.
    """
    trials: dict[str, list[Rung]] = defaultdict(list)
    for number, row in enumerate(read_rows(path), 1):
        try:
            rung = Rung(int(row["epochs"]), float(row["reward"]), float(row["training_flops"]))
            trials[f"{row.get('study', '')} {row['trial']}"].append(rung)
        except (KeyError, TypeError, ValueError) as error:
            raise OptionError(
                f"{path} row {number} is no rung ({error!r}): it takes {', '.join(FIELDS)}"
            ) from error
    curves = [tuple(sorted(rungs)) for rungs in trials.values()]
    longest = max((_epochs(curve) for curve in curves), key=len, default=())
    whole = [curve for curve in curves if _epochs(curve) == longest]
    if len(whole) < len(curves):
        print(f"{path}: {len(curves) - len(whole)} of {len(curves)} trials are not whole: left out")
    return whole


def check_curves(curves: Sequence[Curve]) -> None:
    """Check that the curves can be replayed together.

    Raises:
        OptionError: too few, different rungs, or numbers that cannot be.
    """
    if len(curves) < 2:
        raise OptionError(f"{len(curves)} whole trials: at least 2 are needed, 30 say something")
    if len({_epochs(curve) for curve in curves}) > 1:
        raise OptionError("the files have different rungs: replay them one by one")
    if len(curves[0]) < 2:
        raise OptionError("the trials have one rung only: nothing could have been stopped")
    for curve in curves:
        spent = [rung.training_flops for rung in curve]
        if not all(math.isfinite(rung.reward) for rung in curve) or spent != sorted(set(spent)):
            raise OptionError(
                f"a curve has a reward that is no number, or compute that does not grow: {curve}"
            )


def _epochs(curve: Curve) -> tuple[int, ...]:
    return tuple(rung.epochs for rung in curve)


def replay(curves: Sequence[Curve], pruner: str, seed: int) -> list[Event]:
    """Search through the trials in a random order; return its state after each of them."""
    order = random.Random(seed).sample(curves, len(curves))
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.RandomSampler(seed=seed),
        pruner=registry.make("pruners", pruner, options={}, rungs=_epochs(curves[0])),
        study_name=f"{pruner}-{seed}",  # Hyperband deals trials to brackets by it
    )
    whole = statistics.fmean(curve[-1].training_flops for curve in curves)
    events, compute, best, finished = [], 0.0, -math.inf, 0
    for started, curve in enumerate(order, 1):
        last = run_trial(study, curve)
        compute += last.training_flops / whole
        if last is curve[-1]:
            best, finished = max(best, last.reward), finished + 1
        events.append(Event(compute, best, started, finished))
    return events


def run_trial(study: optuna.Study, curve: Curve) -> Rung:
    """Replay one training; return the rung at which it ended."""
    trial = study.ask()
    for rung in curve[:-1]:
        trial.report(rung.reward, rung.epochs)
        if trial.should_prune():
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return rung
    study.tell(trial, curve[-1].reward)
    return curve[-1]


def at(pruner: str, seed: int, compute: float, events: Sequence[Event]) -> Row:
    """Return the state of a search when it had spent so much; a part of a trial counts nothing."""
    past = [event for event in events if event.compute <= compute * (1 + 1e-9)]
    last = past[-1] if past else Event(0.0, -math.inf, 0, 0)
    out = len(past) == len(events) and last.compute < compute * (1 - 1e-9)
    return Row(pruner, seed, compute, last.best, last.started, last.finished, out)


def print_table(
    rows: Sequence[Row], points: Sequence[float], curves: Sequence[Curve], best: float, seeds: int
) -> None:
    """Print the best reward at each point of compute, and how many trials that took."""
    print(
        f"{len(curves)} trials, rungs at {', '.join(map(str, _epochs(curves[0])))} epochs, "
        f"{seeds} random orders; best reward of all {best:.2f}"
    )
    groups: dict[tuple[str, float], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.pruner, row.compute].append(row)
    names = list(dict.fromkeys(row.pruner for row in rows))
    heads = ["early stopping", *(f"{point:.0f} trainings" for point in points)]
    print("best reward of a finished training, median (quartiles), [trials begun, finished]")
    cells = ([name, *(_cell(groups[name, point]) for point in points)] for name in names)
    print(markdown(heads, cells))
    print("*: in most orders all trials were used up before; the rest of the compute lies idle")
    print("\norders in which it is ahead of none, level, behind, at equal compute")
    duels = (
        [name, *(_duel(groups[name, point], groups["none", point]) for point in points)]
        for name in names
        if name != "none"
    )
    print(markdown(heads, duels))


def _duel(rows: Sequence[Row], others: Sequence[Row]) -> str:
    """Return how many orders the first search is ahead, level and behind in."""
    pairs = [(row.best, other.best) for row, other in zip(rows, others, strict=True)]
    ahead, behind = sum(a > b for a, b in pairs), sum(a < b for a, b in pairs)
    return f"{ahead}, {len(pairs) - ahead - behind}, {behind}"


def _cell(rows: Sequence[Row]) -> str:
    begun = statistics.median(row.started for row in rows)
    done = statistics.median(row.finished for row in rows)
    mark = "*" if 2 * sum(row.exhausted for row in rows) > len(rows) else ""
    return f"{spread([row.best for row in rows], 2)} [{begun:.0f}, {done:.0f}]{mark}"


def print_reached(
    searches: Mapping[str, Sequence[Sequence[Event]]], best: float, within: float, trials: int
) -> None:
    """Print what it costs to come near the best, and how often its training is stopped instead."""
    print(f"\ncompute until a finished training is within {within:g} of the best, in trainings")
    rows = []
    for name, replays in searches.items():
        costs = [reached(events, best - within) for events in replays]
        there = sum(math.isfinite(cost) for cost in costs)
        total = spread([events[-1].compute for events in replays], 1)
        rows.append([name, spread(costs, 1), f"{there} of {len(costs)}", f"{total} of {trials}"])
    heads = ("median (quartiles)", "orders that came there", "compute of all trials")
    print(markdown(["early stopping", *heads], rows))


def reached(events: Sequence[Event], reward: float) -> float:
    """Return the compute at which a search had found a reward; inf if it never did."""
    return next((event.compute for event in events if event.best >= reward), math.inf)


if __name__ == "__main__":
    main()
