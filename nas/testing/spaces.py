"""The contract of a space: plain options, a pure `decode`, networks that cost what is counted."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nas.interfaces import Space
from nas.models.arch import Arch
from nas.models.build import build_model
from nas.models.cost import count
from nas.searching.objective import Objective
from nas.searching.references import references
from nas.searching.samplers import distributions, mutate
from nas.testing.contract import Contract, draw, space_of

# what another process, which hashes otherwise, decodes
_IDS = """
import json, sys
from nas.core import registry
space = registry.export("spaces", sys.argv[1], "SPACE")
print(*(space.decode(point).id for point in json.loads(sys.argv[2])))
"""


class SpaceContract(Contract):
    """Tests of a file that exports SPACE."""

    room = "spaces"

    @pytest.fixture
    def space(self) -> Space:
        return space_of(type(self), self.part)

    def test_options_are_plain_and_differ(self, space: Space) -> None:
        assert space.name and space.choices
        for options in space.choices.values():
            assert len(set(options)) == len(options) > 0
            assert all(isinstance(option, bool | int | float | str) for option in options)
        assert len(distributions(space)) == len(space.choices)

    def test_random_points_decode_and_survive_json(self, space: Space) -> None:
        for point in draw(space, 200):
            arch = space.decode(point)
            again = Arch.from_dict(arch.to_dict())
            assert again == arch
            assert again.id == arch.id

    def test_decode_is_pure(self, space: Space) -> None:
        for point in draw(space, 20, seed=2):
            before = dict(point)
            assert space.decode(point) == space.decode(point)
            assert point == before

    def test_every_option_decodes(self, space: Space) -> None:
        for name, options in space.choices.items():
            for option, point in zip(options, draw(space, len(options), seed=1), strict=True):
                changed = {**point, name: option}
                if space.valid is None or space.valid(changed):
                    assert space.decode(changed).id

    def test_most_changes_of_a_choice_change_the_network(self, space: Space) -> None:
        rng = random.Random(1)
        pairs = [(point, mutate(space, point, rng)) for point in draw(space, 100, seed=1)]
        real = [pair for pair in pairs if space.valid is None or space.valid(pair[1])]
        changed = sum(space.decode(a).id != space.decode(b).id for a, b in real)
        assert 2 * changed > len(real)

    def test_an_id_is_the_same_in_another_process(self, space: Space) -> None:
        points = draw(space, 3, seed=5)
        command = [sys.executable, "-c", _IDS, self.named(), json.dumps(points)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.split() == [space.decode(point).id for point in points]

    def test_encode_undoes_decode_up_to_the_network(self, space: Space) -> None:
        if space.encode is None:
            pytest.skip("no encode")
        for point in draw(space, 200):
            arch = space.decode(point)
            choices = space.encode(arch)
            assert choices is not None
            assert list(choices) == list(space.choices)
            assert all(choices[name] in space.choices[name] for name in choices)
            assert space.decode(choices).id == arch.id

    def test_references_are_networks_and_repeat(self, space: Space) -> None:
        if space.references is None:
            pytest.skip("no references")
        found = references(space, Objective())
        assert found and found == references(space, Objective())

    def test_networks_build_and_run_and_cost_what_is_counted(self, space: Space) -> None:
        for point in draw(space, 2, seed=4):
            arch = space.decode(point)
            model = build_model(arch).eval()
            assert sum(p.numel() for p in model.parameters()) == count(arch).params
            images = torch.zeros(1, arch.in_channels, arch.resolution, arch.resolution)
            with torch.inference_mode(), FlopCounterMode(display=False) as counter:
                assert model(images).shape == (1, arch.head.classes)
            assert counter.get_total_flops() == 2 * count(arch).flops
