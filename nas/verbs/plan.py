"""Plan: what a search can reach and what it will take, before it is started."""

from __future__ import annotations

import random
from typing import Any

from nas.arch import Arch
from nas.engine import cost_metrics
from nas.interfaces import Metrics, Space
from nas.objective import Bound, describe
from nas.prepare import prepare
from nas.reach import check_space, reachable, seconds_per_evaluation, try_decode
from nas.samplers import random_choices
from nas.settings import settings_from

SAMPLES = 1000
COUNTED = ("flops", "params")


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
    return {
        "schema": 1,
        "space": space.name,
        "size": space.size,
        "choices": len(space.choices),
        "objective": describe(objective),
        "controller": setup.controller,
        "evaluator": evaluator.title,
        "reachable": {name: _range(space, name) for name in COUNTED},
        "random_archs": len(archs),
        "shares": {
            bound.metric: _shares(costs, bound)
            for bound in (*objective.targets, *objective.limits)
            if bound.metric in COUNTED
        },
        "trials": trials,
        "workers": setup.settings.workers,
        "seconds_per_trial": seconds,
        "projected_seconds": trials * seconds / setup.settings.workers,
    }


def _sample(space: Space, seed: int) -> list[Arch]:
    rng = random.Random(seed)
    archs = (try_decode(space, random_choices(space, rng)) for _ in range(SAMPLES))
    return [arch for arch in archs if arch] or [check_space(space)]


def _range(space: Space, metric: str) -> dict[str, float]:
    least, most = reachable(space, lambda arch: cost_metrics(arch)[metric])
    return {"least": least, "most": most}


def _shares(costs: list[Metrics], bound: Bound) -> dict[str, float]:
    """Return the shares of random archs at or under a bound, and within 5 % of it."""
    ratios = [cost[bound.metric] / bound.value for cost in costs]
    return {
        "target": bound.value,
        "at_or_under": sum(ratio <= 1 for ratio in ratios) / len(ratios),
        "within_5_percent": sum(abs(ratio - 1) <= 0.05 for ratio in ratios) / len(ratios),
    }
