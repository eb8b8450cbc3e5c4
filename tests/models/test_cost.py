"""Cost: golden numbers, and agreement with torch's counter, thop and what backward really keeps."""

import random
from collections.abc import Iterable
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from baselines import efficientnet, efficientnet_v2, mnasnet, mobilenet, resnet
from nas.core import registry
from nas.core.errors import ArchError
from nas.models import cost
from nas.models.arch import (
    ACTIVATIONS,
    GATES,
    PADDINGS,
    SKIPS,
    Arch,
    Head,
    Norm,
    Squeeze,
    Stage,
    Stem,
)
from nas.models.build import Model, build_model
from nas.models.crosscheck import crosscheck
from nas.models.layers import Conv, Dropout, GlobalPool, Layer, Linear, Pool, SqueezeExcite
from nas.models.rounding import expanded, round_channels
from nas.searching.samplers import random_choices

# the nets here are tiny: threads would wait for each other longer than they work
torch.set_num_threads(1)

NETS = efficientnet.ARCHS | efficientnet_v2.ARCHS | mnasnet.ARCHS | mobilenet.ARCHS | resnet.ARCHS

# name, resolution, params, FLOPs, running statistics: torchvision 0.29.2 and timm 1.0.31 built on
# the meta device, multiply-adds by hooks on convolutions and linear layers
GOLDEN = """
efficientnet_b0     224   5288548    385814752   42016
efficientnet_b1     240   7794184    686802832   62048
efficientnet_b2     260   9109994    993561872   67568
efficientnet_b2     288   9109994   1087529456   67568
efficientnet_b3     300  12233232   1827141392   87296
efficientnet_b4     380  19341616   4393771024  125200
efficientnet_b5     456  30389784  10266384752  172736
efficientnet_b6     528  43040704  19067593536  224432
efficientnet_b7     600  66347960  37745884192  310720
efficientnet_b8     672  87413142  62597461568  380032
efficientnet_l2     800 480309308 475703653280 1090688
efficientnet_l2     475 480309308 170892857680 1090688
efficientnet_lite0  224   4652008    385187552   42016
efficientnet_lite1  240   5416680    600185232   53664
efficientnet_lite2  260   6092072    859736272   58096
efficientnet_lite3  280   8197096   1383321872   76672
efficientnet_lite3  300   8197096   1607554544   76672
efficientnet_lite4  300  13006568   2553034336  112368
efficientnet_lite4  380  13006568   3943564112  112368
efficientnet_v2_s   384  21458488   8365617152  153872
efficientnet_v2_s   300  21458488   5307561248  153872
efficientnet_v2_m   480  54139356  24582460384  292032
efficientnet_v2_l   480 118515272  56079699008  512576
efficientnet_v2_b0  224   7139704    718086176   60608
efficientnet_v2_b0  192   7139704    528186752   60608
efficientnet_v2_b1  240   8141052   1196819360   71072
efficientnet_v2_b2  260  10096086   1697542832   82288
efficientnet_v2_b3  300  14358406   3011458816  109216
mnasnet_a1          224   3887038    311579072   33488
mnasnet_b1          224   4383312    314415872   37920
mnasnet_small       224   2030264     68339184   16928
mobilenet_v1        224   4231976    568740352   21888
mobilenet_v2        224   3504872    300774272   34112
mobilenet_v2_140    224   6108776    582195824   47936
mobilenet_v3_large  224   5483032    216589760   24400
mobilenet_v3_small  224   2542856     56510400   12112
resnet18            224  11689512   1814073344    9600
resnet34            224  21797672   3663761408   17024
resnet50            224  25557032   4089184256   53120
resnet101           224  44549160   7801405440  105344
resnet152           224  60192808  11513626624  151424
"""
ROWS = [(row.split()[0], *map(int, row.split()[1:])) for row in GOLDEN.split("\n")[1:-1]]

# Source: facebookresearch/pycls, dev/model_complexity.json
ACTIVATION_COUNTS = {
    "efficientnet_b0": 6_748_036,
    "efficientnet_b1": 10_884_328,
    "efficientnet_b2": 13_832_834,
    "efficientnet_b3": 23_831_296,
    "efficientnet_b4": 49_489_032,
    "efficientnet_b5": 98_857_400,
    "resnet50": 11_315_688,
    "resnet152": 22_755_816,
}

