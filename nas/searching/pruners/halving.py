"""Successive halving, asynchronous: at each rung the best share of those that came so far goes on.

Source: Li et al. 2020 (ASHA), as Optuna has it: a trial never waits for others.
"""

from __future__ import annotations

from optuna.pruners import BasePruner, SuccessiveHalvingPruner


def make(*, rungs: tuple[int, ...], reduction_factor: int = 3, first_rung: int = 0) -> BasePruner:
    """Return the pruner.

    reduction_factor: one in so many goes on. first_rung: epochs before the first decision, 0: the
    first at which accuracy is asked.
    """
    return SuccessiveHalvingPruner(
        min_resource=max(first_rung, rungs[0]), reduction_factor=reduction_factor
    )
