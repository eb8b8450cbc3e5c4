"""Controllers: the contract for every file of nas/searching/controllers, and what each does."""

import random
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import optuna
import pytest
from optuna.samplers import BaseSampler

import nas
from nas.core import registry
from nas.core.errors import OptionError
from nas.interfaces import Space
from nas.searching.objective import Goal, make_objective
from nas.searching.plan import plan
from nas.searching.samplers import (
    Reseeded,
    distributions,
    population_size,
    random_choices,
    startup_warning,
)
from nas.testing import ControllerContract, each
from nas.testing.controllers import MIXED, Search

MBCONV: Space = registry.export("spaces", "mbconv", "SPACE")
SETTINGS: dict[str, dict[str, Any]] = {
    "random": {"learns": False},
    "evolution": {"options": {"population": 8, "sample": 3}},
    "nsga2": {"options": {"population": 6}},
    # a proposal of the Gaussian process takes a second, for two objectives of all choices six
    "gp": {"options": {"startup": 5}, "trials": 8, "space": MIXED, "enough": 14},
    "predictor": {
        "options": {"startup": 5, "pool": 3},
        "trials": 12,
        "space": MIXED,
        "enough": 20,
    },
    "tpe": {"options": {"startup": 5}},
    "reinforce": {"options": {"batch": 5}, "trials": 12},
}
globals().update(each(ControllerContract, registry.names("controllers"), **SETTINGS))


@pytest.mark.parametrize(
    ("name", "objective"), [("gp", "reward"), ("predictor", "reward"), ("predictor", "pareto")]
)
def test_surrogates_propose_in_a_large_space(tmp_path: Path, name: str, objective: str) -> None:
    options, count = SETTINGS[name]["options"], SETTINGS[name]["trials"]
    found = Search(tmp_path / "journal.log", name, options, objective, MBCONV).go(count)
    assert all(value in MBCONV.choices[key] for choices in found for key, value in choices.items())
    assert len({tuple(choices.values()) for choices in found}) > 5


@pytest.mark.parametrize("name", registry.names("controllers"))
def test_a_default_that_acts_late_says_so(name: str) -> None:
    goal = Goal(make_objective("hard", None, (), ()))
    sampler = registry.make("controllers", name, MBCONV, options={}, seed=0, goal=goal)
    assert startup_warning(sampler, 30) == ""
    if name != "random":
        assert "--trials 1 none is chosen by results" in startup_warning(sampler, 1)


