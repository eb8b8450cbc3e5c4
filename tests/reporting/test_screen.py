"""Screen: lines without a terminal, a live table with one, the end of a search."""

import io
import itertools
from pathlib import Path

import pytest
from rich.console import Console

from nas.interfaces import Trial
from nas.reporting.terminal import search as screen
from nas.reporting.terminal.tables import print_json
from nas.searching.objective import Bound, Goal, make_objective
from nas.searching.search import search

GOAL = Goal(make_objective("hard", None, (Bound("flops", 400e6),), ()))
FRONT = Goal(make_objective("hard", None, (), ()), "latency_ms")


def trial(number: int, accuracy: float, state: str = "done") -> Trial:
    metrics = {"accuracy": accuracy, "flops": 4e8, "params": 5e6}
    values = (accuracy,) if state == "done" else ()
    return Trial(number, state, {}, f"a{number}", metrics, values, "no luck" * (state != "done"))


def shown(
    terminal: bool,
    earlier: list[Trial],
    later: list[Trial],
    notice: str = "",
    pace: float = 4.0,
    goal: Goal = GOAL,
) -> str:
    """Return what is shown of trials that end `pace` seconds after one another."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100, no_color=True)
    progress = screen.SearchScreen(console, itertools.count(0.0, pace / 2).__next__)
    progress.begin("search", 5, goal, {}, earlier)
    for each in later:
        progress.trial(each)
    assert progress.notice(notice) is terminal
    progress.end()
    return file.getvalue()


def test_a_pipe_gets_one_plain_line_a_trial() -> None:
    lines = shown(False, [], [trial(0, 70.0), trial(1, 60.0), trial(2, 0, "failed")]).splitlines()
    assert lines == [
        "search 1/5 #0 done accuracy 70.00 flops 400.0M reward 70.000 best 70.000",
        "search 2/5 #1 done accuracy 60.00 flops 400.0M reward 60.000 best 70.000",
        "search 3/5 #2 failed: no luck",
    ]


def test_a_pipe_gets_no_more_than_a_line_a_second_and_the_last_one() -> None:
    many = [trial(n, 60.0 + n) for n in range(100)]
    lines = shown(False, [], many, pace=0.05).splitlines()
    assert 2 <= len(lines) <= 4 and lines[0].startswith("search 1/5 #0")
    assert lines[-1].startswith("search 100/5 #99")


def test_a_duplicate_has_no_line() -> None:
    assert not shown(False, [], [trial(n, 70.0, "duplicate") for n in range(3)], pace=9)


def on_front(number: int, accuracy: float, latency: float) -> Trial:
    metrics = {"accuracy": accuracy, "flops": 4e8, "params": 5e6, "latency_ms": latency}
    return Trial(number, "done", {}, f"a{number}", metrics, (accuracy, latency))


def test_a_pareto_search_shows_its_front_and_no_reward() -> None:
    met = [(70.0, 3.0), (60.0, 2.0), (65.0, 4.0)]
    trials = [on_front(n, *each) for n, each in enumerate(met)]
    assert shown(False, trials[:1], trials[1:], goal=FRONT).splitlines() == [
        "search 2/5 #1 done accuracy 60.00 flops 400.0M 2.00 ms front of 2",
        "search 3/5 #2 done accuracy 65.00 flops 400.0M 4.00 ms front of 2",
    ]
    many = [on_front(10 + n, 50.0 + n, 1.0 + n) for n in range(9)]
    text = shown(True, [on_front(2, 40.0, 9.5)], many, goal=FRONT)
    last = text[text.rindex("accuracy") :]
    assert "reward" not in text and "#2 " not in last  # which others beat
    assert [name for name in range(10, 19) if f"#{name}" in last] == [10, 12, 14, 16, 18]


def test_a_resumed_search_goes_on_counting_and_knows_its_best() -> None:
    lines = shown(False, [trial(0, 70.0), trial(1, 65.0)], [trial(2, 60.0)]).splitlines()
    assert lines == ["search 3/5 #2 done accuracy 60.00 flops 400.0M reward 60.000 best 70.000"]


def test_a_terminal_gets_the_best_a_bar_and_the_notice_and_keeps_none_of_it() -> None:
    text = shown(True, [trial(0, 70.0)], [trial(n, 60.0 + n) for n in range(1, 9)], "stopping")
    for part in ("#0", "#8", "9/5", "stopping", "left"):
        assert part in text
    assert "#1 " not in text  # the best five only
    assert text.rstrip("\r").endswith("\x1b[2K")  # the table is taken away again


def test_accuracy_has_its_deviation_where_there_is_one() -> None:
    assert screen.accuracy({"accuracy": 70.0, "accuracy_std": 0.31}) == "70.00 ±0.31"
    assert screen.accuracy({"accuracy": 70.0, "accuracy_std": 0.0}) == "70.00"


@pytest.mark.parametrize("settings", [{}, {"objective": "pareto"}, {"reward": "soft"}])
@pytest.mark.parametrize("terminal", [False, True])
def test_the_end_of_a_search(folder: Path, settings: dict[str, str], terminal: bool) -> None:
    found = search(evaluator="synthetic", target_flops="400M", trials=5, **settings)
    file = io.StringIO()
    screen.show_search(found, Console(file=file, force_terminal=terminal, width=60, no_color=True))
    text = file.getvalue()
    assert "efficientnet_b0" in text or "efficientnet" in text
    assert found["run"] in text.replace("\n", "")
    assert ("its optimum does not depend" in text.replace("\n", " ")) == ("reward" in settings)
    assert ("hypervolume" in text) == ("objective" in settings)


def test_the_end_of_a_search_that_found_nothing(folder: Path) -> None:
    settings = {"space": "space.py", "evaluator": "ledger.py", "objective": "pareto"}
    found = search(**settings, interrupted=lambda: True)
    file = io.StringIO()
    screen.show_search(found, Console(file=file, width=100))
    assert "no arch was evaluated" in file.getvalue()


def test_json_has_no_number_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [1.5, float("nan")], "b": {"c": (float("inf"), 2, "x", None, True)}})
    assert capsys.readouterr().out == '{"a": [1.5, null], "b": {"c": [null, 2, "x", null, true]}}\n'
