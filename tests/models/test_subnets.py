"""The sub-networks of a network as a space."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from nas.core.errors import OptionError
from nas.interfaces import Space
from nas.models.arch import Arch, Head, Stage
from nas.models.cost import count
from nas.models.load import load_arch
from nas.models.subnets import sides_of, subnet_space

PARENTS = (
    "efficientnet_lite0",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "mobilenet_v1",
    "mobilenet_v3_small",
    "resnet18",
    "resnet50",
)


def _points(space: Space, number: int) -> list[dict[str, object]]:
    rng = random.Random(0)
    return [{n: rng.choice(o) for n, o in space.choices.items()} for _ in range(number)]


@pytest.mark.parametrize("name", PARENTS)
def test_the_parent_is_the_largest_point(name: str) -> None:
    parent = load_arch(name)
    space = subnet_space(parent)
    largest = {name: options[-1] for name, options in space.choices.items()}
    assert space.decode(largest).id == parent.id
    assert space.encode and space.encode(parent) == largest


@pytest.mark.parametrize("name", PARENTS)
def test_every_point_is_encoded_as_itself_and_costs_no_more_than_the_parent(name: str) -> None:
    parent = load_arch(name)
    space = subnet_space(parent)
    assert space.encode
    most = count(parent).flops
    skips = {block.skip for block in parent.blocks()}
    for choices in _points(space, 30):
        arch = space.decode(choices)
        assert space.encode(arch) == choices
        assert count(arch).flops <= most
        assert {block.skip for block in arch.blocks()} <= skips


@pytest.mark.parametrize("name", PARENTS)
def test_a_tenth_of_the_parents_cost_can_be_reached(name: str) -> None:
    parent = load_arch(name)
    space = subnet_space(parent)
    least = space.decode({name: options[0] for name, options in space.choices.items()})
    assert count(least).flops < count(parent).flops / 10


def test_what_is_not_chosen_is_the_parents() -> None:
    parent = load_arch("mobilenet_v3_small")
    space = subnet_space(parent, classes=7)
    arch = space.decode({name: options[0] for name, options in space.choices.items()})
    assert arch.head.classes == 7
    assert arch.norm == parent.norm and arch.squeeze == parent.squeeze
    for ours, theirs in zip(arch.stages, parent.stages, strict=True):
        assert (ours.op, ours.stride, ours.se) == (theirs.op, theirs.stride, theirs.se)
        assert (ours.skip, ours.activation) == (theirs.skip, theirs.activation)


def test_an_expansion_that_would_leave_out_a_layer_is_no_option() -> None:
    space = subnet_space(load_arch("efficientnet_lite0"))
    assert space.choices["block1_expansion"] == (1,)
    assert space.choices["block2_expansion"] == (2, 3, 4, 6)


def test_of_an_op_that_narrows_by_its_expansion_the_options_go_up_from_the_parents() -> None:
    assert subnet_space(load_arch("resnet50")).choices["block1_expansion"] == (12, 8, 6, 4)


def test_a_width_that_would_add_a_skip_connection_is_no_option() -> None:
    # 20 and 22 channels are both 16 at three quarters
    stages = (Stage("mbconv", 20), Stage("mbconv", 22))
    space = subnet_space(Arch("close", stages, head=Head(classes=10), resolution=32))
    assert 1.0 in space.choices["width"] and 0.75 not in space.choices["width"]


def test_sides_go_up_to_those_of_the_parent() -> None:
    lite0 = load_arch("efficientnet_lite0")
    assert sides_of(lite0) == (*range(32, 224, 8), 224)
    assert sides_of(replace(lite0, resolution=32)) == (32,)
    assert sides_of(replace(lite0, resolution=60)) == (32, 40, 48, 56, 60)
    assert sides_of(replace(lite0, resolution=300)) == (*range(32, 300, 16), 300)


def test_references_fit_and_no_more_pixels_would() -> None:
    parent = load_arch("efficientnet_lite0")
    space = subnet_space(parent)
    assert space.references
    for budget in (40e6, 100e6, 200e6):
        found = space.references(lambda arch: count(arch).flops <= budget)  # noqa: B023
        kinds = {"parent", "by width", "by layers", "by expansion", "by layers and expansion"}
        assert {name.partition(" at ")[0] for name in found} == kinds
        sides = list(space.choices["pixels"])
        for name, point in found.items():
            assert not isinstance(point, Arch)
            assert count(space.decode(point)).flops <= budget
            assert name.endswith(f"at {point['pixels']} px")
            larger = sides[sides.index(point["pixels"]) + 1 :][:1]
            for side in larger:
                assert count(space.decode({**point, "pixels": side})).flops > budget


def test_unbounded_the_first_reference_is_the_parent() -> None:
    parent = load_arch("efficientnet_lite0")
    space = subnet_space(parent)
    assert space.references
    found = space.references(lambda arch: True)["parent at 224 px"]
    assert not isinstance(found, Arch) and space.decode(found).id == parent.id


def test_bad_widths_and_pixels_are_refused() -> None:
    parent = load_arch("efficientnet_lite0")
    with pytest.raises(OptionError, match=r"width .* 0 < w <= 1, not 1\.5"):
        subnet_space(parent, widths=(0.5, 1.5))
    with pytest.raises(OptionError, match="pixels must be at least 32, not 16"):
        subnet_space(parent, pixels=(16, 64))
