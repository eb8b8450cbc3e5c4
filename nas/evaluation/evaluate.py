"""Do one Task with an evaluator: an exception becomes a failed outcome with its reason.

But for what is no arch's fault and would fail the next one too, as a full disk or broken images.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, cast

from nas.core import registry
from nas.core.errors import MissingError, NasError, OptionError, RunError
from nas.interfaces import (
    RECORD,
    Evaluator,
    EvaluatorSpec,
    Metrics,
    Outcome,
    Task,
    Trainer,
    TrainingEvaluator,
)
from nas.models.arch import Arch

if TYPE_CHECKING:
    from nas.hardware.latency import Cached

LARGEST = 1e6  # an accuracy beyond is a mistake, and would blind the models
FATAL: tuple[type[NasError], ...] = (OptionError, RunError, MissingError)


# what stands for what an evaluator does not tell
_UNTOLD: dict[str, Any] = {
    "notes": (),
    "fingerprint": "",
    "former_fingerprint": "",
    "classes": (),
    "image_side": None,
    "images": 0.0,
    "trial_seconds": 0.0,
    "rungs": (),
    "rung_unit": "epochs",
    "amount": None,
    "parent": None,
    "fraction": 1.0,
    "full_amount": lambda arch: None,
    "estimated_seconds": lambda arch: 0.0,
    "estimated_worth": lambda arch: "",
}


def make_evaluator(spec: EvaluatorSpec) -> TrainingEvaluator:
    """Return the evaluator of a EvaluatorSpec, with measured latency where a device is named.

    `rungs` of an evaluator that does not train are ().

    Raises:
        OptionError: an unknown part or option.
    """
    made = registry.make("evaluators", spec.evaluator, options=spec.options)
    evaluator = cast(TrainingEvaluator, Complete(made))
    if spec.device is None:
        return evaluator
    from nas.hardware.latency import Cached, cache_file

    device = registry.make("devices", spec.device, options=spec.device_options)
    return cast(TrainingEvaluator, Measured(evaluator, Cached(device, cache_file())))


class Complete:
    """An evaluator with every member of TrainingEvaluator, also where it tells less."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator

    def __getattr__(self, name: str) -> Any:
        if name in _UNTOLD:
            return getattr(self._evaluator, name, _UNTOLD[name])
        return getattr(self._evaluator, name)


class Measured:
    """An evaluator whose metrics also hold the latency on a device of this machine.

    The device is asked first: while nothing is trained in this process, and before a training is
    paid for.
    """

    def __init__(self, evaluator: TrainingEvaluator, device: Cached) -> None:
        self._evaluator, self._device = evaluator, device
        self.title = f"{evaluator.title}; latency measured on {device.title}"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._evaluator, name)  # rungs, classes, images, notes of one that trains

    def check(self, arch: Arch) -> None:
        self._evaluator.check(arch)

    def evaluate(self, arch: Arch, *, seed: int = 0) -> Metrics:
        latency = self._latency(arch)
        return {**self._evaluator.evaluate(arch, seed=seed), **latency}

    def train(self, arch: Arch, *, seed: int, epochs: int, folder: str) -> Metrics:
        latency = self._latency(arch)
        found = self._evaluator.train(arch, seed=seed, epochs=epochs, folder=folder)
        return {**found, **latency}

    def _latency(self, arch: Arch) -> Metrics:
        timing = self._device.measure(arch)
        return {
            "latency_ms": timing.median_ms,
            "latency_p10_ms": timing.p10_ms,
            "latency_p90_ms": timing.p90_ms,
        }


def perform(evaluator: Evaluator, task: Task) -> Outcome:
    """Return the outcome of a task; what the evaluator raises is recorded, not passed on.

    Raises:
        OptionError, RunError, MissingError: no arch could be evaluated; this one is not to blame.
    """
    start = time.perf_counter()
    try:
        with registry.user_code():
            found = _found(evaluator, task)
        # plain floats: numpy's and torch's scalars are no JSON
        metrics = {str(name): float(value) for name, value in found.items()}
        problem = _problem(metrics)
    except FATAL:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit) and type(error) is not SystemExit:  # a notice was heard
            raise
        metrics, problem = {}, registry.error_text(error)
    seconds = time.perf_counter() - start
    return Outcome(task.number, {} if problem else metrics, problem, seconds)


def _found(evaluator: Evaluator, task: Task) -> Metrics:
    arch = Arch.from_dict(task.arch)
    if not task.epochs:
        return evaluator.evaluate(arch, seed=task.seed)
    return cast(Trainer, evaluator).train(
        arch, seed=task.seed, epochs=task.epochs, folder=task.folder
    )


def _problem(metrics: Metrics) -> str:
    if "accuracy" not in metrics:
        return "the evaluator gave no accuracy"
    taken = [name for name in metrics if name in RECORD]
    if taken:
        return f"the evaluator calls a metric {taken[0]!r}, a name that the journal needs"
    bad = [name for name, value in metrics.items() if not math.isfinite(value)]
    if not bad and abs(metrics["accuracy"]) > LARGEST:
        return f"accuracy is {metrics['accuracy']:g}, and is to be in percent"
    return f"{bad[0]} is {metrics[bad[0]]}" if bad else ""
