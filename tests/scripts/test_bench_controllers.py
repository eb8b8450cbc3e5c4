"""bench_controllers.py and bench_ask.py, small: what they find, keep and go on with."""

import csv
import math
import random
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.searching.engine import Engine
from nas.searching.objective import Goal
from nas.searching.references import reference_points

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

import bench_ask  # noqa: E402
import bench_controllers  # noqa: E402
from lib import controller_search, controller_tables, landscapes, tables  # noqa: E402
from lib.controller_tables import Row  # noqa: E402

SMALL = ("--landscapes", "synthetic", "--seeds", "2", "--processes", "1", "--trials", "12")
ONE = (*SMALL, "--points", "6", "--rewards", "hard", "--controllers", "random,evolution")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file beside which the synthetic table is written once."""
    return tmp_path_factory.mktemp("bench") / "out.csv"


@pytest.fixture(scope="module")
def place(out: Path) -> landscapes.Landscape:
    return landscapes.synthetic(out.parent, 0.3)


def bench(*words: str) -> int:
    threads = torch.get_num_threads()
    try:
        return bench_controllers.main(words)
    finally:
        torch.set_num_threads(threads)


def test_what_was_searched_is_kept_shown_and_not_searched_again(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = out.with_suffix(".png")
    flags = (*ONE, "--out", str(out), "--picture", str(picture))
    assert bench(*flags) == 0
    shown = capsys.readouterr().out
    assert "### synthetic, hard reward, T = 13M, noise 0.3" in shown
    assert "FLOPs are multiply-adds" in shown and "| evolution |" in shown
    assert picture.read_bytes().startswith(b"\x89PNG")
    whole = out.read_text()
    rows = bench_controllers.read(out)
    assert len(rows) == 2 * 2 * 2 and {row.evaluations for row in rows} == {6, 12}
    for row in rows:
        assert max(row.seen, row.handed) <= row.best <= row.ceiling + 1e-9
        assert row.arrival == math.inf or row.best >= row.ceiling - 0.1
    # a kill in the middle of a line takes one search, which is done again
    out.write_text(whole[:-20])
    assert bench(*flags) == 0
    timeless = [row._replace(ms=0) for row in bench_controllers.read(out)]
    assert sorted(timeless) == sorted(row._replace(ms=0) for row in rows)
    monkeypatch.setattr(Engine, "run", None)  # nothing is left to search
    kept = out.read_text()
    assert bench(*flags) == 0
    assert out.read_text() == kept and "4 of them on file" in capsys.readouterr().err


def test_the_landscape_is_made_from_its_seed_and_its_top_is_known(
    place: landscapes.Landscape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landscapes, "STARTS", 2)
    monkeypatch.setattr(landscapes, "KICKS", 20)
    assert landscapes.synthetic(tmp_path, 0.3).digest == place.digest
    known = landscapes.ceiling(place, "hard", tmp_path)
    assert landscapes._climbed(place, "hard").value == pytest.approx(known.value, abs=0.2)
    space, truth = landscapes.space_of(place.space), landscapes.truth_of(place)
    with Path(dict(place.options)["path"]).open() as file:
        row = random.Random(0).choice(list(csv.DictReader(file)))
    choices = {n: next(o for o in os if str(o) == row[n]) for n, os in space.choices.items()}
    assert truth(space.decode(choices))["accuracy"] == float(row["true"])
    deviations = [float(row[f"accuracy_{seed}"]) - float(row["true"]) for seed in range(20)]
    assert 0.15 < (sum(d * d for d in deviations) / 20) ** 0.5 < 0.5


@pytest.mark.parametrize("begun", [3, 0])
def test_a_search_begins_with_the_reference_designs(begun: int) -> None:
    place = landscapes.embedded(0.3)
    goal = Goal(landscapes.objective_of(place, "hard"))
    points = list(reference_points(landscapes.space_of(place.space), goal).values())
    assert controller_search.designs(place, "hard") == len(points) == 3
    top = landscapes.Ceiling(67.0, "made up")
    job = controller_search.Job(place, "hard", "hillclimb", (), 5, 1, begun, 0, (5,), top)
    found = controller_search.searched(job)
    first = [trial.choices for trial in found.trials[:3]]
    assert len(found.trials) == 5 and (first == points) == (begun == 3)
    (row,) = controller_search.rows_of(job, found)
    assert row.references == begun
    rows = [row, row._replace(references=3 - begun)]
    assert "hillclimb, no references" in "\n".join(controller_tables.lines(rows))


def test_fronts_are_measured_with_many_in_flight(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--objective", "pareto", "--workers", "4", "--controllers", "random,nsga2")
    assert bench(*SMALL, "--points", "6", *flags, "--out", str(out.with_name("front.csv"))) == 0
    assert "accuracy against FLOPs, noise 0.3, 4 in flight" in capsys.readouterr().out
    for row in bench_controllers.read(out.with_name("front.csv")):
        assert 0 < max(row.seen, row.handed) <= row.best <= 1


def test_a_controller_that_fails_leaves_the_others(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text(
        "from nas.searching.samplers import Proposer\nOBJECTIVES = ('reward',)\n"
        "def propose(past, rng):\n    raise ValueError('no idea')\n"
        "def make(space, *, seed):\n    return Proposer(space, propose, seed)\n"
    )
    file = str(out.with_name("broken.csv"))
    assert bench(*ONE, "--controllers", f"{broken},random", "--out", file) == 1
    assert "FAILED: ValueError: no idea" in capsys.readouterr().err
    assert {row.controller for row in bench_controllers.read(Path(file))} == {"random"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--controllers", "tpee"], "no controller named 'tpee'"),
        (["--option", "random.x=1"], "controller random has no option 'x'"),
        (["--option", "tpe.x=1"], "--option tpe.NAME=VALUE: no such controller is compared"),
        (["--option", "x"], "an option is given as name=value, not 'x'"),
        (["--landscapes", "flat"], "--landscapes takes embedded,synthetic, not 'flat'"),
        (["--rewards", "hrd"], "did you mean 'hard'"),
        (["--points", "x"], "--points takes a whole number"),
        (["--objective", "pareto"], "controller evolution cannot pursue"),
        (["--table", "lost.csv", "--space", "mbconv"], "no table lost.csv"),
    ],
)
def test_wrong_flags_are_one_line(out: Path, flags: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as refusal:
        bench(*ONE, "--out", str(out.with_name("none.csv")), *flags)
    assert message in str(refusal.value) and "\n" not in str(refusal.value)
    (out.parent / "odd.csv").write_text("a,b\n1,2\n")
    with pytest.raises(SystemExit, match=r"odd.csv is of something else"):
        bench(*ONE, "--out", str(out.parent / "odd.csv"))


def row(controller: str, seed: int, handed: float) -> Row:
    found: dict[str, Any] = {name: "" for name in Row._fields}
    found |= {"target": 1.0, "reward": "accuracy", "workers": 1, "trials": 50, "evaluations": 50}
    found |= {"references": 0}
    found |= {"controller": controller, "seed": seed, "ceiling": 70.0, "ms": 1.0, "flops": 1e6}
    values = {"observed": handed, "seen": handed, "handed": handed, "best": handed}
    arrival = {"arrival": math.inf if seed else 40.0, "rows": 1, "ended": 50}
    return Row(**(found | values | arrival))


def test_medians_shares_and_pairs_are_what_they_say() -> None:
    rows = [row("random", seed, 60 + seed) for seed in range(3)]
    rows += [row("tpe", seed, 65 + seed) for seed in range(3)]
    text = "\n".join(controller_tables.lines(rows))
    # random's median is 61 of 70, and 66 is 5/9 of that way
    assert "| tpe | 66.00 (65.50–66.50) 56 % |" in text
    assert "| random | 61.00 (60.50–61.50) | never |" in text.replace("never (never", "never")
    assert "| random | -5.00, 0 of 3 |" in text
    assert tables.quartiles([1, math.inf, math.inf]) == (math.inf, math.inf, math.inf)
    assert tables.quartiles([1, 2, 3, 4, math.inf])[1:] == (3, 4)


def test_proposals_are_timed_and_given_up_where_they_take_too_long(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import time\n"
        "from nas.searching.samplers import Proposer, random_choices\n"
        "OBJECTIVES = ('reward',)\n"
        "def make(space, *, seed):\n"
        "    def propose(past, rng):\n"
        "        time.sleep(9 * (len(past.done) > 15))\n"
        "        assert len(past.pending) == 3\n"
        "        return random_choices(space, rng)\n"
        "    return Proposer(space, propose, seed)\n"
    )
    flags = ("--finished", "10,20,30", "--in-flight", "4", "--repeats", "4", "--seconds", "0.5")
    threads = torch.get_num_threads()
    bench_ask.main([*flags, "--controllers", str(slow)])
    torch.set_num_threads(threads)
    first, *late = capsys.readouterr().out.splitlines()[-1].split(" | ")[2:]
    assert "/s; " in first and float(first.split()[0].strip(";")) > 0
    assert [text.strip(" |") for text in late] == ["over 0.5 s"] * 2
