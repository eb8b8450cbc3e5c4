"""Weights for another network of the same skeleton."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from nas import inherit
from nas.core.errors import OptionError
from nas.models.arch import Arch, Block, Head, Norm, Stage, Stem
from nas.models.build import Model
from nas.models.compound import scale_arch
from nas.models.layers import Body, Conv, Linear, SqueezeExcite, Tally
from nas.models.load import load_arch
from nas.models.ops import conv as conv_op
from nas.models.subnets import subnet_space
from nas.training.weights.channels import channels_of, weight_name

STEM, HEAD = Stem(8), Head(16, classes=5)
SMALL = {
    "mbconv": Arch(
        "mbconv",
        (
            Stage("mbconv", 8, 1, 3, 1, 1),
            Stage("mbconv", 16, 2, 3, 2, 4, 0.25),
            Stage("mbconv", 24, 2, 5, 1, 3),
        ),
        STEM,
        HEAD,
        32,
    ),
    "fused": Arch(
        "fused",
        (Stage("fused_mbconv", 8, 2), Stage("fused_mbconv", 16, 2, 3, 2, 4, 0.25)),
        STEM,
        Head(16, hidden=24, classes=5),
        32,
    ),
    "sepconv": Arch(
        "sepconv",
        (Stage("sepconv", 8, 2, se=0.25), Stage("depthwise", 16, 1, 3, 2)),
        STEM,
        HEAD,
        32,
        activation="relu6",
    ),
    "bottleneck": Arch(
        "bottleneck",
        (
            Stage("bottleneck", 32, 2, expansion=4, skip="projection"),
            Stage("bottleneck", 64, 2, stride=2, expansion=4, skip="projection"),
        ),
        Stem(8, 7, 2, 2),
        Head(classes=5),
        32,
        activation="relu",
    ),
    "basic": Arch(
        "basic",
        (
            Stage("basic", 8, 2, skip="projection"),
            Stage("basic", 16, 2, stride=2, skip="projection", se=0.25),
        ),
        STEM,
        Head(classes=5),
        32,
        activation="relu",
    ),
}


def _trained(arch: Arch, seed: int = 0) -> Model:
    """Return a model whose norms have gains, biases and statistics of their own."""
    torch.manual_seed(seed)
    model = Model(arch)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            module.momentum = None
    with torch.no_grad():
        model.train()(torch.randn(16, arch.in_channels, arch.resolution, arch.resolution))
    return model.eval()


def _logits(arch: Arch, weights: Mapping[str, Tensor], images: Tensor) -> Tensor:
    model = Model(arch)
    model.load_state_dict(weights, strict=True)
    with torch.no_grad():
        found: Tensor = model.eval()(images)
    return found


def _images(arch: Arch) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, arch.in_channels, arch.resolution, arch.resolution, generator=generator)


def _check_kept(parent: Arch, arch: Arch) -> None:
    model, images = _trained(parent), _images(parent)
    with torch.no_grad():
        wanted = model(images)
    found = _logits(arch, inherit(parent, model.state_dict(), arch), images)
    assert torch.allclose(found, wanted, atol=1e-5 * float(wanted.abs().max()), rtol=1e-5)


def _each(arch: Arch, **changed: object) -> Arch:
    return replace(arch, stages=tuple(replace(s, **changed) for s in arch.stages))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [*SMALL, "mobilenet_v3_small"])
def test_the_parent_itself_gets_its_own_weights(name: str) -> None:
    parent = SMALL[name] if name in SMALL else load_arch(name)
    weights = _trained(replace(parent, resolution=32)).state_dict()
    found = inherit(parent, weights, parent)
    assert list(found) == list(weights)
    assert all(torch.equal(found[name], weights[name]) for name in weights)


@pytest.mark.parametrize("name", SMALL)
def test_larger_kernels_keep_the_function(name: str) -> None:
    _check_kept(SMALL[name], _each(SMALL[name], kernel=7))


@pytest.mark.parametrize("name", ["mbconv", "fused", "bottleneck", "basic"])
def test_more_layers_keep_the_function(name: str) -> None:
    _check_kept(SMALL[name], _each(SMALL[name], layers=4))


@pytest.mark.parametrize("width", [1.5, 3.0])
@pytest.mark.parametrize("name", SMALL)
def test_more_channels_keep_the_function(name: str, width: float) -> None:
    parent = SMALL[name]
    _check_kept(parent, scale_arch(parent, depth=1, width=width, resolution=32))


@pytest.mark.parametrize("name", ["mbconv", "fused", "bottleneck"])
def test_a_larger_expansion_keeps_the_function(name: str) -> None:
    factor = 0.5 if name == "bottleneck" else 1.5
    stages = tuple(
        replace(s, expansion=s.expansion * factor) if s.expansion != 1 else s
        for s in SMALL[name].stages
    )
    _check_kept(SMALL[name], replace(SMALL[name], stages=stages))


def test_copies_have_gradients_of_their_own() -> None:
    parent = SMALL["mbconv"]
    arch = scale_arch(parent, depth=1, width=2, resolution=32)
    model = Model(arch)
    model.load_state_dict(inherit(parent, _trained(parent).state_dict(), arch))
    model.train()(_images(parent)).square().sum().backward()
    gradient = model.stem[0].conv.weight.grad  # type: ignore[union-attr,index]
    assert isinstance(gradient, Tensor)
    assert len(torch.unique(gradient.flatten(1), dim=0)) == len(gradient)


def _silence(wide: Arch, arch: Arch, model: Model) -> None:
    """Make as many channels of each set dead as `arch` has fewer: the first of them."""
    ours, sets = channels_of(arch), channels_of(wide)
    state = model.state_dict()
    small = {part.place: part for part in ours.parts.values()}
    for place, part in sets.parts.items():
        dead = sets.sizes[part.makes] - ours.sizes[small[place].makes]
        for name in (f"{part.name}.norm.weight", f"{part.name}.norm.bias"):
            if name in state:
                state[name][:dead] = 0
        if isinstance(part.layer, SqueezeExcite):
            other = small[place].layer
            assert isinstance(other, SqueezeExcite)
            state[f"{part.name}.expand.weight"][:, : part.layer.squeezed - other.squeezed] = 0
        if isinstance(part.layer, Linear):  # a hidden layer has no norm: nothing reads it
            dead = sets.sizes[part.reads] - ours.sizes[small[place].reads]
            state[weight_name(part)][:, :dead] = 0


@pytest.mark.parametrize("name", SMALL)
def test_dead_channels_are_those_that_go(name: str) -> None:
    arch, images = SMALL[name], _images(SMALL[name])
    wide = scale_arch(arch, depth=1, width=2, resolution=32)
    model = _trained(wide)
    _silence(wide, arch, model)
    with torch.no_grad():
        wanted = model(images)
    found = _logits(arch, inherit(wide, model.state_dict(), arch), images)
    assert wanted.std() > 1e-3
    assert torch.allclose(found, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "name", ["efficientnet_lite0", "mobilenet_v3_small", "basic", "bottleneck"]
)
def test_any_sub_network_loads_and_is_the_same_each_time(name: str) -> None:
    parent = SMALL.get(name) or load_arch(name)
    weights = _trained(replace(parent, resolution=32)).state_dict()
    space, rng = subnet_space(parent, classes=3), random.Random(0)
    for _ in range(3):
        arch = space.decode({n: rng.choice(o) for n, o in space.choices.items()})
        found = inherit(parent, weights, arch)
        Model(arch).load_state_dict(found, strict=True)
        again = inherit(parent, weights, arch)
        assert all(torch.equal(found[name], again[name]) for name in found)
        assert all(tensor.isfinite().all() for tensor in found.values())


def test_squeeze_and_excitation_that_is_absent_is_left_out_and_new_begins_near_the_identity() -> (
    None
):
    parent, images = SMALL["mbconv"], _images(SMALL["mbconv"])
    weights = _trained(parent).state_dict()
    without = _each(parent, se=0.0)
    found = inherit(parent, weights, without)
    assert not any("squeezeexcite" in name for name in found)
    kept = "stages.1.0.main.conv3.conv.weight", "stages.1.0.main.conv2.conv.weight"
    assert torch.equal(weights[kept[0]], found[kept[1]])
    before = _logits(without, found, images)
    after = _logits(_each(parent, se=0.25), inherit(without, found, _each(parent, se=0.25)), images)
    assert (after - before).abs().max() < 0.2 * before.abs().max()


def test_a_classifier_of_other_classes_is_fresh() -> None:
    parent = SMALL["mbconv"]
    weights = _trained(parent).state_dict()
    other = replace(parent, head=replace(parent.head, classes=3))
    found = inherit(parent, weights, other)
    names = list(found)[-2:]
    assert found[names[0]].shape == (3, 16) and not found[names[1]].any()
    assert all(torch.equal(found[name], weights[name]) for name in list(found)[:-2])
    # what counts are the classes of the weights, not those that the parent's arch says
    again = inherit(other, weights, parent)
    assert all(torch.equal(again[name], weights[name]) for name in weights)


def test_first_layers_and_centres_of_kernels_are_kept() -> None:
    parent = SMALL["mbconv"]
    weights = _trained(parent).state_dict()
    found = inherit(parent, weights, _each(parent, layers=1, kernel=3))
    name = "stages.2.0.main.conv1.conv.weight"
    assert torch.equal(found[name], weights[name][..., 1:-1, 1:-1])
    assert not any(name.startswith("stages.1.1") for name in found)


def test_half_weights_become_float32() -> None:
    parent = SMALL["basic"]
    weights = {
        n: t.half() if t.is_floating_point() else t
        for n, t in _trained(parent).state_dict().items()
    }
    found = inherit(parent, weights, scale_arch(parent, depth=1, width=0.5, resolution=32))
    assert {t.dtype for n, t in found.items() if "num_batches" not in n} == {torch.float32}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"stages": SMALL["mbconv"].stages[:2]}, "stages: 2, the parent's 3; take an arch"),
        ({"stem": Stem(8, stride=1)}, "stem.stride: 1, the parent's 2"),
        ({"in_channels": 1}, "channels of the image: 1, the parent's 3"),
        ({"norm": Norm("group")}, "norm.kind: group, the parent's batch"),
        ({"head": Head(0, classes=5)}, "a convolution in the head: no, the parent's yes"),
        ({"head": Head(16, 8, classes=5)}, "a hidden layer in the head: yes, the parent's no"),
        ({"activation": "relu"}, "activation: relu, the parent's silu"),
    ],
)
def test_another_skeleton_is_refused_in_one_line(changed: dict[str, object], message: str) -> None:
    parent = SMALL["mbconv"]
    weights = _trained(parent).state_dict()
    other = replace(parent, name="mine", **changed)  # type: ignore[arg-type]
    with pytest.raises(OptionError) as caught:
        inherit(parent, weights, other)
    told = str(caught.value)
    assert "mine does not fit the skeleton of mbconv" in told
    assert message in told and "\n" not in told


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"op": "fused_mbconv"}, "op of stage 2: fused_mbconv, the parent's mbconv"),
        ({"stride": 1}, "stride of stage 2: 1, the parent's 2"),
        ({"skip": "none"}, "skip of stage 2: none, the parent's identity"),
        ({"activation": "relu"}, "activation of stage 2: relu, the parent's silu"),
        ({"expansion": 1.0}, "stage 2 of mine (mbconv, expansion 1) has 2 convolutions"),
    ],
)
def test_another_stage_is_refused_by_its_number(changed: dict[str, object], message: str) -> None:
    parent = SMALL["mbconv"]
    stages = list(parent.stages)
    stages[1] = replace(stages[1], **changed)  # type: ignore[arg-type]
    other = replace(parent, name="mine", stages=tuple(stages))
    with pytest.raises(OptionError) as caught:
        inherit(parent, _trained(parent).state_dict(), other)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_weights_of_another_parent_are_refused() -> None:
    parent, weights = SMALL["mbconv"], dict(_trained(SMALL["mbconv"]).state_dict())
    with pytest.raises(OptionError, match="these weights are not of basic"):
        inherit(SMALL["basic"], weights, SMALL["basic"])
    wide = scale_arch(parent, depth=1, width=2, resolution=32)
    with pytest.raises(OptionError, match=r"conv0.conv.weight has the shape \(8, 3, 3, 3\), not"):
        inherit(wide, weights, wide)
    with pytest.raises(OptionError, match=r"head.linear3.weight is missing"):
        inherit(parent, {}, parent)
    del weights["stages.1.0.main.conv0.norm.weight"]
    with pytest.raises(OptionError, match=r"stages.1.0.main.conv0.norm.weight is missing"):
        inherit(parent, weights, parent)


class Scale(nn.Module):
    """A user's module: a factor for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.rand(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor[:, None, None]


