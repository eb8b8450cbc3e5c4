"""A study that several drivers share through a database, each with a run folder of its own.

No arch is evaluated twice, by a bakery's rule (Lamport 1974) with the trial's number as ticket: a
driver takes a number, writes its choices, and only then looks at all trials, in one read. It
waits for every running trial with a lower number whose choices are not there yet or decode to the
same arch, and for none with a higher one. Of two trials of one arch the later number always sees
the earlier one, running or finished; the lowest waits for nobody. So exactly one is evaluated, no
lock outlives a driver, and nothing depends on a clock.

A trial of a dead driver is failed and its heir begun in one transaction, which does nothing if
the driver gave a sign of life meanwhile or another was first.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, RDBStorage, get_storage
from optuna.trial import FrozenTrial, TrialState

from nas.core.errors import RunError
from nas.core.registry import guard
from nas.core.run_folder import read_object
from nas.interfaces import Choices, Metrics, Rung, Trial
from nas.searching.studies.database import Tables
from nas.searching.studies.drivers import IDENTITY, Presence
from nas.searching.studies.study import (
    RANDOM,
    SEARCH,
    STATES,
    Direction,
    Heir,
    attributes_of,
    enqueue,
    importances,
    task_seconds,
    trial_of,
)

SETTINGS = "settings"
# what is kept of a trial for the drivers themselves, out of sight of the dashboard
DRIVER = "nas:driver"
LEFT = "its driver left, or showed no life"


class Shared:
    """The studies of one name in a database, as the driver of a run folder uses them.

    `settings`: what must be equal for all drivers of the study.
    """

    def __init__(
        self,
        backend: RDBStorage,
        study: str,
        distributions: dict[str, BaseDistribution],
        folder: Path,
        settings: Mapping[str, Any],
    ) -> None:
        self._backend, self._study, self._settings = backend, study, dict(settings)
        self._distributions, self._folder = distributions, folder
        self.storage: BaseStorage = get_storage(backend)

    def known(self) -> dict[str, Metrics]:
        """Return the metrics of every arch that any driver of the study has evaluated."""
        return {t.arch_id: t.metrics for t in self._complete() if t.state == "done"}

    def seconds(self) -> list[float]:
        """Return what each task of the evaluated trials has taken."""
        return task_seconds(self._complete())

    def _complete(self) -> list[Trial]:
        mine = {f"{self._study} {name}" for name in (SEARCH, RANDOM)}
        studies = [s._study_id for s in self.storage.get_all_studies() if s.study_name in mine]
        frozen = [t for s in studies for t in self.storage.get_all_trials(s, deepcopy=False)]
        return [trial_of(t) for t in frozen if t.state is TrialState.COMPLETE]

    def log(
        self,
        name: str,
        directions: Sequence[Direction],
        sampler: BaseSampler,
        pruner: BasePruner | None = None,
    ) -> SharedLog:
        """Join the study of that name, made if absent.

        Raises:
            RunError: the study is there with other settings, directions, or of another space.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            storage=self.storage,
            study_name=f"{self._study} {name}",
            sampler=sampler,
            pruner=pruner or NopPruner(),
            directions=directions,
            load_if_exists=True,
        )
        found = [direction.name.lower() for direction in study.directions]
        if found != list(directions):
            raise RunError(f"the study {self._study!r} has objectives {found}, not {directions}")
        self._check_settings(study)
        for trial in study.get_trials(deepcopy=False):
            if trial.params and trial.distributions != self._distributions:
                raise RunError(
                    f"trial {trial.number} of the study {self._study!r} has other choices than "
                    "the space: name another --study"
                )
        presence = Presence(self._backend, study._study_id, self._folder)
        tables = Tables(self._backend, study._study_id)
        return SharedLog(study, self.storage, tables, presence)

    def _check_settings(self, study: optuna.Study) -> None:
        if SETTINGS not in study.user_attrs:
            Tables(self._backend, study._study_id).put_once(SETTINGS, self._settings)
        theirs = study.user_attrs[SETTINGS]
        for key in {**self._settings, **theirs}:
            mine, other = self._settings.get(key), theirs.get(key)
            if mine != other:
                raise RunError(
                    f"the study {self._study!r} was started with {key} {other!r}, not {mine!r}: "
                    "its drivers need equal settings; name another --study"
                )


