"""Surrogate model of a search: posterior of metrics and reward, and acquisition functions.

Only what must be evaluated is uncertain. FLOPs, params and activations are counted, so the reward
of a point is as uncertain as its accuracy alone. A metric that cannot be counted, as a latency, has
a Gaussian process of its own, of which the mean is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nas.interfaces import SCORED, Choices, Metrics, Trial
from nas.searching.gp.acquisition import ehvi, ei, staircase
from nas.searching.gp.features import PointFeatures
from nas.searching.gp.gaussian import Array, GaussianProcess, Inputs, condition, fit_hyperparameters
from nas.searching.gp.posterior import (
    MAX_FITTED,
    Prefix,
    condition_on,
    fit_accuracy,
    observe,
    prefix_of,
    training_set,
)
from nas.searching.objective import Goal, metric_of, pareto_front, reward_line
from nas.searching.samplers import Key, key_of

COUNTED = ("flops", "params", "activations")
FRONT_LEADERS = 10  # points of a front that leaders are taken from
CORNER_MARGIN = 0.2  # of the range of log costs, by which the reference point lies above all
# accuracy in percent that a prior is scaled to: its mean, and one deviation
ASSUMED_ACCURACY = (50.0, 10.0)
Hyperparameters = dict[str, Array]  # of the processes, by metric
# of points (n,) and a factor on their deviations: the acquisition of each, and its posterior mean,
# which decides between equal ones
Acquisition = Callable[[Sequence[Choices], float], tuple[Array, Array]]


@dataclass(frozen=True)
class SurrogateModel:
    """Gaussian processes of the metrics, conditioned on the trials of a search."""

    features: PointFeatures
    goal: Goal
    accuracy: GaussianProcess
    metric_models: Mapping[str, GaussianProcess]  # of the logs of metrics that cannot be counted
    train_accuracy: Mapping[Key, float]  # posterior mean at the evaluated points
    prefix: Prefix | None = None  # reused when the next trials come

    def costs(self, points: Sequence[Choices]) -> list[Metrics]:
        """Return the costs of each point: counted, or the posterior mean of what cannot be."""
        counted = [each.metrics for each in map(self.features.counted, points) if each]
        if not self.metric_models:
            return counted
        found = list(map(dict, counted))
        for name, process in self.metric_models.items():
            for metrics, log in zip(
                found, process.mean_at(self.features.inputs(points)), strict=True
            ):
                metrics[name] = float(np.exp(log))
        return found

    def rewards(self, points: Sequence[Choices]) -> tuple[Array, Array]:
        """Return the posterior mean (n,) and deviation (n,) of the reward."""
        mean, std = self.accuracy.predict(self.features.inputs(points))
        return reward_posterior(self.costs(points), mean, std, self.goal)

    def accuracies(self, points: Sequence[Choices]) -> Array:
        """Return the posterior mean (n,) of the accuracy at points that were evaluated."""
        found = np.array([self.train_accuracy.get(key_of(choices), np.nan) for choices in points])
        unseen = np.flatnonzero(np.isnan(found))  # left out by MAX_OBSERVATIONS
        if len(unseen):
            inputs = self.features.inputs([points[place] for place in unseen.tolist()])
            found[unseen] = self.accuracy.mean_at(inputs)
        return found

    def accuracy_and_cost(self, points: Sequence[Choices]) -> tuple[Array, Array, Array]:
        """Return the accuracy's mean and deviation, and the second objective's cost, each (n,)."""
        mean, std = self.accuracy.predict(self.features.inputs(points))
        cost = [metric_of(metrics, self.cost) for metrics in self.costs(points)]
        return mean, std, np.array(cost)

    @property
    def cost(self) -> str:
        """Return the name of the cost that is the second objective."""
        return self.goal.pareto or "flops"


def condition_surrogate(
    features: PointFeatures,
    goal: Goal,
    trials: Sequence[Trial],
    hyperparameters: Hyperparameters,
    pending: Sequence[Choices],
    before: SurrogateModel | None = None,
) -> SurrogateModel:
    """Return the surrogate model given trials; hyperparameters may be fitted to fewer of them.

    before: the model given fewer trials of the same search, which saves work and changes nothing.
    """
    observed = observe(trials)
    theta = hyperparameters["accuracy"]
    prefix = prefix_of(features, theta, observed, before.prefix if before else None)
    accuracy = condition_on(features, theta, observed, pending, prefix)
    keys = [key_of(each.choices) for each in training_set(observed, prefix)]
    train_accuracy = dict(
        zip(keys, accuracy.train_mean.tolist(), strict=False)
    )  # pending ones come after
    metric_models = {
        name: condition(found, *_log_metric(features, trials, name))
        for name, found in hyperparameters.items()
        if name != "accuracy"
    }
    return SurrogateModel(features, goal, accuracy, metric_models, train_accuracy, prefix)


def fit_all(features: PointFeatures, goal: Goal, trials: Sequence[Trial]) -> Hyperparameters:
    """Return the hyperparameters of all processes that a goal needs."""
    wanted = {bound.metric for bound in goal.objective.targets} | {goal.pareto or "flops"}
    found = {
        name: fit_hyperparameters(*_log_metric(features, trials, name))
        for name in sorted(wanted - {*COUNTED})
    }
    return {"accuracy": fit_accuracy(features, observe(trials)), **found}


def _log_metric(
    features: PointFeatures, trials: Sequence[Trial], name: str
) -> tuple[Inputs, Array, Array]:
    """Return inputs, values and extra deviations of the log of a metric, of the latest trials."""
    evaluated = [trial for trial in trials if trial.state in SCORED][-MAX_FITTED:]
    values = np.log([max(metric_of(trial.metrics, name), 1e-12) for trial in evaluated])
    return features.inputs([trial.choices for trial in evaluated]), values, np.zeros(len(evaluated))


def reward_posterior(
    costs: Sequence[Metrics], mean: Array, std: Array, goal: Goal
) -> tuple[Array, Array]:
    """Return mean and deviation of the reward, which is linear in the accuracy."""
    lines = [reward_line(each, goal.objective) for each in costs]
    offset, factor = np.array(lines).reshape(len(lines), 2).T
    return offset + factor * mean, factor * std


def expected_improvement(
    model: SurrogateModel, evaluated: Sequence[Choices]
) -> tuple[Acquisition, list[int]]:
    """Return EI of the reward, and the evaluated points by index, best posterior mean first."""
    accuracies = model.accuracies(evaluated)
    observed, _ = reward_posterior(
        model.costs(evaluated), accuracies, np.zeros(len(evaluated)), model.goal
    )

    def acquisition(points: Sequence[Choices], std_factor: float) -> tuple[Array, Array]:
        mean, std = model.rewards(points)
        return ei(mean, std_factor * std, observed.max()), mean

    return acquisition, np.argsort(-observed, kind="stable").tolist()


def expected_hypervolume_improvement(
    model: SurrogateModel, evaluated: Sequence[Choices]
) -> tuple[Acquisition, list[int]]:
    """Return EHVI of accuracy and log cost, and points by index that are spread over the front.

    By the log a tenth of the cost counts alike at either end.
    """
    observed = model.accuracies(evaluated)
    costs = np.array([metric_of(each, model.cost) for each in model.costs(evaluated)])
    logs = np.log(np.maximum(costs, 1e-12))
    points = list(zip(observed.tolist(), logs.tolist(), strict=True))
    # the reference point lies above the costliest so far, so that larger networks gain too
    corner = float(observed.min()), float(logs.max() + CORNER_MARGIN * max(np.ptp(logs), 0.1))
    steps = staircase(points)

    def acquisition(points: Sequence[Choices], std_factor: float) -> tuple[Array, Array]:
        mean, std, cost = model.accuracy_and_cost(points)
        return ehvi(mean, std_factor * std, np.log(np.maximum(cost, 1e-12)), steps, corner), mean

    front = pareto_front([(value, -cost) for value, cost in points])
    places = np.linspace(0, len(front) - 1, min(len(front), FRONT_LEADERS)).astype(int)
    return acquisition, [front[place] for place in dict.fromkeys(places.tolist())]


def prior_acquisition(features: PointFeatures, goal: Goal) -> Acquisition:
    """Return the reward of the prior mean, on an assumed scale of accuracies."""

    def acquisition(points: Sequence[Choices], std_factor: float) -> tuple[Array, Array]:
        mean = ASSUMED_ACCURACY[0] + ASSUMED_ACCURACY[1] * features.inputs(points).trend
        costs = [seen.metrics for seen in map(features.counted, points) if seen]
        counted = tuple(b for b in goal.objective.targets if b.metric in COUNTED)
        reduced = Goal(replace(goal.objective, targets=counted))
        worth, _ = reward_posterior(costs, mean, np.zeros(len(points)), reduced)
        return worth, mean

    return acquisition
