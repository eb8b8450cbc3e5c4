"""A study that several drivers share through a database, each with a run folder of its own.

No arch is evaluated twice, by a bakery's rule (Lamport 1974) with the trial's number as ticket: a
driver takes a number, writes its choices, and only then looks at all trials, in one read. It
waits for every running trial with a lower number whose choices are not there yet or decode to the
same arch, and for none with a higher one. Of two trials of one arch the later number always sees
the earlier one, running or finished; the lowest does not wait. So exactly one is evaluated, no
lock outlives a driver. A proposal with a number above that of a queued point is given up: the
point would be begun later than what need not wait for it.

A trial of a dead driver is failed by one of the others when its heartbeats end, and queued again
with what it showed; who takes it from the queue goes on with it. All of it is Optuna's own storage,
heartbeats and queue: a proposal is written choice by choice, and a result attribute by attribute.
What a kill leaves half-written is a running trial, which is proposed or evaluated again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState

from nas.core.errors import RunError
from nas.core.run_folder import read_object
from nas.interfaces import Choices, Metrics, Rung, Trial
from nas.searching.studies.database import heartbeats_allowed
from nas.searching.studies.drivers import IDENTITY, Heartbeat, host, identity
from nas.searching.studies.study import (
    RANDOM,
    SEARCH,
    Direction,
    StudyLog,
    Takeover,
    task_seconds,
    trial_of,
)

SETTINGS, PREFIX = "settings", "driver "
# what is kept of a trial for the drivers themselves, out of sight of the dashboard: whose it is,
# and which one of which driver it goes on with
DRIVER, TAKES = "nas:driver", "nas:takes"
SETTINGS_SECONDS = 10.0  # in which the driver that made a study tells its settings


def requeue(study: optuna.Study, stale: FrozenTrial) -> None:
    """Queue the trial of a dead driver again, with what its training showed."""
    if not stale.params:  # it was never proposed
        return
    marks = dict(stale.system_attrs)
    if driver := marks.pop(DRIVER, ""):
        marks[TAKES] = [stale.number, driver]
    queued = optuna.trial.create_trial(
        state=TrialState.WAITING,
        params=stale.params,
        distributions=stale.distributions,
        user_attrs={k: v for k, v in stale.user_attrs.items() if k == "rungs"},
        system_attrs=marks,
        intermediate_values=stale.intermediate_values,
    )
    study.add_trial(queued)


class Shared:
    """The studies of one name in a database, as the driver of a run folder uses them.

    `settings`: what must be equal for all drivers of the study.
    """

    def __init__(
        self,
        storage: RDBStorage,
        study: str,
        distributions: dict[str, BaseDistribution],
        folder: Path,
        settings: Mapping[str, Any],
    ) -> None:
        self._storage, self._name, self._settings = storage, study, dict(settings)
        self._distributions, self._folder = distributions, folder
        self._studies: dict[str, optuna.Study] = {}  # each remembers what it has read

    def known(self) -> dict[str, Metrics]:
        """Return the metrics of every arch that any driver of the study has evaluated."""
        return {t.arch_id: t.metrics for t in self._complete() if t.state == "done"}

    def seconds(self) -> list[float]:
        """Return what each task of the evaluated trials has taken."""
        return task_seconds(self._complete())

    def _complete(self) -> list[Trial]:
        there = optuna.get_all_study_names(self._storage)
        studies = [self._study(n) for n in (SEARCH, RANDOM) if f"{self._name} {n}" in there]
        complete = (TrialState.COMPLETE,)
        return [trial_of(t) for s in studies for t in s.get_trials(deepcopy=False, states=complete)]

    def _study(self, name: str) -> optuna.Study:
        if name not in self._studies:
            full = f"{self._name} {name}"
            self._studies[name] = optuna.load_study(study_name=full, storage=self._storage)
        return self._studies[name]

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
        full = f"{self._name} {name}"
        with contextlib.suppress(DuplicatedStudyError):
            made = optuna.create_study(
                storage=self._storage, study_name=full, directions=directions
            )
            made.set_user_attr(SETTINGS, self._settings)
        study = self._study(name)
        study.sampler, study.pruner = sampler, pruner or NopPruner()
        found = [direction.name.lower() for direction in study.directions]
        if found != list(directions):
            raise RunError(f"the study {self._name!r} has objectives {found}, not {directions}")
        self._check_settings(study)
        for trial in study.get_trials(deepcopy=False):
            if any(self._distributions.get(n) != d for n, d in trial.distributions.items()):
                raise RunError(
                    f"trial {trial.number} of the study {self._name!r} has other choices than "
                    "the space: name another --study"
                )
        return SharedLog(study, self._storage, self._folder, len(self._distributions))

    def _check_settings(self, study: optuna.Study) -> None:
        deadline = time.monotonic() + SETTINGS_SECONDS
        while SETTINGS not in (kept := study.user_attrs):
            if time.monotonic() > deadline:  # the driver that made it was killed just then
                study.set_user_attr(SETTINGS, self._settings)
            time.sleep(0.1)
        theirs = kept[SETTINGS]
        for key in {**self._settings, **theirs}:
            mine, other = self._settings.get(key), theirs.get(key)
            if mine != other:
                raise RunError(
                    f"the study {self._name!r} was started with {key} {other!r}, not {mine!r}: "
                    "its drivers need equal settings; name another --study"
                )


class SharedLog:
    """One study of a database, as one of its drivers sees it. `choices`: how many a point has."""

    shared = True

    def __init__(
        self, study: optuna.Study, storage: RDBStorage, folder: Path, choices: int
    ) -> None:
        self.study, self._storage, self._choices = study, storage, choices
        self._log, self._driver = StudyLog(study, storage), identity(folder)
        record = {"host": host(), "pid": os.getpid(), "folder": str(folder.resolve())}
        study.set_user_attr(PREFIX + self._driver, record)
        self._told: set[int] = set()  # the finished trials that the engine knows of
        self._met: set[int] = set()  # running trials of others
        self._heartbeat = Heartbeat(storage)

    def ask(self, distributions: dict[str, BaseDistribution]) -> tuple[int, Choices]:
        """Return the number and choices of a new proposal, on file before it is evaluated."""
        while True:
            with heartbeats_allowed():
                trial = self.study.ask()
            # it ends meanwhile if this process stands still, and is taken for dead
            with contextlib.suppress(UpdateFinishedTrialError):
                trial_id = self._log.trial_id(trial.number)
                self._heartbeat.begin(trial_id)
                self._storage.set_trial_system_attr(trial_id, DRIVER, self._driver)
                queue = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
                if not any(queued.number < trial.number for queued in queue):
                    return trial.number, self._log.suggest(trial, distributions)
                self._drop(trial.number, "a queued point came first")

    def enqueue(self, points: Sequence[Choices]) -> None:
        """Have these points proposed next, in this order; none that was proposed before.

        Drivers that join at the same moment may both: the later of two is a duplicate.
        """
        self._log.enqueue(points)

    def tell(self, trial: Trial) -> bool:
        """Record what came of a proposal; False if another driver has taken it over."""
        self._heartbeat.end(self._log.trial_id(trial.number))
        placed = dataclasses.replace(trial, node=trial.node or host())
        try:
            done = self._log.tell(placed)
        except UpdateFinishedTrialError:
            return False
        if done:
            self._told.add(trial.number)
        return done

    def report(self, number: int, rung: Rung) -> bool:
        """Record what a training shows after some epochs; tell whether it is to stop.

        It is if the pruner says so, or if another driver has taken it over.
        """
        try:
            return self._log.report(number, rung)
        except UpdateFinishedTrialError:
            return True

    def unfinished(self) -> list[Trial]:
        """Return this driver's proposals without a result, from a process that was killed.

        One without all of its choices was never proposed: it is dropped.
        """
        found = []
        for frozen in (t for t in self._running() if _driver(t) == self._driver):
            if len(frozen.params) < self._choices:
                self._drop(frozen.number, "its driver was killed before it was proposed")
                continue
            self._heartbeat.begin(self._log.trial_id(frozen.number))
            found.append(trial_of(frozen))
        return found

    def _drop(self, number: int, reason: str) -> None:
        self.tell(Trial(number, "dropped", {}, "", {}, reason=reason))

    def trials(self) -> list[Trial]:
        """Return the finished trials in the order of their numbers."""
        found = self._log.trials()
        self._told |= {trial.number for trial in found}
        return found

    def look(self) -> tuple[list[Trial], dict[int, Choices]]:
        """Return what others finished since it was last told, and what they work on now."""
        if self._heartbeat.may_judge():
            with heartbeats_allowed():
                fail_stale_trials(self.study)
        every = self.study.get_trials(deepcopy=False)
        news = [t for t in every if t.state.is_finished() and t.number not in self._told]
        self._told |= {frozen.number for frozen in news}
        running = (t for t in every if t.state is TrialState.RUNNING)
        others = {t.number: t for t in running if _driver(t) != self._driver}
        for number in others.keys() - self._met:
            # its driver may have died before the first heartbeat, without which it is never stale
            self._storage.record_heartbeat(self._log.trial_id(number))
            self._met.add(number)
        whole = {n: dict(t.params) for n, t in others.items() if len(t.params) == self._choices}
        return [trial_of(t) for t in news], {number: whole.get(number, {}) for number in others}

    def origin(self, number: int) -> Takeover | None:
        """Return what a proposal from the queue goes on with, if it was a dead driver's."""
        frozen = self.study.get_trials(deepcopy=False)[number]
        if TAKES not in frozen.system_attrs:
            return None
        before, driver = frozen.system_attrs[TAKES]
        folder = self.study.user_attrs.get(PREFIX + driver, {}).get("folder", "")
        return Takeover(trial_of(frozen), before, _visible(folder, driver))

    def importances(self) -> dict[str, float]:
        """Return how much each choice matters to the first objective, most first, summing to 1."""
        return self._log.importances()

    def close(self) -> None:
        """Leave the study: others go on with what is unfinished, once it has no heartbeats."""
        self._heartbeat.close()

    def _running(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


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