class SharedLog:
    """One study of a database, as one of its drivers sees it."""

    shared = True

    def __init__(
        self, study: optuna.Study, storage: BaseStorage, tables: Tables, presence: Presence
    ) -> None:
        self.study, self._storage, self._tables, self._presence = study, storage, tables, presence
        self._id = study._study_id
        self._looked: dict[int, FrozenTrial] = {}  # this driver's running trials
        self._told: set[int] = set()  # the finished trials that the engine knows of

    def ask(self, distributions: dict[str, BaseDistribution]) -> tuple[int, Choices]:
        """Return the number and choices of a new proposal, on file before it is evaluated."""
        while True:
            self._forget()
            if claimed := self._claim(distributions):
                return claimed
            trial_id = self._storage.create_new_trial(self._id, self._running())
            # it ends meanwhile if this process stands still, and is taken for dead
            with contextlib.suppress(UpdateFinishedTrialError):
                trial = optuna.Trial(self.study, trial_id)
                choices = self._choose(trial, distributions)
                if self._tables.decide(trial_id, choices, distributions):
                    return trial.number, choices

    def enqueue(self, points: Sequence[Choices]) -> None:
        """Have these points proposed next, in this order; none that was proposed before.

        Drivers that join at the same moment may both: the later of two is a duplicate.
        """
        enqueue(self.study, points)

    def _claim(self, distributions: dict[str, BaseDistribution]) -> tuple[int, Choices] | None:
        """Begin the first trial of the queue that no other driver begins first, if any is left."""
        driver = DRIVER, self._presence.driver
        for frozen in (t for t in self._all() if t.state is TrialState.WAITING):
            choices = dict(frozen.system_attrs["fixed_params"])
            choices = {name: choices[name] for name in distributions}
            if self._tables.claim(frozen._trial_id, driver, choices, distributions):
                with contextlib.suppress(UpdateFinishedTrialError):
                    # samplers are not asked, but mark here what they learn from
                    _ = optuna.Trial(self.study, frozen._trial_id).relative_params
                return frozen.number, choices
        return None

    def _choose(self, trial: optuna.Trial, distributions: dict[str, BaseDistribution]) -> Choices:
        """Return what Optuna's own Trial would suggest, which writes each choice by itself."""
        found = {n: v for n, v in trial.relative_params.items() if n in distributions}
        if len(found) < len(distributions):
            frozen = self._storage.get_trial(trial._trial_id)
            study, sampler = optuna.pruners._filter_study(self.study, frozen), self.study.sampler
            for name, each in distributions.items():
                if name not in found:
                    found[name] = sampler.sample_independent(study, frozen, name, each)
        return {name: found[name] for name in distributions}

    def _running(self, **parts: Any) -> FrozenTrial:
        """Return a trial of this driver that is to be begun."""
        empty: dict[str, Any] = {
            "params": {},
            "distributions": {},
            "user_attrs": {},
            "intermediate_values": {},
        }
        return FrozenTrial(
            number=-1,
            trial_id=-1,
            state=TrialState.RUNNING,
            value=None,
            datetime_start=datetime.now(),
            datetime_complete=None,
            system_attrs={DRIVER: self._presence.driver},
            **{**empty, **parts},
        )

    def _forget(self) -> None:
        """Have Optuna read the trials anew, as its own ask and tell do."""
        self.study._thread_local.cached_all_trials = None

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, number)

    def tell(self, trial: Trial) -> bool:
        """Record what came of a proposal; False if another driver has taken it over."""
        trial_id, state = self._trial_id(trial.number), STATES[trial.state]
        values = list(trial.values) if state is TrialState.COMPLETE else None
        if state is TrialState.PRUNED and trial.rungs:
            values = [trial.rungs[-1].reward]  # what Optuna's own tell takes
        self._forget()
        # as it was at the last look: samplers want its choices
        frozen = self._looked.get(trial.number) or self._storage.get_trial(trial_id)
        with contextlib.suppress(UpdateFinishedTrialError):
            self.study.sampler.after_trial(self.study, frozen, state, values)
        placed = dataclasses.replace(trial, place=trial.place or self._presence.host)
        done = self._tables.finish(trial_id, state, values, attributes_of(placed))
        if done:
            self._told.add(trial.number)
        return done

    def report(self, number: int, rung: Rung) -> bool:
        """Record what a training shows after some epochs; tell whether it is to stop.

        It is if the pruner says so, or if another driver has taken it over.
        """
        trial_id = self._trial_id(number)
        before = self._storage.get_trial(trial_id).user_attrs.get("rungs", [])
        rungs = {"rungs": [*before, dataclasses.asdict(rung)]}
        if not self._tables.report(trial_id, rung.epochs, rung.reward, rungs):
            return True
        self._forget()
        try:
            with guard("the pruner fails"):
                return self.study.pruner.prune(self.study, self._storage.get_trial(trial_id))
        except UpdateFinishedTrialError:
            return True

    def unfinished(self) -> list[Trial]:
        """Return this driver's proposals without a result, from a process that was killed.

        One without choices was never proposed: it is dropped.
        """
        mine = [t for t in self._all() if _runs(t) and _driver(t) == self._presence.driver]
        for frozen in mine:
            if not frozen.params:
                reason = "its driver was killed before it was proposed"
                self.tell(Trial(frozen.number, "dropped", {}, "", {}, reason=reason))
        return [trial_of(frozen) for frozen in mine if frozen.params]

    def trials(self) -> list[Trial]:
        """Return the finished trials in the order of their numbers."""
        found = [trial_of(t) for t in self._all() if t.state.is_finished()]
        self._told |= {trial.number for trial in found}
        return found

    def look(self) -> tuple[list[Trial], dict[int, Choices]]:
        """Return what others finished since it was last told, and what they work on now."""
        every = self._all()
        news = [t for t in every if t.state.is_finished() and t.number not in self._told]
        self._told |= {frozen.number for frozen in news}
        rivals = [t for t in every if _runs(t) and _driver(t) != self._presence.driver]
        mine = self._presence.driver
        self._looked = {t.number: t for t in every if _runs(t) and _driver(t) == mine}
        return [trial_of(t) for t in news], {t.number: dict(t.params) for t in rivals}

    def inherit(self, room: int) -> list[Heir]:
        """Take over up to so many trials of drivers that died; each is taken over once."""
        dead = self._presence.dead()
        found: list[Heir] = []
        for frozen in self._all() if dead else []:
            if not _runs(frozen) or _driver(frozen) not in dead or len(found) >= room:
                continue
            heir = self._replace(frozen, dead[_driver(frozen)])
            if heir:
                found.append(heir)
        return found

    def _replace(self, frozen: FrozenTrial, record: tuple[str, dict[str, Any]]) -> Heir | None:
        """Take over one trial, unless its driver or another one was quicker."""
        rungs = {k: v for k, v in frozen.user_attrs.items() if k == "rungs"}
        heir = self._running(
            params=frozen.params,
            distributions=frozen.distributions,
            user_attrs=rungs,
            intermediate_values=frozen.intermediate_values,
        )
        host, pid = record[1]["host"], record[1]["pid"]
        who = f"{LEFT} (process {pid} on {host}".replace("{", "(").replace("}", ")")
        reason = f"{who}); taken over as trial {{}}" if frozen.params else f"{who})"
        told = {"state": "dropped", "reason": reason}
        begun = heir if frozen.params else None
        number = self._tables.replace(frozen._trial_id, told, begun, record)
        if number is None or begun is None:
            return None
        begun.number = number
        return Heir(trial_of(begun), frozen.number, _visible(record[1]["folder"], _driver(frozen)))

    def importances(self) -> dict[str, float]:
        """Return how much each choice matters to the first objective, most first, summing to 1."""
        return importances(self.study)

    def close(self) -> None:
        """Leave the study: others go on with what is unfinished."""
        self._presence.leave()

    def others(self) -> int:
        """Return how many other drivers are at work in it."""
        return self._presence.others()

    def _all(self) -> list[FrozenTrial]:
        return self._storage.get_all_trials(self._id, deepcopy=False)


def _runs(frozen: FrozenTrial) -> bool:
    """Tell whether a trial is in flight, of a driver of ours."""
    return frozen.state is TrialState.RUNNING and DRIVER in frozen.system_attrs


def _driver(frozen: FrozenTrial) -> str:
    return str(frozen.system_attrs.get(DRIVER, ""))


def _visible(folder: str, driver: str) -> Path | None:
    """Return the run folder of another driver, if this machine sees the same disk."""
    path = Path(folder)
    try:
        mine = (path / IDENTITY).exists() and read_object(path / IDENTITY, "driver")[
            "driver"
        ] == driver
    except (RunError, OSError, LookupError, TypeError):
        return None
    return path if mine else None
