"""Random search: each point that meets the target is as likely. What searches are compared to."""

from __future__ import annotations

import random

from optuna.samplers import BaseSampler

from nas.interfaces import Choices, Space
from nas.searching.samplers import (
    Draw,
    Excess,
    Past,
    Proposer,
    allowed_choices,
    no_excess,
    random_choices,
)

OBJECTIVES = ("reward", "pareto")


def make(
    space: Space, *, seed: int, excess: Excess = no_excess, draw: Draw = random_choices
) -> BaseSampler:
    """Return random search, within the hard limits and where the target is; it has no options."""

    def propose(past: Past, rng: random.Random) -> Choices:
        return allowed_choices(space, rng, excess, draw)

    return Proposer(space, propose, seed)
