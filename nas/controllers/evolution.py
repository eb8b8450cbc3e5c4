"""Regularized (aging) evolution: mutate the best of a sample; the oldest dies, not the worst.

Source: Real et al. 2019 (AmoebaNet), algorithm 1; they use population 100 and sample 25.
"""

from __future__ import annotations

import random

from optuna.samplers import BaseSampler

from nas.interfaces import Choices, Space
from nas.samplers import History, Proposer, at_least, mutate, random_choices

OBJECTIVES = ("reward",)


def make(space: Space, *, seed: int, population: int = 50, sample: int = 10) -> BaseSampler:
    """Return aging evolution.

    population: archs alive, the first ones random. sample: how many of them, drawn with
    replacement, compete to be the parent.
    """
    at_least(1, population=population, sample=sample)

    def propose(history: History, rng: random.Random) -> Choices:
        if len(history) < population:
            return random_choices(space, rng)
        alive = history[-population:]
        parent, _ = max((rng.choice(alive) for _ in range(sample)), key=lambda member: member[1])
        return _unseen(space, parent, history, rng)

    return Proposer(space, propose, seed)


def _unseen(space: Space, parent: Choices, history: History, rng: random.Random) -> Choices:
    """Mutate until the child is new, further from the parent after each failure."""
    seen = {tuple(choices.values()) for choices, _ in history}
    child = mutate(space, parent, rng)
    for _ in range(20):
        if tuple(child[name] for name in parent) not in seen:
            break
        child = mutate(space, child, rng)
    return child
