"""Reference designs of spaces: the contract of what they export, and what is refused."""

import dataclasses
from typing import Any

import pytest

from nas.core import registry
from nas.core.errors import OptionError
from nas.interfaces import Choices, Space
from nas.models.arch import Arch
from nas.models.cost import count
from nas.models.load import baselines
from nas.models.points import decode
from nas.searching.feasibility import fitted, reachable
from nas.searching.objective import Bound, Goal, Objective
from nas.searching.references import reference_points, references

SPACES: dict[str, Space] = {
    name: registry.export("spaces", name, "SPACE") for name in registry.names("spaces")
}
DESIGNED = {name: space for name, space in SPACES.items() if space.references}
each_space = pytest.mark.parametrize("space", DESIGNED.values(), ids=DESIGNED)


def under(flops: float | None) -> Objective:
    return Objective(targets=(Bound("flops", flops),) if flops else ())


def targets(space: Space) -> list[float]:
    """Return multiply-adds evenly in their logarithm, but for the ends."""
    least, most = reachable(space, lambda arch: count(arch).flops)
    return [least * (most / least) ** share for share in (1 / 12, 0.3, 0.5, 0.7, 0.9)]


@each_space
def test_designs_meet_the_target(space: Space) -> None:
    for target in targets(space):
        found = references(space, under(target))
        assert all(each.fits and count(each.arch).flops <= target for each in found)


@each_space
def test_designs_come_near_a_target_in_the_middle(space: Space) -> None:
    for target in targets(space)[1:3]:
        points = reference_points(space, Goal(under(target))).values()
        assert max(count(decode(space, point)).flops for point in points) > 0.7 * target


@each_space
def test_at_every_target_some_are_points_of_the_space(space: Space) -> None:
    for target in targets(space):
        points = reference_points(space, Goal(under(target)))
        assert points
        assert len({decode(space, point).id for point in points.values()}) == len(points)
        for point in points.values():
            assert list(point) == list(space.choices)


@each_space
def test_they_are_a_function_of_the_bounds(space: Space) -> None:
    bounds = under(targets(space)[2])
    assert references(space, bounds) == references(space, bounds)


@each_space
def test_limits_and_parameters_bound_them_too(space: Space) -> None:
    free = max(each.cost["params"] for each in references(space, under(None)))
    tight = Objective(targets=(Bound("params", free / 2),))
    limit = Objective(limits=(Bound("params", free / 2),))
    for objective in (tight, limit):
        found = references(space, objective)
        assert found and all(each.cost["params"] <= free / 2 for each in found)


@pytest.mark.parametrize("name", ["mbconv", "mbconv_small"])
def test_without_a_target_b0_itself_is_first_and_none_costs_more(name: str) -> None:
    found = references(SPACES[name], under(None))
    b0 = found[0]
    assert b0.name == "b0" and b0.choices is not None
    assert b0.cost["params"] == count(baselines()["efficientnet_b0"]).params
    assert all(each.cost["flops"] <= b0.cost["flops"] for each in found)


def test_a_baseline_keeps_its_name_and_is_listed_above_the_target() -> None:
    b0 = baselines()["efficientnet_b0"]
    met = references(SPACES["mbconv"], under(400e6), beside={"efficientnet_b0": b0})
    assert [each.name for each in met] == ["efficientnet_b0", "deepest", "late"]
    above = references(SPACES["mbconv"], under(100e6), beside={"efficientnet_b0": b0})
    assert [(each.name, each.fits) for each in above if not each.fits] == [
        ("efficientnet_b0", False)
    ]


def test_what_needs_other_pixels_is_beside_the_space() -> None:
    found = {each.name: each for each in references(SPACES["mbconv"], under(100e6))}
    scaled = found["b0_scaled"]
    assert scaled.choices is None and scaled.fits
    assert scaled.arch.resolution < 224
    assert [stage.layers for stage in scaled.arch.stages] == [1, 2, 2, 3, 3, 4, 1]


