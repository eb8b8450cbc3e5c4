"""Objective: the papers' worked numbers, signs, limits, the front and its area."""

import math
import random

import pytest

from nas.core.errors import OptionError
from nas.interfaces import Trial
from nas.searching.objective import (
    Bound,
    Goal,
    Objective,
    broken_limit,
    describe,
    hypervolume,
    make_objective,
    meets,
    pareto_front,
    reward,
)

T = 400e6
TARGET = (Bound("flops", T),)
FACTORS = (0.25, 0.5, 0.9, 0.999, 1.0, 1.001, 1.1, 2.0, 4.0)


def of(kind: str, cost: float, accuracy: float = 70.0, w: float | None = None) -> float:
    objective = make_objective(kind, w, TARGET, ())
    return reward({"accuracy": accuracy, "flops": cost * T}, objective)


def test_soft_gives_the_papers_factors() -> None:
    # MnasNet, equation 2 with alpha = beta = -0.07
    assert of("soft", 2) / 70 == pytest.approx(0.9526, abs=5e-5)
    assert of("soft", 0.5) / 70 == pytest.approx(1.0497, abs=5e-5)
    assert of("soft", 1) == 70


def test_the_soft_exponent_makes_five_percent_of_a_doubling() -> None:
    exact = -math.log2(1.05)
    assert exact == pytest.approx(-0.0704, abs=5e-5)
    assert of("soft", 2, w=exact) * 1.05 == pytest.approx(70)


def test_hard_is_free_up_to_the_target_and_in_proportion_above() -> None:
    for factor in FACTORS:
        assert of("hard", factor) == pytest.approx(70 if factor <= 1 else 70 / factor)


def test_absolute_is_tunas_formula_and_symmetric() -> None:
    # Q + beta |T/T0 - 1| with Q as a fraction and beta = -0.10
    for distance in (0.0, 0.1, 0.5, 0.9):
        wanted = 100 * (0.7 - 0.10 * distance)
        assert of("absolute", 1 + distance) == pytest.approx(wanted)
        assert of("absolute", 1 - distance) == pytest.approx(wanted)


@pytest.mark.parametrize("kind", ["hard", "soft", "absolute"])
def test_more_accuracy_pays_and_more_cost_above_the_target_does_not(kind: str) -> None:
    for factor in FACTORS:
        assert of(kind, factor, 71) > of(kind, factor, 70)
    above = [of(kind, factor) for factor in FACTORS if factor >= 1]
    assert above == sorted(above, reverse=True) and above[0] > above[-1]


def test_which_arch_is_best_under_soft_does_not_depend_on_the_target() -> None:
    rng = random.Random(0)
    archs = [{"accuracy": rng.uniform(60, 75), "flops": rng.uniform(1e8, 9e8)} for _ in range(300)]

    def best(kind: str, target: float) -> int:
        objective = make_objective(kind, None, (Bound("flops", target),), ())
        return max(range(len(archs)), key=lambda i: reward(archs[i], objective))

    targets = (1e8, 2e8, 4e8, 8e8)
    assert len({best("soft", target) for target in targets}) == 1
    assert len({best("hard", target) for target in targets}) > 1


def test_two_targets_multiply() -> None:
    objective = make_objective("hard", None, (*TARGET, Bound("params", 5e6)), ())
    metrics = {"accuracy": 60.0, "flops": 2 * T, "params": 10e6}
    assert reward(metrics, objective) == pytest.approx(15)


def test_without_a_target_the_reward_is_the_accuracy() -> None:
    assert reward({"accuracy": 61.5, "flops": 1e9}, Objective()) == 61.5


def test_w_replaces_the_exponent_above_for_hard_and_on_both_sides_for_soft() -> None:
    hard, soft = (make_objective(kind, -0.5, TARGET, ()) for kind in ("hard", "soft"))
    assert (hard.alpha, hard.beta) == (0, -0.5)
    assert (soft.alpha, soft.beta) == (-0.5, -0.5)


@pytest.mark.parametrize("w", [0.07, 1.0, -101.0, math.nan])
def test_a_w_that_pays_for_cost_is_refused(w: float) -> None:
    with pytest.raises(OptionError, match="--w must lie in"):
        make_objective("soft", w, TARGET, ())


