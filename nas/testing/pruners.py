"""The contract of a pruner: it stops what loses, and decides by the journal alone."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, ClassVar

import optuna
import pytest
from optuna.pruners import BasePruner
from optuna.trial import TrialState

from nas.core import registry
from nas.interfaces import Rung, Space, Trial
from nas.searching.samplers import distributions
from nas.searching.studies.study import SEARCH, Journal, Log
from nas.testing.contract import Contract

RUNGS = [(1,), (1, 2, 4), (1, 2, 4, 8, 10), (5, 10, 20)]
each_rungs = pytest.mark.parametrize("rungs", RUNGS, ids=str)


def open_log(path: Path, pruner: BasePruner) -> Log:
    """Open a journal whose trials a pruner stops."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space: Space = registry.export("spaces", "mbconv", "SPACE")
    sampler = registry.make("controllers", "random", space, options={}, seed=0)
    return Journal(path, distributions(space)).log(SEARCH, ["maximize"], sampler, pruner)


def train(log: Log, reward: float, rungs: tuple[int, ...]) -> tuple[int, ...]:
    """Report a reward at every rung but the last, as the engine does; return what was reached."""
    space: Space = registry.export("spaces", "mbconv", "SPACE")
    number, choices = log.ask(distributions(space))
    reached: tuple[int, ...] = ()
    for epochs in rungs[:-1]:
        reached = (*reached, epochs)
        if log.report(number, Rung(epochs, reward, {"accuracy": reward}, 1.0)):
            log.tell(Trial(number, "stopped", choices, f"a{number}", {"accuracy": reward}))
            return reached
    log.tell(Trial(number, "done", choices, f"a{number}", {"accuracy": reward}, (reward,)))
    return (*reached, rungs[-1])


class PrunerContract(Contract):
    """Tests of a file whose `make(*, rungs, ...)` gives an Optuna pruner.

    `stops`: whether it stops anything at all.
    """

    room = "pruners"
    stops: ClassVar[bool] = True

    def make(self, *given: Any, rungs: tuple[int, ...] = RUNGS[2], **more: Any) -> BasePruner:
        options = {**self.options, **more}
        pruner: BasePruner = registry.make(self.room, self.named(), options=options, rungs=rungs)
        return pruner

    @each_rungs
    def test_it_can_be_made_for_any_rungs(self, rungs: tuple[int, ...]) -> None:
        assert isinstance(self.make(rungs=rungs), BasePruner)

    @each_rungs
    def test_a_training_that_beats_all_before_runs_to_its_end(
        self, tmp_path: Path, rungs: tuple[int, ...]
    ) -> None:
        log = open_log(tmp_path / "journal.log", self.make(rungs=rungs))
        for number in range(12):
            # the first among them, as there is nothing that it could lose to
            assert train(log, 50.0 + number, rungs) == rungs

    def test_trainings_that_lose_to_all_before_are_stopped(self, tmp_path: Path) -> None:
        rungs = RUNGS[2]
        log = open_log(tmp_path / "journal.log", self.make())
        ends = [train(log, 80.0 - number, rungs)[-1] for number in range(25)]
        assert ends[0] == rungs[-1] and set(ends) <= set(rungs)
        stopped = sum(end < rungs[-1] for end in ends)
        assert stopped > len(ends) / 2 if self.stops else stopped == 0

    def test_one_rung_leaves_nothing_to_stop(self, tmp_path: Path) -> None:
        log = open_log(tmp_path / "journal.log", self.make(rungs=(3,)))
        assert {train(log, 80.0 - number, (3,)) for number in range(8)} == {(3,)}

    def test_decisions_depend_on_the_journal_alone(self, tmp_path: Path) -> None:
        rewards = [random.Random(number).uniform(40, 80) for number in range(16)]
        calm = open_log(tmp_path / "calm.log", self.make())
        whole = [train(calm, reward, RUNGS[2]) for reward in rewards]
        again = []
        for reward in rewards:  # opened anew for each trial, as after a kill
            again.append(train(open_log(tmp_path / "cut.log", self.make()), reward, RUNGS[2]))
        assert again == whole

    def test_a_stopped_trial_is_pruned_for_optuna_too(self, tmp_path: Path) -> None:
        log = open_log(tmp_path / "journal.log", self.make(rungs=RUNGS[1]))
        for number in range(12):
            reached = train(log, 80.0 - number, RUNGS[1])
            frozen = log.study.trials[number]
            whole = reached == RUNGS[1]
            assert frozen.state is (TrialState.COMPLETE if whole else TrialState.PRUNED)
            assert tuple(frozen.intermediate_values) == (reached[:-1] if whole else reached)
