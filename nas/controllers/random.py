"""Random search: every option equally likely. The yardstick of every other controller."""

from __future__ import annotations

from optuna.samplers import BaseSampler, RandomSampler

from nas.interfaces import Space
from nas.samplers import Reseeded

OBJECTIVES = ("reward", "pareto")


def make(space: Space, *, seed: int) -> BaseSampler:
    """Return random search; it has no options."""
    return Reseeded(RandomSampler(seed=seed), seed)
