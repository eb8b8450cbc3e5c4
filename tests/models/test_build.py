"""Model: shapes, feature maps, initialisation, stochastic depth, determinism."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from baselines import efficientnet, mobilenet, resnet
from nas.core import registry
from nas.core.errors import ArchError
from nas.models.arch import Arch, Head, Norm, Stage, Stem
from nas.models.build import build_model
from nas.models.modules import StochasticDepth, initialise, initialise_classifier

# the nets here are tiny: threads would wait for each other longer than they work
torch.set_num_threads(1)

B0 = efficientnet.ARCHS["efficientnet_b0"]
R18 = resnet.ARCHS["resnet18"]


def small(**change: object) -> Arch:
    """Return B0 at half width, with whatever else is changed."""
    stages = tuple(replace(stage, channels=stage.channels // 2, layers=1) for stage in B0.stages)
    return replace(B0, stages=stages, stem=Stem(16), head=Head(64, classes=10), **change)


def test_feature_info_of_b0_is_that_of_timm() -> None:
    info = build_model(B0).feature_info
    assert [row["num_chs"] for row in info] == [16, 24, 40, 112, 320]
    assert [row["reduction"] for row in info] == [2, 4, 8, 16, 32]


@pytest.mark.parametrize("arch", [B0, R18], ids=lambda arch: arch.name)
def test_features_have_the_stated_channels_and_strides(arch: Arch) -> None:
    model = build_model(arch).eval()
    with torch.inference_mode():
        maps = model.features(torch.zeros(1, 3, 64, 96))
    for found, info in zip(maps, model.feature_info, strict=True):
        stride = info["reduction"]
        assert found.shape == (1, info["num_chs"], 64 // stride, 96 // stride)


def test_features_only_gives_the_maps_without_a_head() -> None:
    images = torch.randn(2, 3, 64, 64)
    torch.manual_seed(0)
    whole = build_model(small()).eval()
    torch.manual_seed(0)
    body = build_model(small(), features_only=True, out_indices=(0, -1)).eval()
    with torch.inference_mode():
        maps, wanted = body(images), whole.features(images)
    assert [row["reduction"] for row in body.feature_info] == [2, 32]
    assert torch.equal(maps[0], wanted[0])
    assert torch.equal(maps[1], wanted[-1])
    assert not any(isinstance(module, nn.Linear) for module in body.modules())


def test_an_index_that_names_no_map_is_refused() -> None:
    with pytest.raises(ArchError, match=r"out_indices must lie in 0\.\.4"):
        build_model(small(), features_only=True, out_indices=(5,))


@pytest.mark.parametrize("size", [(32, 32), (33, 97), (64, 47)])
@pytest.mark.parametrize(
    "arch",
    [small(), mobilenet.ARCHS["mobilenet_v3_small"], R18],
    ids=lambda arch: arch.name,
)
def test_any_image_size_from_32_up(arch: Arch, size: tuple[int, int]) -> None:
    model = build_model(arch).eval()
    with torch.inference_mode():
        assert model(torch.zeros(2, 3, *size)).shape == (2, arch.head.classes)


@pytest.mark.parametrize("channels", [1, 4])
def test_in_channels(channels: int) -> None:
    model = build_model(small(in_channels=channels)).eval()
    assert model(torch.zeros(1, channels, 32, 32)).shape == (1, 10)


@pytest.mark.parametrize("op", registry.names("ops"))
def test_every_op_trains(op: str) -> None:
    arch = Arch("x", (Stage(op, 16, 2, stride=2), Stage(op, 24, 2)), head=Head(classes=5))
    model = build_model(arch).train()
    loss = nn.functional.cross_entropy(model(torch.randn(4, 3, 32, 32)), torch.arange(4))
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_stochastic_depth_rises_from_zero_as_i_over_n() -> None:
    model = build_model(B0)
    drops = [block.drop for stage in model.stages for block in stage]
    found = [drop.rate if isinstance(drop, StochasticDepth) else None for drop in drops]
    skips = [block.skip == "identity" for block in B0.blocks()]
    rates = [0.2 * i / 16 for i in range(16)]
    assert found == [rate if skip else None for rate, skip in zip(rates, skips, strict=True)]


def test_stochastic_depth_never_drops_the_first_block() -> None:
    model = build_model(replace(B0, stages=(Stage("mbconv", 32, 3),)))
    rates = [block.drop.rate for block in model.stages[0]]
    assert rates == pytest.approx([0, 0.2 / 3, 0.4 / 3])


def test_stochastic_depth_keeps_the_expectation() -> None:
    torch.manual_seed(0)
    drop = StochasticDepth(0.3).train()
    kept = drop(torch.ones(20_000, 1, 1, 1))
    assert kept.mean().item() == pytest.approx(1, abs=0.02)
    assert kept.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert torch.equal(drop.eval()(torch.ones(8, 1, 1, 1)), torch.ones(8, 1, 1, 1))


def test_stochastic_depth_drops_whole_images() -> None:
    torch.manual_seed(0)
    dropped = StochasticDepth(0.5).train()(torch.ones(64, 3, 4, 4))
    assert (dropped.amax((1, 2, 3)) == dropped.amin((1, 2, 3))).all()


def norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.mark.parametrize(
    ("arch", "eps", "momentum"), [(B0, 1e-3, 0.01), (R18, 1e-5, 0.1)], ids=["b0", "resnet18"]
)
def test_batch_norm_is_the_papers(arch: Arch, eps: float, momentum: float) -> None:
    assert {(norm.eps, norm.momentum) for norm in norms(build_model(arch))} == {(eps, momentum)}


def test_group_norm_has_eight_channels_a_group() -> None:
    model = build_model(small(norm=Norm("group")))
    groups = [module for module in model.modules() if isinstance(module, nn.GroupNorm)]
    assert not norms(model)
    assert {g.num_channels // g.num_groups for g in groups if g.num_channels % 8 == 0} == {8}
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_convolutions_start_with_the_fan_out_rule() -> None:
    torch.manual_seed(0)
    for conv in (nn.Conv2d(64, 256, 3), nn.Conv2d(512, 512, 5, groups=512)):
        initialise(conv)
        fan_out = conv.kernel_size[0] ** 2 * conv.out_channels / conv.groups
        assert conv.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.03)
        assert conv.bias is not None
        assert not conv.bias.any()


def test_linear_layers_start_small_at_the_end_and_keep_the_size_before_it() -> None:
    torch.manual_seed(0)
    for rule, size in ((initialise, 2**0.5), (initialise_classifier, 0.1)):
        linear = nn.Linear(1280, 100)
        rule(linear)
        assert linear.weight.std().item() == pytest.approx(size / 1280**0.5, rel=0.02)
        assert not linear.bias.any()


def test_only_the_gate_and_linear_layers_have_a_bias() -> None:
    for name, module in build_model(B0).named_modules():
        if isinstance(module, nn.Conv2d):
            assert (module.bias is not None) == ("squeezeexcite" in name)


def test_reset_classifier() -> None:
    model = build_model(small()).eval()
    before = model.forward_head(model.forward_features(torch.ones(1, 3, 32, 32)), pre_logits=True)
    model.reset_classifier(3)
    assert model.get_classifier().out_features == 3
    after = model.forward_head(model.forward_features(torch.ones(1, 3, 32, 32)), pre_logits=True)
    assert torch.equal(before, after)
    assert model(torch.ones(1, 3, 32, 32)).shape == (1, 3)


def test_evaluation_is_deterministic_and_independent_of_the_batch() -> None:
    model = build_model(small(stochastic_depth=0.5)).eval()
    images = torch.randn(4, 3, 40, 40)
    with torch.inference_mode():
        first, again, alone = model(images), model(images), model(images[:1])
    assert torch.equal(first, again)
    torch.testing.assert_close(first[:1], alone)


def test_same_seed_same_weights() -> None:
    models = []
    for _ in range(2):
        torch.manual_seed(3)
        models.append(build_model(small()).state_dict())
    assert all(torch.equal(value, models[1][key]) for key, value in models[0].items())
