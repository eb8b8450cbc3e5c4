"""Evaluators: the contract for every file of nas/evaluation/evaluators, and what each does."""

import dataclasses
import json
import math
import os
import random
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from nas.core import registry
from nas.core.errors import EvaluatorError, OptionError
from nas.evaluation.evaluate import perform
from nas.interfaces import TRAINING_FLOPS, Evaluator, Task
from nas.models.arch import Arch, Head
from nas.models.cost import count
from nas.searching.feasibility import fitted
from nas.searching.samplers import random_choices
from nas.testing import EvaluatorContract, TrainerContract, each

MBCONV = registry.export("spaces", "mbconv", "SPACE")
RNG = random.Random(0)
ARCHS = [MBCONV.decode(random_choices(MBCONV, RNG)) for _ in range(20)]
# `member` is `nas train` in processes of its own, some seconds each: tests/scaling/test_family.py;
# `table` knows what its user's file holds: tests/evaluation/test_table.py
NAMES = [name for name in registry.names("evaluators") if name not in ("member", "table")]
# what an evaluator needs to be made at all, and to be quick here
TRAINING: dict[str, Any] = {
    "data": "digits",
    "epochs": 1,
    "fraction": 0.1,
    "batch_size": 32,
    "recipe_options": {"lr": 0.2, "norm_momentum": 0.9, "warmup_epochs": 0.0},
    "accelerator": "cpu",
}
OPTIONS = {"training": TRAINING}
globals().update(each(EvaluatorContract, [name for name in NAMES if name != "training"]))


def small_archs() -> list[Arch]:
    """Return two archs for the digits, of the smallest."""
    space = fitted(registry.export("spaces", "mbconv_small", "SPACE"), 10, None)
    rng = random.Random(0)
    drawn = [space.decode(random_choices(space, rng)) for _ in range(100)]
    return sorted(drawn, key=lambda arch: count(arch).flops)[:2]


class TestTraining(EvaluatorContract):
    part = "training"
    options = TRAINING

    @pytest.fixture
    def archs(self) -> list[Arch]:
        return small_archs()


class TestTrainer(TrainerContract):
    part = "training"
    options: ClassVar[dict[str, Any]] = {**TRAINING, "epochs": 4}

    @pytest.fixture
    def archs(self) -> list[Arch]:
        return small_archs()[:1]


class TestSyntheticTrainer(TrainerContract):
    part = "synthetic"
    options: ClassVar[dict[str, Any]] = {"epochs": 4}


@pytest.fixture(autouse=True, scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Train in one thread, and leave the user's cache alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
    torch.set_num_threads(before)


def made(name: str, **options: object) -> Evaluator:
    evaluator: Evaluator = registry.make(
        "evaluators", name, options=OPTIONS.get(name, {}) | options
    )
    return evaluator


def test_the_synthetic_noise_is_seeded() -> None:
    quiet, noisy = made("synthetic"), made("synthetic", noise=0.5)
    values = {noisy.evaluate(ARCHS[0], seed=seed)["accuracy"] for seed in range(50)}
    assert len(values) == 50
    assert np.std(list(values)) == pytest.approx(0.5, rel=0.4)
    assert np.mean(list(values)) == pytest.approx(quiet.evaluate(ARCHS[0])["accuracy"], abs=0.3)
    other = made("synthetic", landscape=1)
    assert other.evaluate(ARCHS[0]) != quiet.evaluate(ARCHS[0])


def test_a_trial_is_trained_on_a_part_of_the_images_at_a_size_of_its_own() -> None:
    large = made("training", fraction=0.025, train_imgsz=64)
    arch = small_archs()[0]
    found, usual = large.evaluate(arch), made("training").evaluate(arch)
    # a quarter of the images, of four times the pixels
    assert found[TRAINING_FLOPS] == pytest.approx(usual[TRAINING_FLOPS], rel=0.15)
    assert "1 epoch of 29 images" in large.title and "287 validation images" in large.title


def test_a_search_never_opens_the_test_split(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator: Any = made("training")
    read: list[str] = []
    for name, split in evaluator._dataset.splits.items():
        pixels = split.read

        def watched(i: int, name: str = name, pixels: Any = pixels) -> Any:
            read.append(name)
            return pixels(i)

        monkeypatch.setitem(
            evaluator._dataset.splits, name, dataclasses.replace(split, read=watched)
        )
    monkeypatch.setenv("NAS_CACHE", os.devnull)  # nothing is cached
    evaluator.evaluate(small_archs()[0])
    assert set(read) == {"train", "val"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"in_channels": 1}, "the images have 3 channels, and the arch takes 1"),
        ({"head": Head(classes=7)}, "the data has 10 classes, and the arch 7"),
    ],
)
def test_an_arch_that_the_data_does_not_fit_is_refused(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(EvaluatorError, match=message):
        made("training").check(dataclasses.replace(small_archs()[0], **change))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": -1}, "epochs must be at least 1, or 0 for as many as rank, not -1"),
        ({"fraction": -0.5}, "fraction must be above 0 and at most 1, not -0.5"),
        ({"fraction": 1.5}, "fraction must be above 0 and at most 1, not 1.5"),
        ({"batch_size": -4}, "batch_size must be at least 1, not -4"),
        ({"train_imgsz": 16}, "train_imgsz must be at least 32 pixels, not 16"),
        ({"recipe": "none"}, "no recipe named 'none'"),
        ({"recipe_options": {"lrr": 1}}, "no option 'lrr'"),
        ({"recipe_options": {"norm_momentum": 1.5}}, "norm_momentum of recipe auto takes"),
        ({"data": "nothing"}, "no data 'nothing'"),
        ({"accelerator": "tpu"}, "accelerator must be one of auto, cpu"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_trained(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message) as error:
        made("training", **options)
    assert "\n" not in str(error.value)


class Odd:
    """An evaluator that returns or raises what it is given."""

    title = "odd"

    def __init__(self, what: object) -> None:
        self.what = what

    def check(self, arch: Arch) -> None: ...

    def evaluate(self, arch: Arch, *, seed: int = 0) -> object:
        if isinstance(self.what, Exception):
            raise self.what
        return self.what


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (ValueError("no data"), "ValueError: no data"),
        (KeyError("x"), "KeyError: 'x'"),
        ({}, "the evaluator gave no accuracy"),
        ({"accuracy": math.nan}, "accuracy is nan"),
        ({"accuracy": 50.0, "latency_ms": math.inf}, "latency_ms is inf"),
        ({"accuracy": "high"}, "ValueError: could not convert string to float: 'high'"),
        (None, "AttributeError"),
        ({"accuracy": 50.0, "seconds": 3.0}, "a metric 'seconds', a name that the journal needs"),
    ],
)
def test_what_goes_wrong_becomes_a_failed_outcome_with_its_reason(
    what: object, reason: str
) -> None:
    outcome = perform(Odd(what), Task(7, ARCHS[0].to_dict(), 0))  # type: ignore[arg-type]
    assert reason in outcome.error
    assert (outcome.number, outcome.metrics) == (7, {})


def test_numpys_numbers_become_plain_ones() -> None:
    found = {"accuracy": np.float32(50.5), "params": np.int64(7)}
    outcome = perform(Odd(found), Task(0, ARCHS[0].to_dict(), 0))  # type: ignore[arg-type]
    assert json.loads(json.dumps(outcome.metrics)) == {"accuracy": 50.5, "params": 7.0}
