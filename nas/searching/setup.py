"""Turn settings into the parts they name, checked before anything is written."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from nas.core import registry
from nas.core.errors import EvaluatorError, OptionError
from nas.core.registry import Part
from nas.data.dataset import SMALL
from nas.evaluation.evaluate import make_evaluator
from nas.evaluation.packing import check_asked
from nas.interfaces import (
    Choices,
    EvaluatorSpec,
    Executor,
    Metrics,
    Space,
    TrainingEvaluator,
    Trial,
)
from nas.models.arch import Arch
from nas.models.load import baselines
from nas.models.points import cost_metrics
from nas.searching.engine import Budget
from nas.searching.evaluator_spec import executor_of, spec_of
from nas.searching.feasibility import COUNTED, check_reach, check_space, fitted, known_costs
from nas.searching.final_length import Length, length_of
from nas.searching.objective import Bound, Goal, make_objective
from nas.searching.references import LATENCY, Reference, references
from nas.searching.result import WarmStart
from nas.searching.samplers import (
    Draw,
    Prior,
    no_prior,
    no_violation,
    random_choices,
    startup_warning,
)
from nas.searching.sampling.region import drawing
from nas.searching.settings import SearchSettings

FINALISTS, FINAL_SEEDS = 3, 3
# baselines that a search is compared with where they are points of its space
REFERENCES = ("efficientnet_b0", "mnasnet_a1", "mobilenet_v2")
# what the search gives a controller; `excess`: the former name of `constraint_violation`
GIVEN_BY_SEARCH = ("seed", "constraint_violation", "excess", "goal", "draw", "prior")
EVALUATIONS, TRAININGS = 300, 60  # how many trials, where none are asked for


@dataclass(frozen=True)
class Start:
    """Warm start of a search; `source` and `line` name its source, "" without one.

    `trials`: evaluated elsewhere, to be taken over. `prior`: prior mean of the accuracy of points.
    """

    source: str = ""
    line: str = ""
    trials: tuple[Trial, ...] = ()
    prior: Prior = no_prior

    def told(self) -> WarmStart | None:
        """Return what the result says of it."""
        if not self.source:
            return None
        return WarmStart(source=self.source, taken_over=len(self.trials), line=self.line)


@dataclass(frozen=True)
class Setup:
    """A search that has been checked and can start."""

    settings: SearchSettings
    space: Space
    goal: Goal
    evaluator: TrainingEvaluator
    spec: EvaluatorSpec
    controller: Part[BaseSampler]
    pruner: Part[BasePruner]
    executor: Part[Executor]
    sources: Mapping[str, str]  # the user's own files, by their content
    notes: tuple[str, ...]  # what was chosen for the user, and why
    start: Start = Start()
    draw: Draw = random_choices  # a random point that meets the target
    references: tuple[Reference, ...] = ()

    @property
    def rungs(self) -> tuple[int, ...]:
        """Return the rungs: epochs at which a training is evaluated; () without training."""
        return self.evaluator.rungs

    @property
    def trials(self) -> int:
        """Return how many archs to evaluate."""
        return self.settings.trials or (TRAININGS if self.rungs else EVALUATIONS)

    @property
    def first_points(self) -> list[Choices]:
        """Return the references that are the first trials: at most half of all, rounded up."""
        most = (self.trials + 1) // 2
        points = (each.choices for each in self._fitting if each.choices is not None)
        return list(itertools.islice(points, most))

    @property
    def beside_the_space(self) -> list[Reference]:
        """Return the references that can be trained but are no trials: no points of the space.

        None under a target of latency, which is known of trials alone.
        """
        counted = all(bound.metric in COUNTED for bound in self.goal.objective.targets)
        return [each for each in self._fitting if each.choices is None and counted]

    @property
    def _fitting(self) -> list[Reference]:
        """Return the references within the targets and limits that the evaluator knows."""
        return [each for each in self.references if each.fits and _knows(self.evaluator, each.arch)]

    @property
    def finalists(self) -> int:
        """Return the number of finalists of the search; 0 where nothing is trained."""
        asked = self.settings.finalists
        return (FINALISTS if asked is None else asked) if self.rungs else 0

    @property
    def final_seeds(self) -> int:
        """Return with how many seeds each finalist is trained."""
        return self.settings.final_seeds or FINAL_SEEDS

    def final_length(self, epochs: int | None = None, fraction: float | None = None) -> Length:
        """Return how long each training of the finals is: as asked for, by default by the flags."""
        chosen, amount = self.settings, self.evaluator.amount
        share = float(self.spec.options.get("fraction") or 1.0)
        epochs, fraction = epochs or chosen.final_epochs, fraction or chosen.final_fraction
        return length_of(self.rungs[-1], share, amount, epochs, fraction)

    def budget(self, folder: Path) -> Budget:
        """Return the training budget of a trial, its checkpoints in a folder."""
        # two objectives cannot be stopped early, so they are not asked on the way either
        steps = self.rungs[-1:] if self.goal.pareto else self.rungs
        unit = self.evaluator.rung_unit
        return Budget(steps, self.settings.trial_time_limit or 0.0, folder, unit)


def prepare(settings: SearchSettings, *, strict: bool = True) -> Setup:
    """Check settings against the parts they name; nothing is written yet.

    `strict` also checks that the evaluator knows the space and that the targets can be reached.

    Raises:
        OptionError: an unknown part or option, conflicting settings, an unreachable target.
        EvaluatorError: the evaluator does not know the archs of the space.
    """
    executor = executor_of(settings)
    _check_storage(settings)
    goal = _goal(settings)
    spec = spec_of(settings)
    evaluator = make_evaluator(spec)
    space, notes = _space(settings, evaluator)
    arch = check_space(space)
    controller = _controller(settings)
    # without the limits of the search: to see that it can be made, and when it begins to learn
    fixed = {"seed": settings.seed, "goal": goal}
    free = dict.fromkeys(("constraint_violation", "excess"), no_violation)
    sampler = controller.make(space, **fixed, **free)
    pruner = _pruner(settings, goal, evaluator, spec.evaluator)
    if strict:
        _check_evaluator(evaluator, spec.evaluator, arch)
    known, cost_of = _known_costs(goal, evaluator, arch)
    if strict:
        notes += check_reach(space, goal.objective, known, cost_of)
    draw = drawing(space, goal, known, cost_of)
    parts, own = (controller, pruner, executor), sources(settings)
    setup = Setup(settings, space, goal, evaluator, spec, *parts, own, notes, draw=draw)
    setup = dataclasses.replace(setup, references=_references(setup, known, cost_of))
    late = startup_warning(sampler, setup.trials)
    if late and not settings.warm_start:  # which gives it results to begin with
        note = f"controller {settings.controller}: {late}"
        return dataclasses.replace(setup, notes=(*notes, note))
    return setup


def _known_costs(
    goal: Goal, evaluator: TrainingEvaluator, arch: Arch
) -> tuple[Sequence[str], Callable[[Arch], Metrics]]:
    """Return the metrics of the bounds that are known without an evaluation, and their function."""
    try:
        return known_costs(goal.objective, evaluator, arch)
    except EvaluatorError:  # it does not know the space, which a plan tells
        return COUNTED, cost_metrics


def _references(
    setup: Setup, known: Sequence[str], cost_of: Callable[[Arch], Metrics]
) -> tuple[Reference, ...]:
    """Return the reference designs of the space, and the baselines that are points of it."""
    listed = {name: baselines()[name] for name in REFERENCES}
    latency = (lambda arch: cost_of(arch)[LATENCY]) if LATENCY in known else None
    found = references(setup.space, setup.goal.objective, beside=listed, latency=latency)
    return tuple(found)


def _knows(evaluator: TrainingEvaluator, arch: Arch) -> bool:
    try:
        evaluator.check(arch)
    except EvaluatorError:
        return False
    return True


def _check_storage(settings: SearchSettings) -> None:
    """Check where the study is to be kept; nothing is connected to yet.

    Raises:
        OptionError: the URL is of no database that drivers can share, or --study has none.
        MissingError: psycopg is not installed.
    """
    if settings.storage:
        from nas.searching.studies.database import check  # SQLAlchemy: only where it is needed

        check(settings.storage)
    elif settings.study:
        raise OptionError("--study names a study of a database: give --storage postgresql://...")


def _space(settings: SearchSettings, evaluator: TrainingEvaluator) -> tuple[Space, tuple[str, ...]]:
    """Return the space, fitted to the classes and the image size of the data; and what to say."""
    side = evaluator.image_side
    small = side is not None and side <= SMALL
    name = settings.space or ("mbconv_small" if small else "mbconv")
    space: Space = registry.export("spaces", name, "SPACE")
    if not isinstance(space, Space):
        raise OptionError(
            f"SPACE of {name} must be a nas.interfaces.Space, not {type(space).__name__}"
        )
    notes: tuple[str, ...] = ()
    if small and not settings.space:
        notes = (
            f"space mbconv_small, since the images are {side} pixels; --space chooses another",
        )
    elif small and name == "mbconv":
        notes = (
            f"the images are {side} pixels and mbconv is made for 224, to which they are enlarged: "
            "--space mbconv_small fits them, at a fraction of the cost",
        )
    return fitted(space, len(evaluator.classes), settings.imgsz), notes


def _check_evaluator(evaluator: TrainingEvaluator, name: str, arch: Arch) -> None:
    with registry.guard(f"check of {name} fails", EvaluatorError):
        evaluator.check(arch)


def _goal(settings: SearchSettings) -> Goal:
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


def sources(settings: SearchSettings) -> dict[str, str]:
    """Return a hash of each part that is a file of the user's."""
    names = (
        *(settings.space, settings.evaluator, settings.controller, settings.executor),
        *(settings.pruner, settings.recipe, settings.data),
    )
    paths = {name: Path(name) for name in names if name and name.endswith(".py")}
    return {n: hashlib.blake2b(p.read_bytes(), digest_size=8).hexdigest() for n, p in paths.items()}


