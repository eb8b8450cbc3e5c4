"""Tree-structured Parzen estimator, Optuna's default.

Sources: Bergstra et al. 2011; Watanabe 2023 (multivariate form).
"""

from __future__ import annotations

from optuna.samplers import BaseSampler, TPESampler

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
    candidates: int = 24,
) -> BaseSampler:
    """Return TPE over all choices jointly.

    startup: random trials before the model is used. candidates: draws per proposal, of which the
    most promising is taken.
    """
    check_at_least(1, startup=startup, candidates=candidates)

    def sampler(seed: int, finished: int) -> BaseSampler:
        # Optuna's default for two objectives models each choice alone and is ten times slower
        return TPESampler(
            seed=seed, multivariate=True, n_startup_trials=startup, n_ei_candidates=candidates
        )

    return Reseeded(space, sampler, seed, constraint_violation, draw, startup=startup)
