"""Warm starts: what is taken over, what is but a prior, what is refused, and kills in between."""

import json
import random
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Cli, parse

from nas.core import registry, run_folder
from nas.core.errors import OptionError, RunError
from nas.interfaces import Space
from nas.reporting import report
from nas.searching.plan import plan
from nas.searching.samplers import Prior, no_prior, random_choices
from nas.searching.search import search
from nas.searching.settings import SearchSettings
from nas.searching.setup import Setup, prepare
from nas.searching.start.priors import prior_of_run, surrogate_prior
from nas.searching.start.warm_start import FILE, read_source, start, with_source_path
from nas.searching.studies.journal import read_only

SYNTHETIC = {"evaluator": "synthetic", "random_search": False}
SMALL = {"space": "space.py", "evaluator": "ledger.py"}
COLD = {**SYNTHETIC, "controller": "random", "target_flops": "500M", "trials": 40}
# proposes the point of ten that its prior likes best, and writes down what it was told
BELIEVER = """
from pathlib import Path

from nas.searching.samplers import Proposer, no_prior, random_choices

OBJECTIVES = ("reward",)

def make(space, *, seed, prior=no_prior):
    def propose(past, rng):
        points = [random_choices(space, rng) for _ in range(10)]
        believed = prior(points)
        with Path("told.txt").open("a") as file:
            print(*(f"{value:.6f}" for value in believed), file=file)
        return points[int(believed.argmax())]

    return Proposer(space, propose, seed)
"""


def rows(found: dict[str, Any], name: str = "trials.csv") -> list[dict[str, str]]:
    return run_folder.read_csv(Path(found["run"]) / name)


def setup_of(**settings: Any) -> Setup:
    return prepare(
        SearchSettings.model_validate(with_source_path(settings, Path("runs"))), strict=False
    )


def unclocked(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key not in ("run", "seconds")}


