"""NSGA-II: evolution by non-dominated sorting, for two objectives or one.

Source: Deb et al. 2002.
"""

from __future__ import annotations

from optuna.samplers import BaseSampler, NSGAIISampler

from nas.interfaces import Space
from nas.searching.samplers import (
    Draw,
    Excess,
    Reseeded,
    at_least,
    grown,
    no_excess,
    random_choices,
)

OBJECTIVES = ("reward", "pareto")


def make(
    space: Space,
    *,
    seed: int,
    excess: Excess = no_excess,
    draw: Draw = random_choices,
    population: int = 50,
) -> BaseSampler:
    """Return NSGA-II.

    population: archs in a generation, at most: it is a fifth of the trials so far, and 6 at first.
    """
    at_least(2, population=population)

    def sampler(seed: int, finished: int) -> BaseSampler:
        return NSGAIISampler(seed=seed, population_size=grown(population, finished))

    return Reseeded(space, sampler, seed, excess, draw, startup=grown(population, 0))
