"""The predictor: what it begins with, and that it explores where it is sure of itself."""

import random
from typing import Any

import numpy as np
import pytest

from nas.core import registry
from nas.interfaces import Choices, Space, Trial
from nas.models.points import cost_metrics, decode
from nas.searching.controllers import predictor
from nas.searching.gp.features import homogeneous_points
from nas.searching.objective import Bound, Goal, make_objective
from nas.searching.references import reference_points
from nas.searching.samplers import Past, Proposer, key_of, no_past
from nas.searching.sampling.region import drawing

SPACE: Space = registry.export("spaces", "mbconv_small", "SPACE")
TARGET = 20_000_000
GOAL = Goal(make_objective("hard", None, (Bound("flops", TARGET),), ()))


def proposing(goal: Goal = GOAL, **options: Any) -> Proposer:
    made = predictor.make(SPACE, seed=0, goal=goal, draw=drawing(SPACE, goal), **options)
    assert isinstance(made, Proposer)
    return made


def told(past: Past, choices: Choices, accuracy: float) -> None:
    """Add an evaluated trial to a past."""
    arch = decode(SPACE, choices)
    metrics = {"accuracy": accuracy, **cost_metrics(arch)}
    values = GOAL.values(metrics)
    past.seen.add(key_of(choices))
    past.archs.add(arch.id)
    past.done.append((choices, values[0]))
    past.trials.append(Trial(len(past.trials), "done", choices, arch.id, metrics, values))


def flops(choices: Choices) -> float:
    return float(cost_metrics(decode(SPACE, choices))["flops"])


def test_it_begins_with_plain_designs_below_the_target_and_random_ones() -> None:
    past, propose = no_past(), proposing()._propose
    plain = homogeneous_points(SPACE)
    for number in range(4):
        choices = propose(past, random.Random(number))
        assert flops(choices) <= TARGET
        assert (choices in plain) == (number % 2 == 0)
        told(past, choices, 50.0)
    costliest = max((c for c in plain if flops(c) <= TARGET), key=flops)
    assert flops(past.done[0][0]) == flops(costliest)


def test_reference_designs_count_as_its_start() -> None:
    points = list(reference_points(SPACE, GOAL).values())
    assert len(points) >= 3
    found = []
    for best in (0, 1):  # which of them did best
        past = no_past()
        for number, choices in enumerate(points):
            told(past, choices, 60.0 if number == best else 50.0)
        found.append(proposing(startup=3)._propose(past, random.Random(0)))
    assert found[0] != found[1] and not any(key_of(c) in past.seen for c in found)


def differing(one: Choices, other: Choices) -> int:
    return sum(one[name] != other[name] for name in SPACE.choices)


def hoped(
    monkeypatch: pytest.MonkeyPatch, starts: list[Choices], trials: int, **options: Any
) -> list[Choices]:
    """Return all points that the model is asked about for the proposal after so many trials."""
    asked: list[Choices] = []

    def fake(belief: Any, scored: list[Choices]) -> Any:
        def acquisition(points: list[Choices], wider: float) -> tuple[Any, Any]:
            asked.extend(points)
            return np.ones(len(points)), np.zeros(len(points))

        return acquisition, list(range(len(scored)))

    monkeypatch.setattr(predictor, "expected_improvement", fake)
    past, rng = no_past(), random.Random(0)
    for number, choices in enumerate(starts):
        told(past, choices, 60.0 - number)
    while len(past.done) < trials:
        told(past, drawing(SPACE, GOAL)(SPACE, rng), 40.0)
    proposing(**options)._propose(past, random.Random(1))
    return asked


def farthest(points: list[Choices], from_: list[Choices]) -> int:
    """Return how many choices set the loneliest point apart from the nearest of others."""
    return max(min(differing(point, other) for other in from_) for point in points)


def test_behind_designs_few_trials_look_near_the_leaders(monkeypatch: pytest.MonkeyPatch) -> None:
    designs = list(reference_points(SPACE, GOAL).values())
    leaders = (designs * predictor.LEADERS)[: predictor.LEADERS]
    points = hoped(monkeypatch, leaders, len(leaders))
    # a mutant is at most so many steps away; of a crossing every choice is one of its parents'
    mixed = {name: {design[name] for design in designs} for name in SPACE.choices}
    strangers = [p for p in points if any(p[name] not in mixed[name] for name in SPACE.choices)]
    assert strangers and farthest(strangers, designs) <= predictor.MUTATIONS
    near = {key_of(point) for point in points}
    foremost = [p for p in predictor._neighbours(SPACE, designs[0]) if flops(p) <= TARGET]
    assert {key_of(point) for point in foremost} - {key_of(d) for d in designs} <= near


@pytest.mark.parametrize("case", ["no designs", "many trials", "a prior"])
def test_it_looks_far_otherwise(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    designs = list(reference_points(SPACE, GOAL).values())
    if case == "no designs":
        designs = list(predictor._neighbours(SPACE, designs[0]))[:3]
    leaders = (designs * predictor.LEADERS)[: predictor.LEADERS]
    options = {"prior": lambda points: np.arange(len(points)) * 1.0} if case == "a prior" else {}
    trials = len(SPACE.choices) if case == "many trials" else len(leaders)
    points = hoped(monkeypatch, leaders, trials, **options)
    assert farthest(points, designs) > 2 * predictor.MUTATIONS


@pytest.mark.parametrize(("gain", "widths"), [(0.0, [1.0, predictor.STD_FACTOR]), (0.5, [1.0])])
def test_it_explores_where_it_is_sure(
    monkeypatch: pytest.MonkeyPatch, gain: float, widths: list[float]
) -> None:
    asked: list[float] = []

    def fake(belief: Any, scored: list[Choices]) -> Any:
        def acquisition(points: list[Choices], wider: float) -> tuple[Any, Any]:
            asked.append(wider)
            # looked at again, the largest network is the most promising
            gains = [gain if wider == 1 else flops(choices) for choices in points]
            return np.array(gains), np.zeros(len(points))

        return acquisition, list(range(len(scored)))

    monkeypatch.setattr(predictor, "expected_improvement", fake)
    past, rng = no_past(), random.Random(0)
    for number in range(6):
        told(past, drawing(SPACE, GOAL)(SPACE, rng), 50.0 + number)
    found = proposing()._propose(past, random.Random(1))
    assert list(dict.fromkeys(asked)) == widths
    assert (flops(found) > max(flops(choices) for choices, _ in past.done)) == (gain == 0)
