"""Compound scaling: the paper's arithmetic, the released family, each rule's promise."""

import math
from dataclasses import replace

import pytest

from baselines import efficientnet, mobilenet, resnet
from nas.core.errors import NasError, OptionError
from nas.models.arch import Arch, Head, Stage
from nas.models.compound import (
    RELEASED,
    RULES,
    TOLERANCE,
    Multipliers,
    Request,
    ScaledArch,
    family,
    fast,
    scale_arch,
)
from nas.models.cost import count

B0 = efficientnet.ARCHS["efficientnet_b0"]
FLOPS = count(B0).flops
V3 = mobilenet.ARCHS["mobilenet_v3_large"]


def one(phi: float, base: Arch = B0, **options: object) -> ScaledArch:
    return family(base, [phi], **options)[0]


def giga(arch: Arch, resolution: int | None = None) -> float:
    return count(arch, resolution).flops / 1e9


def test_the_papers_coefficients_are_1_92_not_2() -> None:
    alpha, beta, gamma = 1.2, 1.1, 1.15
    assert alpha * beta**2 * gamma**2 == pytest.approx(1.92027)


@pytest.mark.parametrize("phi", range(9))
def test_released_gives_the_released_family(phi: int) -> None:
    member, wanted = one(phi, rule="released"), efficientnet.ARCHS[f"efficientnet_b{phi}"]
    assert member.arch.id == wanted.id
    assert count(member.arch) == count(wanted)
    assert member.arch.head.dropout == RELEASED[phi].dropout
    assert member.requested == (
        RELEASED[phi].depth,
        RELEASED[phi].width,
        RELEASED[phi].resolution / 224,
    )


# Tan and Le's formula with 1.2, 1.1, 1.15 at the nearest multiple of 8: pixels, FLOPs, times B0
FORMULA = [
    (1, 256, 0.860, 2.2),
    (2, 296, 1.811, 4.7),
    (3, 344, 3.253, 8.4),
    (4, 392, 6.320, 16.4),
    (5, 448, 10.441, 27.1),
    (6, 520, 20.101, 52.1),
    (7, 592, 38.762, 100.5),
]


@pytest.mark.parametrize(("phi", "pixels", "flops", "times"), FORMULA)
def test_formula_with_multiples_of_8(phi: int, pixels: int, flops: float, times: float) -> None:
    arch = one(phi).arch
    assert arch.resolution == pixels
    assert giga(arch) == pytest.approx(flops, abs=6e-4)
    assert count(arch).flops / FLOPS == pytest.approx(times, abs=0.051)


def test_one_pixel_more_than_a_multiple_of_32_costs_15_per_cent() -> None:
    arch = one(1).arch
    assert giga(arch, 256) == pytest.approx(0.860, abs=5e-4)
    assert giga(arch, 257) == pytest.approx(0.993, abs=5e-4)


# Tan and Le 2019, Table 3, recounted. The paper prints 2.2, 2.2, 2.3; 1.2, 1.1, 1.2; and 16.2 for
# d=4, 14.7 for w=2 of ResNet-50, which look swapped.
TABLE_3 = [
    ("mobilenet_v1", 1, 1, 1, 0.569),
    ("mobilenet_v1", 1, 2, 1, 2.216),
    ("mobilenet_v1", 1, 1, 2, 2.272),
    ("mobilenet_v1", 1.4, 1.2, 1.3, 2.470),
    ("mobilenet_v2", 1, 1, 1, 0.301),
    ("mobilenet_v2", 4, 1, 1, 1.220),
    ("mobilenet_v2", 1, 2, 1, 1.137),
    ("mobilenet_v2", 1, 1, 2, 1.199),
    ("mobilenet_v2", 1.4, 1.2, 1.3, 1.442),
    ("resnet50", 1, 1, 1, 4.089),
    ("resnet50", 4, 1, 1, 14.571),
    ("resnet50", 1, 2, 1, 16.117),
    ("resnet50", 1, 1, 2, 16.351),
    ("efficientnet_b0", 4, 1, 1, 1.575),
    ("efficientnet_b0", 1, 2, 1, 1.450),
    ("efficientnet_b0", 1, 1, 2, 1.538),
    ("efficientnet_b0", 1.4, 1.2, 1.3, 1.800),
]


@pytest.mark.parametrize(("name", "d", "w", "r", "flops"), TABLE_3)
def test_other_nets_scale_as_in_table_3(
    name: str, d: float, w: float, r: float, flops: float
) -> None:
    base = (mobilenet.ARCHS | resnet.ARCHS | efficientnet.ARCHS)[name]
    arch = scale_arch(base, depth=d, width=w, resolution=round(224 * r))
    assert giga(arch) == pytest.approx(flops, abs=6e-4)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("base", [B0, V3], ids=lambda arch: arch.name)