def test_an_unknown_reward_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(OptionError, match="did you mean 'soft'"):
        make_objective("sof", None, TARGET, ())


def test_a_missing_metric_is_named_with_those_there_are() -> None:
    objective = make_objective("hard", None, (Bound("latency_ms", 2.0),), ())
    with pytest.raises(OptionError, match="gives no latency_ms; it gives accuracy, flops"):
        reward({"accuracy": 1.0, "flops": 2.0}, objective)


def test_a_trial_keeps_the_reward_it_was_told_with_and_a_front_has_it_counted() -> None:
    bound, metrics = Bound("flops", 100.0), {"accuracy": 60.0, "flops": 200.0}
    objective = Objective("hard", 0.0, -1.0, (bound,))
    told = Trial(0, "done", {}, "a", metrics, (33.0,))
    stopped = Trial(1, "stopped", {}, "b", metrics)
    assert Goal(objective).reward_of(told) == 33.0
    assert Goal(objective).reward_of(stopped) == 30.0
    front = Goal(objective, "flops")
    assert front.reward_of(Trial(2, "done", {}, "a", metrics, front.values(metrics))) == 30.0


def test_limits_and_what_meets_them() -> None:
    objective = Objective(targets=TARGET, limits=(Bound("params", 5e6),))
    within = {"accuracy": 1.0, "flops": T, "params": 5e6}
    assert meets(within, objective) and not broken_limit(within, objective)
    over = {**within, "params": 5e6 + 1}
    assert not meets(over, objective)
    assert broken_limit(over, objective) == "params 5,000,001 above the limit 5,000,000"
    dear = {**within, "flops": T + 1}
    assert not meets(dear, objective) and not broken_limit(dear, objective)


def test_the_formula_on_the_screen() -> None:
    shown = {kind: describe(make_objective(kind, None, TARGET, ())) for kind in ("hard", "soft")}
    assert shown["hard"] == "accuracy × (flops/400.0M)^w, w = 0 up to T, -1 above"
    assert shown["soft"] == "accuracy × (flops/400.0M)^-0.07"
    two = make_objective("soft", None, (*TARGET, Bound("latency_ms", 2.0)), ())
    assert describe(two) == "accuracy × (flops/400.0M)^-0.07 × (latency_ms/2 ms)^-0.07"
    absolute = describe(make_objective("absolute", None, TARGET, ()))
    assert absolute == "accuracy − 10 × (|flops/400.0M − 1|)"
    assert describe(Objective()) == "accuracy"


def _points(rng: random.Random, n: int, dimensions: int = 2) -> list[tuple[float, ...]]:
    # few distinct values, so that ties and equal points occur
    return [tuple(rng.randint(0, 12) / 4 for _ in range(dimensions)) for _ in range(n)]


def _beats(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return all(x >= y for x, y in zip(a, b, strict=True)) and a != b


@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_front_is_that_of_brute_force(dimensions: int) -> None:
    rng = random.Random(dimensions)
    for n in (0, 1, 2, 5, 30, 60):
        points = _points(rng, n, dimensions)
        wanted = {p for p in points if not any(_beats(q, p) for q in points)}
        front = pareto_front(points)
        assert len(front) == len(wanted)
        assert {points[i] for i in front} == wanted
        assert [points[i][0] for i in front] == sorted((points[i][0] for i in front), reverse=True)
        for i in front:  # of equal points the first stays
            assert points.index(points[i]) == i


def test_the_hypervolume_is_the_share_of_a_grid() -> None:
    rng = random.Random(7)
    for n in (0, 1, 3, 20):
        points = [(p[0], p[1]) for p in _points(rng, n)]
        for reference in ((-1.0, -0.5), (1.0, 0.25), (9.0, 9.0)):
            # all coordinates are multiples of 1/4: count the cells of that grid
            cells = [(i / 4 + 0.125, j / 4 + 0.125) for i in range(-4, 13) for j in range(-4, 13)]
            covered = sum(
                any(reference[0] < x < p[0] and reference[1] < y < p[1] for p in points)
                for x, y in cells
            )
            assert hypervolume(points, reference) == pytest.approx(covered / 16)
