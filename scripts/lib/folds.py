"""Folds for what is held out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def deal(rows: npt.ArrayLike, folds: int, seed: int) -> npt.NDArray[np.int64]:
    """Return the fold of each row; equal rows share one."""
    _, network = np.unique(np.asarray(rows), axis=0, return_inverse=True)
    order: Any = np.random.default_rng(seed).permutation(int(network.max()) + 1)
    return np.asarray((order % folds)[network.ravel()], dtype=np.int64)
