"""What a space can reach: checked before anything is evaluated."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from nas.arch import Arch
from nas.engine import cost_metrics, decode
from nas.errors import ArchError, NasError, OptionError
from nas.interfaces import Choices, Evaluator, Space
from nas.objective import Bound
from nas.samplers import random_choices
from nas.units import format_count


def check_space(space: Space) -> Arch:
    """Decode every option once and some random points; return one arch.

    Raises:
        OptionError: the space has no choices, or a point that it does not call invalid decodes to
            something impossible; the message names the choices.
    """
    if not space.choices or not all(space.choices.values()):
        raise OptionError(f"space {space.name} needs at least one choice, each with an option")
    first: Arch | None = None
    for choices in _probes(space):
        if space.valid is None or space.valid(choices):
            arch = _decode(space, choices)
            first = first or arch
    if first is None:
        raise OptionError(f"space {space.name}: no probed point is valid; check its `valid`")
    return first


def reachable(space: Space, value: Callable[[Arch], float], seed: int = 0) -> tuple[float, float]:
    """Return the least and the greatest value found over a space.

    Each choice is set to its best option in turn until nothing changes, from five starts: exact
    where the choices act in the same direction everywhere, as they do on FLOPs and params.
    """
    rng = random.Random(seed)
    starts = [random_choices(space, rng) for _ in range(5)]
    least = min(_descend(space, start, value) for start in starts)
    most = max(-_descend(space, start, lambda arch: -value(arch)) for start in starts)
    return least, most


def check_reach(space: Space, bounds: tuple[Bound, ...], evaluator: Evaluator) -> None:
    """Check that some arch comes to each bound.

    Raises:
        OptionError: none does; the message gives the reachable range.
    """
    for bound in bounds:
        counted = bound.metric in ("flops", "params")
        if not counted and seconds_per_evaluation(evaluator, check_space(space)) > 0.01:
            continue  # finding the range by evaluation would cost as much as a search

        def value(arch: Arch, metric: str = bound.metric, counted: bool = counted) -> float:
            return (cost_metrics(arch) if counted else evaluator.evaluate(arch))[metric]

        least, most = reachable(space, value)
        if not least <= bound.value <= most:
            unit = " ms" if bound.metric == "latency_ms" else ""
            raise OptionError(
                f"no arch of space {space.name} comes to {bound.metric} "
                f"{format_count(bound.value)}{unit}: reachable are "
                f"{format_count(least)}{unit} to {format_count(most)}{unit}"
            )


def seconds_per_evaluation(evaluator: Evaluator, arch: Arch) -> float:
    """Return the time of one evaluation after a first one that may load things."""
    evaluator.evaluate(arch)
    start = time.perf_counter()
    evaluator.evaluate(arch)
    return time.perf_counter() - start


def _probes(space: Space) -> list[Choices]:
    """Return points that hold every option at least once, and some random ones."""
    first = {name: options[0] for name, options in space.choices.items()}
    each = [{**first, n: option} for n, options in space.choices.items() for option in options]
    rng = random.Random(0)
    return each + [random_choices(space, rng) for _ in range(32)]


def _decode(space: Space, choices: Choices) -> Arch:
    try:
        arch = space.decode(choices)
        cost_metrics(arch)
    except NasError as error:
        raise OptionError(f"space {space.name} decodes {choices} to no network: {error}") from error
    except Exception as error:
        raise OptionError(
            f"space {space.name}: decode fails on {choices}: {type(error).__name__}: {error}"
        ) from error
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
