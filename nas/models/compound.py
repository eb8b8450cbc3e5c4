"""Compound scaling: from one arch to a family of deeper, wider, higher-resolution ones.

Source: Tan and Le 2019 (EfficientNet), section 3. Depth, width and resolution grow together,
d = alpha**phi, w = beta**phi, r = gamma**phi with alpha * beta**2 * gamma**2 near 2, so that FLOPs
grow about by 2**phi. Whole layers, channels in eights and whole pixels spoil the "about"; hence
several rules, by name in RULES, and every member tells what was asked and what came of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from nas.core.errors import OptionError, did_you_mean
from nas.models.arch import Arch, Stage
from nas.models.cost import count
from nas.models.rounding import round_channels

LEAST_PIXELS = 32
TOLERANCE = 0.02  # of the FLOPs that the rule `exact` aims at
REACH = 0.3  # how far `exact` looks from the formula's shape, in the logarithm of each factor
DROPOUT_PER_PHI = 0.3 / 7  # paper, section 5.2: from 0.2 for B0 linearly to 0.5 for B7


class Multipliers(NamedTuple):
    """Factors of depth (layers), width (channels) and resolution (pixels of a side)."""

    depth: float
    width: float
    resolution: float


class Release(NamedTuple):
    """One row of the released table; resolution in pixels."""

    width: float
    depth: float
    resolution: int
    dropout: float


# Source: efficientnet_params of the released code (tensorflow/tpu, efficientnet_builder.py).
# B8 came with Xie et al. 2020 (AdvProp). The number after B is a name, not the paper's phi: by
# their size B1 is phi 0.5, B2 is 1, B3 is 2, and from B4 on depth lags behind the formula.
RELEASED = {
    0: Release(1.0, 1.0, 224, 0.2),
    1: Release(1.0, 1.1, 240, 0.2),
    2: Release(1.1, 1.2, 260, 0.3),
    3: Release(1.2, 1.4, 300, 0.3),
    4: Release(1.4, 1.8, 380, 0.4),
    5: Release(1.6, 2.2, 456, 0.4),
    6: Release(1.8, 2.6, 528, 0.5),
    7: Release(2.0, 3.1, 600, 0.5),
    8: Release(2.2, 3.6, 672, 0.5),
}


class Request(NamedTuple):
    """What a rule is asked: a member of size `phi` above or below `arch`."""

    arch: Arch
    phi: float
    alpha: float
    beta: float
    gamma: float
    fixed_ends: bool


class Answer(NamedTuple):
    """What a rule answers; `pixels` is the resolution after rounding."""

    asked: Multipliers
    pixels: int
    dropout: float


@dataclass(frozen=True)
class ScaledArch:
    """One arch of a family, with the multipliers asked for and those that rounding left.

    Of `rounded`, depth is blocks / the base's blocks, width the mean over the stages of channels /
    the base's channels, resolution pixels / the base's pixels.
    """

    name: str
    phi: float
    requested: Multipliers
    rounded: Multipliers
    arch: Arch


def scale_arch(
    arch: Arch,
    *,
    depth: float,
    width: float,
    resolution: int,
    fixed_ends: bool = False,
    keep: float = 0.9,
    dropout: float | None = None,
    name: str | None = None,
) -> Arch:
    """Return `arch` with its layers, channels and input size scaled.

    Layers per stage are rounded up, channels to a multiple of 8 and never below `keep` of the exact
    value, so the cost ratio misses depth * width**2 * resolution**2 by some per cent: count it.
    A width of 1 leaves every channel as it is. `resolution` is in pixels. With `fixed_ends` the
    stem, the head and the layers of the first and the last stage stay (EfficientNet-lite).

    Raises:
        OptionError: a factor is not positive; the message gives it.

    Source: Tan and Le 2019, section 3.3; rounding as in the released EfficientNet code.
    """
    for what, factor in (("depth", depth), ("width", width)):
        if not (math.isfinite(factor) and factor > 0):
            raise OptionError(f"the {what} factor must be positive, not {factor!r}")

    def channels(base: int) -> int:
        return round_channels(base * width, keep=keep) if base and width != 1 else base

    def scaled(index: int, stage: Stage) -> Stage:
        end = fixed_ends and index in (0, len(arch.stages) - 1)
        layers = stage.layers if end else _layers(stage.layers, depth)
        return replace(stage, layers=layers, channels=channels(stage.channels))

    stem, head = arch.stem, arch.head
    if not fixed_ends:
        stem = replace(stem, channels=channels(stem.channels))
        head = replace(head, channels=channels(head.channels), hidden=channels(head.hidden))
    return replace(
        arch,
        name=arch.name if name is None else name,
        stages=tuple(scaled(index, stage) for index, stage in enumerate(arch.stages)),
        stem=stem,
        head=head if dropout is None else replace(head, dropout=dropout),
        resolution=resolution,
    )


def family(
    arch: Arch,
    phis: Iterable[float],
    *,
    rule: str = "formula",
    alpha: float = 1.2,
    beta: float = 1.1,
    gamma: float = 1.15,
    fixed_ends: bool = False,
) -> list[ScaledArch]:
    """Return one member per phi, scaled from `arch` by a rule of RULES; phi 0 is `arch` itself.

    A negative or fractional phi is allowed except by the rule `released`. The coefficients matter
    to the rules `formula` and `exact` only.

    Raises:
        OptionError: no such rule, a coefficient below 1 (paper, equation 3), or a phi that the
            rule cannot answer.
    """
    if rule not in RULES:
        known = ", ".join(RULES)
        raise OptionError(f"no rule named {rule!r}{did_you_mean(rule, RULES)}; known: {known}")
    for what, value in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
        if not 1 <= value <= STEEPEST:
            raise OptionError(
                f"{what} must be at least 1 (paper, equation 3), at most {STEEPEST}, not {value!r}"
            )
    phis = list(phis)
    if not all(math.isfinite(phi) for phi in phis):
        raise OptionError(f"phi must be a finite number; given were {phis}")
    return [_member(rule, Request(arch, phi, alpha, beta, gamma, fixed_ends)) for phi in phis]


def formula(request: Request) -> Answer:
    """Scale by alpha**phi, beta**phi and gamma**phi, the paper's equation 3 read literally.

    With the paper's 1.2, 1.1, 1.15 the product alpha * beta**2 * gamma**2 is 1.92, while rounding
    layers up adds cost: B0 costs 2.2 times as much at phi 1, 100 times instead of 128 at phi 7.

    Source: Tan and Le 2019, section 3.3.
    """
    return _answer(request, _ray(request, request.phi))


def released(request: Request) -> Answer:
    """Scale by the multipliers that EfficientNet-B0 to B8 were released with; phi is the number.

    They were rounded by hand and follow no single phi. For a base of another resolution than 224
    the pixels are scaled in proportion. Dropout is the published one.

    Source: efficientnet_params of the released code.
    """
    if request.phi not in RELEASED:
        allowed = f"{min(RELEASED)}..{max(RELEASED)}"
        raise OptionError(f"rule released knows the whole phi {allowed} only, not {request.phi:g}")
    row = RELEASED[int(request.phi)]
    ratio = row.resolution / RELEASED[0].resolution
    pixels = max(LEAST_PIXELS, round(request.arch.resolution * ratio))
    dropout = row.dropout if request.phi else request.arch.head.dropout
    return Answer(Multipliers(row.depth, row.width, ratio), pixels, dropout)


def exact(request: Request) -> Answer:
    """Scale so that the counted FLOPs are 2**phi times the base's within 2 per cent.

    The formula's shape is kept as well as rounding allows: of all roundings of layers, channels and
    pixels (multiples of 8; single pixels only if those do not reach) that meet the tolerance, the
    one nearest to alpha**t, beta**t, gamma**t is taken, where t is phi with the product alpha *
    beta**2 * gamma**2 corrected to 2. A dimension whose coefficient is 1 stays as it is.

    Raises:
        OptionError: nothing near the formula's shape costs that, as with a phi so low that layers,
            channels and pixels cannot shrink further.
    """
    if request.phi == 0:
        return formula(request)
    target = 2**request.phi * count(request.arch).flops
    best = math.inf
    for answer in _nearby(request):
        miss = abs(count(_apply(request, answer)).flops / target - 1)
        if miss <= TOLERANCE:
            return answer
        best = min(best, miss)
    raise OptionError(
        f"rule exact finds nothing near phi {request.phi:g}: the best misses 2**phi times the "
        f"FLOPs of {request.arch.name} by {best:.1%}, {TOLERANCE:.0%} is allowed; use another phi "
        "or the rule formula"
    )


def width(request: Request) -> Answer:
    """Scale channels alone, by 2**(phi / 2), as FLOPs grow with the square of the width.

    Source: the single-dimension baselines of Tan and Le 2019, section 3.2 and Table 3.
    """
    return _answer(request, Multipliers(1.0, 2 ** (request.phi / 2), 1.0))


def depth(request: Request) -> Answer:
    """Scale layers alone, by 2**phi; rounding up adds a little.

    Source: the single-dimension baselines of Tan and Le 2019, section 3.2 and Table 3.
    """
    return _answer(request, Multipliers(2**request.phi, 1.0, 1.0))


def resolution(request: Request) -> Answer:
    """Scale the input alone, by 2**(phi / 2) a side; params stay the same.

    Source: the single-dimension baselines of Tan and Le 2019, section 3.2 and Table 3.
    """
    return _answer(request, Multipliers(1.0, 1.0, 2 ** (request.phi / 2)))


def fast(request: Request) -> Answer:
    """Scale mostly the width: for s = 2**phi times the FLOPs d = s**0.1, w = s**0.4, r = s**0.05.

    Runtime on accelerators follows activations rather than FLOPs, and wider nets have fewer for the
    same FLOPs: they grow about as the square root of s, with depth or resolution as s itself.

    Source: Dollar et al. 2021, "Fast and accurate model scaling", dWr with 0.8 of s on the width.
    """
    share = 0.8
    rest = (1 - share) / 2
    s = 2**request.phi
    return _answer(request, Multipliers(s**rest, s ** (share / 2), s ** (rest / 2)))


Rule = Callable[[Request], Answer]
STEEPEST = 10  # of the coefficients
RULES: dict[str, Rule] = {
    rule.__name__: rule for rule in (formula, released, exact, width, depth, resolution, fast)
}

# these ask for 2**phi times the FLOPs to the letter: what misses it is the rounding alone
AIMED = ("width", "depth", "resolution", "fast")


def _member(rule: str, request: Request) -> ScaledArch:
    answer = RULES[rule](request)
    name = f"b{request.phi:g}"
    arch = replace(_apply(request, answer), name=f"{request.arch.name}_{name}")
    return ScaledArch(name, request.phi, answer.asked, _rounded(request.arch, arch), arch)


def _rounded(base: Arch, arch: Arch) -> Multipliers:
    pairs = zip(arch.stages, base.stages, strict=True)
    return Multipliers(
        sum(stage.layers for stage in arch.stages) / sum(stage.layers for stage in base.stages),
        sum(ours.channels / theirs.channels for ours, theirs in pairs) / len(base.stages),
        arch.resolution / base.resolution,
    )


def _apply(request: Request, answer: Answer) -> Arch:
    return scale_arch(
        request.arch,
        depth=answer.asked.depth,
        width=answer.asked.width,
        resolution=answer.pixels,
        fixed_ends=request.fixed_ends,
        dropout=answer.dropout,
    )


def _answer(request: Request, asked: Multipliers) -> Answer:
    return Answer(asked, _pixels(request.arch, asked.resolution), _dropout(request))


def _ray(request: Request, phi: float) -> Multipliers:
    return Multipliers(request.alpha**phi, request.beta**phi, request.gamma**phi)


def _layers(layers: int, factor: float) -> int:
    # 1.1**2 * 100 is 121.00000000000001 in floating point: that is not a 122nd layer
    return max(1, math.ceil(layers * factor - 1e-9))


def _pixels(arch: Arch, ratio: float) -> int:
    # A map is rounded up at every stride, so one pixel above a multiple of the total stride buys a
    # whole row and column in every late stage: B0 at phi 1 costs 0.860G at 256 pixels and 0.993G
    # at 257. Multiples of 8 keep most of these steps away.
    if ratio == 1:
        return arch.resolution
    return max(LEAST_PIXELS, 8 * int(arch.resolution * ratio / 8 + 0.5))


def _dropout(request: Request) -> float:
    base = request.arch.head.dropout
    if request.phi <= 0:
        return base
    return max(base, min(0.5, base + DROPOUT_PER_PHI * request.phi))


def _goal(request: Request) -> Multipliers:
    """Return the point of the formula's shape that would cost 2**phi, were nothing rounded."""
    gain = math.log2(request.alpha * request.beta**2 * request.gamma**2)
    if gain < 1e-6:
        raise OptionError("alpha, beta and gamma are all 1: there is nothing to scale")
    return _ray(request, request.phi / gain)