@pytest.fixture
def believer(folder: Path) -> Path:
    (folder / "believer.py").write_text(BELIEVER)
    return folder


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with an earlier search, `a`."""
    project = tmp_path_factory.mktemp("earlier")
    search(**COLD, name="a", project=project)
    return project


@pytest.fixture
def earlier(shared: Path, folder: Path) -> Path:
    """A working directory with a copy of the earlier search."""
    return Path(shutil.copytree(shared, folder / "runs")).parent


def test_what_was_evaluated_is_taken_over_and_not_evaluated_again(folder: Path) -> None:
    first = search(**SMALL, trials=9, name="a")
    asked = (folder / "ledger.txt").read_text().split()
    known = {row["arch_id"] for name in ("trials.csv", "random.csv") for row in rows(first, name)}
    found = search(**SMALL, trials=8, name="b", warm_start="a", target_params="9k")
    again = (folder / "ledger.txt").read_text().split()[len(asked) :]
    assert set(asked) == known and not known & set(again) and len(again) == len(set(again))
    states = found["states"]
    assert (states["earlier"], found["trials"]) == (len(known), 8)
    assert found["proposals"] == sum(states.values()) - len(known) == 8 + states["duplicate"]
    assert found["warm_start"]["taken_over"] == len(known)
    table = rows(found)
    assert [row["state"] for row in table[: len(known)]] == ["earlier"] * len(known)
    assert {row["arch_id"] for row in table[: len(known)]} == known
    assert [int(row["number"]) for row in table] == list(range(len(table)))
    assert re.fullmatch(r"trial \d+ of the (random )?search", table[0]["reason"])
    seconds = sum(float(row["seconds"]) for row in table if row["state"] == "done")
    assert found["seconds"] == pytest.approx(seconds, rel=0.01)
    page = report.write(Path(found["run"])).read_text()
    assert "random search at as many new evaluations" in page and "equal budget" not in page


def test_rewards_are_counted_anew_and_a_winner_may_be_of_the_past(earlier: Path) -> None:
    found = search(**{**COLD, "target_flops": "300M", "trials": 3}, name="b", warm_start="a")
    old = {row["arch_id"]: row for row in rows({"run": "runs/search/a"})}
    taken = [row for row in rows(found) if row["state"] == "earlier"]
    assert len(taken) == 40
    for row in taken:
        ratio = max(float(row["flops"]) / 300e6, 1.0)
        assert row["accuracy"] == old[row["arch_id"]]["accuracy"]
        assert float(row["reward"]) == pytest.approx(float(row["accuracy"]) / ratio)
    assert found["best"]["state"] == "earlier"
    assert "taken over from an earlier search" in Path(found["run"], "best/README.md").read_text()
    page = report.write(Path(found["run"])).read_text()
    assert "earlier" in page and "From 43 trials" in page


def test_what_is_above_a_new_limit_is_left(earlier: Path) -> None:
    found = search(**SYNTHETIC, trials=2, max_flops="350M", warm_start="a", seed=3)
    costs = [int(row["flops"]) for row in rows(found) if row["state"] == "earlier"]
    below = [r for r in rows({"run": "runs/search/a"}) if int(r["flops"]) <= 350e6]
    assert len(costs) == len(below) < 40 and max(costs) <= 350e6
    assert "are above the limits" in found["warm_start"]["line"]


def test_a_chain_takes_everything_along(earlier: Path) -> None:
    options = {**SYNTHETIC, "controller": "evolution", "trials": 4}
    search(**options, name="b", warm_start="a", target_flops="400M")
    found = search(**options, name="c", warm_start="b", target_flops="300M")
    reasons = [row["reason"] for row in rows(found) if row["state"] == "earlier"]
    assert len(reasons) == 44
    assert sum(int(reason.split()[1]) >= 40 for reason in reasons) == 4  # b's own


LEARNS = [
    ("evolution", {"population": 20}, 10),
    pytest.param("gp", {}, 2, marks=pytest.mark.slow),
    ("nsga2", {"population": 20}, 10),
    ("predictor", {}, 3),
    ("tpe", {}, 10),
]


@pytest.mark.parametrize(("controller", "options", "trials"), LEARNS)
def test_every_controller_learns_from_it(
    earlier: Path, controller: str, options: dict[str, Any], trials: int
) -> None:
    options = {"controller": controller, "controller_options": options, "trials": trials}
    found = search(**SYNTHETIC, **options, target_flops="500M", warm_start="a", seed=7)
    table = rows(found)
    before = [float(row["reward"]) for row in table if row["state"] == "earlier"]
    after = [float(row["reward"]) for row in table if row["state"] == "done"]
    assert np.mean(after) > np.mean(before) + 0.3 * np.std(before)


def test_nsga2_breeds_from_what_was_taken_over(earlier: Path) -> None:
    options = {"controller": "nsga2", "controller_options": {"population": 20}, "trials": 1}
    found = search(**SYNTHETIC, **options, warm_start="a")
    study, *_ = read_only(Path(found["run"], "journal.log")).get_all_studies()
    parents = study.system_attrs["NSGAIISampler:parent:1"]
    # a fifth of the 40 that were taken over, as populations grow with the trials
    assert len(parents) == 8 and max(parents) < 40


def test_two_objectives_take_over_too(earlier: Path) -> None:
    found = search(**SYNTHETIC, objective="pareto", trials=5, warm_start="a")
    assert found["states"]["earlier"] == 40 and found["front"] >= 1
    assert found["hypervolume"]["search"] > 0


@pytest.mark.parametrize(
    ("controller", "stop"), [("evolution", 0), ("tpe", 1), ("evolution", 6), ("predictor", 6)]
)
def test_interrupted_and_resumed_is_uninterrupted(
    earlier: Path, controller: str, stop: int
) -> None:
    options = {**SYNTHETIC, "controller": controller, "trials": 8, "target_flops": "300M"}
    calm = search(**options, name="calm", warm_start="a")
    asked: list[int] = []

    def interrupted() -> bool:
        asked.append(1)
        return len(asked) > stop

    search(**options, name="broken", warm_start="a", interrupted=interrupted)
    shutil.rmtree("runs/search/a")  # nothing is asked of it any more
    found = search(name="broken", resume=True)
    assert unclocked(found) == unclocked(calm)
    for one, other in zip(rows(found), rows(calm), strict=True):
        assert {**one, "seconds": ""} == {**other, "seconds": ""}


@pytest.mark.parametrize("share", [0.1, 0.5, 0.97])
def test_a_kill_in_the_middle_of_taking_over_changes_nothing(earlier: Path, share: float) -> None:
    options = {**SYNTHETIC, "controller": "evolution", "trials": 3, "target_flops": "300M"}
    calm = search(**options, name="calm", warm_start="a")
    broken = Path(shutil.copytree("runs/search/calm", "runs/search/broken"))
    data = (broken / "journal.log").read_bytes()
    # each trial that is taken over is one line, after the one of the study
    whole = sum(len(line) for line in data.splitlines(keepends=True)[:41])
    (broken / "journal.log").write_bytes(data[: int(share * whole)])
    for name in ("result.json", "trials.csv"):
        (broken / name).unlink()
    assert unclocked(search(name="broken", resume=True)) == unclocked(calm)


def test_a_kill_before_anything_was_kept_asks_the_earlier_run_again(earlier: Path) -> None:
    options = {**SYNTHETIC, "trials": 2, "name": "b"}
    calm = search(**options, warm_start="a")
    for name in (FILE, "journal.log", "result.json"):
        (Path(calm["run"]) / name).unlink()
    assert unclocked(search(**options, warm_start="a", resume=True)) == unclocked(calm)


def test_a_damaged_file_is_one_line(earlier: Path) -> None:
    found = search(**SYNTHETIC, trials=2, name="b", warm_start="a")
    (Path(found["run"]) / FILE).write_text('{"schema": 1, "source": "x"}')
    with pytest.raises(RunError, match=r"warm_start.json is damaged \(KeyError"):
        search(name="b", resume=True)


def test_a_new_target_of_a_finished_search_names_the_way_out(earlier: Path) -> None:
    with pytest.raises(RunError, match="was started with target_flops 500000000") as error:
        search(name="a", resume=True, target_flops="300M", reward="soft")
    command = re.search(r"`(.*)`", str(error.value))
    assert command and "\n" not in str(error.value)
    assert parse(shlex.split(command[1]))["warm_start"] == "runs/search/a"
    given = {"target_flops": "300M", "trials": 2, "warm_start": "a"}
    found = search(**{**run_folder.read_args(Path("runs/search/a")), **given})
    assert found["states"]["earlier"] == 40
    with pytest.raises(RunError, match="resume it with its own settings"):
        search(name="a", resume=True, evaluator_options={"landscape": 3})


REFUSED = {
    "nowhere": ({"warm_start": "nowhere"}, "there is no run .*runs/search/nowhere"),
    "mistyped": ({"warm_start": "surogate"}, "did you mean 'surrogate'"),
    "no search": ({"warm_start": "folder"}, "journal.log, which .*folder lacks"),
    "storage": ({"storage": "sqlite:///x.db"}, "leave one of them out"),
    "controller": (
        {"evaluator_options": {"landscape": 1}, "controller": "tpe"},
        "landscape 0, not 1.*--controller predictor$",
    ),
    "surrogate": (
        {"warm_start": "surrogate", "controller": "tpe"},
        "is a prior, which controller tpe does not take",
    ),
    "itself": (
        {"warm_start": "surrogate", "evaluator": "surrogate", "controller": "believer.py"},
        "would tell the evaluator surrogate what it knows",
    ),
    "space": (
        {"warm_start": "surrogate", "space": "mnasnet", "controller": "believer.py"},
        "space mnasnet has no such block",
    ),
    "other space": ({"space": "mnasnet", "controller": "believer.py"}, "name another run"),
    "nothing": ({"warm_start": "empty"}, "no evaluated trial to begin with"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_tells_nothing_is_refused_before_anything_is_written(
    earlier: Path, believer: Path, case: str
) -> None:
    Path("folder").mkdir()
    Path("folder/args.yaml").write_text("space: mbconv\n")
    empty = Path(shutil.copytree("runs/search/a", "runs/search/empty"))
    lines = (empty / "journal.log").read_bytes().splitlines(keepends=True)
    (empty / "journal.log").write_bytes(lines[0])
    settings, message = REFUSED[case]
    with pytest.raises(OptionError, match=message) as error:
        search(**{**SYNTHETIC, "warm_start": "a", "trials": 2, **settings}, name="b")
    assert "\n" not in str(error.value) and not Path("runs/search/b").exists()


def test_a_running_or_torn_journal_is_only_read(earlier: Path) -> None:
    journal = Path("runs/search/a/journal.log")
    torn = journal.read_bytes()[:-30]
    journal.write_bytes(torn)
    found = search(**SYNTHETIC, trials=2, warm_start="a")
    assert found["states"]["earlier"] == 39 and journal.read_bytes() == torn


def test_other_images_or_a_changed_file_make_it_a_prior(
    earlier: Path, believer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"evaluator": "synthetic", "warm_start": "a", "controller": "believer.py"}
    assert read_source(setup_of(**options))["kind"] == "trials"
    sources = Path("runs/search/a/sources.json")
    sources.write_text(json.dumps({"the data": "other"}))
    assert read_source(setup_of(**options))["reason"] == "other images"
    small = {**SMALL, "controller": "believer.py", "random_search": False}
    search(**small, trials=12, name="own")
    Path("ledger.py").write_text(Path("ledger.py").read_text() + "\n# changed\n")
    found = read_source(setup_of(**small, warm_start="own"))
    assert (found["kind"], found["reason"]) == ("prior", "evaluator ledger.py, not ledger.py")


def test_another_evaluator_makes_it_a_prior_that_reaches_the_controller(
    earlier: Path, believer: Path
) -> None:
    options = {"controller": "believer.py", "trials": 3, "random_search": False}
    found = search(**options, name="b", warm_start="a", evaluator_options={"noise": 0.1})
    assert found["states"].get("earlier", 0) == 0 and found["warm_start"]["taken_over"] == 0
    assert "evaluator synthetic, not surrogate" in found["warm_start"]["line"]
    told = Path("told.txt").read_text().splitlines()
    assert len(told) == 3 and len(set(told[0].split())) > 1
    shutil.rmtree("runs/search/a")
    more = search(name="b", resume=True, trials=5)
    assert more["trials"] == 5
    fresh = Path("told.txt").read_text().splitlines()[3:]
    assert len(fresh) == 2 and not set(fresh) & set(told)


def test_the_prior_of_a_run_ranks_as_its_trials_did(earlier: Path, believer: Path) -> None:
    setup = setup_of(warm_start="a", controller="believer.py")
    data = read_source(setup)
    prior = start(setup, json.loads(json.dumps(data))).prior
    points = [row["choices"] for row in data["trials"]]
    accuracies = [row["metrics"]["accuracy"] for row in data["trials"]]
    assert np.corrcoef(prior(points), accuracies)[0, 1] > 0.8


def test_choices_that_one_space_lacks_are_left_out(shared: Path) -> None:
    wide: Space = registry.export("spaces", "mbconv_small", "SPACE")
    narrow: Space = registry.export("spaces", "mbconv", "SPACE")
    trials = run_folder.read_csv(shared / "search" / "a" / "trials.csv")
    rng = random.Random(0)
    known = [(random_choices(narrow, rng), float(row["accuracy"])) for row in trials]
    prior, line = prior_of_run(wide, narrow.choices, known)
    point = random_choices(wide, rng)
    both = prior([{**point, "width": width} for width in (0.25, 1.0)])
    assert both[0] == both[1] and "without width" in line
    known = [({**choices, "width": 0.5}, accuracy) for choices, accuracy in known]
    prior, _ = prior_of_run(narrow, wide.choices, known)
    assert prior([random_choices(narrow, rng) for _ in range(4)]).shape == (4,)


def test_equal_names_need_equal_options(shared: Path) -> None:
    space: Space = registry.export("spaces", "mbconv", "SPACE")
    with pytest.raises(OptionError, match=r"block1_kernel has \[3, 7\] there"):
        prior_of_run(space, {**space.choices, "block1_kernel": (3, 7)}, [])


def test_the_surrogate_is_asked_for_the_net_with_the_same_choices(folder: Path) -> None:
    rng = random.Random(0)
    space: Space = registry.export("spaces", "mbconv", "SPACE")
    surrogate = registry.make("evaluators", "surrogate", options={})
    small = setup_of(evaluator="synthetic", space="mbconv_small")
    prior, line = surrogate_prior(small)
    points = [random_choices(small.space, rng) for _ in range(5)]
    wanted = [surrogate.evaluate(space.decode(point))["accuracy"] for point in points]
    assert prior(points) == pytest.approx(wanted)
    assert "5,138 trainings" in line and "width ignored" in line


def test_the_surrogate_reaches_the_controller(believer: Path) -> None:
    options = {**SYNTHETIC, "space": "mbconv_small", "controller": "believer.py", "trials": 2}
    found = search(**options, warm_start="surrogate")
    assert found["warm_start"]["source"] == "surrogate"
    believed = Path("told.txt").read_text().split()
    assert all(30 < float(value) < 80 for value in believed)
    none: Prior = no_prior
    assert not none([{}, {}]).any()


def test_the_predictor_goes_on_from_its_prior(folder: Path) -> None:
    options = {**SYNTHETIC, "space": "mbconv_small", "controller": "predictor", "trials": 8}
    calm = search(**options, name="calm", warm_start="surrogate")
    # as many trials as its references are at least half of
    search(**{**options, "trials": 6}, name="broken", warm_start="surrogate")
    assert unclocked(search(name="broken", resume=True, trials=8)) == unclocked(calm)
    cold = search(**options, name="cold")
    assert [row["arch_id"] for row in rows(calm)] != [row["arch_id"] for row in rows(cold)]


def test_ls_plan_and_the_report_tell_of_it(earlier: Path, cli: Cli) -> None:
    found = search(**SYNTHETIC, trials=2, name="b", warm_start="a", target_flops="300M")
    assert f"warm_start={Path('runs/search/a').resolve()}" in cli("ls", "runs").stdout
    assert "taken over: 40 of 40" in report.write(Path(found["run"])).read_text()
    told = plan(evaluator="synthetic", target_flops="300M", warm_start="a", trials=5)
    assert "taken over: 40 of 40" in told["warm_start"]
