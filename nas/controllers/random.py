"""Random search: every option equally likely. The yardstick of every other controller."""

from __future__ import annotations

import random

from optuna.samplers import BaseSampler

from nas.interfaces import Choices, Space
from nas.samplers import Excess, Past, Proposer, allowed_choices, no_excess

OBJECTIVES = ("reward", "pareto")


def make(space: Space, *, seed: int, excess: Excess = no_excess) -> BaseSampler:
    """Return random search, within the hard limits; it has no options."""

    def propose(past: Past, rng: random.Random) -> Choices:
        return allowed_choices(space, rng, excess)

    return Proposer(space, propose, seed)
