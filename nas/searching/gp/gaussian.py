"""Gaussian process regression (Kriging): posterior mean and deviation of noisy values. Arrays only.

The kernel is the sum of a Matérn 5/2 with one length scale per group of features, a linear kernel
over all of them, and a linear kernel along `trend`, a mean known beforehand. All hyperparameters
are fitted, maximum a posteriori. scikit-learn's has no priors on them, with which 10 values are
enough, and its gradients hold (n, n, d) numbers; here those of all length scales cost two products
of matrices.

| here | means |
|---|---|
| n, m, d | points with a value (training), points without (test), features |
| Inputs | X: features (n, d), the group of each feature (d,), the trend (n,) |
| values | y, (n,); `y_mean`, `y_std`: what standardizes them |
| extra_std | deviation (n,) of a value's noise beyond the common one |
| theta | logs of the length scales, one a group, then of the variances of VARIANCE_PRIORS |
| cov | the kernel matrix k(X, X'), without noise |
| noise | (n,), the diagonal that is added to cov(X, X), with the values standardized |
| cholesky | L, lower, of cov(X, X) + diag(noise) = L L^T |
| alpha | (cov(X, X) + diag(noise))^-1 y, standardized |
| train_mean | posterior mean (n,) at the training points |

Source: Rasmussen and Williams 2006, chapters 2 (algorithm 2.1), 4 and 5.
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

# normal priors of theta, as (mean, deviation), for features and values of mean 0 and deviation 1:
# of each length scale; of the variances of the Matérn, linear and trend kernels, and of the noise
LENGTH_PRIOR = (1.6, 1.0)
VARIANCE_PRIORS = ((0.0, 1.0), (-0.7, 1.0), (-0.7, 1.5), (-2.3, 2.0))
MEAN_VARIANCE = 4.0  # of the constant mean, which is integrated out
JITTER = 1e-8
MAX_ITERATIONS = 60  # of L-BFGS-B
_BLAS = ThreadpoolController()
P = ParamSpec("P")
R = TypeVar("R")


def _single_threaded(function: Callable[P, R]) -> Callable[P, R]:
    """Limit BLAS to one thread: the matrices are small, several threads would mostly wait."""
    found: Callable[P, R] = _BLAS.wrap(limits=1, user_api="blas")(function)
    return found


@dataclass(frozen=True)
class Inputs:
    """Points as inputs X of the process.

    `features`: (n, d), of mean 0 and deviation 1 over the space. `groups`: (d,), the number of each
    feature's group, from 0; a group shares a length scale. `trend`: (n,), the prior mean, of mean 0
    and deviation 1 over the space; zeros without one.
    """

    features: Array
    groups: Groups
    trend: Array

    def __len__(self) -> int:
        return len(self.features)

    def append(self, others: Inputs) -> Inputs:
        """Return these points followed by others."""
        features = np.concatenate([self.features, others.features])
        return Inputs(features, self.groups, np.append(self.trend, others.trend))

    def since(self, first: int) -> Inputs:
        """Return the points from index `first` on."""
        return Inputs(self.features[first:], self.groups, self.trend[first:])


@dataclass(frozen=True)
class GaussianProcess:
    """The posterior given values at `inputs`; the notation is the module's.

    `cholesky`: only its lower triangle is meant, what is above the diagonal is left over.
    """

    inputs: Inputs
    theta: Array
    y_mean: float
    y_std: float
    cholesky: Array
    alpha: Array
    train_mean: Array

    @_single_threaded
    def predict(self, inputs: Inputs) -> tuple[Array, Array]:
        """Return the posterior mean (m,) and deviation (m,) of points, without noise."""
        cov = _covariance(self.theta, inputs, self.inputs)
        mean = self.y_mean + self.y_std * (cov @ self.alpha)
        solved = solve_triangular(self.cholesky, cov.T, lower=True, check_finite=False)
        variance = _prior_variance(self.theta, inputs) - (solved * solved).sum(axis=0)
        return mean, self.y_std * np.sqrt(np.maximum(variance, 1e-12))

    @_single_threaded
    def mean_at(self, inputs: Inputs) -> Array:
        """Return the posterior mean (m,) alone, which takes far less time."""
        found: Array = _covariance(self.theta, inputs, self.inputs) @ self.alpha
        return self.y_mean + self.y_std * found


@_single_threaded
def fit_hyperparameters(inputs: Inputs, values: Array, extra_std: Array) -> Array:
    """Return theta fitted to values (n,), maximum a posteriori.

    extra_std: deviation (n,) of a value beyond the common noise, as of a training stopped early.
    """
    _, scaled, y_std = _standardize(values)
    extra_noise = (extra_std / y_std) ** 2
    begin = _hyperprior(inputs.groups)[0]
    # bounds only keep the arithmetic finite; the prior is what holds theta
    bounds = [(centre - 8, centre + 8) for centre in begin]
    found = minimize(
        _negative_log_posterior,
        begin,
        (inputs, scaled, extra_noise, _linear_kernels(inputs)),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": MAX_ITERATIONS},
    )
    return np.asarray(found.x, dtype=np.float64)


@_single_threaded
def condition(
    theta: Array,
    inputs: Inputs,
    values: Array,
    extra_std: Array,
    like: GaussianProcess | None = None,
    prefix: GaussianProcess | None = None,
) -> GaussianProcess:
    """Return the posterior given values (n,) at points.

    like: a process whose `y_mean` and `y_std` are kept, where some values are imputed: they must
    not make it surer than it is. prefix: the posterior of the first of the points, with the same
    theta and noise: its Cholesky factor is extended, which takes far less time.
    """
    mean, scaled, y_std = _standardize(values)
    if like:
        mean, y_std = like.y_mean, like.y_std
        scaled = (values - mean) / y_std
    noise = np.exp(theta[-1]) + JITTER + (extra_std / y_std) ** 2
    cholesky = _cholesky(theta, inputs, noise, prefix)
    alpha = cho_solve((cholesky, True), scaled, check_finite=False)
    return GaussianProcess(
        inputs, theta, mean, y_std, cholesky, alpha, mean + y_std * (scaled - noise * alpha)
    )


def _cholesky(theta: Array, inputs: Inputs, noise: Array, prefix: GaussianProcess | None) -> Array:
    """Return L (n, n) of cov(X, X) + diag(noise); `prefix` holds that of the first points."""
    first = len(prefix.inputs) if prefix else 0
    if prefix and first == len(inputs):
        return prefix.cholesky
    ahead = inputs.since(first)
    corner = _covariance(theta, ahead, ahead)
    corner[np.diag_indices(len(ahead))] += noise[first:]
    if prefix is None:
        found: Array = cho_factor(corner, lower=True, check_finite=False)[0]
        return found
    cov = _covariance(theta, ahead, prefix.inputs)
    half = solve_triangular(prefix.cholesky, cov.T, lower=True, check_finite=False).T
    count = len(inputs)
    cholesky = np.empty((count, count), order="F")  # as LAPACK has it: else it is copied
    cholesky[:first, :first] = prefix.cholesky
    cholesky[first:, :first] = half
    cholesky[first:, first:] = cho_factor(corner - half @ half.T, lower=True, check_finite=False)[0]
    return cholesky


def _standardize(values: Array) -> tuple[float, Array, float]:
    """Return the mean of values, the values standardized, and their deviation."""
    mean, y_std = float(values.mean()), float(values.std())
    y_std = y_std if y_std > 1e-9 else 1.0
    return mean, (values - mean) / y_std, y_std


def _hyperprior(groups: npt.NDArray[np.int64]) -> tuple[Array, Array]:
    """Return mean and deviation of the normal priors of theta."""
    priors = np.array([LENGTH_PRIOR] * (int(groups.max()) + 1) + list(VARIANCE_PRIORS))
    return priors[:, 0], priors[:, 1]


def _scaled_distances(theta: Array, inputs: Inputs, others: Inputs) -> Array:
    """Return sqrt(5) times the Euclidean distances (n, m) of points, in length scales."""
    inverse_lengths = np.exp(-theta[:-4])[inputs.groups]
    a, b = inputs.features * inverse_lengths, others.features * inverse_lengths
    found: Array = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)
    product = a @ b.T
    product *= 2
    found -= product
    np.maximum(found, 0, out=found)
    found *= 5
    np.sqrt(found, out=found)
    return found


def _matern52(distance: Array) -> Array:
    """Return (1 + r + r^2 / 3) exp(-r) of scaled distances."""
    found: Array = 1 + distance
    square = distance * distance
    square /= 3
    found += square
    np.negative(distance, out=square)
    found *= np.exp(square, out=square)
    return found


def _covariance(theta: Array, a: Inputs, b: Inputs) -> Array:
    """Return cov (n, m); in place, as allocating large arrays takes longer than filling them."""
    matern_variance, linear_variance, trend_variance, _ = np.exp(theta[-4:])
    found = _matern52(_scaled_distances(theta, a, b))
    found *= matern_variance
    product = a.features @ b.features.T
    product *= linear_variance / a.features.shape[1]
    found += product
    if a.trend.any() and b.trend.any():
        found += trend_variance * np.outer(a.trend, b.trend) + MEAN_VARIANCE
    else:
        found += MEAN_VARIANCE
    return found


def _prior_variance(theta: Array, inputs: Inputs) -> Array:
    """Return the diagonal (n,) of cov(X, X)."""
    matern_variance, linear_variance, trend_variance, _ = np.exp(theta[-4:])
    squares = (inputs.features**2).mean(axis=1)
    found: Array = (
        matern_variance
        + linear_variance * squares
        + trend_variance * inputs.trend**2
        + MEAN_VARIANCE
    )
    return found


def _linear_kernels(inputs: Inputs) -> tuple[Array, Array]:
    """Return the linear and the trend kernel (n, n) without their variances."""
    x = inputs.features
    return x @ x.T / x.shape[1], np.outer(inputs.trend, inputs.trend)


def _negative_log_posterior(
    theta: Array, inputs: Inputs, values: Array, extra_noise: Array, kernels: tuple[Array, Array]
) -> tuple[float, Array]:
    """Return minus the log posterior density of theta, up to a constant, and its gradient.

    kernels: `_linear_kernels` of the inputs, which do not depend on theta.
    """
    count, (linear, trend) = len(inputs), kernels
    matern_variance, linear_variance, trend_variance, noise = np.exp(theta[-4:])
    distance = _scaled_distances(theta, inputs, inputs)
    matern = _matern52(distance)
    matrix = matern_variance * matern + linear_variance * linear + trend_variance * trend
    matrix += MEAN_VARIANCE
    matrix[np.diag_indices(count)] += noise + JITTER + extra_noise
    try:
        cholesky = cho_factor(matrix, lower=True, check_finite=False)
    except np.linalg.LinAlgError:
        return 1e10, np.zeros_like(theta)
    alpha = cho_solve(cholesky, values, check_finite=False)
    inverse = cho_solve(cholesky, np.eye(count), check_finite=False)
    outer = np.outer(alpha, alpha) - inverse  # d(loss) = -1/2 sum of outer * d(matrix)
    length_slopes = matern_variance * _length_gradient(
        outer, distance, inputs, np.exp(-theta[:-4])[inputs.groups]
    )
    variance_slopes = [
        matern_variance * (outer * matern).sum(),
        linear_variance * (outer * linear).sum(),
        trend_variance * (outer * trend).sum(),
        noise * np.trace(outer),
    ]
    centre, std = _hyperprior(inputs.groups)
    z_theta = (theta - centre) / std
    loss = 0.5 * values @ alpha + np.log(np.diag(cholesky[0])).sum() + 0.5 * z_theta @ z_theta
    return float(loss), -0.5 * np.concatenate([length_slopes, variance_slopes]) + z_theta / std


def _length_gradient(
    outer: Array, distance: Array, inputs: Inputs, inverse_lengths: Array
) -> Array:
    """Return the sums of outer * d(matern) / d(log length scale), one per group.

    d(matern) is 5/3 (1 + r) exp(-r) times the squared distance along the group's features, whose
    weighted sum needs no (n, n, d) array.
    """
    slope = outer * (5 / 3) * (1 + distance) * np.exp(-distance)
    z = inputs.features * inverse_lengths
    along = 2 * (z * z * slope.sum(axis=1)[:, None]).sum(axis=0) - 2 * ((slope @ z) * z).sum(axis=0)
    return np.bincount(inputs.groups, weights=along).astype(np.float64)
