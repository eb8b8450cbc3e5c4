"""Regularized (aging) evolution: mutate the best of a sample; the oldest dies, not the worst.

Source: Real et al. 2019 (AmoebaNet), algorithm 1; they use population 100 and sample 25.
"""

from __future__ import annotations

import random

from optuna.samplers import BaseSampler

from nas.interfaces import Choices, Space
from nas.samplers import (
    Draw,
    Excess,
    Past,
    Proposer,
    allowed_choices,
    at_least,
    key_of,
    mutate,
    no_excess,
    random_choices,
)

OBJECTIVES = ("reward",)


def make(
    space: Space,
    *,
    seed: int,
    excess: Excess = no_excess,
    draw: Draw = random_choices,
    population: int = 50,
    sample: int = 10,
) -> BaseSampler:
    """Return aging evolution.

    population: archs alive, the first ones random. sample: how many of them, drawn with
    replacement, compete to be the parent.
    """
    at_least(1, population=population, sample=sample)

    def propose(past: Past, rng: random.Random) -> Choices:
        if len(past.done) < population:
            return allowed_choices(space, rng, excess, draw)
        alive = past.done[-population:]
        parent, _ = max((rng.choice(alive) for _ in range(sample)), key=lambda member: member[1])
        return _child(space, parent, past, excess, rng)

    return Proposer(space, propose, seed)


def _child(
    space: Space, parent: Choices, past: Past, excess: Excess, rng: random.Random
) -> Choices:
    """Mutate until the child is new and within the limits, further from the parent each time."""
    child = mutate(space, parent, rng)
    for _ in range(20):
        if key_of(child) not in past.seen and excess(child) <= 0:
            break
        # too far above the limits leads nowhere: start from the parent again
        child = mutate(space, child if excess(child) <= 0 else parent, rng)
    return child