@dataclass(frozen=True)
class ScaleLayer:
    """A user's layer, none of nas/models/layers.py."""

    inputs: int
    outputs: int

    def size(self, height: int, width: int) -> tuple[int, int]:
        return height, width

    def tally(self, height: int, width: int) -> Tally:
        return Tally(params=self.outputs)

    def module(self) -> nn.Module:
        return Scale(self.outputs)


@pytest.mark.parametrize("kind", ["groups", "layer"])
def test_a_layer_whose_channels_cannot_be_chosen_is_copied_or_refused(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def body(b: Block) -> Body:
        conv = Conv(b.inputs, b.outputs, b.kernel, b.stride, 2 if kind == "groups" else 1, b.norm)
        return Body([conv, ScaleLayer(b.outputs, b.outputs)] if kind == "layer" else [conv])

    monkeypatch.setattr(conv_op, "body", body)
    # channels that no other test has, as costs of stages are remembered
    side = 22 if kind == "groups" else 26
    stages = (Stage("conv", side, 2), Stage("mbconv", 20, 2, 3, 2, 2))
    parent = Arch("own", stages, Stem(side), HEAD, 32)
    weights = _trained(parent).state_dict()
    deeper = replace(parent, stages=(parent.stages[0], replace(stages[1], expansion=1.5)))
    found = inherit(parent, weights, deeper)
    own = [name for name in found if name.startswith("stages.0")]
    assert own and all(torch.equal(found[name], weights[name]) for name in own)
    narrower = replace(parent, stages=(replace(stages[0], channels=14), stages[1]))
    message = "of 2 groups" if kind == "groups" else "ScaleLayer"
    with pytest.raises(OptionError, match=message) as caught:
        inherit(parent, weights, narrower)
    assert "stages.0" in str(caught.value) and "\n" not in str(caught.value)
