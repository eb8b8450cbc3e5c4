"""How long the trainings of the finals are."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nas.training.amount import FINAL, Amount, worth


@dataclass(frozen=True)
class Length:
    """How long each training of the finals is: `epochs` over `fraction` of the training images.

    `ratio`: to the views of a candidate's training. `label` tells it in finals.csv, "" where it is
    that of a candidate. `text` says what it is worth, and `enough` whether it tells what an arch
    gives; "" and True where the evaluator does not say.
    """

    epochs: int
    fraction: float = 1.0
    ratio: float = 1.0
    label: str = ""
    text: str = ""
    enough: bool = True

    def __str__(self) -> str:
        return self.text or _epochs(self.epochs)


def length_of(
    own: int, share: float, amount: Amount | None, epochs: int | None, fraction: float | None
) -> Length:
    """Return the length of the finals, where `epochs` and `fraction` are what is asked for.

    `own`, `share`: epochs and fraction of a candidate; `amount`: what that is, None where the
    evaluator does not say. By default the finals get what a candidate gets if that tells what an
    arch gives (nas/training/amount.py), and else as many epochs over all images as do.
    """
    if amount is None:
        chosen, part = epochs or own, fraction or share
        same = (chosen, part) == (own, share)
        return Length(chosen, part, chosen * part / (own * share), _label(chosen, part, same))
    asked = epochs or fraction
    enough = worth(amount, FINAL).ranks and not asked
    part = fraction or (share if enough or epochs else 1.0)
    images = max(1, round(amount.images / share * part))
    least = Amount(images, min(amount.batch, images), 1)
    needed = max(FINAL.epochs(images, least.batch), math.ceil(amount.views / least.views))
    return _measured(own, share, amount, own if enough else epochs or needed, part)


def fine_tuning_length(
    candidate: Amount, full: Amount, epochs: int | None, fraction: float | None
) -> Length:
    """Return the length of the finals of a search from weights, where a candidate's is another.

    By default each is fine-tuned in `full`, as `nas train` does it. A linear probe comes before
    any fine-tuning, and takes a third of an epoch.
    """
    part = fraction or 1.0
    images = max(1, round(full.images * part))
    chosen = Amount(images, min(full.batch, images), epochs or full.epochs)
    passes = [each.images * (each.epochs + 1 / 3) for each in (chosen, candidate)]
    text = f"{_epochs(chosen.epochs)} of {images:,} images, {chosen}"
    label = f"{chosen.epochs}x{part:g}"
    return Length(chosen.epochs, part, passes[0] / passes[1], label, text)


def _measured(own: int, share: float, amount: Amount, epochs: int, part: float) -> Length:
    """Return a length with what it is worth."""
    images = max(1, round(amount.images / share * part))
    mine = Amount(images, min(amount.batch, images), epochs)
    found = worth(mine, FINAL)
    text = f"{_epochs(epochs)} of {images:,} images, {mine}"
    if not found.ranks:
        text += f": {FINAL.lacking}; --final-epochs {found.epochs} would do"
    label = _label(epochs, part, (epochs, part) == (own, share))
    return Length(epochs, part, mine.views / amount.views, label, text, found.ranks)


def _epochs(count: int) -> str:
    return f"{count:,} epoch{'s' * (count != 1)}"


def _label(epochs: int, fraction: float, same: bool) -> str:
    return "" if same else f"{epochs}x{fraction:g}"
