"""What a proposal may bring: expected improvement of a reward, or of the area under a front. Pure.

Sources: Jones et al. 1998; Emmerich et al. 2006 (expected hypervolume improvement), here with one
objective that is known exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr

from nas.searching.gp.gaussian import Array
from nas.searching.objective import pareto_front


def improvement(mean: Array, deviation: Array, best: Array | float) -> Array:
    """Return by how much normal values are expected to exceed `best`, 0 where they do not."""
    gain, deviation = mean - best, np.maximum(deviation, 1e-12)
    z = np.clip(gain / deviation, -40, 40)  # beyond, both terms are what they are at the ends
    density = np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
    found: Array = np.maximum(gain * ndtr(z) + deviation * density, 0.0)
    return found


def staircase(points: Sequence[tuple[float, float]]) -> tuple[Array, Array]:
    """Return the front of (value, cost) points as steps: costs ascending, and the value from each.

    Values are to be high and costs low. Both arrays are (k,).
    """
    front = pareto_front([(-cost, value) for value, cost in points])
    steps = np.array([points[index] for index in front])  # cheapest first
    return steps[:, 1], steps[:, 0]


def volume(
    mean: Array,
    deviation: Array,
    cost: Array,
    steps: tuple[Array, Array],
    corner: tuple[float, float],
) -> Array:
    """Return the area by which points (m,) are expected to extend a front.

    The value of each is normal, its cost is known. `steps` come from `staircase`; `corner` is the
    worst value and the highest cost that count.
    """
    costs, values = steps
    edges = np.concatenate([[-np.inf], costs, [np.inf]])
    heights = np.concatenate([[corner[0]], np.maximum(values, corner[0])])
    low = np.maximum(edges[:-1], cost[:, None])
    high = np.minimum(edges[1:], corner[1])
    widths = np.maximum(high - low, 0.0)
    gains = widths * improvement(mean[:, None], deviation[:, None], heights)
    return np.asarray(gains.sum(axis=1), dtype=np.float64)
