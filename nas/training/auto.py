"""The recipe `auto`: what a training needs, from what is known before its first step. Pure.

A net learns by optimiser steps, each on a batch of varied views; epochs are only how many of them
a folder gives. So the rule counts in steps and views, and takes as many epochs as give them.

- Batch: 8 to 256, by the number of images, so that an epoch is several steps.
- Views: VIEWS x sqrt(images) x (side / 32)^1.3, at least LEAST_STEPS steps, or 20 epochs of many
  images. Digits (1,151 images, 32 px) are learnt with 20,000 views; photographs at 64 px take more.
- Time: what was given, or else DEFAULT_SECONDS, by a model of the speed (`seconds_per_step`); but
  never below LEAST_STEPS and LEAST_VIEWS, under which a net does not learn.
- SGD at a high rate, which the clipped norm of the gradients makes safe for all nets; a short
  warm-up, half a cosine, and averaged weights over a share of the training. AdamW at .002 learnt
  digits in 10 epochs where this takes 6, and photographs 6 points less in 20.
- From weights the recipe is called `finetune`: the classifier starts as a linear probe, norm
  statistics stay as a probe found them best, the parts with the largest maps are not trained (half
  the time, and what they see is in all photographs), and a fifth of the views do.
- Photographs are cut and mirrored. Gray images may be characters or scans: neither is done.

What was measured on which folders is in docs/train.md, with commands in docs/results.md.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nas.core.errors import OptionError
from nas.core.units import about_seconds
from nas.models.cost import Cost
from nas.training.amount import Amount
from nas.training.recipe import Augment, Recipe, load_recipe, with_options

NAME, FROM_WEIGHTS = "auto", "finetune"
# images up to which a batch has this size
BATCHES = ((16, 4), (64, 8), (1_000, 16), (20_000, 32), (100_000, 64), (500_000, 128))
LARGEST_BATCH = 256
VIEWS, BY_SIDE = 1_600, 1.3  # of a root of an image at 32 pixels
LEAST_STEPS, LEAST_VIEWS, LEAST_EPOCHS, MOST_EPOCHS = 500, 8_000, 20, 500
DEFAULT_SECONDS = {"cpu": 600.0}
OTHER_SECONDS = 3600.0  # of a GPU
LONGEST = 4  # times the views of the rule that a given time is used for
RATES = {"nothing": 0.1, "weights": 0.03, "frozen": 0.1}  # of a step of 32 images
SHARES = {"nothing": 1.0, "weights": 0.5, "frozen": 0.5}  # of the views
# from weights: views by the root of the images, and the least epochs; how far images move
FINE_VIEWS, FINE_EPOCHS, FINE_SHIFT = 360, 3, 0.125
FREEZE_STRIDE = 4  # of lite0 the stem and two stages, whose backward takes half of a step's time
# of the time of a step from nothing: lite0 at 64, 128 and 224 pixels took .25 to .30 where some
# parts and all statistics stay as they are, and .08 to .1 forward alone
STEPS = {"nothing": 1.0, "weights": 0.3, "frozen": 0.1}
FINE_LEAST = (250, 2_000)  # steps and views, however little time there is
FINE_WARMUP, FINE_PATIENCE = 0.05, 0.5  # shares of the training
PROBED = 1.4  # forward passes of all training images before the first epoch
WARMUP, AVERAGED, PATIENCE = 0.1, 0.03, 0.4  # shares of the training
INTERVAL = 50  # steps between two validations, at least
LONGEST_WARMUP = 0.5  # of a training, from which on a recipe does not fit
# one core of a server: seconds of 1e9 multiply-adds, of 1 GB kept for backward, of a step, and of
# 1e9 parameters; by least squares over 21 steps of seven nets, within 33 %
CORE = (0.08, 0.33, 0.07, 4.0)
GPU = (0.0015, 0.004, 0.03, 0.2)  # not measured: a guess for a GPU of a workstation


@dataclass(frozen=True)
class Situation:
    """What is known before a training.

    `cost` is at the training's pixels. `start`: nothing, weights or frozen (the classifier alone
    is trained). `gray`: no image has colour. `epochs`, `batch`, `seconds`: as asked for, 0: free.
    `validated`: images of a validation. `speed`: images a second as measured, 0: not measured.
    """

    images: int
    classes: int
    side: int
    cost: Cost | None = None
    start: str = "nothing"
    gray: bool = False
    device: str = "cpu"
    epochs: int = 0
    batch: int = 0
    seconds: float = 0.0
    validated: int = 0
    speed: float = 0.0

    def epoch_seconds(self, batch: int) -> float:
        """Return about how long an epoch takes, with its validation; 0.0 if nothing is known."""
        one = Amount(self.images, batch, 1)
        step = batch / self.speed if self.speed else self._step_seconds(batch)
        # two nets are scored, forward only, which is a third of a training step
        return step * one.steps * (1 + 2 / 3 * self.validated / self.images)

    def _step_seconds(self, batch: int) -> float:
        return seconds_per_step(self.cost, batch, self.device) * STEPS[self.start]

    @property
    def probe_seconds(self) -> float:
        """Return about how long the linear probe takes before a fine-tuning."""
        if self.start == "nothing" or self.cost is None:
            return 0.0
        # forward takes a third of a step of a fine-tuning
        step = STEPS["weights"] * seconds_per_image(self.cost, self.device)
        image = 1 / self.speed if self.speed else step
        return image / 3 * (PROBED * self.images + self.validated)


@dataclass(frozen=True)
class Plan:
    """What is trained: a whole recipe, its amount, the seconds it may take, and a line on why."""

    recipe: Recipe
    amount: Amount
    seconds: float
    line: str


def plan(given: Situation) -> Plan:
    """Return the recipe for a situation."""
    batch = given.batch or batch_for(given.images)
    epochs, why = (given.epochs, "as asked") if given.epochs else _epochs(given, batch)
    amount = Amount(given.images, batch, epochs)
    recipe = _recipe(given, amount)
    seconds = given.epoch_seconds(batch) * epochs + given.probe_seconds
    return Plan(recipe, amount, seconds, _line(given, recipe, amount, seconds, why))


def batch_for(images: int) -> int:
    """Return the images of a step."""
    size = next((size for most, size in BATCHES if images <= most), LARGEST_BATCH)
    return max(1, min(size, images))


def wanted_views(given: Situation) -> float:
    """Return the views of images after which more would add little."""
    if given.start == "weights":
        return max(FINE_VIEWS * math.sqrt(given.images), FINE_EPOCHS * given.images)
    by_root = VIEWS * math.sqrt(given.images) * math.pow(given.side / 32, BY_SIDE)
    return SHARES[given.start] * max(by_root, LEAST_EPOCHS * given.images)


def seconds_per_step(cost: Cost | None, batch: int, device: str) -> float:
    """Return about how long a step takes; 0.0 where the net is not known."""
    if cost is None:
        return 0.0
    _, _, each, per_param = CORE if device == "cpu" else GPU
    return each + batch * seconds_per_image(cost, device) + cost.params * per_param / 1e9


def seconds_per_image(cost: Cost, device: str) -> float:
    """Return about how long an image of a large batch takes, forward and backward."""
    per_flop, per_byte, _, _ = CORE if device == "cpu" else GPU
    return (3 * cost.flops * per_flop + cost.training_bytes_per_image * per_byte) / 1e9


def resolve_recipe(name: str, options: Mapping[str, Any], given: Situation) -> Plan:
    """Return what is trained by the recipe of a name, with options of it replaced.

    Raises:
        OptionError: there is no such recipe or option, or a value cannot be.
    """
    recipe = load_recipe(name, options)
    if recipe.name == FROM_WEIGHTS and given.start == "nothing":
        raise OptionError(
            f"recipe {FROM_WEIGHTS} starts from weights: name them with --init, or take --recipe "
            f"{NAME}, which starts from nothing"
        )
    asked = dataclasses.replace(
        given,
        epochs=given.epochs or options.get("epochs", 0),
        batch=given.batch or options.get("batch_size", 0),
    )
    if recipe.name in (NAME, FROM_WEIGHTS):
        made = plan(asked)
        fixed = {k: v for k, v in options.items() if k not in ("epochs", "batch_size")}
        if "lr" in fixed:  # the rate that somebody wants is the rate
            fixed = {"adapt": False, **fixed}
        return dataclasses.replace(made, recipe=with_options(made.recipe, fixed))
    batch = asked.batch or min(recipe.batch_size, given.images)
    each = given.epoch_seconds(batch)
    timed = max(1, math.floor(given.seconds / each)) if given.seconds and each else recipe.epochs
    amount = Amount(given.images, batch, asked.epochs or timed)
    line = f"recipe {recipe.name}: {amount.epochs} epochs in batches of {batch}, {amount}"
    return Plan(recipe, amount, each * amount.epochs, line)


def misfits(recipe: Recipe, amount: Amount) -> list[str]:
    """Return what of a recipe does not fit a folder, a line each, with the way out."""
    found = []
    if amount.images < 2 * amount.batch and amount.images > LEAST_STEPS // 10:
        found.append(
            f"recipe {recipe.name} takes batches of {amount.batch}, and there are "
            f"{amount.images:,} training images: one optimiser step an epoch; --batch-size "
            f"{batch_for(amount.images)}, or --recipe auto"
        )
    warmup = recipe.warmup_epochs * min(amount.steps_per_epoch, amount.steps / recipe.epochs)
    if warmup > LONGEST_WARMUP * amount.steps:
        found.append(
            f"recipe {recipe.name} warms up for {warmup:.0f} of {amount.steps:,} steps; "
            "--recipe-option warmup_epochs=... or more --epochs"
        )
    if recipe.ema and 1 / (1 - recipe.ema) > amount.steps:
        found.append(
            f"recipe {recipe.name} averages weights over {1 / (1 - recipe.ema):,.0f} steps, and "
            f"the training has {amount.steps:,}; --recipe-option ema=0 or --recipe auto"
        )
    return found


def _epochs(given: Situation, batch: int) -> tuple[int, str]:
    """Return the epochs that the rule takes, and what set them."""
    one = Amount(given.images, batch, 1)
    wanted = max(wanted_views(given) / one.views, LEAST_STEPS / one.steps, 1)
    limit = given.seconds or DEFAULT_SECONDS.get(given.device, OTHER_SECONDS)
    each = given.epoch_seconds(batch)
    affordable = max(0.0, limit - given.probe_seconds) / each if each else math.inf
    if given.seconds:
        most = min(affordable, LONGEST * wanted)
        return max(1, math.floor(most)), "what the time allows"
    steps, views = FINE_LEAST if given.start == "weights" else (LEAST_STEPS, LEAST_VIEWS)
    least = max(steps / one.steps, views / one.views)
    epochs = min(wanted, max(affordable, least), MOST_EPOCHS)
    short = f"fewer than the {wanted:.0f} that more time would use: --time-limit or --epochs"
    why = short if epochs < 0.9 * wanted else f"by the number of images, at {given.side} pixels"
    return math.ceil(epochs), why


def _recipe(given: Situation, amount: Amount) -> Recipe:
    made = _from_nothing(given, amount)
    if given.start == "frozen":
        return dataclasses.replace(made, probe=True, statistics="measured")
    return made if given.start == "nothing" else _finetune(made, given, amount)


def _finetune(made: Recipe, given: Situation, amount: Amount) -> Recipe:
    """Return the recipe of a fine-tuning: where it differs from a training of the same folder."""
    return dataclasses.replace(
        made,
        name=FROM_WEIGHTS,
        source=(
            "our own rule (nas/training/auto.py), after Kumar et al. 2022 (arXiv 2202.10054): a "
            "linear probe first, then the whole network at a low rate; Nesterov SGD on a cosine as "
            "Kornblith et al. 2019 (arXiv 1805.08974)"
        ),
        warmup_epochs=FINE_WARMUP * amount.epochs,
        weight_decay=1e-4,
        ema=0.0,
        dropout=0.0,
        patience=max(4, math.ceil(FINE_PATIENCE * amount.epochs)),
        augment=Augment(crop="shift", shift=FINE_SHIFT, flip=not given.gray),
        probe=True,
        statistics="measured",
        freeze_stride=FREEZE_STRIDE,
        adapt=True,
    )


def _from_nothing(given: Situation, amount: Amount) -> Recipe:
    rate = RATES[given.start] * math.sqrt(amount.batch / 32)
    averaged = AVERAGED * amount.steps  # steps that the averaged weights look back
    return Recipe(
        name=NAME,
        source=(
            "our own rule (nas/training/auto.py), with the cosine of Loshchilov & Hutter 2017, and "
            "norms clipped as by Pascanu et al. 2013"
        ),
        expected="docs/train.md says what it gave on which images",
        epochs=amount.epochs,
        batch_size=amount.batch,
        optimizer="sgd",
        lr=rate * 256 / amount.batch,  # as recipes state it
        schedule="cosine",
        warmup_epochs=WARMUP * amount.epochs,
        weight_decay=5e-4,
        label_smoothing=0.1,
        ema=1 - 1 / averaged if averaged > 2 else 0.0,
        dropout=0.1,
        stochastic_depth=0.0 if amount.steps < 20_000 else None,
        norm_momentum=0.1,
        clip=1.0,
        interval=math.ceil(INTERVAL / amount.steps_per_epoch),
        patience=max(10, math.ceil(PATIENCE * amount.epochs)),
        augment=_augment(given),
    )


def _augment(given: Situation) -> Augment:
    if given.gray:
        return Augment(crop="shift", shift=0.1, flip=False)
    if given.side < 64:
        return Augment(crop="shift", shift=0.125, flip=True)
    return Augment(crop="resized", scale=(0.35, 1.0), flip=True)


def _line(given: Situation, recipe: Recipe, amount: Amount, seconds: float, why: str) -> str:
    starts = {
        "nothing": "from nothing",
        "weights": "from weights after a linear probe",
        "frozen": "the classifier only, after a linear probe",
    }
    rate = recipe.lr * amount.batch / 256
    views = "shifts" if recipe.augment.crop == "shift" else "crops"
    views += " and flips" if recipe.augment.flip else ""
    text = (
        f"recipe {recipe.name}: {amount.epochs} epochs ({why}) of {amount.images:,} images in "
        f"batches of {amount.batch}, {amount}; {recipe.optimizer} at {rate:.2g}, "
        f"{starts[given.start]}, {views}"
    )
    where = "one core" if given.device == "cpu" else given.device
    return f"{text}; about {about_seconds(seconds)} on {where}" if seconds else text
