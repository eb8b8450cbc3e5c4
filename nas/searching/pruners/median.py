"""Stop what is below the median of the earlier trials at the same epoch.

Source: Golovin et al. 2017 (Vizier), section 3.2, as Optuna has it.
"""

from __future__ import annotations

from optuna.pruners import BasePruner, MedianPruner


def make(*, rungs: tuple[int, ...], startup: int = 5, warmup: int = 0) -> BasePruner:
    """Return the pruner.

    startup: trials that are finished before any is stopped. warmup: epochs without decisions.
    """
    return MedianPruner(n_startup_trials=startup, n_warmup_steps=warmup)
