"""EfficientNet-B0's skeleton with kernel, expansion, layers and squeeze-and-excite free per block.

28 choices, 1.04e11 archs: the space of Accel-NASBench, so the embedded evaluator knows all of it.
Source: Tan et al. 2019 (MnasNet), section 4.1; ranges as in Accel-NASBench (Ahmad et al. 2024).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from operator import itemgetter
from typing import Any

from nas.interfaces import Choices, Fits, Space
from nas.models import designs
from nas.models.arch import Arch, Head, Stage, Stem

# EfficientNet-B0's channels and strides, and the layers to choose from
BLOCKS = (
    (16, 1, (1, 2, 3)),
    (24, 2, (1, 2, 3)),
    (40, 2, (1, 2, 3)),
    (80, 2, (1, 2, 3)),
    (112, 1, (1, 2, 3)),
    (192, 2, (1, 2, 3, 4)),
    (320, 1, (1, 2, 3)),
)
NAMES = ("expansion", "kernel", "layers", "se")
CHOSEN = [itemgetter(*(f"block{b}_{name}" for name in NAMES)) for b, _ in enumerate(BLOCKS, 1)]
STEM, HEAD = Stem(32), Head(1280, dropout=0.2)
B0 = designs.EFFICIENTNET_B0
# what hand designs share: as in B0, the first block does not expand and is one layer
FIRST: Choices = {"block1_expansion": 1, "block1_layers": 1}


def decode(choices: Mapping[str, Any]) -> Arch:
    """Return the arch of a point; everything that is not chosen is EfficientNet-B0's."""
    stages = tuple(_stage(b, *chosen(choices)) for b, chosen in enumerate(CHOSEN, 1))
    return Arch("mbconv", stages, STEM, HEAD, stochastic_depth=0.2)


@lru_cache(typed=True, maxsize=None)  # equal stages are one object: checked and counted once
def _stage(b: int, expansion: int, kernel: int, layers: int, se: float) -> Stage:
    channels, stride, _ = BLOCKS[b - 1]
    return Stage("mbconv", channels, layers, kernel, stride, expansion, se)


def encode(arch: Arch) -> Choices | None:
    """Return the choices that decode to this network, or None if there are none."""
    if len(arch.stages) != len(BLOCKS):
        return None
    choices: Choices = {}
    for b, stage in enumerate(arch.stages, 1):
        values = (stage.expansion, stage.kernel, stage.layers, stage.se)
        for name, value in zip(NAMES, values, strict=True):
            options = SPACE.choices[f"block{b}_{name}"]
            if value not in options:
                return None
            choices[f"block{b}_{name}"] = options[list(options).index(value)]
    return choices if decode(choices).id == arch.id else None


def references(fits: Fits) -> dict[str, Arch | Choices]:
    """Return the hand designs that fit; where nothing is bounded, of at most B0's multiply-adds.

    `b0`: EfficientNet-B0's choices, with fewer layers and smaller expansions where need be; it
    scaled by width and pixels is no point of the space. `deepest`: one kernel and one expansion
    above 1 everywhere if that fits. `late`: most parameters in the late blocks.
    """
    choices, b0 = SPACE.choices, decode(B0)
    fits = designs.bounding(fits, decode({n: o[-1] for n, o in choices.items()}), b0)

    def alike(layers: int, expansions: tuple[int, ...]) -> list[Choices]:
        kinds = {"layers": (layers,), "expansion": expansions, "kernel": (3, 5), "se": (0.0, 0.25)}
        return [{**point, **FIRST} for point in designs.alike(choices, kinds)]

    depths = [alike(n, wide) for wide in ((4, 6), (1,)) for n in (4, 3, 2, 1)]
    starts = [alike(1, (4,)), alike(1, (1,))]
    kinds = ("se", "expansion", "layers", "kernel")
    found = {
        "b0": designs.costliest(designs.reduced(B0, (6, 4, 1)), decode, fits),
        "deepest": designs.first_fitting(depths, decode, fits),
        "late": designs.latest(starts, choices, kinds, decode, fits),
        "b0_scaled": designs.scaled(b0, fits),
    }
    return {name: design for name, design in found.items() if design}


SPACE = Space(
    name="mbconv",
    choices={
        f"block{b}_{name}": options
        for b, (_, _, layers) in enumerate(BLOCKS, 1)
        for name, options in zip(NAMES, ((1, 4, 6), (3, 5), layers, (0.0, 0.25)), strict=True)
    },
    decode=decode,
    encode=encode,
    references=references,
    source="Tan et al. 2019, section 4.1, with the ranges of Accel-NASBench",
)
