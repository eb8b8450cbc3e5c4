"""Plan of a search before it starts: range of its costs, expected work, time and price."""

from __future__ import annotations

import dataclasses
import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nas.core import registry
from nas.core.errors import EvaluatorError, OptionError
from nas.core.settings import takes
from nas.core.units import about_seconds, format_count, format_seconds, parse_number
from nas.evaluation.evaluate import Measured, make_evaluator, perform
from nas.interfaces import Metrics, Space, Task, Trial
from nas.models.arch import Arch
from nas.models.points import cost_metrics
from nas.searching.evaluator_spec import of_length
from nas.searching.feasibility import (
    CHEAP,
    COUNTED,
    check_space,
    evaluated,
    reachable,
    seconds_per_evaluation,
    try_decode,
)
from nas.searching.inheritance import with_weights_paths
from nas.searching.objective import Bound, describe, metric_of
from nas.searching.result import PlanResult, Reach, Share
from nas.searching.samplers import distributions, guarded, random_choices
from nas.searching.settings import SearchSettings
from nas.searching.setup import Setup, prepare
from nas.searching.start import warm_start
from nas.searching.studies.study import SEARCH, Journal

SAMPLES = 1000
PROPOSALS = 30
FEW = 15  # random archs whose median stands for all
PROBE = 1000  # images that a training is timed on


@takes(SearchSettings)
def plan(
    *, price: str | float | None = None, project: str | Path = "runs", **given: Any
) -> PlanResult:
    """Return the size of the space, what it reaches, and what a search will take.

    The settings are those of `nas.search`; nothing is searched or written. Of a space that the
    evaluator does not know, everything but the times is told. price: that of an hour of one GPU
    where `gpus_per_trial` is given, else of one worker, in any currency. project: the folder of
    runs, where the one of `warm_start` is looked for.

    Raises:
        OptionError: a setting or the price is wrong.
    """
    rate = _rate(price)
    with_source = warm_start.with_source_path(given, Path(project))
    setup = prepare(
        SearchSettings.model_validate(with_weights_paths(with_source, Path(project))),
        strict=False,
    )
    start_data = warm_start.read_source(setup)
    space, objective = setup.space, setup.goal.objective
    archs = _sample(space, setup.settings.seed)
    bounds = (*objective.targets, *objective.limits)
    problem, seconds = _evaluation(setup, _typical(archs, bounds))
    expected = expected_work(setup)
    billed: dict[str, Any] = bill(expected, seconds, setup.settings.gpus_per_trial, rate)
    return PlanResult(
        space=space.name,
        size=space.size,
        choices=len(space.choices),
        objective=describe(objective),
        controller=setup.settings.controller,
        notes=(*setup.evaluator.notes, *setup.notes),
        warm_start=warm_start.start_line(setup, start_data),
        evaluator=setup.evaluator.title,
        problem=problem,
        reachable={name: _range(space, _counter(name)) for name in COUNTED}
        | {b.metric: _range(space, _meter(setup, b)) for b in _measured(bounds, seconds)},
        random_archs=len(archs),
        shares={b.metric: _shares(archs, b) for b in bounds if b.metric in COUNTED},
        **dataclasses.asdict(expected),
        early_stopping=bool(setup.rungs) and setup.pruner.name != "none",
        seconds_per_trial=seconds,
        seconds_per_proposal=_proposal_seconds(setup, archs),
        **billed,
    )


@dataclasses.dataclass(frozen=True)
class ExpectedWork:
    """What a search evaluates at most: trials, in them those of random search, and the rest."""

    trials: int
    final_trainings: int
    final_ratio: float  # views of one of these to those of a candidate
    references: int  # of the trials, those that are reference designs
    workers: int
    time_limit: float | None  # seconds


def expected_work(setup: Setup) -> ExpectedWork:
    """Return the expected work of a search if no trial is stopped early.

    Random search gets the search's multiply-adds of training, so it costs no more than that.
    """
    chosen = setup.settings
    studies = 2 if chosen.random_search else 1
    first, beside = len(setup.first_points), len(setup.beside_the_space)
    extra = bool(first) + bool(setup.parents) + beside
    finalists = studies * setup.finalists + (extra if setup.finalists else 0)
    return ExpectedWork(
        trials=setup.trials * studies,
        final_trainings=finalists * setup.final_seeds,
        final_ratio=setup.final_length().ratio if setup.finalists else 1.0,
        references=first,
        workers=chosen.workers or 1,
        time_limit=chosen.time_limit,
    )


def announced(setup: Setup) -> tuple[str, ...]:
    """Return what a search that trains is about to do, in a line or two; nothing is timed."""
    if not setup.rungs:
        return ()
    expected, chosen = expected_work(setup), setup.settings
    number = expected.references
    of_them = f"the first {number} of them reference designs"
    first = f", {of_them if number > 1 else 'the first a reference design'}" if number else ""
    parts = [f"{setup.trials} trial{'s' * (setup.trials != 1)}{first}"]
    parts += ["random search of equal cost"] if chosen.random_search else []
    if expected.final_trainings:
        nets = expected.final_trainings // setup.final_seeds
        seeds = f"{setup.final_seeds} seed{'s' * (setup.final_seeds > 1)}"
        parts.append(f"finals of up to {nets} net{'s' * (nets != 1)} with {seeds} each")
    lines = [f"to do: {', then '.join(parts)}"]
    arch, seconds = _drawn(setup)
    if seconds:
        lines.append(_time_line(setup, expected, arch, seconds))
    if text := setup.evaluator.estimated_worth(arch):
        size = format_count(cost_metrics(arch)["flops"])
        lines.append(f"a candidate of {size} multiply-adds gets about {text}")
    return tuple(lines)


