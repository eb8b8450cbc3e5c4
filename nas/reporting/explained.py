"""What `nas.explain` returns: what each model makes of each image, and the picture. Light."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nas.core.records import Record, Table, named, optional


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ExplainedModel(Record):
    """A model by its short name, and the folder it was read from."""

    name: str
    source: Path


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Explanation(Record):
    """What speaks for a class in an image, by one model: `map` (h, w) as the network computes it.

    `predicted`: the class that the model finds likeliest.
    """

    model: str
    method: str
    name: str = named("class")
    probability: float
    predicted: str
    predicted_probability: float
    logit: float
    bias: float
    map: list[list[float]]

    def _summary(self) -> dict[str, object]:
        return {"model": self.model, "class": self.name, "probability": self.probability}


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ExplainedImage(Record):
    """An image with what each model makes of it, or the `error` that kept it from being read.

    `true`: the class whose folder it lies in, None of none.
    """

    path: Path
    error: str = optional("")
    true: str | None = None
    models: tuple[Explanation, ...] = ()

    def _omits(self, key: str) -> bool:
        return bool(self.error) and key in ("true", "models")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ExplainResult(Record):
    """The picture, `output`, and its figures; `failed` images could not be read.

    `run` is None where the place was given; both are None where nothing was drawn.
    """

    schema: int = 1
    run: Path | None = None
    output: Path | None = None
    models: tuple[ExplainedModel, ...]
    images: tuple[ExplainedImage, ...]
    failed: int

    def _summary(self) -> dict[str, object]:
        told: dict[str, object] = {"models": [each.name for each in self.models]}
        return {**told, "images": len(self.images), "failed": self.failed, "output": self.output}

    def _table(self) -> Table:
        rows = [
            (image.path, each.model, each.name, f"{each.probability:.3f}")
            for image in self.images
            for each in image.models
        ]
        return Table(("image", "model", "class", "probability"), rows)
