"""A network without its head: what the maps are, and that the whole model's weights load."""

from dataclasses import replace

import pytest
import torch
from digits import TINY

import nas
from nas.core.errors import ArchError
from nas.models.arch import Arch
from nas.models.build import Features, Model, features_of
from nas.models.load import baselines

torch.set_num_threads(1)

B0 = baselines()["efficientnet_b0"]


def backbone(arch: Arch, out_indices: tuple[int, ...] | None = None) -> Features:
    found = nas.build_model(arch, features_only=True, out_indices=out_indices)
    assert isinstance(found, Features)
    return found.eval()


def test_channels_and_strides_are_those_of_timms_b0() -> None:
    with torch.device("meta"):
        found = backbone(B0)
        chosen = backbone(B0, (-1, 2))
    assert (found.channels, found.strides) == ([16, 24, 40, 112, 320], [2, 4, 8, 16, 32])
    assert (chosen.channels, chosen.strides) == ([320, 40], [32, 8])


@pytest.mark.parametrize("name", ["mnasnet_small", "resnet18", "mobilenet_v3_small"])
def test_every_map_is_as_stated_for_any_image(name: str) -> None:
    found = backbone(baselines()[name])
    with torch.inference_mode():
        maps = found(torch.zeros(1, 3, 64, 96))
    for value, channels, stride in zip(maps, found.channels, found.strides, strict=True):
        assert value.shape == (1, channels, 64 // stride, 96 // stride)


@pytest.mark.parametrize("chosen", [None, (0,), (1, 0), (-1,), (0, 0)])
def test_the_weights_of_the_whole_model_give_its_maps(chosen: tuple[int, ...] | None) -> None:
    torch.manual_seed(0)
    model, found = Model(TINY).eval(), backbone(TINY, chosen)
    found.load_weights(model.state_dict())
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        wanted = model.features(images)
        maps = found(images)
        shared = features_of(model, chosen)(images)
    for value, other, index in zip(maps, shared, chosen or (0, 1), strict=True):
        assert torch.equal(value, wanted[index]) and torch.equal(other, wanted[index])
    assert not any(name.startswith("head") for name in found.state_dict())


def test_a_model_keeps_its_head_when_its_maps_are_taken() -> None:
    model = Model(TINY).eval()
    features_of(model)
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_the_weights_of_another_arch_are_refused_in_one_line() -> None:
    wider = Model(replace(TINY, stem=replace(TINY.stem, channels=16)))
    with pytest.raises(ArchError, match=r"not of tiny: .*stem\.conv0") as error:
        backbone(TINY).load_weights(wider.state_dict())
    assert "\n" not in str(error.value)


def test_indices_without_maps_are_refused() -> None:
    with pytest.raises(ArchError, match="give features_only=True"):
        nas.build_model(TINY, out_indices=(0,))
