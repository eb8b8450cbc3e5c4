"""What a space can reach: checked before anything is evaluated."""

from __future__ import annotations

import dataclasses
import itertools
import random
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from nas.core.errors import ArchError, EvaluatorError, OptionError
from nas.core.registry import guard
from nas.core.units import format_count
from nas.evaluation.evaluate import Measured, perform
from nas.interfaces import Choices, Fits, Metrics, Space, Task, TrainingEvaluator
from nas.models.arch import Arch
from nas.models.compound import LEAST_PIXELS
from nas.models.points import cost_metrics, decode
from nas.searching.objective import Objective, metric_of
from nas.searching.samplers import random_choices

COUNTED = ("flops", "params")  # what no evaluation is needed for
CHEAP = 0.01  # seconds of an evaluation up to which ranges are found by evaluating


def check_space(space: Space) -> Arch:
    """Decode every option once and some random points; return one arch.

    Raises:
        OptionError: the space has no choices, or a point that it does not call invalid decodes to
            something impossible; the message names the choices.
    """
    if not isinstance(space.choices, Mapping):
        raise OptionError(
            f"choices of space {space.name} must map names to options, not {space.choices!r:.60}"
        )
    for name, options in space.choices.items():
        if not isinstance(name, str) or not isinstance(options, list | tuple):
            raise OptionError(
                f"space {space.name}: {name!r} must be a name with a list of options, not "
                f"{options!r:.60}"
            )
    if not space.choices or not all(space.choices.values()):
        raise OptionError(f"space {space.name} needs at least one choice, each with an option")
    for name, options in space.choices.items():
        bad = [o for o in options if not isinstance(o, bool | int | float | str)]
        if bad:
            raise OptionError(
                f"space {space.name}: {name} has the option {bad[0]!r}; numbers, words and "
                "true/false are possible"
            )
        if len(set(options)) < len(options):
            raise OptionError(f"space {space.name}: {name} has an option twice: {list(options)}")
    first: Arch | None = None
    for choices in _probes(space):
        if _is_valid(space, choices):
            arch = _decode(space, choices)
            first = first or arch
    if first is None:
        raise OptionError(f"space {space.name}: no probed point is valid; check its `valid`")
    return first


def fitted(space: Space, classes: int, imgsz: int | None) -> Space:
    """Return a space whose archs have that many classes and that input; 0, None: as they are.

    Costs are counted on such archs, so that a target is met by what will be deployed.
    """
    if not classes and not imgsz:
        return space

    def adapted(arch: Arch, resolution: int) -> Arch:
        head = dataclasses.replace(arch.head, classes=classes or arch.head.classes)
        return dataclasses.replace(arch, head=head, resolution=resolution)

    def decode(choices: Mapping[str, Any]) -> Arch:
        arch = space.decode(choices)
        return adapted(arch, imgsz or arch.resolution)

    def encode(arch: Arch) -> Choices | None:
        """Return the choices of an arch, its classes and its input aside."""
        own = check_space(space)
        head = dataclasses.replace(arch.head, classes=own.head.classes)
        plain = dataclasses.replace(arch, head=head, resolution=own.resolution)
        return space.encode(plain) if space.encode else None

    def references(fits: Fits) -> Mapping[str, Arch | Choices]:
        """Return the designs with the data's classes, and their pixels in proportion to imgsz."""
        own = check_space(space).resolution

        def design(arch: Arch) -> Arch:
            side = max(LEAST_PIXELS, round(imgsz * arch.resolution / own)) if imgsz else 0
            return adapted(arch, side or arch.resolution)

        given = space.references(lambda arch: fits(design(arch))) if space.references else {}
        return {n: design(d) if isinstance(d, Arch) else d for n, d in given.items()}

    return dataclasses.replace(
        space,
        decode=decode,
        encode=encode if space.encode else None,
        references=references if space.references else None,
    )


def reachable(space: Space, value: Callable[[Arch], float], seed: int = 0) -> tuple[float, float]:
    """Return the least and the greatest value found over a space.

    Each choice is set to its best option in turn until nothing changes, from five starts: exact
    where the choices act in the same direction everywhere, as they do on FLOPs and params.
    """
    rng = random.Random(seed)
    points = (random_choices(space, rng) for _ in range(1000))
    starts = list(itertools.islice((p for p in points if try_decode(space, p)), 5))
    starts = starts or [random_choices(space, rng) for _ in range(5)]
    least = min(_descend(space, start, value) for start in starts)
    most = max(-_descend(space, start, lambda arch: -value(arch)) for start in starts)
    return least, most


