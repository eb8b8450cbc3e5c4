"""What is said of a training that came to nothing, and that nothing is said of one that did not."""

import math
from typing import Any

import pytest

from nas.training.diagnosis import at_least, diagnose

EVEN = [0, 1, 2] * 20  # labels of 60 validation images
SKEWED = [0] * 54 + [1] * 6


def rows(top1: list[float], **last: float) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"epoch": number, "train_loss": 1.0, "val_loss": 1.0, "val_top1": value}
        for number, value in enumerate(top1, 1)
    ]
    found[-1] |= last
    return found


@pytest.mark.parametrize(
    ("found", "labels", "said"),
    [
        (rows([30, 40, 60, 70, 80, 85]), EVEN, ""),
        (rows([30, 35, 38, 38, 35, 41.7]), EVEN, "always naming the largest class: 41.7 % of 60"),
        (rows([33.3] * 6), EVEN, "not shown to be better"),
        (rows([0.0] * 6), EVEN, "not shown to be better"),
        (rows([60, 90, 90]), SKEWED, "the largest class is 90.0 % of them"),
        (rows([60, 90, 100]), SKEWED, ""),
        (rows([60, 100.0]), [0, 1, 2], ""),  # too few to test, and all of them right
        (rows([60, 100.0]), [1, 1, 1], "always naming the largest class"),
        (rows([50, 80], train_loss=9.0), EVEN, "diverged: its training loss ended at 9"),
        (rows([50, 80], val_loss=3.4e14), EVEN, "diverged: its validation loss ended at 3.4e+14"),
        (rows([50, 80], val_loss=math.nan), EVEN, "diverged"),
        (rows([80, *range(51, 70)]), EVEN, "the best epoch of this training was 1 of 20"),
        (rows([60, 80, *range(51, 69)]), EVEN, "was 2 of 20"),
        (rows([80, *range(60, 79)]), EVEN, ""),  # within the noise of 60 images
        (rows([100.0] * 20), EVEN, ""),
        (rows([60, 61, 80, *range(60, 77)]), EVEN, ""),
        (rows([80, 79, 78]), EVEN, ""),  # three epochs tell nothing
        ([], EVEN, ""),
        ([{"epoch": 1, "train_loss": 1.0}], EVEN, ""),
    ],
)
def test_a_sentence_or_none(found: list[dict[str, Any]], labels: list[int], said: str) -> None:
    text = diagnose(found, labels, 3)
    assert said in text and bool(said) == bool(text)
    assert "\n" not in text


@pytest.mark.parametrize(("count", "share"), [(1, 0.5), (10, 0.3), (40, 0.9)])
def test_the_tail_is_the_binomials(count: int, share: float) -> None:
    for right in range(count + 1):
        terms = (
            math.comb(count, k) * share**k * (1 - share) ** (count - k)
            for k in range(right, count + 1)
        )
        assert at_least(right, count, share) == pytest.approx(sum(terms))


def test_a_loss_with_a_teachers_terms_is_not_held_against_guessing() -> None:
    found = rows([50, 80], train_loss=9.0)
    assert diagnose(found, EVEN, 3, taught=True) == ""
    assert "diverged" in diagnose(rows([50, 80], val_loss=9.0), EVEN, 3, taught=True)


def test_of_a_probe_that_was_kept_only_its_answers_count() -> None:
    probe = {"epoch": 0, "val_loss": 0.4, "val_top1": 90.0}
    assert not diagnose([probe], EVEN, 3, taught=True)
    assert "always naming" in diagnose([{**probe, "val_top1": 33.3}], EVEN, 3, taught=True)
