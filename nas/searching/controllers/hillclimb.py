"""The trivial search: half random points, half mutations of the best so far.

Behind the reference designs that every search begins with it is the search that a person would
write in a minute, and the one that every other controller has to beat: for so few trials as real
trainings allow, many do not.
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
    mutated_until_new,
    no_violation,
    random_choices,
    sample_feasible,
)

OBJECTIVES = ("reward",)
RANDOM = 0.5  # share of the proposals that are random


def make(
    space: Space,
    *,
    seed: int,
    constraint_violation: Violation = no_violation,
    draw: Draw = random_choices,
) -> BaseSampler:
    """Return the trivial search; it has no options."""

    def propose(past: Past, rng: random.Random) -> Choices:
        if not past.done or rng.random() < RANDOM:
            return sample_feasible(space, rng, constraint_violation, draw)
        best, _ = max(past.done, key=lambda member: member[1])
        return mutated_until_new(space, best, past, constraint_violation, rng)

    return Proposer(space, propose, seed, startup=1)
