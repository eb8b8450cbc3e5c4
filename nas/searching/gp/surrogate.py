"""What is thought of points that were not evaluated: accuracy, other metrics, reward, front.

Only what must be evaluated is uncertain. FLOPs, params and activations are counted, so the reward
of a point is as uncertain as its accuracy alone. A metric that cannot be counted, as a latency, has
a process of its own, of which the mean is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nas.interfaces import SCORED, Choices, Metrics, Trial
from nas.searching.gp.acquisition import improvement, staircase, volume
from nas.searching.gp.features import Features
from nas.searching.gp.gaussian import Array, Process, Rows, conditioned, fit
from nas.searching.gp.posterior import (
    MOST_FITTED,
    Prefix,
    fitted,
    learnt,
    observations,
    prefix_of,
    shown,
)
from nas.searching.objective import Goal, metric_of, pareto_front, reward_line
from nas.searching.samplers import Key, key_of

COUNTED = ("flops", "params", "activations")
SPREAD = 10  # leaders of a front
MARGIN = 0.2  # of the range of costs, beyond the dearest, in which a front may grow
# an accuracy of which only a prior is known: its mean in percent, and one deviation of the prior
SUPPOSED = (50.0, 10.0)
Parameters = dict[str, Array]  # of the processes, by metric
# of points (n,), with deviations so many times as large: the expected improvement of each, and the
# mean, which decides between equal ones
Acquisition = Callable[[Sequence[Choices], float], tuple[Array, Array]]


@dataclass(frozen=True)
class Belief:
    """What processes that have seen the trials say of any point."""

    features: Features
    goal: Goal
    accuracy: Process
    others: Mapping[str, Process]  # of the logs of metrics
    observed: Mapping[Key, float]  # the mean accuracy of each point that was seen
    prefix: Prefix | None = None  # kept for the next trials

    def costs(self, points: Sequence[Choices]) -> list[Metrics]:
        """Return what each point costs: counted, or expected where that is all there is."""
        seen = [each.metrics for each in map(self.features.seen, points) if each]
        if not self.others:
            return seen
        found = list(map(dict, seen))
        for name, process in self.others.items():
            for metrics, log in zip(found, process.means(self.features.rows(points)), strict=True):
                metrics[name] = float(np.exp(log))
        return found

    def rewards(self, points: Sequence[Choices]) -> tuple[Array, Array]:
        """Return the mean reward of points, (n,), and its deviation."""
        mean, deviation = self.accuracy(self.features.rows(points))
        return rewarded(self.costs(points), mean, deviation, self.goal)

    def accuracies(self, points: Sequence[Choices]) -> Array:
        """Return the mean accuracy of points that were evaluated, (n,)."""
        found = np.array([self.observed.get(key_of(choices), np.nan) for choices in points])
        unseen = np.flatnonzero(np.isnan(found))  # there were too many for the process to see all
        if len(unseen):
            rows = self.features.rows([points[place] for place in unseen.tolist()])
            found[unseen] = self.accuracy.means(rows)
        return found

    def pairs(self, points: Sequence[Choices]) -> tuple[Array, Array, Array]:
        """Return the accuracies of points, their deviations, and the cost of a two-sided search."""
        mean, deviation = self.accuracy(self.features.rows(points))
        cost = [metric_of(metrics, self.cost) for metrics in self.costs(points)]
        return mean, deviation, np.array(cost)

    @property
    def cost(self) -> str:
        """Return the cost of a two-sided search."""
        return self.goal.pareto or "flops"


def believed(
    features: Features,
    goal: Goal,
    trials: Sequence[Trial],
    parameters: Parameters,
    flying: Sequence[Choices],
    before: Belief | None = None,
) -> Belief:
    """Return what trials speak for, with parameters that may be of an earlier part of them.

    before: the belief of fewer trials of the same search, which saves work and changes nothing.
    """
    known = shown(trials)
    prefix = prefix_of(features, parameters["accuracy"], known, before.prefix if before else None)
    accuracy = learnt(features, parameters["accuracy"], known, flying, prefix)
    keys = [key_of(each.choices) for each in observations(known, prefix)]
    observed = dict(zip(keys, accuracy.fitted.tolist(), strict=False))  # then points in flight
    others = {
        name: conditioned(found, *_logs(features, trials, name))
        for name, found in parameters.items()
        if name != "accuracy"
    }
    return Belief(features, goal, accuracy, others, observed, prefix)


def parameters_of(features: Features, goal: Goal, trials: Sequence[Trial]) -> Parameters:
    """Return the parameters of all processes that a goal needs."""
    wanted = {bound.metric for bound in goal.objective.targets} | {goal.pareto or "flops"}
    found = {name: fit(*_logs(features, trials, name)) for name in sorted(wanted - {*COUNTED})}
    return {"accuracy": fitted(features, shown(trials)), **found}


def _logs(features: Features, trials: Sequence[Trial], name: str) -> tuple[Rows, Array, Array]:
    """Return the logs of a metric of the latest trials."""
    scored = [trial for trial in trials if trial.state in SCORED][-MOST_FITTED:]
    values = np.log([max(metric_of(trial.metrics, name), 1e-12) for trial in scored])
    return features.rows([trial.choices for trial in scored]), values, np.zeros(len(scored))


def rewarded(
    costs: Sequence[Metrics], mean: Array, deviation: Array, goal: Goal
) -> tuple[Array, Array]:
    """Return mean and deviation of rewards: a reward is linear in the accuracy."""
    lines = [reward_line(each, goal.objective) for each in costs]
    offset, factor = np.array(lines).reshape(len(lines), 2).T
    return offset + factor * mean, factor * deviation


def expected_improvement(
    belief: Belief, scored: Sequence[Choices]
) -> tuple[Acquisition, list[int]]:
    """Return expected improvement of the reward, and the evaluated points, best mean first."""
    accuracies = belief.accuracies(scored)
    known, _ = rewarded(belief.costs(scored), accuracies, np.zeros(len(scored)), belief.goal)

    def acquisition(points: Sequence[Choices], wider: float) -> tuple[Array, Array]:
        mean, deviation = belief.rewards(points)
        return improvement(mean, wider * deviation, known.max()), mean

    return acquisition, np.argsort(-known, kind="stable").tolist()


def expected_hypervolume_improvement(
    belief: Belief, scored: Sequence[Choices]
) -> tuple[Acquisition, list[int]]:
    """Return expected improvement of the area under the front, and points spread over it.

    The area is that above the logs of costs: a step of a tenth counts alike at either end.
    """
    known = belief.accuracies(scored)
    costs = np.array([metric_of(each, belief.cost) for each in belief.costs(scored)])
    logs = np.log(np.maximum(costs, 1e-12))
    points = list(zip(known.tolist(), logs.tolist(), strict=True))
    # beyond the dearest so far there must be something to hope for too
    corner = float(known.min()), float(logs.max() + MARGIN * max(np.ptp(logs), 0.1))
    steps = staircase(points)

    def acquisition(points: Sequence[Choices], wider: float) -> tuple[Array, Array]:
        mean, deviation, cost = belief.pairs(points)
        return volume(mean, wider * deviation, np.log(np.maximum(cost, 1e-12)), steps, corner), mean

    front = pareto_front([(value, -cost) for value, cost in points])
    places = np.linspace(0, len(front) - 1, min(len(front), SPREAD)).astype(int)
    return acquisition, [front[place] for place in dict.fromkeys(places.tolist())]


def prior_mean(features: Features, goal: Goal) -> Acquisition:
    """Return the reward where nothing is known but a prior, on a scale that is supposed."""

    def acquisition(points: Sequence[Choices], wider: float) -> tuple[Array, Array]:
        mean = SUPPOSED[0] + SUPPOSED[1] * features.rows(points).trend
        costs = [seen.metrics for seen in map(features.seen, points) if seen]
        counted = tuple(b for b in goal.objective.targets if b.metric in COUNTED)
        reduced = Goal(replace(goal.objective, targets=counted))
        worth, _ = rewarded(costs, mean, np.zeros(len(points)), reduced)
        return worth, mean

    return acquisition
