"""How training images are varied, as data: a part of every recipe."""

from __future__ import annotations

from dataclasses import dataclass

CROPS = ("resized", "shift", "none")
POLICIES = ("none", "autoaugment", "randaugment")


@dataclass(frozen=True)
class Augment:
    """How a training image is varied. Sizes are shares of the side, so they scale with it.

    `crop`: `resized` takes a random part of `scale` of the area and of aspect 3/4..4/3 (Inception);
    `shift` moves the image by up to `shift` with zeros around it; `none` takes the middle.
    `cutout`: side of a square set to the mean. `layers` and `magnitude` are of `randaugment`.
    """

    crop: str = "shift"
    scale: tuple[float, float] = (0.08, 1.0)
    shift: float = 0.125
    flip: bool = True
    cutout: float = 0.0
    policy: str = "none"
    layers: int = 2
    magnitude: int = 9