def _nearby(request: Request) -> Iterator[Answer]:
    """Yield answers around the goal, the nearest first; in 8-pixel, then in 1-pixel steps.

    Near is meant after rounding, in the logarithm of FLOPs: depth counts once, the others twice.
    """
    goal = _goal(request)
    depths, widths = _roundings(request, goal, "depth"), _roundings(request, goal, "width")
    middle = _pixels(request.arch, goal.resolution)
    for step, reach in ((8, int(REACH * middle / 8)), (1, 8)):
        sizes = range(middle - step * reach, middle + step * reach + 1, step)
        points = [
            (math.hypot(far_d, 2 * far_w, 2 * math.log(ratio / goal.resolution)), d, w, ratio, side)
            for far_d, d in depths
            for far_w, w in widths
            for side in (sizes if request.gamma > 1 else [middle])
            if side >= LEAST_PIXELS
            for ratio in [side / request.arch.resolution]
        ]
        for _, d, w, ratio, side in sorted(points):
            yield Answer(Multipliers(d, w, ratio), side, _dropout(request))


def _roundings(request: Request, goal: Multipliers, what: str) -> list[tuple[float, float]]:
    """Return a factor per distinct rounding of one dimension, after its distance from the goal."""
    wanted = getattr(goal, what)
    found: dict[str, tuple[float, float]] = {}
    # a dimension whose coefficient is 1 stays, and the factor nearest to the goal stands for all
    # that round alike
    for k in [0] if wanted == 1 else sorted(range(-30, 31), key=abs):
        factor = wanted * math.exp(REACH * k / 30)
        asked = Multipliers(1.0, 1.0, 1.0)._replace(**{what: factor})
        arch = _apply(request, Answer(asked, request.arch.resolution, 0.0))
        far = math.log(getattr(_rounded(request.arch, arch), what) / wanted)
        found.setdefault(arch.id, (far, factor))
    return list(found.values())
