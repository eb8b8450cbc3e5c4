"""Rejection sampling of the points of a space near a bound, from a proposal tilted towards it.

Each option gets the weight exp(-rate * share), where `share` is its part of the log cost in a
linear fit to sampled points. What is drawn is kept with a probability that takes the tilt back
out, so the fit decides how many draws are needed and not what they are distributed as.

Source of the tilt: Siegmund 1976, importance sampling by exponential families.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from nas.interfaces import Choices, Space

DRAWS, KEPT = 500, 80  # points drawn at most, and of them kept at most
ROUNDS, POINTS = 3, 150  # of the fit: each round on so many points drawn by the one before
RIDGE = 1.0  # pulls the shares to those of the round before
STEEPEST = 500.0  # rate at which only the cheapest options are left
SLACK = 2.0  # deviations of the fit by which the edge lies beyond the bound
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Tilt:
    """A product distribution over a space's choices, and the linear log cost it is tilted by.

    `shares`: one (options,) array a choice. `constant`: of the log cost. `edge`: the log cost from
    which on every draw is kept; below it (above, with a negative rate) one in exp(rate * distance).
    """

    shares: tuple[Array, ...]
    constant: float = 0.0
    rate: float = 0.0
    edge: float = 0.0

    @cached_property
    def weights(self) -> list[list[float]]:
        """Return the probability of each option of each choice."""
        return [list(map(float, _tilted(shares, self.rate))) for shares in self.shares]

    def places(self, rng: random.Random) -> list[int]:
        """Return a point as the place of each choice's option."""
        return [rng.choices(range(len(each)), each)[0] for each in self.weights]

    def log_cost(self, places: Sequence[int]) -> float:
        """Return the fitted log cost of a point."""
        return self.constant + sum(float(s[p]) for s, p in zip(self.shares, places, strict=True))

    def mean(self, rate: float) -> float:
        """Return the mean fitted log cost of what another rate would draw."""
        return self.constant + sum(float(_tilted(s, rate) @ s) for s in self.shares)

    def draws(self, space: Space, rng: random.Random) -> Iterator[Choices]:
        """Yield points as they would be met among uniform ones, those beyond the edge aside."""
        kept = 0
        for _ in range(DRAWS):
            places = self.places(rng)
            distance = self.rate * (self.log_cost(places) - self.edge)
            if rng.random() < math.exp(min(0.0, distance)):
                yield point_of(space, places)
                kept += 1
            if kept == KEPT:
                return


def point_of(space: Space, places: Sequence[int]) -> Choices:
    """Return the point that has these options."""
    pairs = zip(space.choices.items(), places, strict=True)
    return {name: options[place] for (name, options), place in pairs}


def fit(space: Space, log_cost: Callable[[Choices], float], aim: float, least: float) -> Tilt:
    """Return the tilt whose draws cost exp(aim) on average.

    log_cost: of a point, inf where it is none. least: the log cost of the lower bound, -inf without
    one: what costs less than the aim is then as welcome as what costs just that.
    """
    rng = random.Random(0)  # equal for every seed of a search: a seed decides the draws alone
    tilt = Tilt(tuple(np.zeros(len(options)) for options in space.choices.values()))
    for _ in range(ROUNDS):
        rows = [tilt.places(rng) for _ in range(POINTS)]
        costs = np.array([log_cost(point_of(space, places)) for places in rows])
        known = np.isfinite(costs)
        if known.sum() < 2:  # nearly all are invalid: nothing can be learnt
            break
        tilt = _refitted(tilt, _one_hot(tilt, np.array(rows)[known]), costs[known], aim, least)
    return tilt


def _one_hot(tilt: Tilt, rows: npt.NDArray[np.int64]) -> Array:
    """Return (points, all options): 1 where a point has the option."""
    columns = [np.arange(len(s)) == rows[:, [i]] for i, s in enumerate(tilt.shares)]
    return np.concatenate(columns, axis=1).astype(float)


def _refitted(tilt: Tilt, x: Array, costs: Array, aim: float, least: float) -> Tilt:
    """Return the tilt with shares fitted anew by ridge regression, and the rate for them."""
    before = np.concatenate(tilt.shares)
    residual = costs - x @ before
    centred = x - x.mean(axis=0)
    gram = centred.T @ centred + RIDGE * np.eye(x.shape[1])
    change = np.linalg.solve(gram, centred.T @ (residual - residual.mean()))
    shares = before + change
    constant = float(residual.mean() - x.mean(axis=0) @ change)
    slack = SLACK * float(np.std(costs - x @ shares))
    ends = np.cumsum([len(s) for s in tilt.shares])[:-1]
    fitted = Tilt(tuple(np.split(shares, ends)), constant)
    rate = _rate(fitted, aim, 0.0 if least == -math.inf else -STEEPEST)
    edge = slack if rate >= 0 else least - slack
    return Tilt(fitted.shares, constant, rate, edge)


def _rate(tilt: Tilt, aim: float, lowest: float) -> float:
    """Return the rate at which the mean log cost comes to `aim`, by bisection."""
    low, high = lowest, STEEPEST
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if tilt.mean(middle) > aim else (low, middle)
    return high


def _tilted(shares: Array, rate: float) -> Array:
    """Return weights proportional to exp(-rate * shares), summing to 1."""
    log = -rate * shares
    weights: Array = np.exp(log - log.max())
    weights /= weights.sum()
    return weights
