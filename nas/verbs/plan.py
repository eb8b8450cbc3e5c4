"""Plan: what a search can reach and what it will take, before it is started."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from nas.arch import Arch
from nas.engine import cost_metrics
from nas.interfaces import Metrics, Space
from nas.objective import describe
from nas.reach import reachable, seconds_per_evaluation, try_decode
from nas.samplers import random_choices
from nas.settings import prepare, settings_from

SAMPLES = 1000
UNITS = ("flops", "params")


def plan(**given: Any) -> dict[str, Any]:
    """Return the size of the space, what it reaches, and the projected time of a search.

    The settings are those of `nas.search`; nothing is searched or written.

    Raises:
        OptionError: a setting is wrong.
    """
    setup = prepare(settings_from(given), reach=False)
    space, evaluator, objective = setup.space, setup.evaluator, setup.goal.objective
    archs = _sample(space, setup.settings.seed)
    costs = [cost_metrics(arch) for arch in archs]
    seconds = seconds_per_evaluation(evaluator, archs[0])
    trials = setup.settings.trials * (2 if setup.settings.baseline else 1)
    metrics = {name: reachable(space, lambda a, n=name: cost_metrics(a)[n]) for name in UNITS}
    shares = {
        bound.metric: {
            "target": bound.value,
            "at_or_under": _share(costs, lambda c, b=bound: c[b.metric] <= b.value),
            "within_5_percent": _share(
                costs, lambda c, b=bound: abs(c[b.metric] / b.value - 1) <= 0.05
            ),
        }
        for bound in (*objective.targets, *objective.limits)
        if bound.metric in UNITS
    }
    return {
        "schema": 1,
        "space": space.name,
        "size": space.size,
        "choices": len(space.choices),
        "objective": describe(objective),
        "controller": setup.controller,
        "evaluator": evaluator.title,
        "reachable": {name: {"least": a, "most": b} for name, (a, b) in metrics.items()},
        "random_archs": len(archs),
        "shares": shares,
        "trials": trials,
        "workers": setup.settings.workers,
        "seconds_per_trial": seconds,
        "projected_seconds": trials * seconds / setup.settings.workers,
    }


def _sample(space: Space, seed: int) -> list[Arch]:
    rng = random.Random(seed)
    archs = (try_decode(space, random_choices(space, rng)) for _ in range(SAMPLES))
    return [arch for arch in archs if arch]


def _share(costs: list[Metrics], holds: Callable[[Metrics], bool]) -> float:
    return sum(map(holds, costs)) / len(costs)
