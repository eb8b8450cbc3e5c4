"""Plan: what a search can reach and what it will take, before it is started."""

from __future__ import annotations

import dataclasses
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nas import catalog
from nas.arch import Arch
from nas.engine import cost_metrics
from nas.errors import EvaluatorError
from nas.evaluation import Measured, make_evaluator, perform
from nas.interfaces import Metrics, Space, Task, Trial
from nas.objective import Bound, describe, metric_of
from nas.prepare import Setup, prepare
from nas.reach import (
    CHEAP,
    COUNTED,
    check_space,
    evaluated,
    reachable,
    seconds_per_evaluation,
    try_decode,
)
from nas.samplers import distributions, random_choices
from nas.settings.search import settings_from
from nas.study import SEARCH, Journal

SAMPLES = 1000
PROPOSALS = 30
PROBE = 1000  # images that a training is timed on


def plan(**given: Any) -> dict[str, Any]:
    """Return the size of the space, what it reaches, and the projected time of a search.

    The settings are those of `nas.search`; nothing is searched or written. Of a space that the
    evaluator does not know, everything but the times is told.

    Raises:
        OptionError: a setting is wrong.
    """
    setup = prepare(settings_from(given), strict=False)
    space, objective = setup.space, setup.goal.objective
    archs = _sample(space, setup.settings.seed)
    bounds = (*objective.targets, *objective.limits)
    problem, seconds = _evaluation(setup, archs[0])
    workers = setup.settings.workers or 1
    trials = setup.trials * (2 if setup.settings.random_search else 1)
    return {
        "schema": 1,
        "space": space.name,
        "size": space.size,
        "choices": len(space.choices),
        "objective": describe(objective),
        "controller": setup.controller,
        "evaluator": setup.evaluator.title,
        "problem": problem,
        "reachable": {name: _range(space, _counter(name)) for name in COUNTED}
        | {b.metric: _range(space, _meter(setup, b)) for b in _measured(bounds, seconds)},
        "random_archs": len(archs),
        "shares": {b.metric: _shares(archs, b) for b in bounds if b.metric in COUNTED},
        "trials": trials,
        "workers": workers,
        "seconds_per_trial": seconds,
        "seconds_per_proposal": _proposal_seconds(setup, archs),
        "projected_seconds": seconds and trials * seconds / workers,
    }


def _evaluation(setup: Setup, arch: Arch) -> tuple[str, float | None]:
    """Return why the evaluator does not know the space, or the time of an evaluation."""
    try:
        setup.evaluator.check(arch)
        if setup.rungs:
            return "", seconds_per_training(setup, arch)
        if isinstance(setup.evaluator, Measured):
            return "", perform(setup.evaluator, Task(0, arch.to_dict(), 0)).seconds
        return "", seconds_per_evaluation(setup.evaluator, arch)
    except EvaluatorError as error:
        return str(error), None


def seconds_per_training(setup: Setup, arch: Arch) -> float | None:
    """Return the time of a trial's training, from an epoch of few images; None if that is unknown.

    Raises:
        EvaluatorError: the training fails; the message gives its reason.
    """
    images = getattr(setup.evaluator, "images", None)
    if not images:
        return None
    share = setup.settings.fraction or 1.0
    few = {"fraction": share * min(1.0, PROBE / images), "epochs": 1}
    work = dataclasses.replace(setup.work, options={**setup.work.options, **few}, device=None)
    probe = make_evaluator(work)
    with tempfile.TemporaryDirectory() as folder:
        task = Task(0, arch.to_dict(), 0, 1, folder)
        outcomes = [perform(probe, dataclasses.replace(task, folder=f"{folder}/{i}")) for i in "ab"]
    if outcomes[-1].error:
        raise EvaluatorError(f"the training of arch {arch.id} fails: {outcomes[-1].error}")
    return float(images / outcomes[-1].metrics["images_per_second"])


def _measured(bounds: tuple[Bound, ...], seconds: float | None) -> list[Bound]:
    """Return the bounds whose range can be found by evaluating at no great cost."""
    cheap = seconds is not None and seconds <= CHEAP  # a measurement never is
    return [bound for bound in bounds if cheap and bound.metric not in COUNTED]


def _counter(metric: str) -> Callable[[Arch], float]:
    return lambda arch: cost_metrics(arch)[metric]


def _meter(setup: Setup, bound: Bound) -> Callable[[Arch], float]:
    return lambda arch: metric_of(evaluated(setup.evaluator, arch), bound.metric)


def _range(space: Space, value: Callable[[Arch], float]) -> dict[str, float]:
    least, most = reachable(space, value)
    return {"least": least, "most": most}


def _shares(archs: list[Arch], bound: Bound) -> dict[str, float]:
    """Return the shares of random archs at or under a bound, and within 5 % of it."""
    ratios = [cost_metrics(arch)[bound.metric] / bound.value for arch in archs]
    return {
        "target": bound.value,
        "at_or_under": sum(ratio <= 1 for ratio in ratios) / len(ratios),
        "within_5_percent": sum(abs(ratio - 1) <= 0.05 for ratio in ratios) / len(ratios),
    }


def _sample(space: Space, seed: int) -> list[Arch]:
    rng = random.Random(seed)
    archs = (try_decode(space, random_choices(space, rng)) for _ in range(SAMPLES))
    return [arch for arch in archs if arch] or [check_space(space)]


def _proposal_seconds(setup: Setup, archs: list[Arch]) -> float:
    """Return the time of one ask and tell of the controller, with a few made-up results."""
    times = []
    space, options = setup.space, setup.settings.controller_options
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal.log", distributions(space))
        sampler = catalog.make("controllers", setup.controller, space, options=options, seed=0)
        log = journal.log(SEARCH, setup.goal.directions, sampler)
        for _ in range(PROPOSALS):
            start = time.perf_counter()
            number, choices = log.ask(distributions(space))
            arch = archs[number % len(archs)]
            metrics: Metrics = {"accuracy": 50.0, **cost_metrics(arch)}
            values = (metrics["flops"],) * len(setup.goal.directions)
            log.tell(Trial(number, "done", choices, str(number), metrics, values))
            times.append(time.perf_counter() - start)
    return statistics.median(times[PROPOSALS // 2 :])
