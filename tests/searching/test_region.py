"""Random points under a target: where they lie, how they are distributed, that drawing ends."""

import dataclasses
import math
import random
from itertools import islice
from pathlib import Path
from statistics import fmean

import pytest

from nas.core import registry
from nas.interfaces import Choices, Space, Trial
from nas.models.points import cost_metrics, decode
from nas.searching.objective import Bound, Goal, make_objective
from nas.searching.samplers import distributions, random_choices
from nas.searching.sampling.region import BAND, Region, drawing
from nas.searching.studies.study import SEARCH, Journal

SPACES = {name: registry.export("spaces", name, "SPACE") for name in registry.names("spaces")}
SMALL = SPACES["mbconv_small"]
PICKY = dataclasses.replace(
    SMALL,
    name="picky",
    valid=lambda c: c["block1_kernel"] == c["block2_kernel"] == 3 and c["block3_layers"] < 3,
)


def goal(kind: str, *, limits: tuple[Bound, ...] = (), **targets: float) -> Goal:
    bounds = tuple(Bound(metric, value) for metric, value in targets.items())
    return Goal(make_objective(kind, None, bounds, limits))


def flops(space: Space, choices: Choices) -> float:
    return cost_metrics(decode(space, choices))["flops"]


def draws(space: Space, aim: Goal, count: int, seed: int = 0) -> list[Choices]:
    draw, rng = drawing(space, aim), random.Random(seed)
    return [draw(space, rng) for _ in range(count)]


def quantile_of_least(space: Space, factor: float) -> float:
    """Return so many times the least multiply-adds of some random points."""
    rng = random.Random(5)
    points = (random_choices(space, rng) for _ in range(2000))
    return factor * min(flops(space, p) for p in points if not space.valid or space.valid(p))


@pytest.mark.parametrize("space", [*SPACES.values(), PICKY], ids=lambda space: space.name)
@pytest.mark.parametrize("factor", [0.9, 3.0])
def test_every_draw_meets_a_hard_target(space: Space, factor: float) -> None:
    target = quantile_of_least(space, factor)
    found = draws(space, goal("hard", flops=target), 25)
    assert all(flops(space, choices) <= target for choices in found)
    assert len({tuple(choices.values()) for choices in found}) > 20


@pytest.mark.parametrize("kind", ["soft", "absolute"])
@pytest.mark.parametrize("space", [SMALL, PICKY], ids=lambda space: space.name)
@pytest.mark.parametrize("target", [2e6, 90e6])
def test_every_draw_lies_beside_a_target_that_costs_on_both_sides(
    space: Space, kind: str, target: float
) -> None:
    for choices in draws(space, goal(kind, flops=target), 25):
        assert abs(flops(space, choices) / target - 1) <= BAND + 1e-9


def test_limits_and_several_targets_are_all_met() -> None:
    limit = (Bound("params", 450_000),)
    for choices in draws(SMALL, goal("hard", limits=limit, flops=6e6), 30):
        cost = cost_metrics(decode(SMALL, choices))
        assert cost["flops"] <= 6e6 and cost["params"] <= 450_000


def test_draws_are_distributed_as_those_of_plain_rejection() -> None:
    """Each option about as often, and costs spread alike; the tolerance is four standard errors."""
    target, count = 4e6, 400
    region = Region(SMALL, (Bound("flops", target),))
    rng = random.Random(1)
    uniform = (random_choices(SMALL, rng) for _ in range(100_000))
    exact = list(islice((c for c in uniform if flops(SMALL, c) <= target), count))
    tilted: list[Choices] = []
    while len(tilted) < count:
        inside = (c for c in region.tilt.draws(SMALL, rng) if region.violation(c) <= 0)
        tilted.append(next(inside))
    assert len(exact) == count
    for name, options in SMALL.choices.items():
        for option in options:
            shares = [fmean(c[name] == option for c in found) for found in (exact, tilted)]
            share = fmean(shares)
            error = math.sqrt(2 * share * (1 - share) / count)
            assert abs(shares[0] - shares[1]) <= 4 * error + 1e-9, (name, option, shares)
    logs = [sorted(math.log(flops(SMALL, c) / target) for c in found) for found in (exact, tilted)]
    steps = [sum(x <= at for x in logs[1]) / count for at in logs[0]]
    assert max(abs(s - i / count) for i, s in enumerate(steps, 1)) < 2 / math.sqrt(count)


def test_a_draw_depends_on_its_seed_alone() -> None:
    aim = goal("hard", flops=3e6)
    assert draws(SMALL, aim, 5, seed=1) == draws(SMALL, aim, 5, seed=1) != draws(SMALL, aim, 5)
    one = drawing(SMALL, aim)
    late = [one(SMALL, random.Random(n)) for n in range(5)][-1]
    assert late == drawing(SMALL, aim)(SMALL, random.Random(4))


def test_without_a_bound_and_for_a_front_every_point_is_as_likely() -> None:
    assert drawing(SMALL, goal("hard")) is random_choices
    front = Goal(make_objective("hard", None, (Bound("flops", 1e6),), ()), "flops")
    assert drawing(SMALL, front) is random_choices
    unknown = goal("hard", latency_ms=1.0)
    assert drawing(SMALL, unknown) is random_choices


@pytest.mark.parametrize("kind", ["hard", "absolute"])
def test_drawing_ends_where_nothing_meets_the_target(kind: str) -> None:
    tiny = dataclasses.replace(
        SMALL, choices={n: (o[0] if n != "width" else 0.25,) for n, o in SMALL.choices.items()}
    )
    only = random_choices(tiny, random.Random(0))
    for target in (flops(tiny, only) / 2, flops(tiny, only) * 5):
        assert draws(tiny, goal(kind, flops=target), 2) == [only, only]
    barren = dataclasses.replace(SMALL, valid=lambda c: False)
    assert len(draws(barren, goal(kind, flops=5e6), 1)) == 1


def proposals(path: Path, controller: str, aim: Goal, until: int) -> list[Choices]:
    """Ask a controller until so many trials are told, in a process that may be a second one."""
    given = {"seed": 0, "goal": aim, "draw": drawing(SMALL, aim)}
    sampler = registry.make("controllers", controller, SMALL, options={}, **given)
    log = Journal(path, distributions(SMALL)).log(SEARCH, aim.directions, sampler)
    for turn in range(len(log.trials()), until):
        number, choices = log.ask(distributions(SMALL))
        arch = decode(SMALL, choices)
        metrics = {"accuracy": 50.0 + turn % 3, **cost_metrics(arch)}
        log.tell(Trial(number, "done", choices, arch.id, metrics, aim.values(metrics)))
    return [trial.choices for trial in log.trials()]


@pytest.mark.parametrize("controller", registry.names("controllers"))
def test_every_controller_begins_where_the_target_is_and_resumes_so(
    tmp_path: Path, controller: str
) -> None:
    aim = goal("hard", flops=3e6)
    whole = proposals(tmp_path / "whole.log", controller, aim, 6)
    begins = 1 if controller == "hillclimb" else 6  # the others learn nothing from so few
    assert all(flops(SMALL, choices) <= 3e6 for choices in whole[:begins])
    proposals(tmp_path / "parts.log", controller, aim, 3)
    assert proposals(tmp_path / "parts.log", controller, aim, 6) == whole
