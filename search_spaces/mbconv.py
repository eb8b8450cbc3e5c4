"""EfficientNet-B0's skeleton with kernel, expansion, layers and squeeze-and-excite free per block.

28 choices, 1.04e11 archs: the space of Accel-NASBench, so the embedded evaluator knows all of it.
Source: Tan et al. 2019 (MnasNet), section 4.1; ranges as in Accel-NASBench (Ahmad et al. 2024).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas.arch import Arch, Head, Stage, Stem
from nas.interfaces import Choices, Space

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


def decode(choices: Mapping[str, Any]) -> Arch:
    """Return the arch of a point; everything that is not chosen is EfficientNet-B0's."""
    stages = tuple(
        Stage(
            op="mbconv",
            channels=channels,
            layers=choices[f"block{b}_layers"],
            kernel=choices[f"block{b}_kernel"],
            stride=stride,
            expansion=choices[f"block{b}_expansion"],
            se=choices[f"block{b}_se"],
        )
        for b, (channels, stride, _) in enumerate(BLOCKS, 1)
    )
    return Arch("mbconv", stages, Stem(32), Head(1280, dropout=0.2), stochastic_depth=0.2)


def encode(arch: Arch) -> Choices | None:
    """Return the choices that decode to this network, or None if there are none."""
    if len(arch.stages) != len(BLOCKS):
        return None
    choices: Choices = {}
    for b, stage in enumerate(arch.stages, 1):
        values = (stage.expansion, stage.kernel, stage.layers, stage.se)
        for name, value in zip(("expansion", "kernel", "layers", "se"), values, strict=True):
            options = SPACE.choices[f"block{b}_{name}"]
            if value not in options:
                return None
            choices[f"block{b}_{name}"] = options[list(options).index(value)]
    return choices if decode(choices).id == arch.id else None


SPACE = Space(
    name="mbconv",
    choices={
        f"block{b}_{name}": options
        for b, (_, _, layers) in enumerate(BLOCKS, 1)
        for name, options in (
            ("expansion", (1, 4, 6)),
            ("kernel", (3, 5)),
            ("layers", layers),
            ("se", (0.0, 0.25)),
        )
    },
    decode=decode,
    encode=encode,
    source="Tan et al. 2019, section 4.1, with the ranges of Accel-NASBench",
)
