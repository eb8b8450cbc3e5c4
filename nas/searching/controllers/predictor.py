"""Bayesian optimisation: a Gaussian process on choices and counted costs, expected improvement.

The proposal maximises expected improvement over the best posterior mean so far (of two objectives:
expected hypervolume improvement). Where the search began with reference designs, and while there
are fewer trials than choices, candidates come from near the leaders alone: neighbours, mutants and
crossovers. A model of so few trials has its largest expected improvement where its variance is
largest, and far from a good design nearly everything is worse. Otherwise there are random
candidates too, and a local search: step by step, the neighbours of the best of them. Costs are
counted, so points above a hard limit are never proposed. Pending points are imputed with their
posterior mean, so that the next proposal is another one. A training that was stopped early is
extrapolated from its last rung (`nas.searching.gp.posterior.observe`).

A proposal takes some 15 ms of one core after 100 trials, 30 ms after 1,000. Of more trials the
model is conditioned on the best 500, 500 spread over all times, and the latest.

Sources: Jones et al. 1998 (expected improvement); Emmerich et al. 2006 (of hypervolume); White et
al. 2021 (BANANAS), the mutation of leaders; Ginsbourger et al. 2010 (Kriging believer).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

from optuna.samplers import BaseSampler

from nas.interfaces import SCORED, Choices, Metrics, Space
from nas.models.points import decode
from nas.searching.gp.features import PointFeatures, homogeneous_points
from nas.searching.gp.surrogate import (
    Acquisition,
    Hyperparameters,
    SurrogateModel,
    condition_surrogate,
    expected_hypervolume_improvement,
    expected_improvement,
    fit_all,
    prior_acquisition,
)
from nas.searching.objective import Goal, Objective, broken_limit
from nas.searching.references import reference_points
from nas.searching.samplers import (
    Draw,
    Key,
    Past,
    Prior,
    Proposer,
    Violation,
    check_at_least,
    key_of,
    mutate,
    no_prior,
    no_violation,
    random_choices,
    sample_feasible,
)

OBJECTIVES = ("reward", "pareto")
LEADERS = 10
TOP_LEADERS = 3  # leaders all of whose neighbours are candidates
REFIT_GROWTH = 1.1  # factor of trials at which hyperparameters are fitted again
LOCAL_STARTS, LOCAL_STEPS = 2, 4  # of the local search: points, and steps
MUTATIONS = 3  # mutations of a leader, at most
MOST_CANDIDATES = 50  # by acquisition, of which the first new network is proposed
# below this expected improvement, in points of reward, the model is sure of itself and may be
# wrong: then candidates are sought again with deviations multiplied by this
SMALL_GAIN, STD_FACTOR = 0.01, 4.0


def make(
    space: Space,
    *,
    seed: int,
    goal: Goal,
    constraint_violation: Violation = no_violation,
    draw: Draw = random_choices,
    prior: Prior = no_prior,
    startup: int = 4,
    pool: int = 50,
) -> BaseSampler:
    """Return the predictor.

    startup: trials before the model is used. The space's reference designs count; of the others
    every other one is random and every other one alike in all stages and close below the target,
    or with --warm-start the best by the prior. pool: number of random points, of mutants of each
    number of steps and of crossovers among the candidates of a proposal; near the leaders twice
    as many mutants and no random points.
    """
    check_at_least(2, startup=startup)
    check_at_least(1, pool=pool)
    optimizer = BayesianOptimizer(space, goal, constraint_violation, draw, prior, startup, pool)
    return Proposer(space, optimizer.propose, seed, startup=startup)


class BayesianOptimizer:
    """The proposals of one search; its state is a cache of what the past determines."""

    def __init__(
        self,
        space: Space,
        goal: Goal,
        violation: Violation,
        draw: Draw,
        prior: Prior,
        startup: int,
        pool: int,
    ) -> None:
        self._space, self._goal, self._prior = space, goal, prior
        self._violation = violation
        self._random = draw
        self._startup, self._pool = startup, pool
        self._hyperparameters: tuple[tuple[int, ...], Hyperparameters] = (), {}
        self._before: SurrogateModel | None = None
        self._ids: dict[Key, str] = {}

    @cached_property
    def _features(self) -> PointFeatures:
        return PointFeatures(self._space, self._prior)

    @cached_property
    def _homogeneous(self) -> list[Choices]:
        """Return the points that are alike in all stages and meet the target, the costliest first.

        None for two objectives. A search with reference designs has begun with those.
        """
        if self._goal.pareto:
            return []
        found = []
        for choices in homogeneous_points(self._space):
            counted = self._features.counted(choices)
            if counted and _meets(counted.metrics, self._goal.objective):
                found.append((counted.metrics["flops"], choices))
        return [choices for _, choices in sorted(found, key=lambda pair: -pair[0])]

    def propose(self, past: Past, rng: random.Random) -> Choices:
        """Return the new feasible point of the largest acquisition."""
        # a pending point of another driver may be no network, and about to be rejected
        past = past._replace(pending=[c for c in past.pending if self._features.counted(c)])
        evaluated = [trial.choices for trial in past.trials if trial.state in SCORED]
        if len(evaluated) >= self._startup:
            model = self._condition(past)
            front = self._goal.pareto
            kind = expected_hypervolume_improvement if front else expected_improvement
            acquisition, order = kind(model, evaluated)
            leaders = [evaluated[i] for i in order[:LEADERS]]
            local = not front and self._is_local(past)
            found = self._search(past, leaders, acquisition, 1.0, rng, local=local)
            if not front and max((gain for gain, _ in found.values()), default=0.0) < SMALL_GAIN:
                found = self._search(past, leaders, acquisition, STD_FACTOR, rng)
            return self._new(past, found, rng)
        point = self._random_point(past, rng)
        if (len(past.seen) + len(past.pending)) % 2:
            return point
        if self._prior is no_prior:
            proposed = past.proposed()
            return next((c for c in self._homogeneous if key_of(c) not in proposed), point)
        acquisition = prior_acquisition(self._features, self._goal)
        return self._new(past, self._search(past, [point], acquisition, 1.0, rng), rng)

    @cached_property
    def _designs(self) -> set[Key]:
        return {key_of(choices) for choices in reference_points(self._space, self._goal).values()}

    def _is_local(self, past: Past) -> bool:
        """Tell whether to search near the leaders alone: after designs, while trials are few."""
        few = len(past.done) < len(self._space.choices)
        return few and self._prior is no_prior and not past.seen.isdisjoint(self._designs)

    def _random_point(self, past: Past, rng: random.Random) -> Choices:
        """Return a random feasible point, a new one where that is not too rare."""
        proposed = past.proposed()
        for _ in range(MOST_CANDIDATES):
            point = sample_feasible(self._space, rng, self._violation, self._random)
            if key_of(point) not in proposed:
                break
        return point

    def _condition(self, past: Past) -> SurrogateModel:
        """Return the surrogate model given the past, with hyperparameters fitted to a part of it.

        The part grows by a tenth, so that most proposals fit nothing, and a resumed search fits
        the same.
        """
        until = self._startup
        evaluated = [i for i, trial in enumerate(past.trials) if trial.state in SCORED]
        while (more := max(until + 1, int(until * REFIT_GROWTH))) <= len(evaluated):
            until = more
        part = past.trials[: evaluated[until - 1] + 1]
        key = tuple(trial.number for trial in part)
        if key != self._hyperparameters[0]:
            self._hyperparameters = key, fit_all(self._features, self._goal, part)
        known = self._features, self._goal, past.trials, self._hyperparameters[1], past.pending
        self._before = condition_surrogate(*known, before=self._before)
        return self._before

    def _search(
        self,
        past: Past,
        leaders: list[Choices],
        acquisition: Acquisition,
        std_factor: float,
        rng: random.Random,
        *,
        local: bool = False,
    ) -> dict[Key, tuple[float, float]]:
        """Return new candidates near the leaders and elsewhere: acquisition and posterior mean."""
        proposed, steps = past.proposed(), 0 if local else LOCAL_STEPS
        found = dict[Key, tuple[float, float]]()
        points = _candidates(self._space, leaders, self._pool, rng, local)
        for step in range(steps + 1):
            fresh = self._fresh(points, proposed | found.keys())
            if not fresh:
                break
            gains, means = acquisition(list(fresh.values()), std_factor)
            found |= zip(fresh, zip(gains.tolist(), means.tolist(), strict=True), strict=True)
            if step < steps:
                best = sorted(found, key=lambda key: found[key], reverse=True)[:LOCAL_STARTS]
                points = (n for key in best for n in _neighbours(self._space, self._point(key)))
        return found

    def _fresh(self, points: Iterator[Choices], proposed: set[Key]) -> dict[Key, Choices]:
        """Return the feasible points that were not proposed before, by their keys."""
        found = {key_of(choices): choices for choices in points}
        return {key: c for key, c in found.items() if key not in proposed and self._allowed(c, key)}

    def _allowed(self, choices: Choices, key: Key) -> bool:
        counted = self._features.counted(choices, key)
        return counted is not None and not broken_limit(counted.metrics, self._goal.objective)

    def _new(
        self, past: Past, found: Mapping[Key, tuple[float, float]], rng: random.Random
    ) -> Choices:
        """Return the best candidate whose network is new: several points may decode to one."""
        archs = past.archs | {self._arch_id(key_of(choices)) for choices in past.pending}
        for key in sorted(found, key=lambda key: found[key], reverse=True)[:MOST_CANDIDATES]:
            if self._arch_id(key) not in archs:
                return self._point(key)
        return self._random_point(past, rng)

    def _arch_id(self, key: Key) -> str:
        """Return the id of a point's network; that of pending points is asked for each time."""
        if key not in self._ids:
            self._ids[key] = decode(self._space, self._point(key)).id
        return self._ids[key]

    def _point(self, key: Key) -> Choices:
        return dict(zip(self._space.choices, key, strict=True))


