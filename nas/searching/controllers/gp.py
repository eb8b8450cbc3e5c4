"""Gaussian process with expected improvement (Optuna's GPSampler).

Strong below 100 trials; a proposal takes about half a second at 100 and grows with their cube, so
it is meant for a few hundred trials that are expensive each.
"""

from __future__ import annotations

from optuna.samplers import BaseSampler, GPSampler

from nas.interfaces import Space
from nas.searching.samplers import (
    Draw,
    Reseeded,
    Violation,
    check_at_least,
    no_violation,
    random_choices,
)

OBJECTIVES = ("reward", "pareto")


def make(
    space: Space,
    *,
    seed: int,
    constraint_violation: Violation = no_violation,
    draw: Draw = random_choices,
    startup: int = 10,
) -> BaseSampler:
    """Return the GP sampler. startup: random trials before the model is used."""
    check_at_least(1, startup=startup)

    def sampler(seed: int, finished: int) -> BaseSampler:
        # made anew for each trial: it keeps the parameters it has found, to begin the next fit with
        return GPSampler(seed=seed, n_startup_trials=startup)

    return Reseeded(space, sampler, seed, constraint_violation, draw, startup=startup)
