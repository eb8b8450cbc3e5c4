"""The contract of an evaluator: finite metrics that depend on the arch and the seed alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from nas.core import registry
from nas.core.errors import EvaluatorError
from nas.evaluation.evaluate import perform
from nas.interfaces import RECORD, TRAINING_FLOPS, Evaluator, Metrics, Task
from nas.models.arch import Arch
from nas.testing.contract import Contract, draw, space_of

CLOCKED = ("images_per_second",)  # what a clock tells differs from time to time


class _Evaluated(Contract):
    room = "evaluators"
    space: ClassVar[str] = "mbconv"
    count: ClassVar[int] = 20
    clocked: ClassVar[Sequence[str]] = CLOCKED

    @pytest.fixture
    def archs(self) -> list[Arch]:
        space = space_of(type(self), type(self).space)
        return [space.decode(point) for point in draw(space, self.count)]

    @pytest.fixture
    def evaluator(self) -> Evaluator:
        evaluator: Evaluator = self.make()
        return evaluator

    def settled(self, metrics: Mapping[str, float]) -> Metrics:
        """Return what must repeat."""
        return {name: value for name, value in metrics.items() if name not in self.clocked}


class EvaluatorContract(_Evaluated):
    """Tests of a file whose `make(**options)` gives an evaluator.

    `space`: the space whose archs it is tried on, `count` of them. `clocked`: metrics that differ
    from time to time.
    """

    def test_metrics_are_finite_repeat_and_have_an_accuracy_in_percent(
        self, evaluator: Evaluator, archs: list[Arch]
    ) -> None:
        first = []
        for arch in archs:
            evaluator.check(arch)
            metrics = evaluator.evaluate(arch, seed=3)
            assert all(math.isfinite(value) for value in metrics.values())
            assert 0 <= metrics["accuracy"] <= 100
            assert not set(metrics) & set(RECORD), "a name that the journal needs"
            first.append(self.settled(metrics))
        # equal seeds, in another order and made anew
        again: Evaluator = self.make()
        for arch, metrics in reversed(list(zip(archs, first, strict=True))):
            assert self.settled(again.evaluate(arch, seed=3)) == metrics
        assert len({metrics["accuracy"] for metrics in first}) > len(archs) // 2

    def test_an_outcome_crosses_to_another_process(
        self, evaluator: Evaluator, archs: list[Arch]
    ) -> None:
        outcome = perform(evaluator, Task(0, archs[0].to_dict(), 3))
        assert outcome.error == "" and 0 <= outcome.metrics["accuracy"] <= 100

    def test_the_title_is_one_line(self, evaluator: Evaluator) -> None:
        assert evaluator.title and "\n" not in evaluator.title

    def test_an_arch_it_does_not_know_is_refused_or_evaluated(self, evaluator: Evaluator) -> None:
        strange = registry.export("baselines", "resnet", "ARCHS")["resnet18"]
        try:
            evaluator.check(strange)
        except EvaluatorError as error:
            assert "\n" not in str(error)
        else:
            assert math.isfinite(evaluator.evaluate(strange)["accuracy"])


class TrainerContract(_Evaluated):
    """More tests of an evaluator that trains, and is asked for an accuracy on the way.

    `space`, `count` and `clocked` as of EvaluatorContract; `options` must give several rungs.
    """

    def test_a_training_that_is_asked_on_the_way_ends_as_one_that_is_not(
        self, tmp_path: Path, evaluator: Any, archs: list[Arch]
    ) -> None:
        *early, last = evaluator.rungs
        assert early == sorted(set(early)) and 0 < early[0] < last

        def train(epochs: int, folder: str) -> Metrics:
            found: Metrics = evaluator.train(
                archs[0], seed=2, epochs=epochs, folder=str(tmp_path / folder)
            )
            return self.settled(found)

        shown = {epochs: train(epochs, "asked") for epochs in evaluator.rungs}
        assert shown[last] == train(last, "whole")
        spent = [metrics[TRAINING_FLOPS] / epochs for epochs, metrics in shown.items()]
        assert spent == pytest.approx([spent[0]] * len(spent))
        # a search that was killed may ask again about an epoch that is long past
        for epochs in evaluator.rungs:
            assert train(epochs, "asked") == shown[epochs]