def check_reach(
    space: Space,
    objective: Objective,
    known: Collection[str],
    cost_of: Callable[[Arch], Metrics],
) -> tuple[str, ...]:
    """Check that each target and limit tells archs apart; return a line on each limit that doesn't.

    Of the metrics that are known at once, which `cost_of` gives.

    Raises:
        OptionError: no arch meets one, or every arch meets a target; the message gives the
            reachable range.
    """
    notes = []
    for bound in (*objective.targets, *objective.limits):
        if bound.metric not in known:
            continue  # finding the range by evaluation would cost as much as a search

        def value(arch: Arch, metric: str = bound.metric) -> float:
            return metric_of((cost_metrics if metric in COUNTED else cost_of)(arch), metric)

        least, most = reachable(space, value)
        unit = " ms" if bound.metric == "latency_ms" else ""
        span = f"reachable are {format_count(least)}{unit} to {format_count(most)}{unit}"
        wanted = f"{bound.metric} {format_count(bound.value)}{unit}"
        if bound.value < least:
            raise OptionError(f"no arch of space {space.name} comes down to {wanted}: {span}")
        if bound.value >= most and bound in objective.limits:
            notes.append(f"the limit {wanted} changes nothing: {span}, so every arch meets it")
        elif bound.value > most:
            raise OptionError(
                f"the target {wanted} changes nothing: {span}, so every arch meets it; lower it or "
                "leave it out"
            )
    return tuple(notes)


def known_costs(
    objective: Objective, evaluator: TrainingEvaluator, arch: Arch
) -> tuple[tuple[str, ...], Callable[[Arch], Metrics]]:
    """Return which metrics of the targets and limits can be had at once, and what gives them.

    Those that are counted; and all of them where an evaluation, timed on `arch`, is as quick.

    Raises:
        OptionError: the evaluator does not give one of them; the message lists what it gives.
    """
    bounds = (*objective.targets, *objective.limits)
    others = tuple(bound.metric for bound in bounds if bound.metric not in COUNTED)
    # a measured latency is quick the second time only, as it is remembered
    costly = bool(evaluator.rungs) or isinstance(evaluator, Measured)
    if not others or costly or seconds_per_evaluation(evaluator, arch) > CHEAP:
        return COUNTED, cost_metrics

    def cost_of(arch: Arch) -> Metrics:
        return {**evaluated(evaluator, arch), **cost_metrics(arch)}

    for name in others:
        metric_of(cost_of(arch), name)
    return (*COUNTED, *others), cost_of


def evaluated(evaluator: TrainingEvaluator, arch: Arch) -> Metrics:
    """Return the metrics of one arch, outside of any study.

    Raises:
        EvaluatorError: the evaluator fails; the message gives its reason.
    """
    outcome = perform(evaluator, Task(0, arch.to_dict(), 0))
    if outcome.error:
        raise EvaluatorError(f"the evaluator fails on arch {arch.id}: {outcome.error}")
    return outcome.metrics


def seconds_per_evaluation(evaluator: TrainingEvaluator, arch: Arch) -> float:
    """Return the time of one evaluation after a first one that may load things.

    The least of three where they are quick: other work of the machine must not decide.

    Raises:
        EvaluatorError: the evaluator fails; the message gives its reason.
    """
    evaluated(evaluator, arch)
    least = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        evaluated(evaluator, arch)
        least = min(least, time.perf_counter() - start)
        if least > 10 * CHEAP:
            break
    return least


def _probes(space: Space) -> list[Choices]:
    """Return points that hold every option at least once, and some random ones."""
    first = {name: options[0] for name, options in space.choices.items()}
    each = [{**first, n: option} for n, options in space.choices.items() for option in options]
    rng = random.Random(0)
    return each + [random_choices(space, rng) for _ in range(32)]


def _is_valid(space: Space, choices: Choices) -> bool:
    with guard(f"space {space.name}: valid fails on {choices}"):
        return space.valid is None or bool(space.valid(choices))


def _decode(space: Space, choices: Choices) -> Arch:
    what = f"space {space.name} decodes {choices} to no network"
    try:
        with guard(what):
            arch = decode(space, choices)
            cost_metrics(arch)
    except ArchError as error:
        raise OptionError(f"{what}: {error}") from error
    return arch


def try_decode(space: Space, choices: Choices) -> Arch | None:
    """Return the arch of a point, or None where the space calls it invalid."""
    try:
        return decode(space, choices)
    except ArchError:
        return None


def _descend(space: Space, choices: Choices, value: Callable[[Arch], float]) -> float:
    """Return the least value that coordinate descent finds from a start."""
    best = _value(space, choices, value)
    improved = True
    while improved:
        improved = False
        for name, options in space.choices.items():
            for option in options:
                found = _value(space, {**choices, name: option}, value)
                if found < best:
                    best, choices, improved = found, {**choices, name: option}, True
    return best


def _value(space: Space, choices: Choices, value: Callable[[Arch], float]) -> float:
    arch = try_decode(space, choices)
    return value(arch) if arch else float("inf")
