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
from nas.evaluation.parent import NONE, Parent
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
from nas.searching.evaluator_spec import executor_of, spec_of, with_init
from nas.searching.feasibility import COUNTED, check_reach, check_space, fitted, known_costs
from nas.searching.final_length import Length, fine_tuning_length, length_of
from nas.searching.inheritance import ITSELF, alike, check_inherits, subnets
from nas.searching.objective import Bound, Goal, make_objective
from nas.searching.pruning import pruner_of
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
# of a search from weights: all trainings begin alike, so that seeds differ little
INHERITING_FINALISTS, INHERITING_SEEDS = 2, 1
# baselines that a search is compared with where they are points of its space
REFERENCES = ("efficientnet_b0", "mnasnet_a1", "mobilenet_v2")
# what the search gives a controller; `excess`: the former name of `constraint_violation`
GIVEN_BY_SEARCH = ("seed", "constraint_violation", "excess", "goal", "draw", "prior")
EVALUATIONS, TRAININGS = 300, 60  # how many trials, where none are asked for
INHERITING_TRIALS = 16


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
        usual = TRAININGS if self.rungs else EVALUATIONS
        return self.settings.trials or (INHERITING_TRIALS if self.parent else usual)

    @property
    def parent(self) -> Parent | None:
        """Return the network whose weights candidates inherit; None: they start from nothing."""
        return self.evaluator.parent

    @property
    def parents(self) -> dict[str, str]:
        """Return the references that are the parent itself, at some pixels: names by arch id."""
        return {r.arch.id: r.name for r in self.references if r.name.startswith(ITSELF)}

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
        asked, usual = self.settings.finalists, INHERITING_FINALISTS if self.parent else FINALISTS
        return (usual if asked is None else asked) if self.rungs else 0

    @property
    def final_seeds(self) -> int:
        """Return with how many seeds each finalist is trained."""
        return self.settings.final_seeds or (INHERITING_SEEDS if self.parent else FINAL_SEEDS)

    def final_length(self, epochs: int | None = None, fraction: float | None = None) -> Length:
        """Return how long each training of the finals is: as asked for, by default by the flags."""
        chosen, amount = self.settings, self.evaluator.amount
        share = float(self.spec.options.get("fraction") or self.evaluator.fraction)
        epochs, fraction = epochs or chosen.final_epochs, fraction or chosen.final_fraction
        known = next((r.arch for r in self.references if r.fits), None) or check_space(self.space)
        if amount and (full := self.evaluator.full_amount(known)):
            return fine_tuning_length(amount, full, epochs, fraction)
        found = length_of(self.rungs[-1], share, amount, epochs, fraction)
        # the rungs of a training of a set time are shares of it, no epochs
        timed = self.evaluator.trial_seconds and not found.label
        return dataclasses.replace(found, text="as long as a candidate") if timed else found

    def budget(self, folder: Path) -> Budget:
        """Return the training budget of a trial, its checkpoints in a folder."""
        # two objectives cannot be stopped early, so they are not asked on the way either
        steps = self.rungs[-1:] if self.goal.pareto else self.rungs
        unit = self.evaluator.rung_unit
        return Budget(steps, self.settings.trial_time_limit or 0.0, folder, unit)


def prepare(settings: SearchSettings, *, strict: bool = True, parent: Path | None = None) -> Setup:
    """Check settings against the parts they name; nothing is written yet.

    `strict` also checks that the evaluator knows the space and that the targets can be reached.
    `parent`: the folder of a run that keeps the weights which its candidates inherit.

    Raises:
        OptionError: an unknown part or option, conflicting settings, an unreachable target.
        EvaluatorError: the evaluator does not know the archs of the space.
    """
    executor = executor_of(settings)
    _check_storage(settings)
    goal = _goal(settings)
    spec = spec_of(settings)
    evaluator = make_evaluator(with_init(spec, str(parent)) if parent else spec)
    settings, spec = _settled(settings, spec, evaluator)
    space, notes = _space(settings, evaluator)
    if evaluator.parent and settings.space:
        space = alike(space, evaluator.parent)
    arch = check_space(space)
    if evaluator.parent and settings.space:
        check_inherits(space, evaluator.parent)
    controller = _controller(settings)
    # without the limits of the search: to see that it can be made, and when it begins to learn
    fixed = {"seed": settings.seed, "goal": goal}
    free = dict.fromkeys(("constraint_violation", "excess"), no_violation)
    sampler = controller.make(space, **fixed, **free)
    pruner = pruner_of(settings, goal, evaluator, spec.evaluator)
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


def _settled(
    settings: SearchSettings, spec: EvaluatorSpec, evaluator: TrainingEvaluator
) -> tuple[SearchSettings, EvaluatorSpec]:
    """Return settings and specification with the weights that were chosen for the user."""
    if settings.init or not settings.data:
        return settings, spec
    found = evaluator.parent.source if evaluator.parent else NONE
    return settings.model_copy(update={"init": found}), with_init(spec, found)


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
    # what others publish is no sub-network of a parent
    listed = {} if setup.parent else {name: baselines()[name] for name in REFERENCES}
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
    if evaluator.parent and not settings.space:
        return subnets(evaluator.parent, len(evaluator.classes), settings.imgsz), ()
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