def _meets(cost: Metrics, objective: Objective) -> bool:
    """Tell whether a network is at or under every bound on what is counted."""
    bounds = (*objective.targets, *objective.limits)
    return all(cost[bound.metric] <= bound.value for bound in bounds if bound.metric in cost)


def _candidates(
    space: Space, leaders: Sequence[Choices], count: int, rng: random.Random, local: bool
) -> Iterator[Choices]:
    """Yield candidates: mutants and crossovers of the leaders, and random points.

    local: no random points, but all neighbours of the first leaders and twice the mutants.
    """
    for leader in leaders[: TOP_LEADERS if local else 0]:
        yield from _neighbours(space, leader)
    for _ in range(count):
        if not local:
            yield random_choices(space, rng)
        for _ in range(2 if local else 1):
            mutant = rng.choice(leaders)
            for _ in range(MUTATIONS):
                mutant = mutate(space, mutant, rng)
                yield mutant
        one, other = rng.choice(leaders), rng.choice(leaders)
        yield {name: rng.choice((one, other))[name] for name in space.choices}


def _neighbours(space: Space, choices: Choices) -> Iterator[Choices]:
    """Yield the points that differ in one choice."""
    for name, options in space.choices.items():
        yield from ({**choices, name: option} for option in options if option != choices[name])
