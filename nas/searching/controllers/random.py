"""Random search: each point that meets the target is as likely. What searches are compared to."""

from __future__ import annotations

import random

from optuna.samplers import BaseSampler

from nas.interfaces import Choices, Space
from nas.searching.samplers import (
    Draw,
    Past,
    Proposer,
    Violation,
    no_violation,
    random_choices,
    sample_feasible,
)

OBJECTIVES = ("reward", "pareto")


def make(
    space: Space,
    *,
    seed: int,
    constraint_violation: Violation = no_violation,
    draw: Draw = random_choices,
) -> BaseSampler:
    """Return random search, within the hard limits and where the target is; it has no options."""

    def propose(past: Past, rng: random.Random) -> Choices:
        return sample_feasible(space, rng, constraint_violation, draw)

    return Proposer(space, propose, seed)
