"""Acquisition functions: expected improvement (EI), expected hypervolume improvement (EHVI).

Sources: Jones et al. 1998; Emmerich et al. 2006 (expected hypervolume improvement), here with one
objective that is known exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr

from nas.searching.gp.gaussian import Array
from nas.searching.objective import pareto_front


def ei(mean: Array, std: Array, best: Array | float) -> Array:
    """Return E[max(y - best, 0)] of normal values y with this mean and deviation."""
    gain, std = mean - best, np.maximum(std, 1e-12)
    z = np.clip(gain / std, -40, 40)  # beyond, both terms are what they are at the ends
    density = np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
    found: Array = np.maximum(gain * ndtr(z) + std * density, 0.0)
    return found


def staircase(points: Sequence[tuple[float, float]]) -> tuple[Array, Array]:
    """Return the Pareto front of (value, cost) points as a step function: its costs and values.

    Values are maximised and costs minimised. Both arrays are (k,), costs ascending.
    """
    front = pareto_front([(-cost, value) for value, cost in points])
    steps = np.array([points[index] for index in front])  # cheapest first
    return steps[:, 1], steps[:, 0]


def ehvi(
    mean: Array,
    std: Array,
    cost: Array,
    steps: tuple[Array, Array],
    corner: tuple[float, float],
) -> Array:
    """Return the expected hypervolume improvement (m,) of points over a front.

    The value of each is normal, its cost is known. `steps` come from `staircase`; `corner` is the
    reference point: the worst value and the highest cost that count.
    """
    costs, values = steps
    edges = np.concatenate([[-np.inf], costs, [np.inf]])
    heights = np.concatenate([[corner[0]], np.maximum(values, corner[0])])
    low = np.maximum(edges[:-1], cost[:, None])
    high = np.minimum(edges[1:], corner[1])
    widths = np.maximum(high - low, 0.0)
    gains = widths * ei(mean[:, None], std[:, None], heights)
    return np.asarray(gains.sum(axis=1), dtype=np.float64)
