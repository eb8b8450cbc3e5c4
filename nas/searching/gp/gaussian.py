"""A Gaussian process: what a few noisy values tell of points that have none. Arrays in and out.

The kernel is a Matérn 5/2 with one length scale per group of features, plus a line through all of
them, plus a line along a `trend` that was known before. All of its parameters are fitted, maximum a
posteriori. scikit-learn's process has no priors on them, with which 10 values are enough, and its
gradients hold (points x points x features) numbers; here all length scales cost two products of
matrices.

Source: Rasmussen and Williams 2006, chapters 2, 4 and 5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize
from threadpoolctl import ThreadpoolController

Array = npt.NDArray[np.float64]
Groups = npt.NDArray[np.int64]

# what is believed of the logs of the parameters before any value is seen: mean and deviation, for
# features and values of mean 0 and deviation 1. Length scales; then the variances of the kernel's
# parts (smooth, line, trend) and of the noise
LENGTH = (1.6, 1.0)
PARTS = ((0.0, 1.0), (-0.7, 1.0), (-0.7, 1.5), (-2.3, 2.0))
CONSTANT = 4.0  # variance of the mean
JITTER = 1e-8
STEPS = 60  # of the fit
_BLAS = ThreadpoolController()
P = ParamSpec("P")
R = TypeVar("R")


def _alone(work: Callable[P, R]) -> Callable[P, R]:
    """Let one thread do it: the matrices are small, and several would mostly wait."""
    found: Callable[P, R] = _BLAS.wrap(limits=1, user_api="blas")(work)
    return found


@dataclass(frozen=True)
class Rows:
    """Points as a process sees them.

    `features`: (n, d), of mean 0 and deviation 1 over the space. `groups`: (d,), the number of each
    feature's group, from 0. `trend`: (n,), what was believed before, with mean 0 and deviation 1
    over the space; zeros where nothing was.
    """

    features: Array
    groups: Groups
    trend: Array

    def __len__(self) -> int:
        return len(self.features)

    def and_also(self, others: Rows) -> Rows:
        """Return these points and then others."""
        features = np.concatenate([self.features, others.features])
        return Rows(features, self.groups, np.append(self.trend, others.trend))

    def after(self, first: int) -> Rows:
        """Return the points from the place `first` on."""
        return Rows(self.features[first:], self.groups, self.trend[first:])


@dataclass(frozen=True)
class Process:
    """A process that has seen values.

    `factor`: of Cholesky, of the covariance of the values; what is above its diagonal means
    nothing. `fitted`: the mean (n,) of the points themselves.
    """

    rows: Rows
    parameters: Array
    centre: float
    scale: float
    factor: Array
    weights: Array
    fitted: Array

    @_alone
    def __call__(self, rows: Rows) -> tuple[Array, Array]:
        """Return the mean (m,) of points and its deviation (m,), the noise of a value left out."""
        across = _kernel(self.parameters, rows, self.rows)
        mean = self.centre + self.scale * (across @ self.weights)
        solved = solve_triangular(self.factor, across.T, lower=True, check_finite=False)
        variance = _variances(self.parameters, rows) - (solved * solved).sum(axis=0)
        return mean, self.scale * np.sqrt(np.maximum(variance, 1e-12))

    @_alone
    def means(self, rows: Rows) -> Array:
        """Return the mean (m,) of points alone, which takes far less time."""
        found: Array = _kernel(self.parameters, rows, self.rows) @ self.weights
        return self.centre + self.scale * found


@_alone
def fit(rows: Rows, values: Array, extra: Array) -> Array:
    """Return the parameters that values (n,) speak for.

    extra: the deviation (n,) that a value has beyond the common noise, as one that was not measured
    to the end.
    """
    _, scaled, scale = _standard(values)
    known = (extra / scale) ** 2
    begin = _prior(rows.groups)[0]
    # bounds only keep the arithmetic finite; the prior is what holds the parameters
    bounds = [(centre - 8, centre + 8) for centre in begin]
    found = minimize(
        _loss,
        begin,
        (rows, scaled, known, _lines(rows)),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": STEPS},
    )
    return np.asarray(found.x, dtype=np.float64)


@_alone
def conditioned(
    parameters: Array,
    rows: Rows,
    values: Array,
    extra: Array,
    like: Process | None = None,
    prefix: Process | None = None,
) -> Process:
    """Return the process of these parameters that has seen values (n,).

    like: a process whose centre and scale are kept, where some values are only believed: they must
    not make it surer than it is. prefix: one with these parameters that has seen the first of the
    points, with the same noise: its factor is extended, which takes far less time.
    """
    mean, scaled, scale = _standard(values)
    if like:
        mean, scale = like.centre, like.scale
        scaled = (values - mean) / scale
    noise = np.exp(parameters[-1]) + JITTER + (extra / scale) ** 2
    factor = _factor(parameters, rows, noise, prefix)
    weights = cho_solve((factor, True), scaled, check_finite=False)
    return Process(
        rows, parameters, mean, scale, factor, weights, mean + scale * (scaled - noise * weights)
    )


def _factor(parameters: Array, rows: Rows, noise: Array, prefix: Process | None) -> Array:
    """Return the Cholesky factor (n, n) of the covariance of the values of points."""
    first = len(prefix.rows) if prefix else 0
    if prefix and first == len(rows):
        return prefix.factor
    ahead = rows.after(first)
    corner = _kernel(parameters, ahead, ahead)
    corner[np.diag_indices(len(ahead))] += noise[first:]
    if prefix is None:
        found: Array = cho_factor(corner, lower=True, check_finite=False)[0]
        return found
    across = _kernel(parameters, ahead, prefix.rows)
    half = solve_triangular(prefix.factor, across.T, lower=True, check_finite=False).T
    factor = np.empty((len(rows), len(rows)), order="F")  # as LAPACK has it: else it is copied
    factor[:first, :first] = prefix.factor
    factor[first:, :first] = half
    factor[first:, first:] = cho_factor(corner - half @ half.T, lower=True, check_finite=False)[0]
    return factor


def _standard(values: Array) -> tuple[float, Array, float]:
    """Return values with mean 0 and deviation 1, and what brings them back."""
    mean, scale = float(values.mean()), float(values.std())
    scale = scale if scale > 1e-9 else 1.0
    return mean, (values - mean) / scale, scale


def _prior(groups: npt.NDArray[np.int64]) -> tuple[Array, Array]:
    """Return mean and deviation of the logs of the parameters."""
    rows = np.array([LENGTH] * (int(groups.max()) + 1) + list(PARTS))
    return rows[:, 0], rows[:, 1]


def _distances(parameters: Array, rows: Rows, others: Rows) -> Array:
    """Return sqrt(5) times the distances, in length scales, of points from others."""
    near = np.exp(-parameters[:-4])[rows.groups]
    a, b = rows.features * near, others.features * near
    found: Array = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)
    product = a @ b.T
    product *= 2
    found -= product
    np.maximum(found, 0, out=found)
    found *= 5
    np.sqrt(found, out=found)
    return found


def _matern(distance: Array) -> Array:
    found: Array = 1 + distance
    square = distance * distance
    square /= 3
    found += square
    np.negative(distance, out=square)
    found *= np.exp(square, out=square)
    return found


def _kernel(parameters: Array, a: Rows, b: Rows) -> Array:
    """Return the covariance (n, m); in place, as making large arrays takes longer than filling."""
    smooth, line, trend, _ = np.exp(parameters[-4:])
    found = _matern(_distances(parameters, a, b))
    found *= smooth
    product = a.features @ b.features.T
    product *= line / a.features.shape[1]
    found += product
    if a.trend.any() and b.trend.any():
        found += trend * np.outer(a.trend, b.trend) + CONSTANT
    else:
        found += CONSTANT
    return found


def _variances(parameters: Array, rows: Rows) -> Array:
    smooth, line, trend, _ = np.exp(parameters[-4:])
    squares = (rows.features**2).mean(axis=1)
    found: Array = smooth + line * squares + trend * rows.trend**2 + CONSTANT
    return found


def _lines(rows: Rows) -> tuple[Array, Array]:
    """Return the linear parts of the covariance (n, n) before their variances."""
    x = rows.features
    return x @ x.T / x.shape[1], np.outer(rows.trend, rows.trend)


def _loss(
    parameters: Array, rows: Rows, values: Array, known: Array, lines: tuple[Array, Array]
) -> tuple[float, Array]:
    """Return minus the log of the posterior, and its gradient; `lines`: of these rows."""
    count, (products, along) = len(rows), lines
    smooth, line, trend, noise = np.exp(parameters[-4:])
    distance = _distances(parameters, rows, rows)
    shape = _matern(distance)
    matrix = smooth * shape + line * products + trend * along + CONSTANT
    matrix[np.diag_indices(count)] += noise + JITTER + known
    try:
        factor = cho_factor(matrix, lower=True, check_finite=False)
    except np.linalg.LinAlgError:
        return 1e10, np.zeros_like(parameters)
    weights = cho_solve(factor, values, check_finite=False)
    inverse = cho_solve(factor, np.eye(count), check_finite=False)
    pull = np.outer(weights, weights) - inverse  # d(loss) = -1/2 sum of pull * d(matrix)
    slopes = smooth * _lengths(pull, distance, rows, np.exp(-parameters[:-4])[rows.groups])
    parts = [
        smooth * (pull * shape).sum(),
        line * (pull * products).sum(),
        trend * (pull * along).sum(),
        noise * np.trace(pull),
    ]
    centre, deviation = _prior(rows.groups)
    strain = (parameters - centre) / deviation
    loss = 0.5 * values @ weights + np.log(np.diag(factor[0])).sum() + 0.5 * strain @ strain
    return float(loss), -0.5 * np.concatenate([slopes, parts]) + strain / deviation


def _lengths(pull: Array, distance: Array, rows: Rows, near: Array) -> Array:
    """Return the sums of pull * d(shape) / d(log length scale), one per group.

    d(shape) is 5/3 (1 + r) exp(-r) times the squared distance along the group's features, whose
    weighted sum needs no (n, n, d) array.
    """
    slope = pull * (5 / 3) * (1 + distance) * np.exp(-distance)
    z = rows.features * near
    along = 2 * (z * z * slope.sum(axis=1)[:, None]).sum(axis=0) - 2 * ((slope @ z) * z).sum(axis=0)
    return np.bincount(rows.groups, weights=along).astype(np.float64)
