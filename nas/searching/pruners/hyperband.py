"""Hyperband: several successive halvings side by side, from early to late first decisions.

Source: Li et al. 2018, as Optuna has it.
"""

from __future__ import annotations

from optuna.pruners import BasePruner, HyperbandPruner

from nas.core.errors import OptionError


def make(*, rungs: tuple[int, ...], reduction_factor: int = 3) -> BasePruner:
    """Return the pruner. reduction_factor: one in so many goes on at each rung."""
    if reduction_factor < 2:  # Optuna would find it at the first report
        raise OptionError(
            f"pruner hyperband: reduction_factor must be at least 2, not {reduction_factor}"
        )
    return HyperbandPruner(
        min_resource=rungs[0], max_resource=rungs[-1], reduction_factor=reduction_factor
    )
