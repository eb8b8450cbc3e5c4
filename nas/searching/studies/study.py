"""A study as this project reads and writes it: ask, tell, trials. Here it is in a run's journal.

In a database that several drivers share (shared.py) it looks the same to the engine.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from nas.core.errors import RunError
from nas.core.registry import guard
from nas.interfaces import RECORD, SCORED, VIRTUAL, Choices, Metrics, Option, Rung, Trial
from nas.searching.studies.journal import open_journal, read_only

Direction = Literal["maximize", "minimize"]
SEARCH, RANDOM = "search", "random search"
# a rejected arch is pruned: samplers learn that it is worse than any that was evaluated; one that
# was stopped early is pruned with what it showed on the way
STATES = {
    "done": TrialState.COMPLETE,
    "duplicate": TrialState.COMPLETE,
    "earlier": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "rejected": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "dropped": TrialState.FAIL,
}
UNTOLD = "its driver left, or gave no heartbeats"
# Optuna's NSGA-II breeds from trials with a generation only (tests/searching/test_warm_start.py)
FIRST_GENERATION = {"NSGAIISampler:generation": 0}


@dataclass(frozen=True)
class Takeover:
    """A trial that continues that of a dead driver: `of` that number, in that run folder."""

    trial: Trial
    of: int
    folder: Path | None  # None: it cannot be seen from here


class Log(Protocol):
    """One study: what was proposed and what came of it. `shared`: other drivers write in it too."""

    study: optuna.Study
    shared: bool

    def ask(self, distributions: dict[str, BaseDistribution]) -> tuple[int, Choices]:
        """Return the number and choices of a new proposal, on file before it is evaluated."""

    def enqueue(self, points: Sequence[Choices]) -> None:
        """Have these points proposed next, in this order; none that was proposed before."""

    def tell(self, trial: Trial) -> bool:
        """Record what came of a proposal; False if another driver has taken it over."""

    def report(self, number: int, rung: Rung) -> bool:
        """Record what a training shows after some epochs; tell whether it is to stop."""

    def unfinished(self) -> list[Trial]:
        """Return this driver's proposals without a result, from a process that was killed."""

    def trials(self) -> list[Trial]:
        """Return the finished trials in the order of their numbers."""

    def look(self) -> tuple[list[Trial], dict[int, Choices]]:
        """Return what others finished since it was last told, and what they work on now.

        Both are of one moment. The choices are empty while a proposal is being made.
        """

    def origin(self, number: int) -> Takeover | None:
        """Return the trial of a dead driver that this queued trial resumes, or None."""

    def importances(self) -> dict[str, float]:
        """Return how much each choice matters to the first objective, most first, summing to 1."""

    def close(self) -> None:
        """Leave the study, with what is unfinished."""


def task_seconds(trials: Sequence[Trial]) -> list[float]:
    """Return what each task of the evaluated trials has taken, but for virtual seconds."""
    found = (trial for trial in trials if trial.state == "done" and trial.seconds)
    real = (trial for trial in found if not trial.node.startswith(VIRTUAL))
    return [trial.seconds / (len(trial.rungs) + 1) for trial in real]


