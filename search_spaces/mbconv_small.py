"""The space mbconv for images of 32 to 64 pixels, with the width free: 29 choices, 5.2e11 archs.

Each block chooses among the kernels, expansions, layers and squeeze-and-excite ratios of `mbconv`;
`width` multiplies all channels, stem and head included (the head of 1280 stays at 320 or more). The
map shrinks by 8 instead of 32: of EfficientNet-B0's five strides those of the stem, block 3 and
block 6 stay, so 32 pixels become maps of 16, 8 and 4. 0.7M to 148M multiply-adds for 10 classes.

Source: Tan et al. 2019 (MnasNet), section 4.1, and Tan and Le 2019 for `B0`; strides and widths
are our own.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from operator import itemgetter
from typing import Any

from nas.interfaces import Choices, Fits, Space
from nas.models import designs
from nas.models.arch import Arch, Head, Stage, Stem
from nas.models.rounding import round_channels

# EfficientNet-B0's channels, our strides, the layers to choose from
BLOCKS = (
    (16, 1, (1, 2, 3)),
    (24, 1, (1, 2, 3)),
    (40, 2, (1, 2, 3)),
    (80, 1, (1, 2, 3)),
    (112, 1, (1, 2, 3)),
    (192, 2, (1, 2, 3, 4)),
    (320, 1, (1, 2, 3)),
)
STEM, HEAD = 32, 1280
WIDTHS = (0.25, 0.35, 0.5, 0.75, 1.0)
NAMES = ("expansion", "kernel", "layers", "se")
CHOSEN = [itemgetter(*(f"block{b}_{name}" for name in NAMES)) for b, _ in enumerate(BLOCKS, 1)]
# EfficientNet-B0's own choices; with a `width` they are a point of the space
B0 = designs.EFFICIENTNET_B0
# what hand designs share: as in B0, the first block does not expand and is one layer
FIRST: Choices = {"block1_expansion": 1, "block1_layers": 1}


def decode(choices: Mapping[str, Any]) -> Arch:
    """Return the arch of a point; what is not chosen is EfficientNet-B0's, less regularised."""
    width = choices["width"]
    stem, head = _ends(width)
    stages = tuple(_stage(b, width, *chosen(choices)) for b, chosen in enumerate(CHOSEN, 1))
    return Arch("mbconv_small", stages, stem, head, resolution=32, stochastic_depth=0.1)


@lru_cache(typed=True, maxsize=None)
def _ends(width: float) -> tuple[Stem, Head]:
    # half of B0's dropout and stochastic depth: a short training underfits
    head = Head(round_channels(HEAD * width), dropout=0.1)
    return Stem(round_channels(STEM * width)), head


@lru_cache(typed=True, maxsize=None)  # equal stages are one object: checked and counted once
def _stage(b: int, width: float, expansion: int, kernel: int, layers: int, se: float) -> Stage:
    channels, stride, _ = BLOCKS[b - 1]
    wide = round_channels(channels * width)
    return Stage("mbconv", wide, layers, kernel, stride, expansion, se)


def encode(arch: Arch) -> Choices | None:
    """Return the choices that decode to this network, or None if there are none."""
    widths = [width for width in WIDTHS if round_channels(HEAD * width) == arch.head.channels]
    if len(arch.stages) != len(BLOCKS) or not widths:
        return None
    choices: Choices = {"width": widths[0]}
    for b, stage in enumerate(arch.stages, 1):
        for name in NAMES:
            options, value = SPACE.choices[f"block{b}_{name}"], getattr(stage, name)
            if value not in options:
                return None
            choices[f"block{b}_{name}"] = options[list(options).index(value)]
    return choices if decode(choices).id == arch.id else None


def references(fits: Fits) -> dict[str, Arch | Choices]:
    """Return the hand designs that fit; where nothing is bounded, of at most B0's multiply-adds.

    `b0`: EfficientNet-B0's choices at the greatest width that fits; where none does at the least,
    with fewer layers and smaller expansions. `deepest`: one kernel and one expansion above 1
    everywhere if that fits. `late`: most parameters in the late blocks. `b0_scaled`: B0 by width
    and pixels, mostly no point of the space.
    """
    choices, b0 = SPACE.choices, decode({"width": 1.0, **B0})
    fits = designs.bounding(fits, decode({n: o[-1] for n, o in choices.items()}), b0)

    def alike(layers: int, expansions: tuple[int, ...]) -> list[Choices]:
        kinds = {
            **{"width": WIDTHS, "layers": (layers,), "expansion": expansions},
            **{"kernel": (3, 5), "se": (0.0, 0.25)},
        }
        return [{**point, **FIRST} for point in designs.alike(choices, kinds)]

    whole = [{"width": width, **B0} for width in WIDTHS]
    less = [designs.reduced(whole[0], wide) for wide in ((6, 4), (1,))]
    depths = [alike(n, wide) for wide in ((4, 6), (1,)) for n in (4, 3, 2, 1)]
    starts = [alike(1, (4,)), alike(1, (1,))]
    kinds = ("se", "expansion", "layers", "kernel")
    found = {
        "b0": designs.first_fitting([whole, *less], decode, fits),
        "deepest": designs.first_fitting(depths, decode, fits),
        "late": designs.latest(starts, choices, kinds, decode, fits),
        "b0_scaled": designs.scaled(b0, fits),
    }
    return {name: design for name, design in found.items() if design}


SPACE = Space(
    name="mbconv_small",
    choices={"width": WIDTHS}
    | {
        f"block{b}_{name}": options
        for b, (_, _, layers) in enumerate(BLOCKS, 1)
        for name, options in zip(NAMES, ((1, 4, 6), (3, 5), layers, (0.0, 0.25)), strict=True)
    },
    decode=decode,
    encode=encode,
    references=references,
    source="Tan et al. 2019, section 4.1; Tan and Le 2019; widths and strides for small images",
)