def test_the_deepest_net_is_uniform_from_its_second_block_on() -> None:
    points = reference_points(SPACES["mbconv"], Goal(under(300e6)))
    stages = decode(SPACES["mbconv"], points["deepest"]).stages
    alike = {(s.kernel, s.expansion, s.se, s.layers) for s in stages[1:]}
    assert len(alike) == 1 and stages[1].expansion > 1


def test_the_late_net_has_most_late_parameters() -> None:
    from nas.models.designs import late_params

    for target in (200e6, 400e6):
        points = reference_points(SPACES["mbconv"], Goal(under(target)))
        late = {n: late_params(decode(SPACES["mbconv"], p)) for n, p in points.items()}
        assert max(late, key=lambda name: late[name]) == "late"


def test_classes_and_pixels_of_the_data_are_those_of_the_designs() -> None:
    space = fitted(SPACES["mbconv"], 7, 128)
    found = references(space, under(40e6))
    assert found and all(each.arch.head.classes == 7 for each in found)
    assert all(each.cost["flops"] <= 40e6 for each in found)
    pixels = {each.name: each.arch.resolution for each in found}
    assert pixels["deepest"] == 128 and 32 <= pixels["b0_scaled"] < 128


def test_a_latency_that_is_known_bounds_them() -> None:
    objective = Objective(targets=(Bound("latency_ms", 2.0),))
    found = references(SPACES["mbconv"], objective, latency=lambda arch: count(arch).flops / 1e8)
    assert found and all(each.cost["flops"] <= 2e8 for each in found)


def test_a_space_without_designs_has_none() -> None:
    bare = dataclasses.replace(SPACES["mbconv"], references=None)
    assert references(bare, under(None)) == []
    assert reference_points(bare, Goal(under(None))) == {}


def test_a_point_needs_no_encode() -> None:
    point: Choices = next(iter(reference_points(SPACES["mbconv"], Goal(under(4e8))).values()))
    shuffled = dict(reversed(point.items()))
    bare = dataclasses.replace(
        SPACES["mbconv"], encode=None, references=lambda fits: {"mine": shuffled}
    )
    assert list(reference_points(bare, Goal(under(4e8)))["mine"].items()) == list(point.items())


def broken(fits: Any) -> Any:
    raise ZeroDivisionError("no")


SPOILED: dict[str, Any] = {
    "fails": (broken, "references fails: ZeroDivisionError: no"),
    "list": (lambda fits: [1], "must give archs or choices by name"),
    "numbers": (lambda fits: {1: {}}, "must give archs or choices by name"),
    "text": (lambda fits: {"a": "b0"}, "no Arch and no choices but str"),
    "missing": (lambda fits: {"a": {}}, "gives for a nothing as block1_expansion"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_what_is_no_design_is_refused_in_one_line(name: str) -> None:
    given, message = SPOILED[name]
    space = dataclasses.replace(SPACES["mbconv"], references=given)
    with pytest.raises(OptionError, match=message) as refused:
        references(space, under(None))
    assert "\n" not in str(refused.value) and "space mbconv" in str(refused.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block2_kernel": 9}, "9 as block2_kernel, which takes one of 3, 5"),
        ({"block9_kernel": 3}, "the choice 'block9_kernel', which the space does not have"),
    ],
)
def test_points_of_another_space_are_refused(change: Choices, message: str) -> None:
    point: Choices = next(iter(reference_points(SPACES["mbconv"], Goal(under(4e8))).values()))
    space = dataclasses.replace(
        SPACES["mbconv"], references=lambda fits: {"a": {**point, **change}}
    )
    with pytest.raises(OptionError, match=message):
        references(space, under(None))


def test_an_arch_outside_of_the_space_is_beside_it() -> None:
    other = baselines()["mobilenet_v2"]
    given: dict[str, Arch | Choices] = {"other": other}
    space = dataclasses.replace(SPACES["mbconv"], references=lambda fits: given)
    (found,) = references(space, under(100e6))
    assert (found.choices, found.fits, found.arch) == (None, False, other)
