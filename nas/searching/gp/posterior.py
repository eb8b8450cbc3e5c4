"""Posterior of the accuracy given all trials: a Gaussian process conditioned on them.

The best observation of a search is partly noise, the more so the more trials there are; the
posterior mean is less so. It selects the result of a search, whatever proposed the trials, and is
the surrogate model of the controller `predictor`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nas.interfaces import SCORED, Choices, Space, Trial
from nas.searching.gp.features import PointFeatures
from nas.searching.gp.gaussian import Array, GaussianProcess, Inputs, condition, fit_hyperparameters

MIN_TRIALS = 10  # evaluated trials below which there is no posterior
# observations conditioned on, and those that hyperparameters are fitted to: both bound the time
MAX_OBSERVATIONS, MAX_FITTED = 1000, 400
BLOCK = 50  # observations by which the prefix grows whose Cholesky factor is kept
MIN_PAIRS = (
    4  # of accuracies at a rung and at the end, needed to extrapolate a training from that rung
)


class Observation(NamedTuple):
    """An accuracy in percent at a point, observed or extrapolated.

    `extra_std`: its deviation beyond that of a whole evaluation. `priority`: the reward, by which
    observations are kept where there are too many; more is better.
    """

    choices: Choices
    accuracy: float
    extra_std: float
    priority: float


def observe(trials: Sequence[Trial]) -> list[Observation]:
    """Return the observations of the final accuracy that trials give, each arch once.

    A training that was stopped early is extrapolated from its last rung: by a line fitted to the
    accuracies at that rung and at the end of those that went on, with the deviation from it.
    """
    lines: dict[int, _RungLine | None] = {}
    found = []
    for trial in trials:
        if trial.state in SCORED:
            found.append(
                Observation(trial.choices, trial.metrics["accuracy"], 0.0, _priority(trial))
            )
        elif trial.state == "stopped" and trial.rungs:
            last = trial.rungs[-1]
            if last.epochs not in lines:
                lines[last.epochs] = _fit_rung_line(trials, last.epochs)
            if line := lines[last.epochs]:
                accuracy = line.height + line.slope * last.metrics["accuracy"]
                found.append(Observation(trial.choices, accuracy, line.std, -math.inf))
    return found


def posterior(space: Space, trials: Sequence[Trial]) -> dict[int, tuple[float, float]]:
    """Return the posterior accuracy of evaluated trials in percent: (mean, deviation) by number.

    {} where too few are evaluated. The deviation is the process's and, added in squares, the
    evaluator's own error (`accuracy_std`): a process that interpolates a predictor without error is
    no more accurate than the predictor.
    """
    done = [trial for trial in trials if trial.state in SCORED]
    if len(done) < MIN_TRIALS:
        return {}
    features, observed = PointFeatures(space), observe(trials)
    process = condition_on(features, fit_accuracy(features, observed), observed)
    mean, std = process.predict(features.inputs([trial.choices for trial in done]))
    evaluator_std = [trial.metrics.get("accuracy_std", 0.0) for trial in done]
    pairs = zip(mean.tolist(), np.hypot(std, evaluator_std).tolist(), strict=True)
    return {trial.number: pair for trial, pair in zip(done, pairs, strict=True)}


def fit_accuracy(features: PointFeatures, observed: Sequence[Observation]) -> Array:
    """Return the hyperparameters of the accuracy's process, fitted to observations."""
    return fit_hyperparameters(*_arrays(features, _subset(observed, MAX_FITTED)))


@dataclass(frozen=True)
class Prefix:
    """A process conditioned on the first of many observations, to be extended by the latest.

    Its Cholesky factor is most of the work of a proposal after a thousand trials.
    """

    observed: Sequence[Observation]
    process: GaussianProcess


