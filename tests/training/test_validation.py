"""What a validation counts, for few classes and for very many."""

import tracemalloc

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas.training.validation import MATRIX, Score, validate


def scored(labels: list[int], answers: list[int], classes: int, batch: int = 3) -> Score:
    """Return the score of a model that gives these answers."""
    logits = torch.zeros(len(labels), classes)
    logits[range(len(labels)), answers] = 1.0
    true = torch.tensor(labels)
    parts: list[tuple[Tensor, Tensor]] = [
        (logits[i : i + batch], true[i : i + batch]) for i in range(0, len(labels), batch)
    ]
    return validate(nn.Identity(), parts, classes, device="cpu")


def test_pairs_are_counted() -> None:
    found = scored([0, 1, 2, 2, 2, 1, 0], [0, 2, 2, 1, 1, 1, 0], 3)
    assert found.confusion and found.confusion.matrix() == [[2, 0, 0], [0, 1, 1], [0, 2, 1]]
    assert found.confusion.row(2) == {1: 2, 2: 1} and found.confusion.row(0) == {0: 2}
    assert (found.count, found.top1, found.top5) == (7, pytest.approx(400 / 7), 100)


def test_no_images_are_no_score_but_no_error_either() -> None:
    found = validate(nn.Identity(), [], 3, device="cpu")
    assert (found.count, found.top1) == (0, 0)
    assert found.confusion and found.confusion.matrix() == [[0] * 3] * 3


def test_memory_does_not_grow_with_the_square_of_the_classes() -> None:
    """A matrix of 20,000 classes alone would take 3.2 GB."""
    classes = 20_000
    labels = np.random.default_rng(0).integers(classes, size=30).tolist()
    tracemalloc.start()
    found = scored(labels, labels, classes)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.top1 == 100 and peak < 50e6
    assert found.confusion and len(found.confusion.counts) == len(set(labels))
    assert classes > MATRIX and found.confusion.matrix() is None
    assert found.confusion.row(labels[0]) == {labels[0]: labels.count(labels[0])}
