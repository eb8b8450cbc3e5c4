"""What `nas.search` returns, and what `nas.plan` says of it before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nas.core.errors import NasError
from nas.core.records import Record, Table, named, optional
from nas.interfaces import Choices, ExecutorStatus, Metrics
from nas.models.arch import Arch
from nas.searching.final_length import Length
from nas.training.scores import TeacherScore


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Posterior(Record):
    """Posterior of one network given all trials: accuracy in percent, reward at its mean."""

    accuracy: float
    accuracy_std: float
    reward: float


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Candidate(Record):
    """One network of a search.

    `number`: of its trial, -1 where it was none. `metrics`: as observed, or of the finals. `reward`
    belongs to them; it is nan where they have no accuracy. `posterior`: None where no model was
    fitted.
    """

    name: str
    number: int
    state: str = "done"
    reward: float
    metrics: Metrics
    posterior: Posterior | None = None
    choices: Choices
    arch: Arch
    arch_id: str

    @property
    def known(self) -> bool:
        """Tell whether it has an accuracy."""
        return "accuracy" in self.metrics

    def _summary(self) -> dict[str, object]:
        shown = {k: v for k, v in self.metrics.items() if k in ("accuracy", "flops", "params")}
        return {"name": self.name, "reward": self.reward, **shown, "arch": self.arch_id}


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class BestArch(Candidate):
    """The result of a search, its best network; `origin`: search, random search or reference."""

    origin: str = optional("")
    label: str = optional("")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Leader(Candidate):
    """One of the best trials; `reference`: the name of the reference design that it is."""

    reference: str | None = None


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class RandomSearch(Candidate):
    """The best of random search, with the number of its trials and their training cost."""

    trials: int
    training_flops: float = 0.0


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class CountedReference(Record):
    """A reference that was counted and not evaluated, with the reason."""

    name: str
    reason: str
    metrics: Metrics
    arch: Arch
    arch_id: str


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Gain(Record):
    """Gain of the best network over another one, `over`.

    `accuracy` in points; `accuracy_std` and `within_noise` are None where the evaluator tells no
    deviation.
    """

    over: str
    reward: float
    accuracy: float
    accuracy_std: float | None
    within_noise: bool | None


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class FinalResult(Record):
    """Result of the finals for one network: mean accuracy, and that of each seed.

    `searched`, `searched_std`, `searched_reward`: its figures as a candidate; None of a
    reference that was no trial.
    """

    name: str
    origin: str = ""
    arch_id: str
    accuracies: tuple[float, ...]
    accuracy: float
    accuracy_std: float | None
    seed_deviation: float | None
    searched: float | None = None
    searched_std: float | None = None
    reward: float
    searched_reward: float | None = optional(math.nan)  # files of older versions lack it


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SpaceInfo(Record):
    """The space that was searched, and its number of points."""

    name: str
    size: int


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class EvaluatorInfo(Record):
    """The evaluator, and in one line how accurate it is."""

    name: str
    title: str


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class WarmStart(Record):
    """The search that this one began with, and how many of its trials were taken over."""

    source: str
    taken_over: int = 0
    line: str


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LinearProbe(Record):
    """A linear classifier on the frozen features of a net: its accuracy, and what it took."""

    accuracy: float
    seconds: float


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ParentResult(Record):
    """The net whose weights were inherited, and what it gives at the pixels that meet the targets.

    `source`, `told`: its weights. `name`: of that reference, "" where no pixels do. `accuracy`: in
    the finals, fine-tuned as all were; None where it was not in them.
    """

    source: str
    told: str
    name: str = ""
    arch_id: str = ""
    accuracy: float | None = None
    accuracy_std: float | None = None
    probe: LinearProbe | None = None


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class TeacherGain(Record):
    """What the best network owes to its architecture and to the teacher of the finals, in points.

    `info`: the teacher. `architecture`: over the reference `over`, both with the teacher.
    `teacher`: over the same network without it. None, as their standard errors, where it was not
    measured.
    """

    info: TeacherScore
    over: str = ""
    architecture: float | None = None
    architecture_std: float | None = None
    teacher: float | None = None
    teacher_std: float | None = None


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SearchResult(Record):
    """Result of a search: `best` is its best network (`winner`: or None where there is none).

    `trials`: evaluations, of `proposals`; `states` counts these by state. `met`: whether `best` is
    within the targets. `stopped`: why the search ended early, "" where it did not; `ends` tells it
    of each stage. `leaders`: the best trials; `references`: those that have an accuracy; `random`:
    random search; `search`: the search's own best. `front`: the number of nets on the Pareto front.
    `parent`: of a search from weights. `teacher`: of the finals.
    """

    schema: int = 1
    run: Path
    space: SpaceInfo
    controller: str
    warm_start: WarmStart | None = None
    evaluator: EvaluatorInfo
    objective: str
    reward: str
    pareto: str | None = None
    targets: dict[str, float] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)
    trials: int
    proposals: int
    states: dict[str, int]
    seconds: float
    retries: int = 0
    training_flops: float = 0.0
    fleet: ExecutorStatus = field(default_factory=lambda: ExecutorStatus(1, 0))
    stopped: str = ""
    ends: dict[str, str] = field(default_factory=dict)
    met: bool = True
    data: str | None = None
    winner: BestArch | None = named("best")
    verdict: str = ""
    weights: str | None = None
    observed_best: Candidate | None = None
    leaders: tuple[Leader, ...]
    search: Candidate | None = None
    references: tuple[Candidate, ...]
    references_counted: tuple[CountedReference, ...] = ()
    random: RandomSearch | None = None
    gains: tuple[Gain, ...]
    finals: tuple[FinalResult, ...] = ()
    finals_length: Length | None = None
    front: int = 0
    hypervolume: dict[str, float] | None = None
    teacher: TeacherGain | None = optional(None)
    parent: ParentResult | None = None

    @property
    def best(self) -> BestArch:
        """Return the network that is handed over.

        Raises:
            NasError: nothing was evaluated before the search ended.
        """
        if self.winner is None:
            raise NasError(f"{self.run} has evaluated no arch yet; `resume=True` goes on with it")
        return self.winner

    @property
    def baseline(self) -> RandomSearch | None:
        """Return the random baseline of equal cost, None where there was none."""
        return self.random

    @property
    def leaderboard(self) -> tuple[Candidate, ...]:
        """Return the best trials, then the references and random search's best, none twice."""
        shown = {each.arch_id for each in self.leaders}
        others = tuple(each for each in self.references if each.arch_id not in shown)
        return (*self.leaders, *others, *([self.random] if self.random else []))

    def _summary(self) -> dict[str, object]:
        told: dict[str, object] = {"space": self.space.name, "trials": self.trials}
        told |= {"best": self.winner, "met": self.met}
        told |= {"stopped": self.stopped} if self.stopped else {}
        return {**told, "run": self.run}

    def _table(self) -> Table:
        head = ("net", "reward", "accuracy", "FLOPs", "params", "arch")
        return Table(head, [_cells(each) for each in self.leaderboard])


