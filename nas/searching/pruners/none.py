"""Stop nothing: every training runs to its end."""

from __future__ import annotations

from optuna.pruners import BasePruner, NopPruner


def make(*, rungs: tuple[int, ...]) -> BasePruner:
    """Return the pruner."""
    return NopPruner()
