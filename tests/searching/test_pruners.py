"""Pruners: the contract that every file of nas/searching/pruners keeps, found by discovery."""

import random
from pathlib import Path

import optuna
import pytest
from optuna.pruners import BasePruner
from optuna.trial import TrialState

from nas.core import registry
from nas.core.errors import OptionError
from nas.interfaces import Rung, Space, Trial
from nas.searching.samplers import distributions
from nas.searching.studies.study import SEARCH, Journal, Log

NAMES = registry.names("pruners")
STOPPING = [name for name in NAMES if name != "none"]
RUNGS = [(1,), (1, 2, 4), (1, 2, 4, 8, 10), (5, 10, 20)]
SPACE: Space = registry.export("spaces", "mbconv", "SPACE")
each_pruner = pytest.mark.parametrize("name", NAMES)

optuna.logging.set_verbosity(optuna.logging.WARNING)


def made(name: str, rungs: tuple[int, ...], **options: object) -> BasePruner:
    pruner: BasePruner = registry.make("pruners", name, options=options, rungs=rungs)
    return pruner


def open_log(path: Path, pruner: BasePruner) -> Log:
    sampler = registry.make("controllers", "random", SPACE, options={}, seed=0)
    return Journal(path, distributions(SPACE)).log(SEARCH, ["maximize"], sampler, pruner)


def train(log: Log, reward: float, rungs: tuple[int, ...]) -> tuple[int, ...]:
    """Report a reward at every rung but the last, as the engine does; return what was reached."""
    number, choices = log.ask(distributions(SPACE))
    reached: tuple[int, ...] = ()
    for epochs in rungs[:-1]:
        reached = (*reached, epochs)
        if log.report(number, Rung(epochs, reward, {"accuracy": reward}, 1.0)):
            log.tell(Trial(number, "stopped", choices, f"a{number}", {"accuracy": reward}))
            return reached
    log.tell(Trial(number, "done", choices, f"a{number}", {"accuracy": reward}, (reward,)))
    return (*reached, rungs[-1])


@each_pruner
@pytest.mark.parametrize("rungs", RUNGS)
def test_every_pruner_can_be_made_for_any_rungs(name: str, rungs: tuple[int, ...]) -> None:
    assert isinstance(made(name, rungs), BasePruner)


@each_pruner
@pytest.mark.parametrize("rungs", RUNGS)
def test_a_training_that_beats_all_before_runs_to_its_end(
    tmp_path: Path, name: str, rungs: tuple[int, ...]
) -> None:
    log = open_log(tmp_path / "journal.log", made(name, rungs))
    for number in range(12):
        # the first among them, as there is nothing that it could lose to
        assert train(log, 50.0 + number, rungs) == rungs


@pytest.mark.parametrize("name", STOPPING)
def test_trainings_that_lose_to_all_before_are_stopped(tmp_path: Path, name: str) -> None:
    rungs = RUNGS[2]
    log = open_log(tmp_path / "journal.log", made(name, rungs))
    ends = [train(log, 80.0 - number, rungs)[-1] for number in range(25)]
    assert ends[0] == rungs[-1]
    assert sum(end < rungs[-1] for end in ends) > len(ends) / 2
    assert set(ends) <= set(rungs)


def test_none_stops_nothing(tmp_path: Path) -> None:
    log = open_log(tmp_path / "journal.log", made("none", RUNGS[1]))
    assert {train(log, 80.0 - number, RUNGS[1]) for number in range(12)} == {RUNGS[1]}


@each_pruner
def test_one_rung_leaves_nothing_to_stop(tmp_path: Path, name: str) -> None:
    log = open_log(tmp_path / "journal.log", made(name, (3,)))
    assert {train(log, 80.0 - number, (3,)) for number in range(8)} == {(3,)}


@each_pruner
def test_decisions_depend_on_the_journal_alone(tmp_path: Path, name: str) -> None:
    rewards = [random.Random(number).uniform(40, 80) for number in range(16)]
    calm = open_log(tmp_path / "calm.log", made(name, RUNGS[2]))
    whole = [train(calm, reward, RUNGS[2]) for reward in rewards]
    again = []
    for reward in rewards:  # opened anew for each trial, as after a kill
        again.append(train(open_log(tmp_path / "cut.log", made(name, RUNGS[2])), reward, RUNGS[2]))
    assert again == whole


@each_pruner
def test_a_stopped_trial_is_pruned_for_optuna_too(tmp_path: Path, name: str) -> None:
    log = open_log(tmp_path / "journal.log", made(name, RUNGS[1]))
    for number in range(12):
        reached = train(log, 80.0 - number, RUNGS[1])
        frozen = log.study.trials[number]
        whole = reached == RUNGS[1]
        assert frozen.state is (TrialState.COMPLETE if whole else TrialState.PRUNED)
        assert tuple(frozen.intermediate_values) == (reached[:-1] if whole else reached)


@each_pruner
def test_an_option_that_it_does_not_have_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match=f"pruner {name} has no option 'luck'"):
        made(name, (1, 2), luck=1)
    # the rungs are the evaluator's to say
    with pytest.raises(OptionError, match="has no option 'rungs'"):
        registry.make("pruners", name, options={"rungs": (1,)}, rungs=(1, 2))


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("halving", "reduction_factor", 1),
        ("halving", "reduction_factor", 2.5),
        ("hyperband", "reduction_factor", 0),
        ("median", "startup", -1),
        ("median", "warmup", -1),
        ("median", "startup", "few"),
    ],
)
def test_a_bad_option_is_one_line(name: str, option: str, value: object) -> None:
    with pytest.raises(OptionError, match=f"pruner {name}") as error:
        made(name, (1, 2, 4), **{option: value})
    assert "\n" not in str(error.value)


def test_a_later_first_rung_leaves_the_early_ones_alone(tmp_path: Path) -> None:
    log = open_log(tmp_path / "journal.log", made("halving", RUNGS[2], first_rung=4))
    ends = [train(log, 80.0 - number, RUNGS[2])[-1] for number in range(12)]
    assert min(ends) == 4