class Journal:
    """The journal of a run folder, open for this process, which holds the folder's lease."""

    def __init__(self, path: Path, distributions: dict[str, BaseDistribution]) -> None:
        self._path, self._distributions = path, distributions
        self.storage, self.backend = open_journal(path, len(distributions))

    def known(self) -> dict[str, Metrics]:
        """Return the metrics of every arch that any study of the journal has evaluated."""
        return {t.arch_id: t.metrics for t in self._complete() if t.state in SCORED}

    def seconds(self) -> list[float]:
        """Return what each task of the evaluated trials has taken."""
        return task_seconds(self._complete())

    def _complete(self) -> list[Trial]:
        found = [t for trials in _trials_by_study(self.storage).values() for t in trials]
        return [trial_of(t) for t in found if t.state is TrialState.COMPLETE]

    def log(
        self,
        name: str,
        directions: Sequence[Direction],
        sampler: BaseSampler,
        pruner: BasePruner | None = None,
    ) -> Log:
        """Return the study of that name, made if absent.

        Raises:
            RunError: the study is there with other directions or of another space.
        """
        study = self._study(name, directions, sampler=sampler, pruner=pruner or NopPruner())
        found = [direction.name.lower() for direction in study.directions]
        if found != list(directions):
            raise RunError(f"the journal's study {name!r} has objectives {found}, not {directions}")
        for trial in study.get_trials(deepcopy=False):
            waits = trial.state is TrialState.WAITING  # it has no choices yet
            if not waits and trial.distributions != self._distributions:
                raise RunError(
                    f"{self._path}: trial {trial.number} has other choices than the space; the "
                    "space was changed, or the journal is another run's: name another run"
                )
        self.backend.flush()
        return StudyLog(study, self.storage, self.backend.flush)

    def _study(self, name: str, directions: Sequence[Direction], **parts: Any) -> optuna.Study:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        parts = {**parts, "storage": self.storage, "study_name": name}
        if name in optuna.get_all_study_names(self.storage):
            return optuna.load_study(**parts)
        return optuna.create_study(**parts, directions=directions)

    def take_over(
        self, name: str, directions: Sequence[Direction], trials: Sequence[Trial]
    ) -> None:
        """Begin the study of that name with finished trials, in this order and before any other.

        What is there already is left: after a kill in the middle of it the rest is added. `number`
        is theirs no more: they count from 0.
        """
        study = self._study(name, directions)
        for trial in trials[len(study.get_trials(deepcopy=False)) :]:
            study.add_trial(self._frozen(trial))
        self.backend.flush()

    def _frozen(self, trial: Trial) -> FrozenTrial:
        return optuna.trial.create_trial(
            state=STATES[trial.state],
            values=list(trial.values),
            params=trial.choices,
            distributions=self._distributions,
            user_attrs={
                **attributes_of(trial),
                "rungs": list(map(dataclasses.asdict, trial.rungs)),
            },
            system_attrs=FIRST_GENERATION,
        )


@dataclass(frozen=True)
class Kept:
    """What a journal holds: the choices of its space, and the trials of each study by its name.

    Trials are in the order in which they finished.
    """

    choices: dict[str, tuple[Option, ...]]
    studies: dict[str, list[Trial]]


def read_journal(path: Path) -> Kept:
    """Return what a journal holds that another process may be writing; nothing is changed in it.

    Raises:
        RunError: there is none, or it is damaged.
    """
    storage = read_only(path)
    choices: dict[str, tuple[Option, ...]] = {}
    studies: dict[str, list[Trial]] = {}
    for name, trials in _trials_by_study(storage).items():
        finished = [t for t in trials if t.state.is_finished() and t.datetime_complete]
        finished.sort(key=lambda t: (t.datetime_complete, t.number))
        studies[name] = [trial_of(trial) for trial in finished]
        for trial in finished:
            found = trial.distributions.items()
            choices = choices or {name: tuple(getattr(d, "choices", ())) for name, d in found}
    return Kept(choices, studies)


def _trials_by_study(storage: BaseStorage) -> dict[str, list[FrozenTrial]]:
    """Return the trials of each study of a storage."""
    names = optuna.get_all_study_names(storage)
    studies = {name: optuna.load_study(study_name=name, storage=storage) for name in names}
    return {name: study.get_trials(deepcopy=False) for name, study in studies.items()}


