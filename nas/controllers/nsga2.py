"""NSGA-II: evolution by non-dominated sorting, for two objectives or one.

Source: Deb et al. 2002.
"""

from __future__ import annotations

from optuna.samplers import BaseSampler, NSGAIISampler

from nas.interfaces import Space
from nas.samplers import Draw, Excess, Reseeded, at_least, no_excess, random_choices

OBJECTIVES = ("reward", "pareto")


def make(
    space: Space,
    *,
    seed: int,
    excess: Excess = no_excess,
    draw: Draw = random_choices,
    population: int = 50,
) -> BaseSampler:
    """Return NSGA-II. population: archs in a generation."""
    at_least(2, population=population)
    return Reseeded(space, NSGAIISampler(seed=seed, population_size=population), seed, excess, draw)
