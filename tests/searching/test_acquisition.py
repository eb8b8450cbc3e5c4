"""Expected improvement, of a reward and of the area under a front, against drawing it."""

import numpy as np
import pytest

from nas.searching.gp.acquisition import ehvi, ei, staircase
from nas.searching.objective import hypervolume

FRONT = [(60.0, 100.0), (65.0, 200.0), (63.0, 150.0), (61.0, 180.0)]


def test_expected_improvement_is_the_mean_of_what_exceeds() -> None:
    drawn = np.random.default_rng(0).normal(1.0, 2.0, 400_000)
    found = ei(np.array([1.0]), np.array([2.0]), 2.5)
    assert found[0] == pytest.approx(np.maximum(drawn - 2.5, 0).mean(), rel=0.01)
    sure = np.array([1e-6, 0.0, 1e-300])
    assert ei(np.array([1.0, 1.0, 1e200]), sure, 2.5).tolist() == [0, 0, 1e200]


def test_a_staircase_is_the_front_cheapest_first() -> None:
    costs, values = staircase(FRONT)
    assert costs.tolist() == [100, 150, 200]
    assert values.tolist() == [60, 63, 65]


@pytest.mark.parametrize("cost", [50.0, 120.0, 180.0, 240.0, 400.0])
def test_expected_volume_is_the_mean_of_what_a_point_adds(cost: float) -> None:
    worst, dearest = 55.0, 300.0
    drawn = np.random.default_rng(0).normal(63.0, 2.0, 2000)

    def area(points: list[tuple[float, float]]) -> float:
        return hypervolume([(a, -c) for a, c in points], (worst, -dearest))

    added = np.mean([area([*FRONT, (value, cost)]) - area(FRONT) for value in drawn])
    steps = staircase(FRONT)
    found = ehvi(np.array([63.0]), np.array([2.0]), np.array([cost]), steps, (worst, dearest))
    assert found[0] == pytest.approx(added, rel=0.1, abs=1e-9)
