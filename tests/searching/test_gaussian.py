"""The Gaussian process: gradients, what it learns, and that a prior can be unlearnt."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from threadpoolctl import threadpool_info, threadpool_limits

from nas.searching.gp import gaussian
from nas.searching.gp.gaussian import Array, Inputs, condition, fit_hyperparameters

GROUPS = np.array([0, 0, 1, 2])


def drawn(count: int, seed: int = 0) -> Inputs:
    rng = np.random.default_rng(seed)
    return Inputs(rng.normal(size=(count, 4)), GROUPS, np.zeros(count))


def truth(rows: Inputs) -> Array:
    """Depend on three of four features."""
    x = rows.features
    return 60 + 2 * x[:, 0] - np.sin(2 * x[:, 1]) + 0.5 * x[:, 2] ** 2


def test_the_gradient_is_that_of_the_negative_log_posterior() -> None:
    rng = np.random.default_rng(1)
    rows = replace(drawn(15), trend=rng.normal(size=15))
    values, known = rng.normal(size=15), rng.random(15)
    at = gaussian._hyperprior(GROUPS)[0] + 0.3 * rng.normal(size=7)
    given = rows, values, known, gaussian._linear_kernels(rows)

    def loss(parameters: Array) -> float:
        return gaussian._negative_log_posterior(parameters, *given)[0]

    steps = 1e-5 * np.eye(7)
    slopes = [(loss(at + step) - loss(at - step)) / 2e-5 for step in steps]
    gradient = gaussian._negative_log_posterior(at, *given)[1]
    assert gradient == pytest.approx(slopes, rel=1e-5, abs=1e-6)


def test_it_predicts_what_it_has_not_seen_and_knows_how_well() -> None:
    seen, unseen = drawn(80), drawn(300, seed=1)
    noise = np.random.default_rng(2).normal(0, 0.3, len(seen))
    values, extra = truth(seen) + noise, np.zeros(len(seen))
    process = condition(fit_hyperparameters(seen, values, extra), seen, values, extra)
    mean, deviation = process.predict(unseen)
    error = mean - truth(unseen)
    assert np.sqrt(np.mean(error**2)) < 0.35 * truth(unseen).std()
    assert np.mean(abs(error) < 2 * deviation) > 0.7
    # the noise of what was seen is smoothed away
    assert np.std(process.predict(seen)[0] - truth(seen)) < np.std(noise)


def test_an_uncertain_value_counts_less() -> None:
    rows = drawn(30)
    values, extra = truth(rows), np.zeros(30)
    values[3] += 4.0
    parameters = fit_hyperparameters(rows, values, extra)
    trusted = condition(parameters, rows, values, extra).predict(rows)[0][3]
    doubted = condition(parameters, rows, values, np.where(np.arange(30) == 3, 5.0, 0.0))
    assert doubted.predict(rows)[0][3] < trusted


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_trend_helps_whichever_way_it_points(sign: float) -> None:
    seen, unseen = drawn(12), drawn(300, seed=1)
    hint, later = (sign * (truth(rows) - 60) / 2 for rows in (seen, unseen))
    values, extra = truth(seen), np.zeros(len(seen))

    def error(seen: Inputs, unseen: Inputs) -> float:
        process = condition(fit_hyperparameters(seen, values, extra), seen, values, extra)
        return float(np.sqrt(np.mean((process.predict(unseen)[0] - truth(unseen)) ** 2)))

    plain = error(seen, unseen)
    assert error(replace(seen, trend=hint), replace(unseen, trend=later)) < 0.5 * plain


def test_a_misleading_trend_is_unlearnt() -> None:
    rng = np.random.default_rng(5)
    seen, unseen = drawn(60), drawn(300, seed=1)
    values, extra = truth(seen), np.zeros(len(seen))
    wrong = replace(seen, trend=rng.normal(size=60)), replace(unseen, trend=rng.normal(size=300))

    def error(seen: Inputs, unseen: Inputs) -> float:
        process = condition(fit_hyperparameters(seen, values, extra), seen, values, extra)
        return float(np.sqrt(np.mean((process.predict(unseen)[0] - truth(unseen)) ** 2)))

    assert error(*wrong) < 1.3 * error(seen, unseen)


def test_one_thread_does_it_whatever_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, seen = drawn(60), []

    def spy(*asked: Any, **more: Any) -> Any:
        seen.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return minimize(*asked, **more)

    monkeypatch.setattr(gaussian, "minimize", spy)
    with threadpool_limits(2, user_api="blas"):
        found = fit_hyperparameters(rows, truth(rows), np.zeros(60))
        before = [p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"]
    with threadpool_limits(1, user_api="blas"):
        assert (fit_hyperparameters(rows, truth(rows), np.zeros(60)) == found).all()
    assert seen and set(seen) == {1} and set(before) == {2}
