"""Every controller with trainings that are stopped early and with two objectives, by discovery.

What docs/search.md says each learns from a stopped training is compared with what it proposes.
"""

import random
import re
from pathlib import Path
from typing import Any

import pytest

from nas.core import registry, run_folder
from nas.core.errors import OptionError
from nas.interfaces import Choices, Metrics, Rung, Space, Trial
from nas.models.points import cost_metrics, decode
from nas.searching.objective import Bound, Goal, make_objective
from nas.searching.samplers import Past, Proposer, distributions, random_choices
from nas.searching.search import search
from nas.searching.studies.study import SEARCH, Journal

NAMES = registry.names("controllers")
SPACE: Space = registry.export("spaces", "mbconv_small", "SPACE")
GOAL = Goal(make_objective("soft", None, (Bound("flops", 30_000_000),), ()))
DOCS = Path(__file__).parents[2] / "docs" / "search.md"
# small enough to have learnt within some trials, where a controller has such an option
SMALL = {"population": 6, "sample": 3, "startup": 6, "candidates": 8, "pool": 5, "batch": 4}
TRAININGS, NEXT = 20, 2
TRAINED: dict[str, Any] = {
    "space": "mbconv_small",
    "evaluator": "synthetic",
    "evaluator_options": {"epochs": 4},
    "target_flops": 30_000_000,
    "random_search": False,
    "finalists": 0,
}
# what the table says first, and whether the place and the accuracy of a stopped training matter
LEARNS = {"nothing": (False, False), "where": (True, False), "how far": (True, True)}


def options(name: str) -> dict[str, Any]:
    known = registry.option_defaults("controllers", name)
    return {key: value for key, value in SMALL.items() if key in known}


def make(name: str, seed: int = 0) -> Any:
    fixed = {"seed": seed, "goal": GOAL}
    return registry.make("controllers", name, SPACE, options=options(name), **fixed)


def told() -> dict[str, tuple[str, str]]:
    """Return by controller its objectives and what it learns, as the documentation has it."""
    rows = re.findall(
        r"^\| `(\w+)` \| ([\w, ]+) \| (nothing|where|how far)\b", DOCS.read_text(), re.M
    )
    return {name: (objectives, learns) for name, objectives, learns in rows}


def proposals(path: Path, name: str, *, elsewhere: bool, better: bool) -> list[Choices]:
    """Return what a controller proposes after trainings of which some were stopped early.

    These lie `elsewhere`, or were `better` the earlier they came; the rest is the same.
    """
    rng, other = random.Random(0), random.Random(int(elsewhere))
    points = [random_choices(SPACE, other if early(i) else rng) for i in range(TRAININGS)]
    journal = Journal(path, distributions(SPACE))
    script = iter(points)
    first = journal.log(SEARCH, ["maximize"], Proposer(SPACE, lambda *_: next(script), 0))
    for place in range(TRAININGS):
        number, choices = first.ask(distributions(SPACE))
        end = 50.0 + (7 * place) % 20
        shown = (80.0 - place if better else 40.0 + place) if early(place) else end - 10
        rung = Rung(1, shown, metrics(choices, shown), 1.0)
        first.report(number, rung)
        state = "stopped" if early(place) else "done"
        found = metrics(choices, shown if early(place) else end)
        values = () if early(place) else GOAL.values(found)
        first.tell(Trial(number, state, choices, f"a{number}", found, values, rungs=(rung,)))
    log = journal.log(SEARCH, ["maximize"], make(name))
    return [log.ask(distributions(SPACE))[1] for _ in range(NEXT)]


def early(place: int) -> bool:
    """Tell which trainings are stopped."""
    return place % 5 in (1, 3)


def metrics(choices: Choices, accuracy: float) -> Metrics:
    return {"accuracy": accuracy, **cost_metrics(decode(SPACE, choices))}


@pytest.mark.parametrize("name", NAMES)
def test_a_controller_learns_from_stopped_trainings_what_it_says(tmp_path: Path, name: str) -> None:
    objectives, learns = told()[name]
    assert tuple(objectives.split(", ")) == registry.export("controllers", name, "OBJECTIVES")
    begun, moved, better = (
        proposals(tmp_path / f"{place}{worth}.log", name, elsewhere=place, better=worth)
        for place, worth in ((False, False), (True, False), (False, True))
    )
    assert (begun != moved, begun != better) == LEARNS[learns]


def test_a_proposal_under_hyperband_knows_the_trials_of_all_brackets(tmp_path: Path) -> None:
    known = []

    def propose(past: Past, rng: random.Random) -> Choices:
        known.append(len(past.trials))
        return random_choices(SPACE, rng)

    pruner = registry.make("pruners", "hyperband", options={}, rungs=(1, 2, 4, 8, 16))
    journal = Journal(tmp_path / "journal.log", distributions(SPACE))
    log = journal.log(SEARCH, ["maximize"], Proposer(SPACE, propose, 0), pruner)
    for accuracy in range(12):
        number, choices = log.ask(distributions(SPACE))
        found = metrics(choices, float(accuracy))
        log.report(number, Rung(1, float(accuracy), found, 1.0))  # Optuna now makes the brackets
        log.tell(Trial(number, "done", choices, f"a{number}", found, GOAL.values(found)))
    assert known == list(range(12))


@pytest.mark.parametrize("pruner", ["halving", "hyperband"])
@pytest.mark.parametrize("name", NAMES)
def test_rungs_are_pruned_and_an_interruption_changes_nothing(
    folder: Path, name: str, pruner: str
) -> None:
    asked = {**TRAINED, "controller": name, "controller_options": options(name), "trials": 16}
    whole = search(**asked, pruner=pruner, name="whole")
    calls = iter(range(1000))
    part = search(**asked, pruner=pruner, name="part", interrupted=lambda: next(calls) >= 50)
    assert part["stopped"] == "interrupted" and part["trials"] < 16
    again = search(resume=True, name="part")
    assert again["states"] == whole["states"] and again["best"] == whole["best"]
    assert whole["states"]["stopped"] > 0 and whole["trials"] == 16
    rows = run_folder.read_csv(folder / whole["run"] / "trials.csv")
    for row in rows:
        typed = {name: str(option) for name, option in row.items() if name in SPACE.choices}
        assert all(typed[n] in map(str, options) for n, options in SPACE.choices.items())


@pytest.mark.parametrize("name", NAMES)
def test_two_objectives_train_to_the_end_or_are_refused(folder: Path, name: str) -> None:
    asked = {**TRAINED, "controller": name, "controller_options": options(name), "trials": 8}
    pareto = {**asked, "objective": "pareto"}
    if "pareto" not in registry.export("controllers", name, "OBJECTIVES"):
        with pytest.raises(OptionError, match=f"controller {name} cannot pursue --objective"):
            search(**pareto)
        return
    with pytest.raises(OptionError, match=r"^--pruner has no effect with --objective pareto"):
        search(**pareto, pruner="halving")
    found = search(**pareto)
    assert (found["states"]["done"], found["states"]["stopped"]) == (8, 0) and found["front"]
