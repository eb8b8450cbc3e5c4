"""Spaces: the contract for every file of search_spaces, and what the papers say of them."""

import random

import pytest

from baselines import efficientnet
from nas.core import registry
from nas.core.errors import ArchError
from nas.interfaces import Space
from nas.models.cost import count
from nas.searching.samplers import random_choices
from nas.testing import SpaceContract, each

globals().update(each(SpaceContract, registry.names("spaces")))

SPACES: dict[str, Space] = {
    name: registry.export("spaces", name, "SPACE") for name in registry.names("spaces")
}


@pytest.mark.parametrize("name", SPACES)
def test_a_space_is_called_like_its_file_and_knows_what_it_lacks(name: str) -> None:
    space = SPACES[name]
    assert space.name == name
    assert space.encode is None or space.encode(efficientnet.ARCHS["efficientnet_b3"]) is None


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_an_impossible_option_is_refused_after_and_before_its_equal(space: Space) -> None:
    point = random_choices(space, random.Random(0))
    spoilt = {**point, "block3_kernel": float(point["block3_kernel"])}
    for _ in range(2):  # a kernel of 3.0 is none, though 3.0 equals 3
        with pytest.raises(ArchError, match="kernel must be a whole number"):
            space.decode(spoilt)
        space.decode(point)


def test_the_sizes_are_those_of_the_papers() -> None:
    assert SPACES["mbconv"].size == 104_485_552_128
    assert SPACES["mnasnet"].size == 15_045_919_506_432


def test_mbconv_expresses_efficientnet_b0_exactly() -> None:
    b0, space = efficientnet.ARCHS["efficientnet_b0"], SPACES["mbconv"]
    choices = space.encode(b0) if space.encode else None
    assert choices is not None
    assert space.decode(choices).id == b0.id
    layers = [choices[f"block{b}_layers"] for b in range(1, 8)]
    assert layers == [1, 2, 2, 3, 3, 4, 1]
    assert count(space.decode(choices)).params == 5_288_548
