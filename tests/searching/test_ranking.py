"""Kendall's tau: against scipy, its interval by coverage, its noise ceiling."""

import math
import warnings

import numpy as np
import pytest
from scipy import stats

from nas.searching.ranking import against, agreement, archs_to_show, ceiling, kendall


@pytest.mark.parametrize("n", [2, 3, 8, 40])
@pytest.mark.parametrize("ties", [False, True])
def test_tau_is_scipys_tau_b(n: int, ties: bool) -> None:
    rng = np.random.default_rng(n)
    for _ in range(20):
        a, b = rng.normal(size=(2, n))
        if ties:
            a, b = np.round(a), np.round(b)
        expected = stats.kendalltau(a, b).statistic
        assert kendall(a, b) == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_a_draw_with_copies_is_tau_b_of_the_copies() -> None:
    # the weights of a draw stand for copies of archs, which scipy is given as such
    from nas.searching.ranking import _signs, _taus

    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 9))
    counts = rng.multinomial(9, np.full(9, 1 / 9), size=5).astype(float)
    found = _taus(*_signs(a, b), counts)
    for tau, times in zip(found, counts.astype(int), strict=True):
        expected = stats.kendalltau(np.repeat(a, times), np.repeat(b, times)).statistic
        assert tau == pytest.approx(expected, abs=1e-12)


def test_a_constant_ranking_has_no_tau() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(kendall([1, 1, 1], [1, 2, 3]))
        assert all(math.isnan(x) for x in agreement([([1, 1, 1], [1, 2, 3])])[:3])
        assert math.isnan(kendall([1.0], [2.0]))


@pytest.mark.parametrize(
    ("first", "second"),
    [([1, 2], [1, 2, 3]), ([1, math.nan], [1, 2]), ([1, math.inf], [1, 2]), ([[1, 2]], [[1, 2]])],
)
def test_bad_rankings_are_refused(first: list[float], second: list[float]) -> None:
    with pytest.raises(ValueError, match="finite and equally long"):
        kendall(first, second)


def test_agreement_needs_pairs_of_the_same_archs() -> None:
    for pairs in ([], [([1, 2], [1, 2]), ([1, 2, 3], [1, 2, 3])]):
        with pytest.raises(ValueError, match="at least one pair"):
            agreement(pairs)
    with pytest.raises(ValueError, match="at least one pair"):
        ceiling([[1.0], [2.0]])


def test_the_interval_holds_the_estimate_and_is_seeded() -> None:
    rng = np.random.default_rng(1)
    a = rng.normal(size=12)
    b = a + rng.normal(size=12)
    first, again, other = (agreement([(a, b)], seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    assert -1 <= first.low < first.value < first.high <= 1
    assert first.value == pytest.approx(kendall(a, b))


def test_a_perfect_ranking_of_few_archs_is_not_certain() -> None:
    lows = [agreement([(range(n), range(n))]).low for n in (3, 4, 5, 8, 16, 64)]
    assert lows[:2] == [-1, -1]
    assert lows == sorted(lows)
    assert lows[3] == pytest.approx(0.8754, abs=1e-4)
    assert 0.9 < lows[4] < lows[5] < 1
    assert agreement([(range(8), range(8, 0, -1))]).high == pytest.approx(-0.8754, abs=1e-4)


@pytest.mark.parametrize(("true", "n"), [(0.3, 8), (0.6, 16), (0.8, 8), (0.9, 8)])
def test_the_interval_covers_the_true_tau(true: float, n: int) -> None:
    rng = np.random.default_rng(3)
    r, inside, rounds = math.sin(true * math.pi / 2), 0, 100
    for _ in range(rounds):
        x, y = rng.normal(size=(2, n))
        tau = agreement([(x, r * x + math.sqrt(1 - r * r) * y)])
        inside += tau.low <= true <= tau.high
    assert inside >= 0.88 * rounds


def test_seed_against_seed_falls_with_noise_and_caps_a_noisy_proxy() -> None:
    rng = np.random.default_rng(4)
    truth = rng.normal(size=200)
    quiet, loud = (truth[:, None] + s * rng.normal(size=(200, 3)) for s in (0.1, 1.0))
    assert ceiling(quiet).value > 0.9 > ceiling(loud).value > 0.2
    # against the mean of several seeds a single one looks better than against another single one
    assert against(loud, truth).value > ceiling(loud).value


def test_against_is_the_mean_over_the_seeds() -> None:
    reference = [1.0, 2.0, 3.0, 4.0]
    columns = [[1, 4], [2, 3], [3, 2], [4, 1]]
    assert against(columns, reference).value == 0
    assert against([row[:1] for row in columns], reference).value == 1


def test_as_many_archs_as_it_says_show_a_tau() -> None:
    # of normal values whose true tau is known
    for tau, bar in ((0.7, 0.5), (0.8, 0.5), (0.9, 0.8)):
        n = archs_to_show(tau, bar)
        lows = []
        for seed in range(60):
            rng = np.random.default_rng(seed)
            r = math.sin(tau * math.pi / 2)
            x, y = rng.normal(size=(2, n))
            lows.append(agreement([(x, r * x + math.sqrt(1 - r * r) * y)]).low)
        assert np.median(lows) == pytest.approx(bar, abs=0.1)
