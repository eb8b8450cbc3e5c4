"""scripts/bench_early_stopping.py: its replay against searches whose end can be told by hand."""

import csv
import math
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from nas.core.errors import OptionError

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_early_stopping.py"
sys.path.insert(0, str(SCRIPT.parent))

from bench_early_stopping import (  # noqa: E402
    Curve,
    Event,
    Rung,
    at,
    check_curves,
    reached,
    read_curves,
    replay,
    spread,
)

optuna.logging.set_verbosity(optuna.logging.WARNING)


def curves(n: int, *, crossing: bool = False) -> list[Curve]:
    """Return trials of which the last is the best; with `crossing` it is the worst at first."""
    found = []
    for trial in range(n):
        first = -trial if crossing else trial
        rewards = (float(first), trial + 0.5, float(trial + 1))
        found.append(tuple(Rung(e, r, 10.0 * e) for e, r in zip((1, 2, 4), rewards, strict=True)))
    return found


def rows(found: list[Curve], study: str = "search") -> list[dict[str, object]]:
    return [
        {"study": study, "trial": trial, **rung._asdict(), "state": "done"}
        for trial, curve in enumerate(found)
        for rung in curve
    ]


def write(path: Path, found: list[dict[str, object]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]))
        writer.writeheader()
        writer.writerows(found)
    return path


def test_without_stopping_every_training_runs_to_its_end() -> None:
    events = replay(curves(9), "none", seed=0)
    assert [event.compute for event in events] == pytest.approx(range(1, 10))
    assert events[-1] == Event(pytest.approx(9.0), 9.0, 9, 9)


@pytest.mark.parametrize("pruner", ["halving", "hyperband", "median"])
def test_stopping_spends_less_and_never_counts_what_it_stopped(pruner: str) -> None:
    found = curves(30)
    for seed in range(5):
        events, whole = replay(found, pruner, seed), replay(found, "none", seed)
        assert events[-1].compute < 0.9 * whole[-1].compute
        assert events[-1].finished < events[-1].started == 30
        # where the curves never cross, the best is stopped by none
        assert events[-1].best == whole[-1].best == 30
        assert replay(found, pruner, seed) == events


def test_stopping_loses_the_best_where_curves_cross() -> None:
    ends = [replay(curves(30, crossing=True), "halving", seed)[-1].best for seed in range(10)]
    assert sorted(ends)[5] < 30


def test_orders_are_shared_by_the_pruners() -> None:
    found = curves(30)
    for seed in range(5):
        # the first training is stopped by none, as there is nothing to compare it with
        assert replay(found, "median", seed)[0] == replay(found, "none", seed)[0]


def test_a_point_of_compute_counts_whole_trials_only() -> None:
    events = [Event(1.0, 5.0, 1, 1), Event(1.25, 5.0, 2, 1), Event(2.25, 7.0, 3, 2)]
    assert at("x", 0, 0.5, events).best == -math.inf
    assert at("x", 0, 2.0, events)[3:] == (5.0, 2, 1, False)
    assert at("x", 0, 2.25, events)[3:] == (7.0, 3, 2, False)
    assert at("x", 0, 3.0, events).exhausted
    assert reached(events, 6.0) == 2.25
    assert reached(events, 8.0) == math.inf
    assert spread([4.0, 2.0, 3.0, 1.0, math.inf], 0) == "3 (2–4)"
    assert spread([1.0, 2.0, *3 * [math.inf]], 0) == "never (2–never)"


def test_studies_are_kept_apart_and_cut_curves_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = rows(curves(3)) + rows(curves(2), "random search")
    read = read_curves(write(tmp_path / "rungs.csv", both[:-1]))
    assert sorted(read) == sorted([*curves(3), curves(1)[0]])
    assert "1 of 5 trials are not whole" in capsys.readouterr().out


def test_bad_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rungs.csv"
    for text in ("", "a,b\n1,2\n", "trial,epochs,reward,training_flops\n0,1,x,3\n"):
        path.write_text(text)
        with pytest.raises(OptionError):
            check_curves(read_curves(path))
    with pytest.raises(OptionError, match="no table"):
        read_curves(tmp_path / "none.csv")
    one = (Rung(1, 1.0, 1.0),)
    nan = (Rung(1, math.nan, 1.0), Rung(2, 1.0, 2.0))
    backwards = (Rung(1, 1.0, 2.0), Rung(2, 1.0, 1.0))
    for bad in ([], [one, one], [one, curves(1)[0]], [nan, nan], [backwards, backwards]):
        with pytest.raises(OptionError):
            check_curves(bad)


def test_the_script_prints_tables_and_writes_a_csv(tmp_path: Path) -> None:
    path, out = write(tmp_path / "rungs.csv", rows(curves(30))), tmp_path / "out.csv"
    done = subprocess.run(
        [sys.executable, SCRIPT, path, "--seeds", "3", "--out", out],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for part in ("30 trials, rungs at 1, 2, 4 epochs, 3 random orders", "| halving |", "| none |"):
        assert part in done.stdout
    with out.open() as file:
        found = list(csv.DictReader(file))
    assert len(found) == 4 * 3 * 6
    assert {row["pruner"] for row in found} == {"none", "halving", "hyperband", "median"}
    refused = subprocess.run(
        [sys.executable, SCRIPT, path, "--pruners", "halvin"], capture_output=True, text=True
    )
    assert refused.returncode == 1
    assert "did you mean 'halving'" in refused.stderr