def _time_line(setup: Setup, expected: ExpectedWork, arch: Arch, seconds: float) -> str:
    """Return a line on the time of all trainings, given seconds of one."""
    size = format_count(cost_metrics(arch)["flops"])
    each = (
        f"{about_seconds(seconds)} a training, for {size} multiply-adds, the median of "
        "what is drawn, by a model of such a machine"
    )
    if limit := expected.time_limit:
        count = math.floor(limit * expected.workers / seconds)
        enough = f"enough for about {count}" if count else "less than one, and one is begun anyway"
        return f"{each}: the time limit of {format_seconds(limit)} is {enough}"
    total = bill(expected, seconds, None, None)["projected_seconds"] or 0.0
    target = "" if _targets(setup) else ", --target-flops"
    return (
        f"{each}: about {about_seconds(total)} if nothing is stopped early; shorter with "
        f"--time-limit, --trials, --finalists 0, --no-random-search{target}"
    )


def _targets(setup: Setup) -> bool:
    return bool(setup.goal.objective.targets or setup.goal.objective.limits)


def _drawn(setup: Setup) -> tuple[Arch, float]:
    """Return the median of some random archs, and about how long its training takes, 0: unknown."""
    rng = random.Random(setup.settings.seed)
    drawn = (try_decode(setup.space, setup.draw(setup.space, rng)) for _ in range(FEW))
    arch = _typical([a for a in drawn if a] or [check_space(setup.space)], ())
    return arch, setup.evaluator.estimated_seconds(arch)


def bill(
    expected: ExpectedWork, seconds: float | None, gpus: float | None, price: float | None
) -> dict[str, float | None]:
    """Return the time, the worker-hours, the GPU-hours and the cost of a search.

    seconds: of one evaluation, None where unknown. gpus: of one trial, None where nobody said. All
    are None where they cannot be known. The price is that of a GPU-hour, else of a worker-hour.
    """
    names = ("projected_seconds", "worker_hours", "gpu_hours", "price", "cost")
    if seconds is None:
        return dict.fromkeys(names)
    limit = math.inf if expected.time_limit is None else expected.time_limit
    evaluations = expected.trials + expected.final_trainings * expected.final_ratio
    elapsed = min(evaluations * seconds / expected.workers, limit)
    hours = min(evaluations * seconds, limit * expected.workers) / 3600
    gpu_hours = hours * gpus if gpus else None
    billed = hours if gpu_hours is None else gpu_hours
    cost = None if price is None else billed * price
    return dict(zip(names, (elapsed, hours, gpu_hours, price, cost), strict=True))


def _rate(price: str | float | None) -> float | None:
    """Return the price as a number.

    Raises:
        OptionError: it is none, or not above 0.
    """
    if price is None:
        return None
    rate = parse_number(price, "--price")
    if rate <= 0:
        raise OptionError(f"--price takes what an hour costs, such as 2.5, not {price!r}")
    return rate


def _typical(archs: list[Arch], bounds: tuple[Bound, ...]) -> Arch:
    """Return the arch of median multiply-adds of those within the bounds, or else the smallest."""
    costs = {arch.id: cost_metrics(arch) for arch in archs}
    by_flops = sorted(archs, key=lambda arch: costs[arch.id]["flops"])
    counted = [bound for bound in bounds if bound.metric in COUNTED]
    within = [a for a in by_flops if all(costs[a.id][b.metric] <= b.value for b in counted)]
    return within[len(within) // 2] if within else by_flops[0]


def _evaluation(setup: Setup, arch: Arch) -> tuple[str, float | None]:
    """Return why the evaluator does not know the space, or the time of an evaluation."""
    try:
        with registry.guard("the evaluator fails"):
            setup.evaluator.check(arch)
        if seconds := setup.evaluator.trial_seconds:
            return "", seconds
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
    images = setup.evaluator.images
    if not images:
        return None
    share = setup.settings.fraction or 1.0
    few = of_length(setup.spec, 1, share * min(1.0, PROBE / images))
    probe = make_evaluator(dataclasses.replace(few, device=None))
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


def _range(space: Space, value: Callable[[Arch], float]) -> Reach:
    least, most = reachable(space, value)
    return Reach(least=least, most=most)


def _shares(archs: list[Arch], bound: Bound) -> Share:
    """Return the shares of random archs at or under a bound, and within 5 % of it."""
    ratios = [cost_metrics(arch)[bound.metric] / bound.value for arch in archs]
    return Share(
        target=bound.value,
        at_or_under=sum(ratio <= 1 for ratio in ratios) / len(ratios),
        within_5_percent=sum(abs(ratio - 1) <= 0.05 for ratio in ratios) / len(ratios),
    )


def _sample(space: Space, seed: int) -> list[Arch]:
    rng = random.Random(seed)
    archs = (try_decode(space, random_choices(space, rng)) for _ in range(SAMPLES))
    return [arch for arch in archs if arch] or [check_space(space)]


def _proposal_seconds(setup: Setup, archs: list[Arch]) -> float:
    """Return the time of one ask and tell of the controller, with a few made-up results."""
    times = []
    space, name = setup.space, setup.controller.name
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal.log", distributions(space))
        sampler = setup.controller.make(space, seed=0, goal=setup.goal)
        if name.endswith(".py"):
            sampler = guarded(sampler, name)
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