def test_phi_0_is_the_base_itself(rule: str, base: Arch) -> None:
    member = one(0, base, rule=rule)
    assert member.arch == replace(base, name=f"{base.name}_b0")
    assert member.requested == member.rounded == (1, 1, 1)


@pytest.mark.parametrize("rule", RULES)
def test_a_family_grows(rule: str) -> None:
    members = family(B0, range(8), rule=rule)
    costs = [count(member.arch).flops for member in members]
    assert costs == sorted(costs)
    assert [member.name for member in members] == [f"b{phi}" for phi in range(8)]
    assert {member.arch.stochastic_depth for member in members} == {0.2}


@pytest.mark.parametrize("rule", sorted(set(RULES) - {"released"}))
@pytest.mark.parametrize("base", [B0, V3, resnet.ARCHS["resnet50"]], ids=lambda arch: arch.name)
def test_negative_and_fractional_phi(rule: str, base: Arch) -> None:
    less, half = family(base, [-1, 0.5], rule=rule)
    # V3's stages are one layer each, which depth alone cannot take away
    assert count(less.arch).flops <= count(base).flops < count(half.arch).flops
    assert (less.name, half.name) == ("b-1", "b0.5")
    assert half.arch.name == f"{base.name}_b0.5"
    assert less.arch.head.dropout == base.head.dropout


@pytest.mark.parametrize("base", [B0, V3, resnet.ARCHS["resnet50"]], ids=lambda arch: arch.name)
def test_exact_meets_its_tolerance(base: Arch) -> None:
    for member in family(base, [-3, -2, -1, 0.5, 1, 1.5, 2, 3, 5, 7], rule="exact"):
        ratio = count(member.arch).flops / count(base).flops
        assert abs(ratio / 2**member.phi - 1) <= TOLERANCE, member.name


def test_exact_keeps_the_shape_of_the_formula() -> None:
    for member in family(B0, range(1, 8), rule="exact"):
        t = member.phi / math.log2(1.2 * 1.1**2 * 1.15**2)
        shape = Multipliers(1.2**t, 1.1**t, 1.15**t)
        for got, wanted in zip(member.rounded, shape, strict=True):
            assert got == pytest.approx(wanted, rel=0.2)
        assert member.arch.resolution % 8 == 0


def test_exact_leaves_a_dimension_with_coefficient_1() -> None:
    member = one(2, rule="exact", alpha=1.0)
    assert member.rounded.depth == 1
    assert one(2, rule="exact", gamma=1.0).arch.resolution == 224
    with pytest.raises(OptionError, match="nothing to scale"):
        one(2, rule="exact", alpha=1, beta=1, gamma=1)


def test_exact_takes_single_pixels_where_eights_do_not_reach() -> None:
    base = Arch("plain", (Stage("conv", 8), Stage("conv", 8)), resolution=64)
    members = family(base, [0.1, 0.2, 0.5], rule="exact", alpha=1, beta=1)
    assert [member.arch.resolution for member in members] == [66, 68, 76]


def test_exact_says_when_it_is_impossible() -> None:
    with pytest.raises(NasError, match="finds nothing near phi -9") as caught:
        one(-9, rule="exact")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("width", (1, 2, 1)), ("depth", (4, 1, 1)), ("resolution", (1, 1, 2))],
)
def test_one_dimension_alone(rule: str, expected: Multipliers) -> None:
    member = one(2, rule=rule)
    assert member.requested == member.rounded == expected
    assert count(member.arch).flops / FLOPS == pytest.approx(4, rel=0.07)


def test_a_resolution_that_is_not_scaled_is_not_rounded() -> None:
    base = replace(B0, resolution=225)
    for rule in ("width", "depth"):
        assert one(1, base, rule=rule).arch.resolution == 225


@pytest.mark.parametrize("phi", [-1, 0.5, 3])
def test_fast_spends_s_flops_mostly_on_width(phi: float) -> None:
    d, w, r = fast(Request(B0, phi, 1.2, 1.1, 1.15, False)).asked
    assert d * w**2 * r**2 == pytest.approx(2**phi)
    assert (d, w, r) == pytest.approx((2 ** (0.1 * phi), 2 ** (0.4 * phi), 2 ** (0.05 * phi)))


