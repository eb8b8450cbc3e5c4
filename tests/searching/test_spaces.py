"""Spaces: the contract that every file of search_spaces keeps, found by discovery."""

import random
import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from baselines import efficientnet
from nas.core import registry
from nas.core.errors import ArchError
from nas.interfaces import Space
from nas.models.arch import Arch
from nas.models.build import build_model
from nas.models.cost import count
from nas.searching.samplers import distributions, mutate, random_choices

SPACES: dict[str, Space] = {
    name: registry.export("spaces", name, "SPACE") for name in registry.names("spaces")
}
each_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
HASH = """
import random
from nas.core import registry
from nas.searching.samplers import random_choices
space = registry.export("spaces", "{name}", "SPACE")
print(space.decode(random_choices(space, random.Random(5))).id)
"""


def archs(space: Space, n: int, seed: int = 0) -> list[Arch]:
    rng = random.Random(seed)
    return [space.decode(random_choices(space, rng)) for _ in range(n)]


def test_the_sizes_are_those_of_the_papers() -> None:
    assert SPACES["mbconv"].size == 104_485_552_128
    assert SPACES["mnasnet"].size == 15_045_919_506_432


@each_space
def test_a_space_names_itself_and_its_options_are_plain(space: Space) -> None:
    assert SPACES[space.name] is space
    for options in space.choices.values():
        assert len(set(options)) == len(options) > 0
        assert all(isinstance(option, bool | int | float | str) for option in options)
    assert len(distributions(space)) == len(space.choices)


@each_space
def test_random_points_decode_and_survive_json(space: Space) -> None:
    for arch in archs(space, 200):
        again = Arch.from_dict(arch.to_dict())
        assert again == arch
        assert again.id == arch.id


@each_space
def test_every_option_decodes_and_most_matter(space: Space) -> None:
    rng = random.Random(1)
    for name, options in space.choices.items():
        for option in options:
            space.decode({**random_choices(space, rng), name: option})
    changed = 0
    for _ in range(100):
        choices = random_choices(space, rng)
        changed += space.decode(mutate(space, choices, rng)).id != space.decode(choices).id
    assert changed > 50


@each_space
def test_an_id_is_the_same_in_another_process(space: Space) -> None:
    code = HASH.format(name=space.name)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == archs(space, 1, seed=5)[0].id


@each_space
def test_an_impossible_option_is_refused_after_and_before_its_equal(space: Space) -> None:
    point = random_choices(space, random.Random(0))
    spoilt = {**point, "block3_kernel": float(point["block3_kernel"])}
    for _ in range(2):  # a kernel of 3.0 is none, though 3.0 equals 3
        with pytest.raises(ArchError, match="kernel must be a whole number"):
            space.decode(spoilt)
        space.decode(point)


@each_space
def test_one_seed_one_point(space: Space) -> None:
    assert archs(space, 5, seed=2) == archs(space, 5, seed=2) != archs(space, 5, seed=3)


@each_space
def test_encode_undoes_decode_up_to_the_network(space: Space) -> None:
    if space.encode is None:
        pytest.skip("no encode")
    for arch in archs(space, 200):
        choices = space.encode(arch)
        assert choices is not None
        assert list(choices) == list(space.choices)
        assert all(choices[name] in space.choices[name] for name in choices)
        assert space.decode(choices).id == arch.id
    assert space.encode(efficientnet.ARCHS["efficientnet_b3"]) is None


def test_mbconv_expresses_efficientnet_b0_exactly() -> None:
    b0, space = efficientnet.ARCHS["efficientnet_b0"], SPACES["mbconv"]
    choices = space.encode(b0) if space.encode else None
    assert choices is not None
    assert space.decode(choices).id == b0.id
    layers = [choices[f"block{b}_layers"] for b in range(1, 8)]
    assert layers == [1, 2, 2, 3, 3, 4, 1]
    assert count(space.decode(choices)).params == 5_288_548


@each_space
def test_points_build_and_run_and_cost_what_is_counted(space: Space) -> None:
    for arch in archs(space, 2, seed=4):
        model = build_model(arch).eval()
        assert sum(p.numel() for p in model.parameters()) == count(arch).params
        with torch.inference_mode():
            assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)
        with torch.device("meta"):
            images = torch.zeros(1, 3, arch.resolution, arch.resolution)
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            model.to("meta")(images)
        assert counter.get_total_flops() == 2 * count(arch).flops
