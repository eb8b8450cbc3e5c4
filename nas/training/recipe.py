"""A training recipe as data: what a file of nas/training/recipes exports as RECIPE."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nas.core import registry
from nas.core.errors import OptionError, did_you_mean
from nas.data.augment_settings import CROPS, POLICIES
from nas.data.augment_settings import Augment as Augment  # of a user's recipe too

OPTIMIZERS = ("rmsprop_tf", "sgd", "adamw")
SCHEDULES = ("one_cycle", "cosine", "exponential")
STATISTICS = ("live", "frozen", "measured")


@dataclass(frozen=True)
class Recipe:
    """Everything about a training that is not the arch, the data or the machine.

    `lr` is per 256 images of a batch and scales linearly with it. `ema` is the decay per step, 0:
    none. `decay_rate` every `decay_epochs` belongs to the exponential schedule; these and
    `warmup_epochs` are out of `epochs` and shrink with a training that is asked to be shorter.
    `dropout`, `stochastic_depth` and `norm_momentum` (PyTorch's: the share of the new batch) of
    None are the arch's own. `clip`: largest norm of all gradients together, 0: any. `patience`: a
    training ends after so many epochs without a better validation, 0: none. `interval`: epochs from
    one validation to the next. `teacher_share`, `temperature`, `teacher_features`: of the loss
    where there is a teacher (nas/training/teacher.py); `teacher_pixels`: a side of its views, 0: by
    its training.
    `expected` says what it gave, where, by whom.

    From weights: `probe`: the classifier starts as a linear probe of the features, whose score is
    the one to beat. `statistics` of batch norm in training: `live`, of each batch; `frozen`, as
    they are; `measured`: frozen, or recalibrated first and live where a probe says so.
    `freeze_stride`: stem and stages of a stride up to this, at most a third, are not trained where
    the statistics that came with them are kept. `adapt`: the rate is lower or higher by how much of
    inherited weights is missing (nas/training/start.py).
    """

    name: str
    source: str
    expected: str
    epochs: int
    batch_size: int
    optimizer: str
    lr: float
    schedule: str
    warmup_epochs: float = 0.0
    decay_rate: float = 0.97
    decay_epochs: float = 2.4
    momentum: float = 0.9
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    ema: float = 0.0
    dropout: float | None = None
    stochastic_depth: float | None = None
    norm_momentum: float | None = None
    # not part of the text by which checkpoints of before know their recipe; see `later`
    clip: float = field(default=0.0, repr=False)
    patience: int = field(default=0, repr=False)
    interval: int = field(default=1, repr=False)
    probe: bool = field(default=False, repr=False)
    statistics: str = field(default="live", repr=False)
    freeze_stride: int = field(default=0, repr=False)
    adapt: bool = field(default=False, repr=False)
    teacher_share: float = field(default=0.7, repr=False)
    temperature: float = field(default=2.0, repr=False)
    teacher_features: float = field(default=2.0, repr=False)
    teacher_pixels: int = field(default=0, repr=False)
    augment: Augment = field(default_factory=Augment)

    def later(self) -> dict[str, Any]:
        """Return the fields that recipes once did not have, where they have an effect."""
        fields = [f for f in dataclasses.fields(self) if not f.repr]
        return {f.name: getattr(self, f.name) for f in fields if getattr(self, f.name) != f.default}


_WORDS = {
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "statistics": STATISTICS,
    "crop": CROPS,
    "policy": POLICIES,
}
_WHOLE = {
    "epochs": (1, 100_000),
    "batch_size": (1, 1_000_000),
    "layers": (1, 20),
    "patience": (0, 100_000),
    "teacher_pixels": (0, 4096),
    "interval": (1, 100_000),
    "freeze_stride": (0, 64),
}
# least and greatest, both allowed
_NUMBERS = {
    "lr": (1e-9, 1e3),
    "warmup_epochs": (0, 100_000),
    "decay_rate": (1e-6, 1),
    "decay_epochs": (1e-3, 100_000),
    "momentum": (0, 0.9999),
    "weight_decay": (0, 100),
    "label_smoothing": (0, 0.99),
    "ema": (0, 0.999999),
    "dropout": (0, 0.99),
    "stochastic_depth": (0, 0.99),
    "norm_momentum": (1e-4, 1),
    "clip": (0, 1e6),
    "teacher_share": (0, 1),
    "temperature": (0.1, 100),
    "teacher_features": (0, 1_000),
    "shift": (0, 0.5),
    "cutout": (0, 1),
    "magnitude": (0, 30),
}
_OWN = ("dropout", "stochastic_depth", "norm_momentum")  # None is the arch's own


def load_recipe(name: str, options: Mapping[str, Any]) -> Recipe:
    """Return the recipe of a file of nas/training/recipes or of the user's, with options replaced.

    Raises:
        OptionError: no such recipe or option, or a value that cannot be.
    """
    found = registry.export("recipes", name, "RECIPE")
    if not isinstance(found, Recipe) or not isinstance(found.augment, Augment):
        raise OptionError(f"RECIPE of {name} must be a Recipe of nas.training, not {found!r:.60}")
    return with_options(found, options)


def with_options(recipe: Recipe, options: Mapping[str, Any]) -> Recipe:
    """Return the recipe with fields of it or of its augmentation replaced, all checked.

    `scale` is given as two numbers, or as text such as 0.2,1.

    Raises:
        OptionError: there is no such field, or a value cannot be; the message names both.
    """
    views = {f.name for f in dataclasses.fields(Augment)}
    known = {k: v for k, v in _fields(recipe).items() if k not in ("name", "source", "expected")}
    for key in options:
        if key not in known:
            raise OptionError(
                f"recipe {recipe.name} has no option {key!r}{did_you_mean(key, known)}; "
                f"it has {', '.join(f'{k}={v}' for k, v in known.items())}"
            )
    given: dict[str, Any] = {
        key: _pair(value) if key == "scale" else value for key, value in options.items()
    }
    augment = dataclasses.replace(recipe.augment, **{k: v for k, v in given.items() if k in views})
    own = {k: v for k, v in given.items() if k not in views}
    changed = dataclasses.replace(recipe, **own, augment=augment)
    _check(changed)
    return changed


def recipe_from(found: Mapping[str, Any]) -> Recipe:
    """Return the recipe that `dataclasses.asdict` made a mapping of.

    Raises:
        OptionError: it is none.
    """
    try:
        views = dict(found["augment"])
        augment = Augment(**{**views, "scale": tuple(views["scale"])})
        recipe = Recipe(**{**found, "augment": augment})
    except (KeyError, TypeError, ValueError) as error:
        raise OptionError(f"this is no recipe: {error}") from error
    _check(recipe)
    return recipe


def _fields(recipe: Recipe) -> dict[str, Any]:
    """Return the fields of a recipe and of its augmentation, by name."""
    own = {f.name: getattr(recipe, f.name) for f in dataclasses.fields(Recipe)}
    del own["augment"]
    views = {f.name: getattr(recipe.augment, f.name) for f in dataclasses.fields(Augment)}
    return {**own, **views}


def _pair(value: object) -> object:
    """Return 0.2,1 as (0.2, 1.0); what is no pair of numbers is left for the check to refuse."""
    parts: Any = value.split(",") if isinstance(value, str) else value
    try:
        low, high = parts
        return float(low), float(high)
    except (TypeError, ValueError):
        return value


def _check(recipe: Recipe) -> None:
    """Do nothing if every value of a recipe can be.

    Raises:
        OptionError: the first that cannot; the message names its limits.
    """
    for key, value in _fields(recipe).items():
        if not (key in _OWN and value is None) and (wanted := _unlike(key, value)):
            raise OptionError(f"{key} of recipe {recipe.name} takes {wanted}, not {value!r}")
    if recipe.warmup_epochs >= recipe.epochs:
        raise OptionError(
            f"warmup_epochs of recipe {recipe.name} must be fewer than its epochs, "
            f"{recipe.epochs}, not {recipe.warmup_epochs}; --epochs shortens both"
        )


def _unlike(key: str, value: object) -> str:
    """Return what a field takes if this value is not like it, else nothing."""
    if key in _WORDS:
        return "" if value in _WORDS[key] else f"one of {', '.join(_WORDS[key])}"
    if key in ("flip", "probe", "adapt"):
        return "" if isinstance(value, bool) else "true or false"
    if key == "scale":
        return "" if _is_scale(value) else "two shares of the area, 0 < low <= high <= 1: 0.2,1"
    if key in _WHOLE:
        low, high = _WHOLE[key]
        fits = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return "" if fits else f"a whole number from {low} to {high}"
    if key in _NUMBERS:
        least, most = _NUMBERS[key]
        return "" if _is_number(value, least, most) else f"a number from {least:g} to {most:g}"
    return "" if isinstance(value, str) and value.strip() else "a line of text"


def _is_number(value: object, least: float, most: float) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and least <= value <= most


def _is_scale(value: object) -> bool:
    if not isinstance(value, tuple) or len(value) != 2:
        return False
    return all(_is_number(part, 1e-6, 1) for part in value) and value[0] <= value[1]
