"""Regularized (aging) evolution: mutate the best of a sample; the oldest dies, not the worst.

Source: Real et al. 2019 (AmoebaNet), algorithm 1; they use population 100 and sample 25.
"""

from __future__ import annotations

import random

from optuna.samplers import BaseSampler

from nas.interfaces import Choices, Space
from nas.searching.samplers import (
    Draw,
    Past,
    Proposer,
    Violation,
    check_at_least,
    mutated_until_new,
    no_violation,
    population_size,
    random_choices,
    sample_feasible,
)

OBJECTIVES = ("reward",)


def make(
    space: Space,
    *,
    seed: int,
    constraint_violation: Violation = no_violation,
    draw: Draw = random_choices,
    population: int = 50,
    sample: int = 10,
) -> BaseSampler:
    """Return aging evolution.

    population: archs alive, at most: they are a fifth of the trials so far, and 6 at first, which
    are random. sample: how many of them, drawn with replacement, compete to be the parent.
    """
    check_at_least(1, population=population, sample=sample)
    startup = population_size(population, 0)

    def propose(past: Past, rng: random.Random) -> Choices:
        alive = past.done[-population_size(population, len(past.done)) :]
        if len(alive) < startup:
            return sample_feasible(space, rng, constraint_violation, draw)
        parent, _ = max((rng.choice(alive) for _ in range(sample)), key=lambda member: member[1])
        return mutated_until_new(space, parent, past, constraint_violation, rng)

    return Proposer(space, propose, seed, startup=startup)