@pytest.fixture(scope="module")
def long_past() -> optuna.Study:
    """A study of 5,000 trials, in memory: to write and read a journal of them takes longer."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study, rng = optuna.create_study(direction="maximize"), random.Random(0)
    now = datetime(2026, 1, 1)
    for number in range(5000):
        choices = random_choices(MBCONV, rng)
        accuracy = 60.0 + choices["block3_layers"] - choices["block5_kernel"]
        trial = optuna.trial.create_trial(
            params=choices,
            distributions=distributions(MBCONV),
            value=accuracy,
            user_attrs={"state": "done", "arch_id": str(number), "accuracy": accuracy},
        )
        trial.datetime_complete = now + timedelta(seconds=number)
        study.add_trial(trial)
    return study


@pytest.mark.parametrize("name", [n for n in registry.names("controllers") if n != "gp"])
def test_five_thousand_trials_are_borne(long_past: optuna.Study, name: str) -> None:
    goal = Goal(make_objective("hard", None, (), ()))
    options = {"batch": 250} if name == "reinforce" else {}  # fewer updates to replay
    long_past.sampler = registry.make(
        "controllers", name, MBCONV, options=options, seed=0, goal=goal
    )
    for _ in range(2):
        trial = long_past.ask(distributions(MBCONV))
        assert list(trial.params) == list(MBCONV.choices)
        assert all(value in MBCONV.choices[key] for key, value in trial.params.items())
        long_past.tell(trial, state=optuna.trial.TrialState.FAIL)


def test_a_controller_that_will_not_act_says_so_beforehand() -> None:
    told = "draws its first 10 trials at random, so with --trials 8 none is chosen by results"
    for trials, late in ((8, True), (11, False)):
        notes = plan(evaluator="synthetic", controller="tpe", trials=trials)["notes"]
        assert any(told in note for note in notes) == late


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("evolution", {"population": 0}, "population must be at least 1, not 0"),
        ("evolution", {"sample": -1}, "sample must be at least 1, not -1"),
        ("nsga2", {"population": 1}, "population must be at least 2, not 1"),
        ("tpe", {"candidates": 0}, "candidates must be at least 1, not 0"),
        ("random", {"population": 3}, "no option 'population'; it takes none"),
        ("evolution", {"popolation": 3}, "did you mean 'population'"),
    ],
)
def test_options_are_checked(name: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        registry.make("controllers", name, MBCONV, options=options, seed=0)


def test_evolution_lets_the_oldest_die_and_changes_one_choice(tmp_path: Path) -> None:
    options = SETTINGS["evolution"]["options"]
    search = Search(tmp_path / "journal.log", "evolution", options, "reward", MBCONV)
    found = search.go(60)
    most = options["population"]
    assert [population_size(most, n) for n in (0, 6, 30, 35, 40, 60)] == [6, 6, 6, 7, 8, 8]
    nearest = []
    for number in range(search.startup, len(found)):
        alive = found[number - population_size(most, number) : number]
        nearest.append(
            min(
                sum(found[number][key] != parent[key] for key in MBCONV.choices) for parent in alive
            )
        )
    # two where the first mutation had been seen
    assert set(nearest) <= {1, 2} and nearest.count(1) > 0.8 * len(nearest)


class Counts(BaseSampler):
    """A sampler that remembers what it did, as Optuna's GPSampler keeps its last parameters."""

    told: ClassVar[list[int]] = []

    def __init__(self) -> None:
        self.calls = 0

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
        return {}

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
        self.calls += 1
        self.told.append(self.calls)
        return {"a": self.calls}

    def sample_independent(self, study: Any, trial: Any, name: str, kind: Any) -> Any:
        return kind.choices[0]


@pytest.mark.parametrize("given", [Counts(), lambda seed, finished: Counts()])
def test_a_sampler_carries_nothing_from_one_trial_to_the_next(given: Any) -> None:
    study = optuna.create_study(sampler=Reseeded(MIXED, given, 0))
    Counts.told.clear()
    asked = [study.ask(distributions(MIXED)).params for _ in range(3)]
    assert Counts.told == [1, 1, 1]
    # the first that was proposed is mutated where it comes again
    assert asked[0] == {name: options[0] for name, options in MIXED.choices.items()} != asked[1]


def test_a_sampler_of_optunas_that_is_made_already_is_seeded_by_the_trial() -> None:
    random = optuna.samplers.RandomSampler
    first, other = (
        optuna.create_study(sampler=Reseeded(MBCONV, random(seed=seed), 7)) for seed in (1, 2)
    )
    asked = [[s.ask(distributions(MBCONV)).params for _ in range(3)] for s in (first, other)]
    assert asked[0] == asked[1] and asked[0][0] != asked[0][1]


@pytest.mark.parametrize("keyword", ["constraint_violation", "excess"])
def test_a_users_controller_is_given_the_constraint_violation_by_either_name(
    keyword: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(
        "from nas.searching.samplers import Proposer, sample_feasible\n"
        "OBJECTIVES = ('reward',)\n"
        f"def make(space, *, seed, {keyword}):\n"
        "    def propose(past, rng):\n"
        f"        return sample_feasible(space, rng, {keyword})\n"
        "    return Proposer(space, propose, seed)\n"
    )
    found = nas.search(controller="./own.py", max_flops="300M", trials=4, random_search=False)
    assert found.states["done"] == 4 and found.states["rejected"] == 0