def test_fast_has_fewer_activations_for_its_flops() -> None:
    quick, plain = count(one(5, rule="fast").arch), count(one(5, rule="exact").arch)
    assert quick.activations / quick.flops < 0.8 * plain.activations / plain.flops


def test_dropout_grows_as_in_the_paper() -> None:
    found = [member.arch.head.dropout for member in family(B0, [-1, 0, 3.5, 7, 9])]
    assert found == pytest.approx([0.2, 0.2, 0.35, 0.5, 0.5])
    assert one(1, replace(B0, head=Head(dropout=0.6))).arch.head.dropout == 0.6


def test_released_scales_the_pixels_of_another_base() -> None:
    small = replace(B0, resolution=112)
    assert [m.arch.resolution for m in family(small, [0, 1, 7], rule="released")] == [112, 120, 300]


def test_rounded_says_what_was_realised() -> None:
    member = one(1)
    assert member.requested == pytest.approx((1.2, 1.1, 1.15))
    assert member.rounded.depth == 23 / 16
    channels = zip((16, 24, 48, 88, 120, 208, 352), (16, 24, 40, 80, 112, 192, 320), strict=True)
    assert member.rounded.width == pytest.approx(sum(a / b for a, b in channels) / 7)
    assert member.rounded.resolution == 256 / 224


def test_fixed_ends_is_the_rule_of_lite() -> None:
    lite = efficientnet.ARCHS["efficientnet_lite0"]
    arch = one(7, lite, rule="released", fixed_ends=True).arch
    assert (arch.stem, arch.head.channels) == (lite.stem, 1280)
    assert [arch.stages[0].layers, arch.stages[-1].layers] == [1, 1]
    assert arch.stages[0].channels == 32
    assert arch.stages[1].layers == 7


@pytest.mark.parametrize("fixed_ends", [False, True])
def test_exact_heeds_fixed_ends(fixed_ends: bool) -> None:
    arch = one(2, rule="exact", fixed_ends=fixed_ends).arch
    assert (arch.stem.channels == 32) == fixed_ends
    assert count(arch).flops / FLOPS == pytest.approx(4, rel=TOLERANCE)


def test_layers_are_rounded_up_but_float_fuzz_is_no_layer() -> None:
    def layers(depth: float, base: int) -> int:
        net = Arch("x", (Stage("mbconv", 16, base),))
        return scale_arch(net, depth=depth, width=1, resolution=64).stages[0].layers

    assert layers(1.1, 1) == 2
    assert layers(0.1 + 0.2, 10) == 3
    assert layers(1.1**2, 100) == 121
    assert layers(0.01, 3) == 1


def test_a_width_of_1_leaves_odd_channels_alone() -> None:
    net = Arch("x", (Stage("mbconv", 13),), head=Head(101, 33))
    same = scale_arch(net, depth=1, width=1.0, resolution=64)
    assert same == replace(net, resolution=64)
    wide = scale_arch(net, depth=1, width=2, resolution=64)
    assert (wide.stages[0].channels, wide.head.channels, wide.head.hidden) == (24, 200, 64)


def test_a_head_without_channels_stays_without() -> None:
    head = scale_arch(resnet.ARCHS["resnet18"], depth=2, width=2, resolution=224).head
    assert (head.channels, head.hidden) == (0, 0)


@pytest.mark.parametrize("factor", [0, -1, math.nan, math.inf])
def test_a_factor_must_be_positive(factor: float) -> None:
    with pytest.raises(OptionError, match="must be positive"):
        scale_arch(B0, depth=factor, width=1, resolution=224)
    with pytest.raises(OptionError, match="must be positive"):
        scale_arch(B0, depth=1, width=factor, resolution=224)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rule": "formulae"}, "did you mean 'formula'"),
        ({"alpha": 0.9}, "alpha must be at least 1"),
        ({"beta": 0}, "beta must be at least 1"),
        ({"gamma": math.nan}, "gamma must be at least 1"),
        ({"rule": "released", "phi": 9}, r"0\.\.8"),
        ({"rule": "released", "phi": 0.5}, r"0\.\.8"),
        ({"phi": math.nan}, "phi must be a finite number"),
    ],
)
def test_impossible_options_are_refused_in_one_line(options: dict[str, object], says: str) -> None:
    options = {"phi": 1} | options
    with pytest.raises(OptionError, match=says) as caught:
        family(B0, [options.pop("phi")], **options)
    assert "\n" not in str(caught.value)


def test_every_rule_explains_itself_with_its_source() -> None:
    for name, rule in RULES.items():
        assert rule.__doc__, name
        assert name == "exact" or "Source: " in rule.__doc__, name
