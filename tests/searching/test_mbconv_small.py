"""The space for small images: EfficientNet-B0's pattern in it, its range, its maps."""

import dataclasses

import pytest
import torch

from baselines import efficientnet
from nas.models.arch import Arch
from nas.models.build import build_model
from nas.models.cost import count, stages
from nas.searching.feasibility import check_space, reachable
from search_spaces import mbconv, mbconv_small
from search_spaces.mbconv_small import B0, SPACE, WIDTHS, decode, encode

# of EfficientNet-B0's pattern for 10 classes at 32 pixels: width -> multiply-adds, params
GOLDEN = {
    0.25: (8_942_880, 328_956),
    0.35: (13_726_080, 539_618),
    0.5: (26_217_792, 1_077_932),
    0.75: (58_964_064, 2_381_050),
    1.0: (93_839_872, 4_020_358),
}


pytestmark = pytest.mark.usefixtures("one_thread")


def for_classes(arch: Arch, classes: int) -> Arch:
    return dataclasses.replace(arch, head=dataclasses.replace(arch.head, classes=classes))


def b0(width: float) -> Arch:
    return decode({"width": width, **B0})


@pytest.mark.parametrize("width", WIDTHS)
def test_b0s_pattern_is_a_point_at_every_width(width: float) -> None:
    cost = count(for_classes(b0(width), 10))
    assert (cost.flops, cost.params) == GOLDEN[width]
    assert encode(b0(width)) == {"width": width, **B0}


def test_b0s_pattern_is_efficientnet_b0_but_for_strides_and_regularisation() -> None:
    ours, theirs = b0(1.0), efficientnet.ARCHS["efficientnet_b0"]
    same = [
        dataclasses.replace(mine, stride=stage.stride)
        for mine, stage in zip(ours.stages, theirs.stages, strict=True)
    ]
    assert tuple(same) == theirs.stages
    assert (ours.stem, ours.head.channels) == (theirs.stem, theirs.head.channels)
    assert count(ours).params == count(theirs).params == 5_288_548
    assert encode(theirs) is None


def test_it_offers_what_mbconv_offers_and_a_width() -> None:
    assert {**SPACE.choices} == {"width": WIDTHS, **mbconv.SPACE.choices}
    assert SPACE.size == 5 * mbconv.SPACE.size == 522_427_760_640
    assert next(iter(SPACE.choices)) == "width"


def test_it_reaches_from_one_to_a_hundred_and_fifty_million() -> None:
    assert check_space(SPACE).name == "mbconv_small"
    least, most = reachable(SPACE, lambda arch: count(for_classes(arch, 10)).flops)
    assert (least, most) == (744_832, 148_318_080)


def test_wider_is_dearer_and_channels_are_multiples_of_eight() -> None:
    archs = [b0(width) for width in WIDTHS]
    flops = [count(arch).flops for arch in archs]
    assert flops == sorted(set(flops))
    for arch in archs:
        channels = [arch.stem.channels, arch.head.channels, *(s.channels for s in arch.stages)]
        assert all(width % 8 == 0 for width in channels)


def test_32_pixels_become_maps_of_16_8_and_4() -> None:
    rows = stages(b0(0.25))
    assert [row.size[0] for row in rows] == [32, 16, 16, 16, 8, 8, 8, 4, 4]


def test_encode_knows_a_foreign_network() -> None:
    arch = b0(0.5)
    wider = dataclasses.replace(arch, stem=dataclasses.replace(arch.stem, channels=24))
    shorter = dataclasses.replace(arch, stages=arch.stages[:-1])
    odd = dataclasses.replace(arch.stages[0], kernel=7)
    for foreign in (
        wider,
        shorter,
        dataclasses.replace(arch, stages=(odd, *arch.stages[1:])),
        dataclasses.replace(arch, head=dataclasses.replace(arch.head, channels=648)),
        for_classes(arch, 10),
    ):
        assert encode(foreign) is None


@pytest.mark.parametrize("side", [32, 48, 64])
def test_it_trains_on_small_images(side: int) -> None:
    torch.manual_seed(0)
    model = build_model(for_classes(b0(0.25), 3)).train()
    loss = model(torch.randn(4, 3, side, side)).logsumexp(1).sum()
    loss.backward()
    grads = [parameter.grad for parameter in model.parameters()]
    assert all(grad is not None and torch.isfinite(grad).all() for grad in grads)
    assert mbconv_small.SPACE.name == "mbconv_small"