OPS = registry.names("ops")


def one_op(op: str, **change: object) -> Arch:
    """Return a small net of one op that sets every field the op reads to something odd."""
    odd = {"kernel": 5, "expansion": 3.0, "se": 0.25}
    reads = {name: odd[name] for name in registry.load("ops", op).READS}
    stages = (
        Stage(op, 24, 2, stride=2, **{**reads, **change}),
        Stage(op, 24, 1, stride=1, **{**reads, **change}),
        Stage(op, 20, 2, stride=3, **{**reads, **change}),
    )
    return Arch(f"one_{op}", stages, Stem(12), Head(40, 16, 0.2, classes=7), resolution=64)


def counted(model: nn.Module, *shape: int) -> tuple[int, int]:
    """Return params and multiply-adds by torch's own counter."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, *shape))
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2


@pytest.mark.parametrize(("name", "resolution", "params", "flops", "buffers"), ROWS)
def test_golden_numbers(name: str, resolution: int, params: int, flops: int, buffers: int) -> None:
    found = cost.count(NETS[name], resolution)
    assert (found.params, found.flops, found.buffers) == (params, flops, buffers)


def test_every_baseline_has_a_golden_number_at_its_own_resolution() -> None:
    assert {(name, arch.resolution) for name, arch in NETS.items()} <= {row[:2] for row in ROWS}


@pytest.mark.parametrize("name", ACTIVATION_COUNTS)
def test_activations_are_those_of_pycls(name: str) -> None:
    assert cost.count(NETS[name]).activations == ACTIVATION_COUNTS[name]


@pytest.mark.parametrize("size", [(32, 32), (33, 97), (64, 35)])
@pytest.mark.parametrize("skip", SKIPS)
@pytest.mark.parametrize("op", OPS)
def test_an_op_costs_what_torch_counts(op: str, skip: str, size: tuple[int, int]) -> None:
    arch = one_op(op, skip=skip)
    found = cost.count(arch, size)
    assert (found.params, found.flops) == counted(build_model(arch), 3, *size)


@pytest.mark.parametrize("op", OPS)
def test_an_op_costs_what_torch_counts_in_every_style(op: str) -> None:
    for activation in ACTIVATIONS:
        for gate in GATES:
            arch = replace(
                one_op(op),
                activation=activation,
                norm=Norm("group"),
                squeeze=Squeeze("expanded", "relu", gate),
                in_channels=1,
                stem=Stem(12, 7, 2, pool=2),
            )
            found = cost.count(arch, (45, 38))
            assert (found.params, found.flops) == counted(build_model(arch), 1, 45, 38)
            assert found.buffers == 0


@pytest.mark.parametrize("op", OPS)
def test_the_sizes_an_op_states_are_those_of_its_module(op: str) -> None:
    for block in one_op(op, skip="none").blocks():
        x = torch.zeros(2, block.inputs, 19, 30)
        for layer in cost.body(block).main:
            size = layer.size(*x.shape[2:])
            x = layer.module().eval()(x)
            assert tuple(x.shape[2:]) == size
        assert x.shape[1] == block.outputs


@pytest.mark.parametrize(
    "layer",
    [
        Conv(6, 10, 3, 2),
        Conv(6, 6, 5, 3, groups=6, norm=Norm(), activation="gelu"),
        SqueezeExcite(6, 2, "silu", "sigmoid"),
        Pool("max", 6, 2),
        Pool("average", 6, 3),
        GlobalPool(6),
        Dropout(0.5),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_layer_states_its_size_and_cost(layer: Layer) -> None:
    module = layer.module()
    assert layer.tally(31, 22)[:2] == counted(module, 6, 31, 22)
    shape = module(torch.zeros(2, 6, 31, 22)).shape
    assert (*shape[2:], 1, 1)[:2] == layer.size(31, 22)


def test_linear_states_its_cost() -> None:
    layer = Linear(6, 4, "relu")
    assert layer.tally(1, 1)[:2] == counted(layer.module(), 6)


def test_average_pooling_leaves_a_constant_map_alone() -> None:
    ones = torch.ones(1, 3, 7, 8)
    assert torch.equal(Pool("average", 3, 2).module()(ones), torch.ones(1, 3, 4, 4))


def test_stages_add_up_to_the_whole() -> None:
    for arch in (NETS["efficientnet_b0"], NETS["resnet18"]):
        rows, whole = cost.stages(arch), cost.count(arch)
        assert sum(row.params for row in rows) == whole.params
        assert sum(row.flops for row in rows) == whole.flops
        assert [rows[0].name, rows[-1].name] == ["stem", "head"]
    b0 = cost.stages(NETS["efficientnet_b0"])
    assert [row.params for row in b0[:3]] == [928, 1448, 16714]
    assert [row.size[0] for row in b0] == [224, 112, 112, 56, 28, 14, 14, 7, 7]


def elements(model: nn.Module, image: torch.Tensor) -> tuple[int, int]:
    """Return how many elements batch norms put out, and the last pool reads and puts out."""
    found = [0, 0]

    def hook(module: nn.Module, given: tuple[torch.Tensor], made: torch.Tensor) -> None:
        pool = isinstance(module, nn.AdaptiveAvgPool2d)
        found[pool] += made.numel() + (given[0].numel() if pool else 0)

    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.AdaptiveAvgPool2d):
            module.register_forward_hook(hook)
    model.eval()(image)
    return found[0], found[1]


@pytest.mark.parametrize("kind", ["batch", "group"])
def test_thop_agrees_and_its_surplus_is_norms_and_pools(kind: str) -> None:
    arch = replace(one_op("mbconv"), stem=Stem(12, pool=2), norm=Norm(kind))
    found = crosscheck(arch)
    assert found["nas"] == found["torch"]
    assert found["nas"]["flops"] == found["thop"]["flops"]
    # thop counts four operations per element of a batch norm and none for a group norm
    norms, pools = elements(build_model(arch), torch.zeros(1, 3, 64, 64))
    assert found["thop"]["norms_and_pools"] == 4 * norms + pools


def saved_bytes(model: Model, images: torch.Tensor) -> int:
    """Return the bytes of distinct storages that backward keeps, weights and buffers left out."""
    state = [*model.parameters(), *model.buffers()]
    own = {tensor.untyped_storage().data_ptr() for tensor in state}
    kept: dict[int, tuple[int, torch.Tensor]] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            # the tensor is held, so that no address is used twice
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        model.train()(images)
    return sum(size for size, _ in kept.values())


def saved_per_image(arch: Arch) -> float:
    model, side = build_model(arch), arch.resolution
    few, many = (saved_bytes(model, torch.randn(n, arch.in_channels, side, side)) for n in (2, 4))
    return (many - few) / 2


def stated(arch: Arch) -> int:
    size = (arch.resolution, arch.resolution)
    return cost.FLOAT_BYTES * sum(tally.saved for tally in cost._tallies(arch, *size))


@pytest.mark.parametrize("activation", ["relu", "relu6", "silu"])
@pytest.mark.parametrize("skip", SKIPS)
@pytest.mark.parametrize("op", OPS)
def test_backward_keeps_what_the_estimate_says(op: str, skip: str, activation: str) -> None:
    arch = replace(one_op(op, skip=skip), activation=activation)
    assert saved_per_image(arch) == pytest.approx(stated(arch), rel=0.02)


@pytest.mark.parametrize(
    "name", ["efficientnet_v2_b0", "mnasnet_a1", "mobilenet_v1", "mobilenet_v3_small", "resnet18"]
)
@pytest.mark.parametrize("padding", PADDINGS)
def test_backward_of_a_baseline_keeps_what_the_estimate_says(name: str, padding: str) -> None:
    arch = replace(NETS[name], resolution=64, padding=padding)
    assert saved_per_image(arch) == pytest.approx(stated(arch), rel=0.02)


def any_arch(rng: random.Random) -> Arch:
    """Return one of archs that share most parts, but not all that the cost of a part depends on."""

    def stage() -> Stage:
        op = rng.choice(["mbconv", "fused_mbconv", "conv", "bottleneck"])
        return Stage(
            op,
            rng.choice([8, 16]),
            layers=rng.choice([1, 2, 3]),
            kernel=rng.choice([3, 5]),
            stride=rng.choice([1, 2]),
            expansion=1.0 if op == "conv" else rng.choice([1, 4]),
            se=rng.choice([0.0, 0.25]),
            skip=rng.choice(SKIPS),
            activation=rng.choice([None, None, "relu"]),
        )

    return Arch(
        "any",
        tuple(stage() for _ in range(rng.choice([1, 2, 3]))),
        Stem(rng.choice([8, 16]), stride=rng.choice([1, 2]), pool=rng.choice([1, 2])),
        Head(rng.choice([0, 32]), hidden=rng.choice([0, 8]), classes=rng.choice([2, 10])),
        resolution=rng.choice([32, 48]),
        in_channels=rng.choice([1, 3]),
        activation=rng.choice(["silu", "relu"]),
        norm=Norm(rng.choice(["batch", "group"])),
        squeeze=Squeeze(rng.choice(["input", "expanded"])),
        padding=rng.choice(PADDINGS),
    )


def added_up(arch: Arch) -> tuple[int, ...]:
    """Return params, FLOPs and activations, one layer after another and nothing remembered."""
    size, tallies = (arch.resolution, arch.resolution), []

    def pass_through(layers: Iterable[Layer]) -> None:
        nonlocal size
        for layer in layers:
            tallies.append(layer.tally(*size))
            size = layer.size(*size)

    pass_through(cost.stem_layers(arch.stem, arch.in_channels, arch.norm, arch.activation))
    for block in arch.blocks():
        if side := cost.shortcut(block):
            tallies.append(side.tally(*size))
        pass_through(cost.body(block).main)
    last = arch.stages[-1].channels
    pass_through(cost.head_layers(arch.head, last, arch.norm, arch.activation))
    return tuple(sum(column) for column in zip(*tallies, strict=True))[:3]


def test_what_is_remembered_of_other_archs_is_what_is_counted_anew() -> None:
    rng = random.Random(0)
    archs = [any_arch(rng) for _ in range(500)]
    remembered = [cost.count(arch) for arch in archs]
    for arch, found in zip(archs, remembered, strict=True):
        assert (found.params, found.flops, found.activations) == added_up(arch)
        cost._counter.cache_clear()
        assert cost.count(arch) == found


@pytest.mark.parametrize("name", registry.names("spaces"))
def test_the_points_of_a_space_cost_what_their_models_have(name: str) -> None:
    space, rng = registry.export("spaces", name, "SPACE"), random.Random(0)
    points = [random_choices(space, rng) for _ in range(300)]
    assert all(cost.count(arch).flops == added_up(arch)[1] for arch in map(space.decode, points))
    for arch in map(space.decode, points[:3]):
        with torch.device("meta"):
            model = build_model(arch)
        assert cost.count(arch).params == sum(each.numel() for each in model.parameters())


def test_memory_of_training_exceeds_that_of_inference() -> None:
    found = cost.count(NETS["efficientnet_b0"])
    assert found.training_bytes > 4 * found.params * 4
    assert found.training_bytes_per_image + found.training_bytes > found.inference_bytes


def test_a_field_that_an_op_does_not_read_must_keep_its_default() -> None:
    arch = Arch("x", (Stage("sepconv", 16, expansion=6),))
    with pytest.raises(ArchError, match="does not read expansion, which is 6"):
        cost.count(arch)


def test_an_unknown_op_and_a_tiny_image_are_refused() -> None:
    with pytest.raises(ArchError, match="no op named 'conv9'; known: basic"):
        cost.count(Arch("x", (Stage("conv9", 16),)))
    with pytest.raises(ArchError, match="at least 32 x 32"):
        cost.count(NETS["resnet18"], (64, 16))


@pytest.mark.parametrize(
    ("exact", "rounded"),
    [(1, 8), (19.2, 24), (17.7, 16), (20, 24), (35.2, 32), (44, 48), (1408, 1408)],
)
def test_channels_are_rounded_as_in_the_released_code(exact: float, rounded: int) -> None:
    assert round_channels(exact) == rounded


def test_the_ninety_per_cent_rule_can_be_left_out() -> None:
    assert round_channels(19.2, keep=0) == 16


def test_an_expansion_that_is_no_ratio_of_whole_widths_is_rounded() -> None:
    assert expanded(40, 6) == 240
    assert expanded(16, 64 / 16) == 64
    assert expanded(24, 88 / 24) == 88
    assert expanded(24, 2.3) == round_channels(24 * 2.3) == 56