def _controller(settings: SearchSettings) -> Part[BaseSampler]:
    """Return the controller.

    Raises:
        OptionError: an unknown one or one of its options, or it cannot pursue the objective.
    """
    controller = settings.controller
    objectives = registry.export("controllers", controller, "OBJECTIVES")
    if not isinstance(objectives, tuple | list | set | frozenset):
        raise OptionError(
            f"OBJECTIVES of {controller} must be names such as ('reward', 'pareto'), not "
            f"{objectives!r:.60}"
        )
    if settings.objective not in objectives:
        others = [
            n
            for n in registry.names("controllers")
            if settings.objective in registry.export("controllers", n, "OBJECTIVES")
        ]
        raise OptionError(
            f"controller {controller} cannot pursue --objective {settings.objective}; "
            f"use one of {', '.join(others)}"
        )
    return registry.part("controllers", controller, settings.controller_options, GIVEN_BY_SEARCH)


def _pruner(
    settings: SearchSettings, goal: Goal, evaluator: TrainingEvaluator, evaluator_name: str
) -> Part[BasePruner]:
    """Return the pruner."""
    steps = evaluator.rungs
    wanted = settings.pruner or settings.pruner_options
    if goal.pareto and wanted and settings.pruner != "none":
        raise OptionError(
            "--pruner has no effect with --objective pareto, where no trial is worse than another "
            "before both objectives are known: leave it out"
        )
    if not steps:
        _check_untrained(settings)
    _check_finals(settings, evaluator_name)
    if asked := settings.trials_per_device:
        check_asked(asked)
        if settings.workers:
            raise OptionError("--trials-per-device sets the number of --workers: give one of them")
        if settings.executor != "local":
            raise OptionError(
                f"--trials-per-device measures this machine, and executor {settings.executor} uses "
                "others: leave it out; on a cluster --gpus-per-trial 0.5 lets two share a GPU"
            )
    shortest, longest = settings.trial_time_limit, settings.trial_time
    if shortest and longest and shortest <= longest:
        raise OptionError(
            "--trial-time-limit would give up every candidate within its --trial-time: leave it out"
        )
    if longest and (settings.final_epochs or settings.final_fraction):
        raise OptionError(
            "--trial-time gives trainings of the finals the time of a candidate: leave "
            "--final-epochs and --final-fraction out"
        )
    name = settings.pruner or ("halving" if steps and not goal.pareto else "none")
    pruner: Part[BasePruner] = registry.part("pruners", name, settings.pruner_options, ("rungs",))
    pruner.make(rungs=steps or (1,))
    return pruner


def _check_finals(settings: SearchSettings, evaluator: str) -> None:
    """Refuse a length of the finals that the evaluator cannot be given.

    Raises:
        OptionError: it has no such option.
    """
    known = registry.option_defaults("evaluators", evaluator)
    for name in ("epochs", "fraction"):
        if getattr(settings, f"final_{name}") and name not in known:
            raise OptionError(
                f"--final-{name} needs an evaluator with the option {name}, which {evaluator} is "
                "not: leave it out"
            )


def _check_untrained(settings: SearchSettings) -> None:
    """Refuse what has an effect on trainings only.

    Raises:
        OptionError: one of these was given; the message names it.
    """
    given = {
        "--pruner": settings.pruner or settings.pruner_options,
        "--trials-per-device": settings.trials_per_device,
        "--finalists": settings.finalists is not None,
        "--final-seeds": settings.final_seeds is not None,
        "--final-epochs": settings.final_epochs is not None,
        "--final-fraction": settings.final_fraction is not None,
    }
    for flag, is_given in given.items():
        if is_given:
            raise OptionError(f"{flag} belongs to trainings: give --data")
