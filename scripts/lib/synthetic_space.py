"""A small MBConv space for landscapes that are enumerated: 8 choices of 3, 6,561 networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas.interfaces import Space
from nas.models.arch import Arch, Head, Stage, Stem
from nas.models.rounding import round_channels

CHANNELS, STRIDES = (16, 32, 64), (1, 2, 2)
OPTIONS = {"width": (0.5, 0.75, 1.0), "kernel": (3, 5, 7)}
OF_STAGE = {"expansion": (2, 4, 6), "layers": (1, 2, 3)}


def decode(choices: Mapping[str, Any]) -> Arch:
    """Return the arch of a point, for images of 32 pixels."""
    stages = tuple(
        Stage(
            op="mbconv",
            channels=round_channels(channels * choices["width"]),
            layers=choices[f"stage{number}_layers"],
            kernel=choices["kernel"],
            stride=stride,
            expansion=choices[f"stage{number}_expansion"],
        )
        for number, (channels, stride) in enumerate(zip(CHANNELS, STRIDES, strict=True), 1)
    )
    return Arch("synthetic", stages, Stem(16, stride=1), Head(256, classes=10), resolution=32)


SPACE = Space(
    name="synthetic",
    choices=OPTIONS
    | {
        f"stage{number}_{name}": options
        for number in range(1, len(CHANNELS) + 1)
        for name, options in OF_STAGE.items()
    },
    decode=decode,
    source="our own; 8 choices of 3 as the tables of small searches have them",
)
