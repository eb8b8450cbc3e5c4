"""What all trials together speak for: a Gaussian process of the accuracy, fitted to them.

The best observation of a search is partly luck, the more so the more trials there are; the mean of
a process that has seen all of them is less so. It is used to choose what is handed over, whatever
proposed the trials, and by the controller `predictor`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nas.interfaces import SCORED, Choices, Space, Trial
from nas.searching.gp.features import Features
from nas.searching.gp.gaussian import Array, Process, Rows, conditioned, fit

FEW = 10  # done trials under which a process says nothing
# trials that a process sees, and that its parameters are fitted to: both bound the time
MOST, MOST_FITTED = 1000, 400
BLOCK = 50  # observations by which the prefix grows whose factor is kept
PAIRS = 4  # trainings seen at a rung and at the end, from which the end of others is foretold


class Shown(NamedTuple):
    """An accuracy in percent, and the deviation that it has beyond that of a whole evaluation.

    `worth`: what the search thinks of it; more is better.
    """

    choices: Choices
    accuracy: float
    extra: float
    worth: float


def shown(trials: Sequence[Trial]) -> list[Shown]:
    """Return what trials have shown of the accuracy at the end, each arch once.

    A training that was stopped early shows what those that went on have come to from where it was:
    a line through their accuracies at that rung and at the end, with the deviation from it.
    """
    lines: dict[int, _Line | None] = {}
    found = []
    for trial in trials:
        if trial.state in SCORED:
            found.append(Shown(trial.choices, trial.metrics["accuracy"], 0.0, _worth(trial)))
        elif trial.state == "stopped" and trial.rungs:
            last = trial.rungs[-1]
            if last.epochs not in lines:
                lines[last.epochs] = _line(trials, last.epochs)
            if line := lines[last.epochs]:
                accuracy = line.height + line.slope * last.metrics["accuracy"]
                found.append(Shown(trial.choices, accuracy, line.deviation, -math.inf))
    return found


def posterior(space: Space, trials: Sequence[Trial]) -> dict[int, tuple[float, float]]:
    """Return by number the accuracy of each evaluated trial, in percent, and its deviation.

    Of each the mean of a process that has seen all trials; {} where too few are done. The deviation
    is the process's and, added in squares, the evaluator's own error (`accuracy_std`): a process
    that has learnt a predictor by heart knows no more than the predictor.
    """
    done = [trial for trial in trials if trial.state in SCORED]
    if len(done) < FEW:
        return {}
    features, known = Features(space), shown(trials)
    process = learnt(features, fitted(features, known), known)
    mean, deviation = process(features.rows([trial.choices for trial in done]))
    own = [trial.metrics.get("accuracy_std", 0.0) for trial in done]
    pairs = zip(mean.tolist(), np.hypot(deviation, own).tolist(), strict=True)
    return {trial.number: pair for trial, pair in zip(done, pairs, strict=True)}


def fitted(features: Features, known: Sequence[Shown]) -> Array:
    """Return the parameters of a process that what was shown speaks for."""
    return fit(*_arrays(features, _telling(known, MOST_FITTED)))


@dataclass(frozen=True)
class Prefix:
    """A process of the first of many observations, `known`, which is extended by the latest.

    Its Cholesky factor is most of the work of a proposal after a thousand trials.
    """

    known: Sequence[Shown]
    process: Process


def prefix_of(
    features: Features, parameters: Array, known: Sequence[Shown], before: Prefix | None
) -> Prefix | None:
    """Return the process of all but the latest observations: `before`, where it is that one.

    None where there are few, or some are uncertain beyond the noise: the factor is then another one
    with each trial. What is returned depends on the observations alone, so that a resumed search
    proposes the same.
    """
    first = len(known) // BLOCK * BLOCK
    if first <= MOST_FITTED or any(each.extra for each in known):
        return None
    part = known[:first]
    if before and before.process.parameters is parameters and before.known == part:
        return before
    return Prefix(part, learnt(features, parameters, part))


def observations(known: Sequence[Shown], prefix: Prefix | None = None) -> list[Shown]:
    """Return what a process sees of what was shown: at most MOST, and all after the prefix."""
    if prefix is None:
        return _telling(known, MOST)
    return [*_telling(prefix.known, MOST), *known[len(prefix.known) :]]


def learnt(
    features: Features,
    parameters: Array,
    known: Sequence[Shown],
    flying: Sequence[Choices] = (),
    prefix: Prefix | None = None,
) -> Process:
    """Return the process that has seen what was shown; it extends `prefix` if there is one.

    Of the points in flight it expects what it believes of them, so that another is proposed.
    """
    seen, first = observations(known, prefix), prefix.process if prefix else None
    rows, values, extra = _arrays(features, seen, first.rows if first else None)
    process = conditioned(parameters, rows, values, extra, prefix=first)
    if not flying:
        return process
    ahead = features.rows(flying)
    values, extra = np.append(values, process.means(ahead)), np.append(extra, np.zeros(len(ahead)))
    return conditioned(parameters, rows.and_also(ahead), values, extra, process, process)


def _worth(trial: Trial) -> float:
    """Return the reward; of two objectives nothing, as every part of a front matters."""
    return trial.values[0] if len(trial.values) == 1 else 0.0


class _Line(NamedTuple):
    height: float
    slope: float
    deviation: float


def _line(trials: Sequence[Trial], epochs: int) -> _Line | None:
    """Return the line from the accuracy after some epochs to that at the end, None from too few."""
    pairs = [
        (rung.metrics["accuracy"], trial.metrics["accuracy"])
        for trial in trials
        if trial.state in SCORED
        for rung in trial.rungs
        if rung.epochs == epochs
    ]
    if len(pairs) < PAIRS:
        return None
    early, late = np.array(pairs).T
    spread = early - early.mean()
    # as if one pair more had shown that what is ahead stays ahead
    unit = float(early.var()) or 1.0
    slope = float((spread @ late + unit) / (spread @ spread + unit))
    height = float(late.mean() - slope * early.mean())
    error = late - height - slope * early
    return _Line(height, slope, math.sqrt(float(error @ error) / (len(pairs) - 2)))


def _telling(known: Sequence[Shown], most: int) -> list[Shown]:
    """Return at most so many: the best half, of equals the latest, and others from all times."""
    if len(known) <= most:
        return list(known)
    order = sorted(range(len(known)), key=lambda i: (-known[i].worth, -i))
    best, others = order[: most // 2], sorted(order[most // 2 :])
    places = np.linspace(0, len(others) - 1, most - most // 2).astype(int)
    return [known[i] for i in sorted([*best, *(others[place] for place in places)])]


def _arrays(
    features: Features, known: Sequence[Shown], first: Rows | None = None
) -> tuple[Rows, Array, Array]:
    """Return the rows, accuracies and extra deviations of points; `first`: rows of some of them."""
    choices, accuracies, extra, _ = zip(*known, strict=True)
    rows = features.rows(choices[len(first) :] if first else choices)
    rows = first.and_also(rows) if first else rows
    return rows, np.array(accuracies), np.array(extra)