def _cells(row: Candidate) -> Sequence[object]:
    def told(name: str, form: str) -> str:
        return format(row.metrics[name], form) if name in row.metrics else ""

    costs = (told("flops", ",.0f"), told("params", ",.0f"))
    return (row.name, f"{row.reward:.3f}", told("accuracy", ".2f"), *costs, row.arch_id)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Reach(Record):
    """The least and the most that a metric can be in a space."""

    least: float
    most: float


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Share(Record):
    """The shares of random archs at or under a target, and within 5 % of it."""

    target: float
    at_or_under: float
    within_5_percent: float


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class PlanResult(Record):
    """What a search can reach, and what it takes at most.

    `size`: points of the space. `problem`: why the evaluator does not know the space, "" if it
    does. `trials` count those of random search; `references` of them are reference designs.
    `final_ratio`: views of a training of the finals to those of a candidate. Times are in seconds
    and hours, None where they cannot be known.
    """

    schema: int = 1
    space: str
    size: int
    choices: int
    objective: str
    controller: str
    notes: tuple[str, ...]
    warm_start: str
    evaluator: str
    problem: str
    reachable: dict[str, Reach]
    random_archs: int
    shares: dict[str, Share]
    trials: int
    final_trainings: int
    final_ratio: float
    references: int
    workers: int
    time_limit: float | None
    early_stopping: bool
    seconds_per_trial: float | None
    seconds_per_proposal: float
    projected_seconds: float | None
    worker_hours: float | None
    gpu_hours: float | None
    price: float | None
    cost: float | None

    def _summary(self) -> dict[str, object]:
        told: dict[str, object] = {"space": self.space, "size": self.size, "trials": self.trials}
        return {**told, "projected_seconds": self.projected_seconds, "cost": self.cost}

    def _table(self) -> Table:
        rows = [(name, f"{e.least:,.4g}", f"{e.most:,.4g}") for name, e in self.reachable.items()]
        return Table(("reachable", "least", "most"), rows)
