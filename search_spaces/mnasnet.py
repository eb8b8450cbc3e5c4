"""MnasNet's factorized space: per block the op, kernel, SE, skip, filters and layers.

432 options a block. The paper counts five blocks, 432^5 = 1.5e13: here the five between
MobileNetV2's first block (16 filters) and last block (320), which stay as MnasNet-A1 has them.
Filters and layers are offsets from MobileNetV2. A1 itself lies outside: its 112 filters are no
multiple of MobileNetV2's 96 that the paper lists.

Source: Tan et al. 2019 (MnasNet), section 4.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from operator import itemgetter
from typing import Any

from nas.interfaces import Choices, Fits, Option, Space
from nas.models import designs
from nas.models.arch import Arch, Head, Stage, Stem
from nas.models.rounding import round_channels

# MobileNetV2's filters, layers and strides of the searched blocks
BLOCKS = ((24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2))
# the paper's ConvOps; MBConv3 and MBConv6 count apart, or the product would not be 432
OPS = {
    "conv": ("conv", 1.0),
    "sepconv": ("sepconv", 1.0),
    "mbconv3": ("mbconv", 3.0),
    "mbconv6": ("mbconv", 6.0),
}
FIRST = Stage("sepconv", 16, skip="none")
LAST = Stage("mbconv", 320, expansion=6.0)
STEM, HEAD = Stem(32), Head(1280, dropout=0.2)
OPTIONS = (
    ("op", tuple(OPS)),
    ("kernel", (3, 5)),
    ("se", (0.0, 0.25)),
    ("skip", ("none", "identity", "pool")),
    ("filters", (0.75, 1.0, 1.25)),
    ("layers", (-1, 0, 1)),
)


# one function a block: what is chosen of it, in the order of OPTIONS
CHOSEN = [itemgetter(*(f"block{b}_{name}" for name, _ in OPTIONS)) for b, _ in enumerate(BLOCKS, 1)]


@lru_cache(typed=True, maxsize=None)  # equal stages are one object: checked and counted once
def _stage(
    b: int, op: str, kernel: int, se: float, skip: str, filters: float, layers: int
) -> Stage:
    usual_filters, usual_layers, stride = BLOCKS[b - 1]
    name, expansion = OPS[op]
    channels = round_channels(usual_filters * filters)
    return Stage(name, channels, usual_layers + layers, kernel, stride, expansion, se, skip)


def decode(choices: Mapping[str, Any]) -> Arch:
    """Return the arch of a point; ReLU, and a 1280 head as in MnasNet."""
    chosen = (_stage(b, *of_block(choices)) for b, of_block in enumerate(CHOSEN, 1))
    return Arch("mnasnet", (FIRST, *chosen, LAST), STEM, HEAD, activation="relu")


def encode(arch: Arch) -> Choices | None:
    """Return the choices that decode to this network, or None if there are none."""
    if len(arch.stages) != len(BLOCKS) + 2:
        return None
    choices: Choices = {}
    for b, stage in enumerate(arch.stages[1:-1], 1):
        filters, layers, _ = BLOCKS[b - 1]
        ops = [n for n, op in OPS.items() if op == (stage.op, stage.expansion)]
        widths = [w for w in (0.75, 1.0, 1.25) if round_channels(filters * w) == stage.channels]
        if not (ops and widths and abs(stage.layers - layers) <= 1):
            return None
        found = (ops[0], stage.kernel, stage.se, stage.skip, widths[0], stage.layers - layers)
        names = (f"block{b}_{name}" for name, _ in OPTIONS)
        choices.update(zip(names, found, strict=True))
    legal = all(value in SPACE.choices[name] for name, value in choices.items())
    return choices if legal and decode(choices).id == arch.id else None


def _alike(layers: int, **fixed: Option) -> list[Choices]:
    """Return the points with identity skips whose blocks are all alike."""
    kinds: dict[str, tuple[Option, ...]] = {
        **{"op": ("mbconv3", "mbconv6"), "kernel": (3, 5), "se": (0.0, 0.25)},
        **{"skip": ("identity",), "filters": (0.75, 1.0, 1.25), "layers": (layers,)},
    }
    return designs.alike(SPACE.choices, kinds | {name: (o,) for name, o in fixed.items()})


def references(fits: Fits) -> dict[str, Arch | Choices]:
    """Return the hand designs that fit; where nothing is bounded, of MobileNetV2's multiply-adds.

    `v2`: MobileNetV2's blocks with the most filters that fit. `deepest`: one op everywhere, MBConv
    if that fits. `late`: most parameters in the late blocks. `v2_scaled`: MobileNetV2's blocks by
    width and pixels, mostly no point of the space.
    """
    choices = SPACE.choices
    plain: Choices = {"op": "mbconv6", "kernel": 3, "se": 0.0}
    (mobilenet,) = _alike(0, **plain, filters=1.0)
    largest = decode({name: options[-1] for name, options in choices.items()})
    fits = designs.bounding(fits, largest, decode(mobilenet))
    depths = [_alike(n) for n in (1, 0, -1)] + [_alike(n, op="sepconv") for n in (1, 0, -1)]
    starts = [_alike(-1, **{**plain, "op": "mbconv3"}, filters=w) for w in (1.0, 0.75)]
    kinds = ("se", "op", "filters", "layers", "kernel")
    found = {
        "v2": designs.costliest(_alike(0, **plain), decode, fits),
        "deepest": designs.first_fitting(depths, decode, fits),
        "late": designs.latest(starts, choices, kinds, decode, fits),
        "v2_scaled": designs.scaled(decode(mobilenet), fits),
    }
    return {name: design for name, design in found.items() if design}


SPACE = Space(
    name="mnasnet",
    choices={
        f"block{b}_{name}": options for b in range(1, len(BLOCKS) + 1) for name, options in OPTIONS
    },
    decode=decode,
    encode=encode,
    references=references,
    source="Tan et al. 2019 (MnasNet), section 4.1",
)
