"""Turn settings into the parts they name, checked before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nas import catalog
from nas.arch import Arch
from nas.engine import Goal
from nas.errors import EvaluatorError, NasError, OptionError
from nas.interfaces import Evaluator, Space
from nas.objective import Bound, make_objective
from nas.reach import check_reach, check_space
from nas.samplers import no_excess
from nas.settings import Settings


@dataclass(frozen=True)
class Setup:
    """A search that has been checked and can start."""

    settings: Settings
    space: Space
    goal: Goal
    evaluator: Evaluator
    evaluator_options: dict[str, Any]
    controller: str


def prepare(settings: Settings, *, strict: bool = True) -> Setup:
    """Check settings against the parts they name; nothing is written yet.

    `strict` also checks that the evaluator knows the space and that the targets can be reached.

    Raises:
        OptionError: an unknown part or option, conflicting settings, an unreachable target.
        EvaluatorError: the evaluator does not know the archs of the space.
    """
    space: Space = catalog.export("spaces", settings.space, "SPACE")
    if not isinstance(space, Space):
        raise OptionError(
            f"SPACE of {settings.space} must be a nas.interfaces.Space, not {type(space).__name__}"
        )
    catalog.export("executors", settings.executor, "make")
    goal = _goal(settings)
    controller = settings.controller or ("nsga2" if goal.pareto else "tpe")
    _check_controller(controller, settings, space)
    options = _evaluator_options(settings)
    evaluator: Evaluator = catalog.make("evaluators", settings.evaluator, options=options)
    arch = check_space(space)
    if strict:
        _check_evaluator(evaluator, settings.evaluator, arch)
        check_reach(space, arch, goal.objective, evaluator)
    return Setup(settings, space, goal, evaluator, options, controller)


def _check_evaluator(evaluator: Evaluator, name: str, arch: Arch) -> None:
    try:
        evaluator.check(arch)
    except NasError:
        raise
    except Exception as error:  # it may be the user's
        kind = type(error).__name__
        raise EvaluatorError(f"check of {name} fails: {kind}: {error}") from error


def _goal(settings: Settings) -> Goal:
    wanted = {
        "flops": settings.target_flops,
        "params": settings.target_params,
        "latency_ms": settings.target_latency,
    }
    allowed = {"flops": settings.max_flops, "params": settings.max_params}
    targets = tuple(Bound(metric, value) for metric, value in wanted.items() if value)
    limits = tuple(Bound(metric, value) for metric, value in allowed.items() if value)
    objective = make_objective(settings.reward, settings.w, targets, limits)
    if settings.objective not in ("reward", "pareto"):
        raise OptionError(f"--objective takes reward or pareto, not {settings.objective!r}")
    if settings.w is not None and not targets:
        raise OptionError("--w shapes the reward around a target: give --target-flops or another")
    if settings.objective == "reward":
        return Goal(objective)
    if settings.w is not None:
        raise OptionError("--w has no effect with --objective pareto: leave one of them out")
    if len(targets) > 1:
        raise OptionError("--objective pareto sets accuracy against one cost: give one target")
    return Goal(objective, targets[0].metric if targets else "flops")


def _check_controller(controller: str, settings: Settings, space: Space) -> None:
    objectives = catalog.export("controllers", controller, "OBJECTIVES")
    if settings.objective not in objectives:
        others = [
            n
            for n in catalog.names("controllers")
            if settings.objective in catalog.export("controllers", n, "OBJECTIVES")
        ]
        raise OptionError(
            f"controller {controller} cannot pursue --objective {settings.objective}; "
            f"use one of {', '.join(others)}"
        )
    options = settings.controller_options
    fixed = {"seed": settings.seed, "excess": no_excess}
    catalog.make("controllers", controller, space, options=options, **fixed)


def _evaluator_options(settings: Settings) -> dict[str, Any]:
    options = dict(settings.evaluator_options)
    takes_device = "device" in catalog.option_defaults("evaluators", settings.evaluator)
    if settings.target_latency and takes_device and not settings.device:
        raise OptionError("--target-latency needs a --device to say whose latency")
    if settings.device is None:
        return options
    if not takes_device:
        raise OptionError(f"evaluator {settings.evaluator} knows no devices: leave out --device")
    return {**options, "device": settings.device}
