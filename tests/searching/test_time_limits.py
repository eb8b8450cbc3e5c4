"""A search under a time limit: what it evaluates, counts and says; and trainings of a set time."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from test_engine import SMALL, trials

from nas.core import registry
from nas.core.errors import OptionError
from nas.models.arch import Arch, Head, Stage
from nas.models.cost import count
from nas.reporting.terminal.search import ending
from nas.searching.plan import announced
from nas.searching.search import search
from nas.searching.settings import SearchSettings
from nas.searching.setup import prepare
from nas.searching.studies.study import SEARCH
from nas.searching.time_budget import TIME_LIMIT, TimeBudget
from nas.training import loop

FINALISTS = {**SMALL, "finalists": 2, "final_seeds": 2, "pruner": "none"}
# writes a line for each task; the tests' clock counts them
TICKING = """
from collections import deque
from nas.evaluation.evaluate import make_evaluator, perform
from nas.interfaces import ExecutorStatus

def make(work, *, workers=1):
    return Ticking(make_evaluator(work))

class Ticking:
    slots = 1

    def __init__(self, evaluator):
        self.evaluator, self.queue = evaluator, deque()

    def submit(self, task):
        self.queue.append(task)

    def wait(self):
        with open("ticks.txt", "a") as file:
            file.write("tick\\n")
        return [perform(self.evaluator, self.queue.popleft())]

    def status(self):
        return ExecutorStatus(1, 0)

    def close(self):
        pass
"""
TINY = Arch("tiny", (Stage("mbconv", 8, 1, 3, 2),), head=Head(0, classes=10), resolution=32)


@pytest.fixture
def limited(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a search whose time limit counts tasks instead of seconds."""
    (folder / "ticking.py").write_text(TICKING)
    ticks, jump = folder / "ticks.txt", [1000]

    def clock() -> float:
        """Return the tasks so far; from a number of them on, a time beyond any limit."""
        count = len(ticks.read_text().splitlines()) if ticks.exists() else 0
        return float(count) if count < jump[0] else 1e6

    monkeypatch.setattr("nas.searching.search.TimeBudget", lambda *given: TimeBudget(*given, clock))

    def call(limit: int | None, over_at: int = 1000, **settings: Any) -> dict[str, Any]:
        jump[0] = over_at
        given = {**FINALISTS, "executor": "ticking.py", "trials": 8, **settings}
        return search(**given, time_limit=f"{limit}s" if limit else None)

    return call


def test_stages_end_by_their_part_of_the_whole() -> None:
    now = [100.0]
    shares = TimeBudget(30.0, 3, lambda: now[0])
    assert [shares.left(stage) for stage in (1, 2, 3)] == [10, 20, 30]
    now[0] = 115.0
    assert [shares.late(stage)() for stage in (1, 2, 3)] == [TIME_LIMIT, "", ""]
    assert [shares.late(3, needed)() for needed in (14.9, 15.0)] == ["", TIME_LIMIT]
    assert TimeBudget(None, 3).left(1) is None and not TimeBudget(None, 3).late(1, 9.0)()


def test_one_arch_is_evaluated_and_handed_over_whatever_the_limit(limited: Any) -> None:
    found = limited(1)
    (only,) = trials(found)
    assert (only.state, only.reason) == ("done", "time limit, after 1 of 5 epochs")
    assert found["best"]["arch_id"] == only.arch_id and found["met"]
    assert found["ends"] == {name: TIME_LIMIT for name in ("search", "random search", "finals")}
    assert (Path(found["run"]) / "best" / "arch.json").is_file() and not found["finals"]
    assert ending(found) == (
        "the time limit ended the search after 1 trial and random search before it had an accuracy "
        "and the finals before each net was trained; `--resume --time-limit 20m` goes on"
    )


def test_a_training_that_runs_when_the_time_is_over_counts_for_what_it_showed(limited: Any) -> None:
    found = limited(21)
    *whole, last = trials(found)
    assert [trial.state for trial in whole] == ["done"]
    assert (last.state, last.reason) == ("stopped", "time limit, after 2 of 5 epochs")
    assert found["trials"] == 2 and found["random"]["trials"] >= 1