def prefix_of(
    features: PointFeatures, theta: Array, observed: Sequence[Observation], before: Prefix | None
) -> Prefix | None:
    """Return the process given all but the latest observations: `before`, where it is that one.

    None where there are few, or some are uncertain beyond the noise: the Cholesky factor then
    changes with each trial. What is returned depends on the observations alone, so that a resumed
    search proposes the same.
    """
    first = len(observed) // BLOCK * BLOCK
    if first <= MAX_FITTED or any(each.extra_std for each in observed):
        return None
    part = observed[:first]
    if before and before.process.theta is theta and before.observed == part:
        return before
    return Prefix(part, condition_on(features, theta, part))


def training_set(
    observed: Sequence[Observation], prefix: Prefix | None = None
) -> list[Observation]:
    """Return the observations to condition on: MAX_OBSERVATIONS, and all after the prefix."""
    if prefix is None:
        return _subset(observed, MAX_OBSERVATIONS)
    return [*_subset(prefix.observed, MAX_OBSERVATIONS), *observed[len(prefix.observed) :]]


def condition_on(
    features: PointFeatures,
    theta: Array,
    observed: Sequence[Observation],
    pending: Sequence[Choices] = (),
    prefix: Prefix | None = None,
) -> GaussianProcess:
    """Return the process conditioned on observations; it extends `prefix` if there is one.

    Pending points are imputed with their posterior mean (Kriging believer), so that the next
    proposal is another one.
    """
    train, first = training_set(observed, prefix), prefix.process if prefix else None
    inputs, values, extra_std = _arrays(features, train, first.inputs if first else None)
    process = condition(theta, inputs, values, extra_std, prefix=first)
    if not pending:
        return process
    imputed = features.inputs(pending)
    values = np.append(values, process.mean_at(imputed))
    extra_std = np.append(extra_std, np.zeros(len(imputed)))
    return condition(theta, inputs.append(imputed), values, extra_std, process, process)


def _priority(trial: Trial) -> float:
    """Return the reward; 0 of two objectives, as every part of a front matters."""
    return trial.values[0] if len(trial.values) == 1 else 0.0


class _RungLine(NamedTuple):
    height: float
    slope: float
    std: float


def _fit_rung_line(trials: Sequence[Trial], epochs: int) -> _RungLine | None:
    """Return the line from the accuracy after some epochs to that at the end, None from too few."""
    pairs = [
        (rung.metrics["accuracy"], trial.metrics["accuracy"])
        for trial in trials
        if trial.state in SCORED
        for rung in trial.rungs
        if rung.epochs == epochs
    ]
    if len(pairs) < MIN_PAIRS:
        return None
    early, late = np.array(pairs).T
    spread = early - early.mean()
    # shrunk towards slope 1, as by one pair more
    unit = float(early.var()) or 1.0
    slope = float((spread @ late + unit) / (spread @ spread + unit))
    height = float(late.mean() - slope * early.mean())
    error = late - height - slope * early
    return _RungLine(height, slope, math.sqrt(float(error @ error) / (len(pairs) - 2)))


def _subset(observed: Sequence[Observation], most: int) -> list[Observation]:
    """Return at most `most` observations: half the best ones, half spread over all times."""
    if len(observed) <= most:
        return list(observed)
    order = sorted(range(len(observed)), key=lambda i: (-observed[i].priority, -i))
    best, others = order[: most // 2], sorted(order[most // 2 :])
    places = np.linspace(0, len(others) - 1, most - most // 2).astype(int)
    return [observed[i] for i in sorted([*best, *(others[place] for place in places)])]


def _arrays(
    features: PointFeatures, observed: Sequence[Observation], first: Inputs | None = None
) -> tuple[Inputs, Array, Array]:
    """Return inputs, accuracies and extra deviations; `first`: the inputs of the first of them."""
    choices, accuracies, extra_std, _ = zip(*observed, strict=True)
    inputs = features.inputs(choices[len(first) :] if first else choices)
    inputs = first.append(inputs) if first else inputs
    return inputs, np.array(accuracies), np.array(extra_std)
