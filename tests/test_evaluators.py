"""Evaluators: the contract that every file of nas/evaluators keeps, found by discovery."""

import json
import math
import random

import numpy as np
import pytest

from nas import catalog
from nas.arch import Arch
from nas.errors import EvaluatorError
from nas.evaluation import perform
from nas.interfaces import RECORD, Evaluator, Task
from nas.samplers import random_choices

MBCONV = catalog.export("spaces", "mbconv", "SPACE")
RNG = random.Random(0)
ARCHS = [MBCONV.decode(random_choices(MBCONV, RNG)) for _ in range(20)]
each_evaluator = pytest.mark.parametrize("name", catalog.names("evaluators"))


def made(name: str, **options: object) -> Evaluator:
    evaluator: Evaluator = catalog.make("evaluators", name, options=options)
    return evaluator


@each_evaluator
def test_metrics_are_finite_and_have_an_accuracy_in_percent(name: str) -> None:
    evaluator = made(name)
    for arch in ARCHS:
        evaluator.check(arch)
        metrics = evaluator.evaluate(arch)
        assert all(math.isfinite(value) for value in metrics.values())
        assert 0 <= metrics["accuracy"] <= 100
        assert not set(metrics) & set(RECORD)
        assert perform(evaluator, Task(0, arch.to_dict(), 0)).error == ""


@each_evaluator
def test_equal_seeds_give_equal_metrics_in_any_order(name: str) -> None:
    first = [made(name).evaluate(arch, seed=3) for arch in ARCHS]
    again = made(name)
    for arch, metrics in reversed(list(zip(ARCHS, first, strict=True))):
        assert again.evaluate(arch, seed=3) == metrics


@each_evaluator
def test_archs_differ_and_the_title_is_one_line(name: str) -> None:
    evaluator = made(name)
    assert len({evaluator.evaluate(arch)["accuracy"] for arch in ARCHS}) > len(ARCHS) // 2
    assert evaluator.title and "\n" not in evaluator.title


@each_evaluator
def test_an_arch_it_does_not_know_is_refused_or_evaluated(name: str) -> None:
    strange = catalog.export("baselines", "resnet", "ARCHS")["resnet18"]
    evaluator = made(name)
    try:
        evaluator.check(strange)
    except EvaluatorError as error:
        assert "\n" not in str(error)
    else:
        assert math.isfinite(evaluator.evaluate(strange)["accuracy"])


def test_the_synthetic_noise_is_seeded() -> None:
    quiet, noisy = made("synthetic"), made("synthetic", noise=0.5)
    values = {noisy.evaluate(ARCHS[0], seed=seed)["accuracy"] for seed in range(50)}
    assert len(values) == 50
    assert np.std(list(values)) == pytest.approx(0.5, rel=0.4)
    assert np.mean(list(values)) == pytest.approx(quiet.evaluate(ARCHS[0])["accuracy"], abs=0.3)
    other = made("synthetic", landscape=1)
    assert other.evaluate(ARCHS[0]) != quiet.evaluate(ARCHS[0])


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
