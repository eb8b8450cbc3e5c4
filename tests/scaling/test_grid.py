"""The grid of a fit: what is on it, what is left out of it and why; counted, nothing trained."""

import math

import pytest

from nas.core import registry
from nas.models import compound, cost
from nas.models.arch import Arch, Head, Stage, Stem
from nas.models.load import baselines
from nas.scaling.fit.grid import APART, GROWTH, MISS, SPARE, GridPoint, candidates, distance

SMALL = registry.export("spaces", "mbconv_small", "SPACE")
BASES = {
    **{
        name: baselines()[name]
        for name in ("efficientnet_b0", "mobilenet_v1", "mobilenet_v2", "resnet18", "resnet152")
    },
    "searched": SMALL.decode({name: options[-1] for name, options in SMALL.choices.items()}),
}


def off(each: GridPoint) -> float:
    return abs(each.ratio / GROWTH - 1)


@pytest.mark.parametrize("name", BASES)
def test_each_candidate_is_what_its_coefficients_give_and_costs_about_twice(name: str) -> None:
    base = BASES[name]
    grid = candidates(base)
    assert 8 <= len(grid.trained) <= 12
    for each in grid.trained:
        alpha, beta, gamma = each.coefficients
        assert min(each.coefficients) >= 1
        assert abs(alpha * beta**2 * gamma**2 / 2 - 1) <= grid.tolerance + 1e-9
        member = compound.family(base, [1], alpha=alpha, beta=beta, gamma=gamma)[0]
        assert (each.arch, each.rounded) == (member.arch, member.rounded)
        ratio = cost.count(member.arch).flops / cost.count(base).flops
        assert each.ratio == pytest.approx(ratio) and abs(ratio / 2 - 1) <= 0.1


@pytest.mark.parametrize("name", BASES)
def test_no_network_is_there_twice_and_those_that_are_trained_differ(name: str) -> None:
    grid = candidates(BASES[name])
    assert len({each.arch.id for each in grid.candidates}) == len(grid.candidates)
    # one dimension alone is trained however near another is
    inner = [each for each in grid.trained if not each.roles]
    for each in inner:
        others = [other for other in grid.trained if other is not each]
        assert min(distance(each.rounded, other.rounded) for other in others) >= APART


@pytest.mark.parametrize("name", BASES)
def test_the_ends_and_what_is_nearest_the_papers_are_trained(name: str) -> None:
    grid = candidates(BASES[name])
    passing = [each for each in grid.candidates if each.passes]
    roles = {role: each for each in grid.trained for role in each.roles}
    near = min(passing, key=lambda each: distance(each.coefficients, (1.2, 1.1, 1.15)))
    assert near.near_papers and near in grid.trained
    for axis, role in enumerate(("depth only", "width only", "resolution only")):
        alone = [e for e in passing if math.prod(e.coefficients) == e.coefficients[axis]]
        assert bool(alone) == (role in roles)
        assert not alone or off(roles[role]) == min(map(off, alone))


def test_what_is_not_trained_says_why() -> None:
    grid = candidates(BASES["efficientnet_b0"])
    rejected = [each for each in grid.candidates if off(each) > MISS]
    spare = [each for each in grid.candidates if off(each) <= MISS and each not in grid.trained]
    assert rejected and spare
    assert all(f"{each.ratio:.2f} times" in each.reason for each in rejected)
    assert {each.reason for each in spare} == {SPARE}
    # the paper's own round to 2.2 times B0's FLOPs, which is why B1 is not B0 at phi 1
    assert (1.2, 1.1, 1.15) not in [each.coefficients for each in grid.trained]


@pytest.mark.parametrize("most", [2, 4, 7])
def test_no_more_than_asked_for_and_the_named_ones_first(most: int) -> None:
    grid = candidates(BASES["resnet18"], most=most)
    assert len(grid.trained) == most
    assert sum(bool(each.roles) for each in grid.trained) == min(most, 4)
    assert candidates(BASES["resnet18"], most=most) == grid


def test_a_coarse_base_gets_a_finer_grid_or_fewer_networks() -> None:
    assert candidates(BASES["resnet152"]).step == 0.05
    assert candidates(BASES["searched"]).step == 0.02
    stages = (Stage("mbconv", 8, stride=2, expansion=2.0),)
    tiny = Arch("tiny", stages, Stem(8), Head(8, classes=10), resolution=32)
    assert len(candidates(tiny).trained) < 4


def test_fixed_ends_are_kept() -> None:
    base = BASES["efficientnet_b0"]
    grid = candidates(base, fixed_ends=True)
    assert grid.trained
    assert {each.arch.stem for each in grid.candidates} == {base.stem}


def test_a_wider_tolerance_allows_more() -> None:
    base = BASES["mobilenet_v1"]
    narrow, wide = (candidates(base, tolerance=t).candidates for t in (0.05, 0.2))
    assert len(narrow) < len(wide)
    assert all(abs(each.product / 2 - 1) <= 0.05 + 1e-9 for each in narrow)
