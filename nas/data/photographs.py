"""Whether images are photographs: in colour, and not thumbnails."""

from __future__ import annotations

import contextlib

import numpy as np

from nas.data.dataset import Split
from nas.data.images import Array, decode, quiet

LEAST_SIDE = 64  # pixels of the short side
SAMPLED = 32  # images that are looked at


def photographs(split: Split) -> bool:
    """Tell whether most images of a split have colour, and half a short side of 64 pixels or more.

    A sample is decoded, evenly from the whole split; what cannot be read does not count.
    """
    places = np.unique(np.linspace(0, len(split) - 1, min(SAMPLED, len(split))).round())
    images = []
    with quiet():
        for place in places.astype(int).tolist():
            with contextlib.suppress(OSError):
                images.append(decode(split.read(place), at_least=LEAST_SIDE))
    if not images:
        return False
    sides = [min(image.shape[:2]) for image in images]
    coloured = [_has_colour(image) for image in images]
    return float(np.median(sides)) >= LEAST_SIDE and 2 * sum(coloured) > len(images)


def _has_colour(image: Array) -> bool:
    return bool((image[..., :1] != image[..., 1:]).any())