def test_a_resumption_goes_on_with_all_that_the_limit_cut(limited: Any) -> None:
    first = limited(1)
    again = limited(None, name=Path(first["run"]).name, resume=True)
    assert again["stopped"] == "" and not any(again["ends"].values()) and ending(again) == ""
    assert again["trials"] == 8 and len(again["finals"]) >= 2
    assert trials(again)[0] == trials(first, SEARCH)[0]


def test_finals_that_do_not_reach_every_net_decide_nothing(limited: Any) -> None:
    found = limited(30, over_at=11, trials=2, random_search=False)
    assert found["trials"] == 2 and found["best"]
    assert not found["finals"] and found["ends"]["finals"] == TIME_LIMIT
    assert "before each net was trained" in ending(found)


def test_what_a_search_will_do_is_told_before() -> None:
    digits = {"data": "digits", "trials": 3}
    told = "\n".join(announced(prepare(SearchSettings.model_validate(digits))))
    assert "3 trials" in told and "finals of up to" in told and "--target-flops" in told
    told = "\n".join(
        announced(prepare(SearchSettings.model_validate({**digits, "time_limit": "1s"})))
    )
    assert "less than one, and one is begun anyway" in told
    assert announced(prepare(SearchSettings.model_validate({"target_flops": "400M"}))) == ()


def test_the_finals_of_a_trial_time_are_told_in_no_epochs() -> None:
    settings = {"data": "digits", "trial_time": "5s", "max_flops": "3M"}
    setup = prepare(SearchSettings.model_validate(settings))
    assert str(setup.final_length()) == "as long as a candidate"


def test_a_trial_time_that_is_too_short_to_rank_is_told_before() -> None:
    for seconds, enough in (("1s", False), ("4h", True)):
        settings = {"data": "digits", "trial_time": seconds, "max_flops": "3M"}
        *_, told = announced(prepare(SearchSettings.model_validate(settings)))
        assert "a candidate of" in told and "optimiser steps" in told
        assert ("too few to rank" in told, "would do" in told) == (not enough, not enough)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"epochs": 3}, "leave --epochs out"),
        ({"recipe_options": {"epochs": 50}}, "leave --epochs out"),
        ({"trial_time_limit": "3s"}, "--trial-time-limit would give up every candidate"),
        ({"final_epochs": 9}, "--final-epochs and --final-fraction out"),
    ],
)
def test_what_conflicts_with_a_trial_time_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        prepare(SearchSettings.model_validate({"data": "digits", "trial_time": "5s", **settings}))
    with pytest.raises(OptionError, match="--trial-time belongs to trainings"):
        prepare(SearchSettings.model_validate({"trial_time": "5s"}))


def test_a_trial_time_gives_a_quick_net_more_epochs_and_resumes_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = dataclasses.replace(TINY, stages=(Stage("mbconv", 32, 1, 3, 2),))
    speeds = {TINY.id: 600.0, wide.id: 200.0}
    monkeypatch.setattr(loop, "images_per_second", lambda job, data: speeds[job.arch.id])
    options = {"data": "digits", "trial_time": 10.0, "fraction": 0.2}
    timed = registry.make("evaluators", "training", options=options)
    assert timed.estimated_seconds(TINY) == 10.0 and timed.rungs[-1] == 100
    found = {
        arch.id: [
            timed.train(arch, seed=0, epochs=part, folder=str(tmp_path / arch.id))
            for part in timed.rungs
        ]
        for arch in (TINY, wide)
    }
    quick, slow = (found[arch.id][-1] for arch in (TINY, wide))
    # three times the speed, and validations take a larger part of the slow one's time
    assert 3 <= quick["epochs"] / slow["epochs"] < 4.5
    assert [m["epochs"] for m in found[TINY.id]] == sorted(m["epochs"] for m in found[TINY.id])
    assert [m["time_share"] for m in found[TINY.id]] == list(timed.rungs)
    assert count(TINY).flops < count(wide).flops
    # a process that measures another speed goes on to the same end
    folder = tmp_path / "resumed"
    timed.train(wide, seed=0, epochs=timed.rungs[0], folder=str(folder))
    speeds[wide.id] = 20.0
    later = registry.make("evaluators", "training", options=options)
    again = later.train(wide, seed=0, epochs=100, folder=str(folder))
    assert {**again, "images_per_second": 0} == {**slow, "images_per_second": 0}