class StudyLog:
    """A study with one writer, in any storage; `flush` is called once a write is whole."""

    shared = False

    def __init__(
        self, study: optuna.Study, storage: BaseStorage, flush: Callable[[], None] = lambda: None
    ) -> None:
        self.study, self._storage, self._flush = study, storage, flush
        self._id = storage.get_study_id_from_name(study.study_name)
        if observe := getattr(study.sampler, "observe", None):
            observe(study)  # nas.searching.samplers

    def trial_id(self, number: int) -> int:
        """Return what the storage calls a trial."""
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, number)

    def ask(self, distributions: dict[str, BaseDistribution]) -> tuple[int, Choices]:
        """Return the number and choices of a new proposal, on file before it is evaluated."""
        trial = self.study.ask()
        return trial.number, self.suggest(trial, distributions)

    def suggest(self, trial: optuna.Trial, distributions: dict[str, BaseDistribution]) -> Choices:
        """Return the choices of a trial that was begun, on file."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # Samplers are not asked for the choices of one from the queue, but mark here what they
            # learn from. Before the choices: what comes after them is cut after a kill.
            if not trial.params:
                _ = trial.relative_params
            for name, kind in distributions.items():
                trial.suggest_categorical(name, cast(CategoricalDistribution, kind).choices)
        self._flush()
        return trial.params

    def enqueue(self, points: Sequence[Choices]) -> None:
        """Have these points proposed next, in this order; none that was proposed before."""
        for choices in points:
            self.study.enqueue_trial(choices, skip_if_exists=True)
        self._flush()

    def tell(self, trial: Trial) -> bool:
        """Record what came of a proposal; False if it has ended otherwise already."""
        trial_id, told = self.trial_id(trial.number), attributes_of(trial)
        for name in sorted(told, key="state".__eq__):  # at last what says that the rest is there
            self._storage.set_trial_user_attr(trial_id, name, told[name])
        state = STATES[trial.state]
        values = list(trial.values) if state is TrialState.COMPLETE else None
        ended = self.study.tell(trial.number, values, state=state, skip_if_finished=True)
        self._flush()
        return ended.state is state

    def report(self, number: int, rung: Rung) -> bool:
        """Record what a training shows after some epochs; tell whether the pruner stops it.

        In a journal the decision is on file together with the report, or neither is.
        """
        trial_id = self.trial_id(number)
        before = self._storage.get_trial(trial_id).user_attrs.get("rungs", [])
        self._storage.set_trial_user_attr(trial_id, "rungs", [*before, dataclasses.asdict(rung)])
        self._storage.set_trial_intermediate_value(trial_id, rung.epochs, rung.reward)
        with guard("the pruner fails"):
            return self.study.pruner.prune(self.study, self._storage.get_trial(trial_id))

    def unfinished(self) -> list[Trial]:
        """Return the proposals without a result, from a process that was killed."""
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [trial_of(frozen) for frozen in running]

    def trials(self) -> list[Trial]:
        """Return the finished trials in the order of their numbers."""
        frozen = self.study.get_trials(deepcopy=False)
        return [trial_of(t) for t in frozen if t.state.is_finished()]

    def look(self) -> tuple[list[Trial], dict[int, Choices]]:
        """Return nothing."""
        return [], {}

    def origin(self, number: int) -> Takeover | None:
        """Return None."""
        return None

    def importances(self) -> dict[str, float]:
        """Return how much each choice matters to the first objective, most first, summing to 1."""
        return importances(self.study)

    def close(self) -> None:
        """Do nothing: all is on file."""


def importances(study: optuna.Study) -> dict[str, float]:
    """Return how much each choice matters to the first objective, most first, summing to 1.

    Source: Watanabe et al. 2023 (PED-ANOVA), as Optuna computes it. Empty where there are too
    few trials.
    """
    several = len(study.directions) > 1
    # with a target of its own Optuna takes lower values as better, and warns of it
    target = (lambda trial: -trial.values[0]) if several else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return optuna.importance.get_param_importances(study, target=target)
    except (ValueError, RuntimeError):
        return {}


def attributes_of(trial: Trial) -> dict[str, Any]:
    """Return what is kept of a trial beside its choices, values and rungs."""
    fields = {name: name for name in RECORD if name != "rungs"} | {"place": "node"}
    record = {name: getattr(trial, field) for name, field in fields.items()}
    return {k: v for k, v in record.items() if v not in ("", 0)} | trial.metrics


def trial_of(frozen: FrozenTrial) -> Trial:
    """Convert an Optuna FrozenTrial to a Trial."""
    attributes = frozen.user_attrs
    died = frozen.state is TrialState.FAIL  # but for what was told
    state = attributes.get("state", "dropped" if died else "failed")
    if died and STATES.get(state) is not frozen.state:
        state = "dropped"  # its driver died in the middle of telling
    return Trial(
        number=frozen.number,
        state=state,
        choices=dict(frozen.params),
        arch_id=attributes.get("arch_id", ""),
        metrics={k: v for k, v in attributes.items() if k not in RECORD},
        # of a pruned trial optuna makes the last report its value
        values=tuple(frozen.values) if frozen.state is TrialState.COMPLETE else (),
        reason=attributes.get("reason", UNTOLD if state == "dropped" else ""),
        seconds=attributes.get("seconds", 0.0),
        rungs=tuple(Rung(**rung) for rung in attributes.get("rungs", ())),
        node=attributes.get("place", ""),
        retries=attributes.get("retries", 0),
    )
