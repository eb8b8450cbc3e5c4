"""Bayesian optimisation: a Gaussian process on choices and counted costs, expected improvement.

The proposal is the point of the largest expected improvement over the best mean so far (for two
objectives: of hypervolume). Behind reference designs, and while there are fewer trials than
choices, it is looked for near the leaders alone: among neighbours, mutants and crossings. A model
of so few trials expects the largest improvement where its variance is largest, and far from a good
design nearly everything is worse. Otherwise random points are looked at too and, step by step, the
neighbours of those of the largest expected improvement. What a network costs is counted, so points
above a hard limit are never proposed. Points in flight count with their posterior mean, so that the
next is another one. A training that was stopped early counts by what it showed until then
(`nas.searching.gp.posterior.shown`).

A proposal takes some 15 ms of one core after 100 trials, 30 ms after 1,000. Of more trials the
model sees the best 500, 500 spread over all times, and the latest.

Sources: Jones et al. 1998 (expected improvement); Emmerich et al. 2006 (of hypervolume); White et
al. 2021 (BANANAS), the mutation of leaders; Ginsbourger et al. 2010, points in flight.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

from optuna.samplers import BaseSampler

from nas.interfaces import SCORED, Choices, Metrics, Space
from nas.models.points import decode
from nas.searching.gp.features import Features, plain_points
from nas.searching.gp.surrogate import (
    Acquisition,
    Belief,
    Parameters,
    believed,
    expected_hypervolume_improvement,
    expected_improvement,
    parameters_of,
    prior_mean,
)
from nas.searching.objective import Goal, Objective, broken_limit
from nas.searching.references import reference_points
from nas.searching.samplers import (
    Draw,
    Excess,
    Key,
    Past,
    Prior,
    Proposer,
    allowed_choices,
    at_least,
    key_of,
    mutate,
    no_excess,
    no_prior,
    random_choices,
)

OBJECTIVES = ("reward", "pareto")
LEADERS = 10
FOREMOST = 3  # leaders of which all neighbours are looked at
GROWTH = 1.1  # parameters are fitted anew when there are so many times the trials
CLIMBERS, CLIMBS = 2, 4  # of how many points all neighbours are tried, and how often
STEPS = 3  # mutations of a leader, at most
TRIES = 50  # of the most hopeful points, to find a network that is new
# where less is expected to be gained, in points of reward, the model is sure of itself and may be
# wrong: then it is looked at with deviations so many times as large
SURE, WIDER = 0.01, 4.0


def make(
    space: Space,
    *,
    seed: int,
    goal: Goal,
    excess: Excess = no_excess,
    draw: Draw = random_choices,
    prior: Prior = no_prior,
    startup: int = 4,
    pool: int = 50,
) -> BaseSampler:
    """Return the predictor.

    startup: trials before the model is used. The space's reference designs count; of the others
    every other one is random and every other one alike in all stages and close below the target,
    or with --warm-start what the prior thinks best. pool: how many random points, mutants of each
    number of steps and crossings are looked at for a proposal; near the leaders twice as many
    mutants and no random points.
    """
    at_least(2, startup=startup)
    at_least(1, pool=pool)
    mind = _Mind(space, goal, excess, draw, prior, startup, pool)
    return Proposer(space, mind.propose, seed, startup=startup)


class _Mind:
    """The proposals of one search; what it remembers can be had again from the past."""

    def __init__(
        self,
        space: Space,
        goal: Goal,
        excess: Excess,
        draw: Draw,
        prior: Prior,
        startup: int,
        pool: int,
    ) -> None:
        self._space, self._goal, self._excess, self._prior = space, goal, excess, prior
        self._random = draw
        self._startup, self._pool = startup, pool
        self._fitted: tuple[tuple[int, ...], Parameters] = (), {}
        self._before: Belief | None = None
        self._ids: dict[Key, str] = {}

    @cached_property
    def _features(self) -> Features:
        return Features(self._space, self._prior)

    @cached_property
    def _plain(self) -> list[Choices]:
        """Return the points that are alike in all stages and meet the target, the costliest first.

        A search whose space has reference designs has begun with those. Of a front there is none.
        """
        if self._goal.pareto:
            return []
        found = []
        for choices in plain_points(self._space):
            seen = self._features.seen(choices)
            if seen and _meets(seen.metrics, self._goal.objective):
                found.append((seen.metrics["flops"], choices))
        return [choices for _, choices in sorted(found, key=lambda pair: -pair[0])]

    def propose(self, past: Past, rng: random.Random) -> Choices:
        """Return the most hopeful point that is new and within the limits."""
        # another driver's may be no network, and about to be rejected
        past = past._replace(flying=[c for c in past.flying if self._features.seen(c)])
        scored = [trial.choices for trial in past.trials if trial.state in SCORED]
        if len(scored) >= self._startup:
            belief = self._belief(past)
            front = self._goal.pareto
            kind = expected_hypervolume_improvement if front else expected_improvement
            acquisition, order = kind(belief, scored)
            leaders = [scored[i] for i in order[:LEADERS]]
            near = not front and self._near(past)
            found = self._search(past, leaders, acquisition, 1.0, rng, near=near)
            if not front and max((gain for gain, _ in found.values()), default=0.0) < SURE:
                found = self._search(past, leaders, acquisition, WIDER, rng)
            return self._new(past, found, rng)
        drawn = self._drawn(past, rng)
        if (len(past.seen) + len(past.flying)) % 2:
            return drawn
        if self._prior is no_prior:
            taken = past.taken()
            return next((c for c in self._plain if key_of(c) not in taken), drawn)
        acquisition = prior_mean(self._features, self._goal)
        return self._new(past, self._search(past, [drawn], acquisition, 1.0, rng), rng)

    @cached_property
    def _designs(self) -> set[Key]:
        return {key_of(choices) for choices in reference_points(self._space, self._goal).values()}

    def _near(self, past: Past) -> bool:
        """Tell whether to look near the leaders alone: behind designs, while trials are few."""
        few = len(past.done) < len(self._space.choices)
        return few and self._prior is no_prior and not past.seen.isdisjoint(self._designs)

    def _drawn(self, past: Past, rng: random.Random) -> Choices:
        """Return a random point within the limits, a new one where that is not too rare."""
        taken = past.taken()
        for _ in range(TRIES):
            drawn = allowed_choices(self._space, rng, self._excess, self._random)
            if key_of(drawn) not in taken:
                break
        return drawn

    def _belief(self, past: Past) -> Belief:
        """Return what the past speaks for, with the parameters of an earlier part of it.

        The parts grow by a tenth, so that most proposals fit nothing, and a resumed search fits
        the same.
        """
        until = self._startup
        scored = [i for i, trial in enumerate(past.trials) if trial.state in SCORED]
        while (more := max(until + 1, int(until * GROWTH))) <= len(scored):
            until = more
        part = past.trials[: scored[until - 1] + 1]
        key = tuple(trial.number for trial in part)
        if key != self._fitted[0]:
            self._fitted = key, parameters_of(self._features, self._goal, part)
        known = self._features, self._goal, past.trials, self._fitted[1], past.flying
        self._before = believed(*known, before=self._before)
        return self._before

    def _search(
        self,
        past: Past,
        leaders: list[Choices],
        acquisition: Acquisition,
        wider: float,
        rng: random.Random,
        *,
        near: bool = False,
    ) -> dict[Key, tuple[float, float]]:
        """Return new points that are found from the leaders, with acquisition and mean of each."""
        taken, climbs = past.taken(), 0 if near else CLIMBS
        found = dict[Key, tuple[float, float]]()
        points = _candidates(self._space, leaders, self._pool, rng, near)
        for climb in range(climbs + 1):
            fresh = self._fresh(points, taken | found.keys())
            if not fresh:
                break
            gains, means = acquisition(list(fresh.values()), wider)
            found |= zip(fresh, zip(gains.tolist(), means.tolist(), strict=True), strict=True)
            if climb < climbs:
                best = sorted(found, key=lambda key: found[key], reverse=True)[:CLIMBERS]
                points = (n for key in best for n in _neighbours(self._space, self._point(key)))
        return found

    def _fresh(self, points: Iterator[Choices], taken: set[Key]) -> dict[Key, Choices]:
        """Return the points that are networks, within the limits and not taken, by their keys."""
        found = {key_of(choices): choices for choices in points}
        return {key: c for key, c in found.items() if key not in taken and self._allowed(c, key)}

    def _allowed(self, choices: Choices, key: Key) -> bool:
        seen = self._features.seen(choices, key)
        return seen is not None and not broken_limit(seen.metrics, self._goal.objective)

    def _new(
        self, past: Past, found: Mapping[Key, tuple[float, float]], rng: random.Random
    ) -> Choices:
        """Return the best point whose network is not another point's: choices may not matter."""
        archs = past.archs | {self._arch_id(key_of(choices)) for choices in past.flying}
        for key in sorted(found, key=lambda key: found[key], reverse=True)[:TRIES]:
            if self._arch_id(key) not in archs:
                return self._point(key)
        return self._drawn(past, rng)

    def _arch_id(self, key: Key) -> str:
        """Return the id of a point's network; of those in flight it is asked for each time."""
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
    space: Space, leaders: Sequence[Choices], count: int, rng: random.Random, near: bool
) -> Iterator[Choices]:
    """Yield mutants of the leaders and crossings of two of them, and points from farther away.

    near: none from farther away, but all neighbours of the foremost and twice the mutants.
    """
    for leader in leaders[: FOREMOST if near else 0]:
        yield from _neighbours(space, leader)
    for _ in range(count):
        if not near:
            yield random_choices(space, rng)
        for _ in range(2 if near else 1):
            mutant = rng.choice(leaders)
            for _ in range(STEPS):
                mutant = mutate(space, mutant, rng)
                yield mutant
        one, other = rng.choice(leaders), rng.choice(leaders)
        yield {name: rng.choice((one, other))[name] for name in space.choices}


def _neighbours(space: Space, choices: Choices) -> Iterator[Choices]:
    """Yield the points that differ in one choice."""
    for name, options in space.choices.items():
        yield from ({**choices, name: option} for option in options if option != choices[name])
