"""Hyperband: several successive halvings side by side, from early to late first decisions.

Source: Li et al. 2018, as Optuna has it.
"""

from __future__ import annotations

from optuna.pruners import BasePruner, HyperbandPruner


def make(*, rungs: tuple[int, ...], reduction_factor: int = 3) -> BasePruner:
    """Return the pruner. reduction_factor: one in so many goes on at each rung."""
    return HyperbandPruner(
        min_resource=rungs[0], max_resource=rungs[-1], reduction_factor=reduction_factor
    )
