"""NSGA-II: evolution by non-dominated sorting, for two objectives or one.

Source: Deb et al. 2002.
"""

from __future__ import annotations

from optuna.samplers import BaseSampler, NSGAIISampler

from nas.interfaces import Space
from nas.searching.samplers import (
    Draw,
    Reseeded,
    Violation,
    check_at_least,
    no_violation,
    population_size,
    random_choices,
)

OBJECTIVES = ("reward", "pareto")


def make(
    space: Space,
    *,
    seed: int,
    constraint_violation: Violation = no_violation,
    draw: Draw = random_choices,
    population: int = 50,
) -> BaseSampler:
    """Return NSGA-II.

    population: archs in a generation, at most: it is a fifth of the trials so far, and 6 at first.
    """
    check_at_least(2, population=population)

    def sampler(seed: int, finished: int) -> BaseSampler:
        return NSGAIISampler(seed=seed, population_size=population_size(population, finished))

    return Reseeded(
        space, sampler, seed, constraint_violation, draw, startup=population_size(population, 0)
    )
