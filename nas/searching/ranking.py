"""How well one ranking agrees with another: Kendall's tau-b, its interval, its noise ceiling.

Rankings are given by values, one per arch. (tau + 1) / 2 is the share of pairs that both order
alike, where there are no ties.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

DRAWS = 2000
LEVEL = 0.95
_NORMAL = 1.959964  # the quantile of LEVEL on both sides
_VARIANCE = 0.437  # of arctanh tau, times n - 4


class Tau(NamedTuple):
    """Kendall's tau-b and the ends of its 95 % interval, of `n` archs; nan where undefined."""

    value: float
    low: float
    high: float
    n: int


def kendall(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Return Kendall's tau-b of two rankings (n,), in -1..1; nan where one is all ties.

    Raises:
        ValueError: the lengths differ, or a value is not finite.
    """
    weights = np.ones((1, len(np.atleast_1d(first))))
    return float(_taus(*_signs(first, second), weights)[0])


def agreement(pairs: Iterable[tuple[npt.ArrayLike, npt.ArrayLike]], *, seed: int = 0) -> Tau:
    """Return the mean tau-b of pairs of rankings of the same n archs, with its interval.

    Archs are drawn again with replacement (percentile bootstrap, seeded): the question is what
    other archs of the space would have shown. A draw's copies of one arch are tied in both
    rankings, which tau-b leaves out. Draws of a perfect ranking are perfect too, however few the
    archs; so the interval takes in Fieller's, which is never empty. Up to 4 archs it is -1..1.
    Simulated, true tau 0.3 to 0.9: the 95 % interval covers 93 to 100 % of the time from n = 8.

    Sources: Kendall 1945 (tau-b); Fieller, Hartley, Pearson 1957 (variance of arctanh tau).

    Raises:
        ValueError: there is no pair, the lengths differ, or a value is not finite.
    """
    signs = [_signs(first, second) for first, second in pairs]
    if len({len(agree) for agree, _, _ in signs}) != 1:
        raise ValueError("agreement takes at least one pair of rankings, all of the same archs")
    n = len(signs[0][0])
    value = _mean_tau(signs, np.ones((1, n)))[0]
    if math.isnan(value):
        return Tau(math.nan, math.nan, math.nan, n)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(n, np.full(n, 1 / n), size=DRAWS).astype(np.float64)
    edges = np.nanquantile(_mean_tau(signs, counts), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    low, high = _fieller(value, n)
    return Tau(float(value), min(float(edges[0]), low), max(float(edges[1]), high), n)


def against(columns: npt.ArrayLike, reference: npt.ArrayLike, *, seed: int = 0) -> Tau:
    """Return how well one training ranks: the mean tau of each column (n, seeds) to a reference."""
    values = np.asarray(columns, dtype=np.float64)
    return agreement([(column, reference) for column in values.T], seed=seed)


def ceiling(columns: npt.ArrayLike, *, seed: int = 0) -> Tau:
    """Return seed against seed: the mean tau over all pairs of columns of (n, seeds).

    What training noise leaves of the ranking: about the best that any proxy of the same noise can
    reach against one such training.

    Raises:
        ValueError: there are fewer than two seeds.
    """
    values = np.asarray(columns, dtype=np.float64)
    return agreement(combinations(values.T, 2), seed=seed)


def archs_to_show(tau: float, bar: float) -> int:
    """Return about how many archs it takes for an interval around `tau` to start at `bar` < tau."""
    distance = math.atanh(min(tau, 0.99)) - math.atanh(bar)
    return math.ceil(4 + _VARIANCE * (_NORMAL / distance) ** 2)


def _signs(first: npt.ArrayLike, second: npt.ArrayLike) -> tuple[Values, Values, Values]:
    """Return for each pair of archs whether both agree (1, -1, 0: tie), and who has no tie."""
    a, b = (np.asarray(side, dtype=np.float64) for side in (first, second))
    if a.shape != b.shape or a.ndim != 1 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError(
            f"rankings must be finite and equally long, not {a.shape} and {b.shape} values"
        )
    one, other = (np.sign(side[:, None] - side[None, :]) for side in (a, b))
    return one * other, np.abs(one), np.abs(other)


def _taus(agree: Values, one: Values, other: Values, weights: Values) -> Values:
    """Return tau-b for each row of `weights` (draws, n): how often each arch was drawn."""
    total, left, right = (((weights @ m) * weights).sum(1) for m in (agree, one, other))
    scale = np.sqrt(left * right)
    taus: Values = np.divide(total, scale, out=np.full(len(weights), np.nan), where=scale > 0)
    return taus


def _mean_tau(signs: list[tuple[Values, Values, Values]], weights: Values) -> Values:
    mean: Values = np.mean([_taus(*each, weights) for each in signs], axis=0)
    return mean


def _fieller(tau: float, n: int) -> tuple[float, float]:
    """Return the normal interval of arctanh tau; a perfect tau counts as half a pair off."""
    if n <= 4:
        return -1.0, 1.0
    edge = 1 - 2 / (n * (n - 1))
    centre = math.atanh(min(max(tau, -edge), edge))
    half = _NORMAL * math.sqrt(_VARIANCE / (n - 4))
    return math.tanh(centre - half), max(tau, math.tanh(centre + half))
