"""Search: one evaluation an arch, limits, budgets, failures, resumption, what is left on disk."""

import csv
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import nas
from nas.core import registry, run_folder
from nas.core.errors import NasError, OptionError, RunError
from nas.searching import feasibility
from nas.searching.objective import pareto_front
from nas.searching.outcome import conclude
from nas.searching.search import search

SYNTHETIC = {"evaluator": "synthetic", "target_flops": "400M"}
SMALL = {"space": "space.py", "evaluator": "ledger.py"}


def ledger(folder: Path) -> list[str]:
    path = folder / "ledger.txt"
    return path.read_text().split() if path.exists() else []


def rows(found: dict[str, Any], name: str = "trials.csv") -> list[dict[str, str]]:
    return run_folder.read_csv(Path(found["run"]) / name)


def without_times(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key not in ("run", "seconds")}


def test_the_result_has_the_keys_that_are_promised(folder: Path) -> None:
    found = search(**SYNTHETIC, trials=12)
    assert {"schema", "run", "best", "trials"} <= set(found)
    assert (found["schema"], found["trials"], found["run"]) == (1, 12, "runs/search/search")
    best = found["best"]
    assert {"arch", "choices", "reward", "metrics"} <= set(best)
    assert {"accuracy", "flops", "params"} <= set(best["metrics"])
    assert isinstance(best["metrics"]["flops"], int) and isinstance(best["metrics"]["params"], int)
    saved = run_folder.read_json(folder / found["run"] / "result.json")
    assert saved == json.loads(json.dumps(found.to_dict()))


def test_the_winner_loads_from_its_file_its_folder_and_its_data(folder: Path) -> None:
    found = search(**SYNTHETIC, trials=12)
    archs = [
        nas.load_arch(source)
        for source in (f"{found['run']}/best/arch.json", found["run"], found["best"]["arch"])
    ]
    assert len({arch.id for arch in archs}) == 1
    metrics = found["best"]["metrics"]
    cost = nas.count(archs[0])
    assert (cost.flops, cost.params) == (metrics["flops"], metrics["params"])
    every = [*rows(found), *rows(found, "random.csv")]
    best = max(float(row["reward"]) for row in every if row["reward"])
    assert found["best"]["posterior"] or found["best"]["reward"] == best


def test_an_arch_is_evaluated_once_whatever_its_choices(folder: Path) -> None:
    found = search(**SMALL, trials=24, controller="random")
    asked = ledger(folder)
    assert len(asked) == len(set(asked))
    assert set(asked) == {row["arch_id"] for row in rows(found) + rows(found, "random.csv")}
    assert found["states"]["duplicate"] > 0
    for row in rows(found):
        if row["state"] == "duplicate":
            first = next(r for r in rows(found) if r["arch_id"] == row["arch_id"])
            assert row["accuracy"] == first["accuracy"]


def test_a_small_space_ends_when_all_of_it_was_proposed(folder: Path) -> None:
    found = search(**SMALL, trials=1000)
    # the space has 36 points and 27 networks: a controller may leave few of them unseen
    assert found["stopped"] in (
        "every point of the space was proposed",
        "2000 proposals in a row were known already or above a limit",
    )
    assert 20 <= found["trials"] <= 27
    assert len(ledger(folder)) == len(set(ledger(folder))) <= 27


BLIND = """
from optuna.samplers import RandomSampler

from nas.searching.samplers import Reseeded

OBJECTIVES = ("reward",)


def make(space, *, seed):
    return Reseeded(space, RandomSampler(seed=seed), seed)
"""


def test_a_hard_limit_rejects_before_the_evaluation(folder: Path) -> None:
    (folder / "blind.py").write_text(BLIND)  # a controller that knows no limits
    found = search(
        space="space.py",
        evaluator="ledger.py",
        controller="blind.py",
        max_params=5000,
        trials=8,
        random_search=False,
    )
    evaluated = [row for row in rows(found) if row["state"] == "done"]
    rejected = [row for row in rows(found) if row["state"] == "rejected"]
    assert evaluated and rejected
    assert all(int(row["params"]) <= 5000 for row in evaluated)
    assert all("params" in row["reason"] and "above the limit" in row["reason"] for row in rejected)
    assert not set(ledger(folder)) & {row["arch_id"] for row in rejected}


@pytest.mark.parametrize("controller", ["evolution", "nsga2", "random", "tpe"])
def test_controllers_propose_within_a_hard_limit(folder: Path, controller: str) -> None:
    options = {"controller": controller, "max_flops": "80M", "trials": 20}
    found = search(evaluator="synthetic", **options)
    assert found["states"]["rejected"] == 0 and found["trials"] == 20
    assert all(int(row["flops"]) <= 80e6 for row in rows(found) + rows(found, "random.csv"))


def test_the_random_baseline_has_the_same_budget_and_shares_the_cache(folder: Path) -> None:
    found = search(**SMALL, trials=15)
    for name in ("trials.csv", "random.csv"):
        assert sum(row["state"] in ("done", "failed") for row in rows(found, name)) == 15
    assert found["random"]["trials"] == 15
    both = {row["arch_id"] for name in ("trials.csv", "random.csv") for row in rows(found, name)}
    assert len(ledger(folder)) == len(both) < 30


def test_without_the_baseline_there_is_none(folder: Path) -> None:
    found = search(**SYNTHETIC, trials=5, random_search=False)
    assert found["random"] is None and not (folder / found["run"] / "random.csv").exists()


def test_the_table_says_what_the_journal_says(folder: Path) -> None:
    found = search(**SYNTHETIC, trials=20, max_flops="500M")
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(f"{found['run']}/journal.log"))
    trials = optuna.load_study(study_name="search", storage=storage).trials
    table = rows(found)
    assert len(table) == len(trials) == found["proposals"]
    for row, trial in zip(table, trials, strict=True):
        assert int(row["number"]) == trial.number
        assert {name: row[name] for name in trial.params} == {
            name: str(value) for name, value in trial.params.items()
        }
        assert row["arch_id"] == trial.user_attrs["arch_id"]
        if row["state"] == "done":
            assert float(row["reward"]) == trial.value
            assert float(row["accuracy"]) == trial.user_attrs["accuracy"]


@pytest.mark.parametrize("flag", ["target_flops", "max_flops", "target_params"])
def test_a_target_out_of_reach_gives_the_range(folder: Path, flag: str) -> None:
    with pytest.raises(OptionError, match=r"reachable are [\d.]+k? to [\d.]+k") as error:
        search(space="space.py", evaluator="ledger.py", **{flag: "1"})
    assert "no arch of space small" in str(error.value)
    assert not (folder / "runs").exists()


def test_a_limit_above_everything_is_no_error(folder: Path) -> None:
    assert search(**SMALL, max_flops="1T", trials=3, random_search=False)["trials"] == 3
    with pytest.raises(OptionError, match="reachable"):
        search(**SMALL, target_flops="1T", trials=3)


def test_the_time_limit_ends_a_search(folder: Path) -> None:
    options = {"sleep": 0.1}
    found = search(**SMALL, evaluator_options=options, time_limit="0.5s", random_search=False)
    assert found["stopped"] == "time limit" and 1 <= found["trials"] <= 6


def test_an_evaluator_that_always_fails_ends_the_search_with_its_reason(folder: Path) -> None:
    with pytest.raises(NasError, match="ValueError: no luck today") as error:
        search(**SMALL, evaluator_options={"fail": "all"}, trials=3)
    assert error.value.exit_code == 1 and "every evaluation failed" in str(error.value)
    with pytest.raises(NasError, match="the last 20 evaluations all failed: ValueError"):
        search(**SYNTHETIC | {"evaluator": "ledger.py"}, evaluator_options={"fail": "all"})


def test_a_search_goes_on_after_failures_and_does_not_repeat_them(folder: Path) -> None:
    found = search(**SMALL, evaluator_options={"fail": "some"}, trials=20, controller="random")
    assert found["states"]["failed"] > 0 and found["best"] is not None
    assert found["trials"] == found["states"]["done"] + found["states"]["failed"] == 20
    failed = [row for row in rows(found) if row["state"] == "failed"]
    assert {row["reason"] for row in failed} == {"ValueError: no luck today"}
    assert all(row["reward"] == "" and int(row["flops"]) > 0 for row in failed)
    own = [row["arch_id"] for row in rows(found) if row["state"] in ("done", "failed")]
    assert len(own) == len(set(own))


def test_a_mended_evaluator_can_go_on_with_the_search(folder: Path) -> None:
    broken = {**SYNTHETIC, "evaluator": "ledger.py", "random_search": False, "trials": 60}
    text = (folder / "ledger.py").read_text()
    assert 'if self.fail == "all"' in text
    text = text.replace('if self.fail == "all"', 'if os.path.exists("bad") or self.fail == "all"')
    (folder / "ledger.py").write_text(text)
    (folder / "bad").touch()
    with pytest.raises(NasError, match="the last 20"):
        search(**broken)
    (folder / "bad").unlink()
    found = search(**broken, resume=True)
    assert (found["states"]["failed"], found["states"]["done"]) == (20, 40)


def test_decode_failing_on_few_points_rejects_these(folder: Path) -> None:
    # a point that the checks before a search do not try
    space = registry.export("spaces", "space.py", "SPACE")
    tried = [tuple(choices.values()) for choices in feasibility._probes(space)]
    missed = set(itertools.product(*space.choices.values())) - set(tried)
    rare = f"""def decode(choices):
    if tuple(choices.values()) in {missed}:
        return {{}}["gone"]
"""
    text = (folder / "space.py").read_text().replace("def decode(choices):\n", rare)
    (folder / "rare.py").write_text(text)
    settings = {"space": "rare.py", "evaluator": "ledger.py", "controller": "random"}
    found = search(**settings, trials=12)
    reasons = [row["reason"] for row in rows(found) if row["state"] == "rejected"]
    assert found["trials"] == 12
    assert reasons and all("KeyError: 'gone'" in reason for reason in reasons)


def test_one_seed_one_search(folder: Path) -> None:
    first, same, other = (search(**SYNTHETIC, trials=30, seed=seed) for seed in (1, 1, 2))
    assert without_times(first) == without_times(same)
    assert first["best"] != other["best"]
    assert [Path(f["run"]).name for f in (first, same, other)] == ["search", "search2", "search3"]


@pytest.mark.parametrize("stop", [0, 1, 7, 40, 59])
def test_interrupted_and_resumed_is_uninterrupted(folder: Path, stop: int) -> None:
    calm = search(**SYNTHETIC, trials=30, name="calm")
    asked = []

    def interrupted() -> bool:
        asked.append(1)
        return len(asked) > stop

    broken = search(**SYNTHETIC, trials=30, name="broken", interrupted=interrupted)
    assert broken["stopped"] == "interrupted"
    found = search(**SYNTHETIC, trials=30, name="broken", resume=True)
    assert without_times(found) == without_times(calm)
    for name in ("trials.csv", "random.csv"):
        shown = [
            [{k: v for k, v in r.items() if k != "seconds"} for r in rows(f, name)]
            for f in (calm, found)
        ]
        assert shown[0] == shown[1]


def test_resuming_a_finished_search_evaluates_nothing(folder: Path) -> None:
    first = search(**SMALL, trials=10)
    asked = ledger(folder)
    again = search(**SMALL, trials=10, resume=True)
    assert again == first and ledger(folder) == asked


def test_more_trials_go_on_with_the_same_search(folder: Path) -> None:
    search(**SMALL, trials=8)
    more = search(**SMALL, trials=14, resume=True)
    assert (more["trials"], more["run"]) == (14, "runs/search/search")
    assert len(ledger(folder)) == len(set(ledger(folder)))  # what the baseline saw is known too
    fresh = search(**SMALL, trials=14, name="fresh")
    assert more["best"] == fresh["best"]
    assert run_folder.read_args(folder / more["run"])["trials"] == 14


def test_resuming_with_other_settings_is_refused(folder: Path) -> None:
    search(**SYNTHETIC, trials=3, name="mine")
    with pytest.raises(RunError, match="was started with seed 0, not 1"):
        search(**SYNTHETIC, trials=3, name="mine", resume=True, seed=1)
    other = search(**SYNTHETIC, trials=3, resume=True, seed=1)
    assert other["run"] == "runs/search/search"


def test_resume_takes_the_run_of_these_settings_and_survives_foreign_damage(folder: Path) -> None:
    search(**SYNTHETIC, trials=3, name="a")
    search(**SYNTHETIC, trials=3, name="b", seed=5)
    (folder / "runs/search/broken").mkdir()
    (folder / "runs/search/broken/args.yaml").write_text("a: [")
    assert search(**SYNTHETIC, trials=4, resume=True)["run"] == "runs/search/a"
    with pytest.raises(RunError, match="not YAML"):
        search(**SYNTHETIC, trials=4, resume=True, name="broken")


def test_the_folder_holds_what_the_conventions_say(folder: Path) -> None:
    found = nas.search(**SYNTHETIC, trials=5)
    names = {path.name for path in (folder / found["run"]).iterdir()}
    assert {
        "args.yaml",
        "env.json",
        "journal.log",
        "trials.csv",
        "pareto.csv",
        "result.json",
        "best",
        "report.html",
    } <= names
    args = run_folder.read_args(folder / found["run"])
    assert (args["target_flops"], args["seed"]) == (400_000_000, 0)
    assert "nas scale runs/search/search" in (folder / found["run"] / "best/README.md").read_text()


def test_settings_are_read_back_from_a_runs_arguments(folder: Path) -> None:
    first = search(**SYNTHETIC, trials=5, time_limit="20m", w=-0.5)
    args = run_folder.read_args(folder / first["run"])
    assert without_times(search(**args)) == without_times(first)


def test_pareto_gives_the_front_of_its_trials(folder: Path) -> None:
    found = search(evaluator="synthetic", objective="pareto", trials=60)
    assert found["controller"] == "predictor" and found["pareto"] == "flops"
    points = [(float(r["accuracy"]), -float(r["flops"])) for r in rows(found)]
    front = rows(found, "pareto.csv")
    assert [int(r["number"]) for r in front] == pareto_front(points)
    assert found["front"] == len(front)
    assert 0 < found["hypervolume"]["search"] <= 1
    with (folder / found["run"] / "pareto.csv").open() as file:
        assert next(csv.reader(file)) == ["number", "accuracy", "flops", "arch_id"]


def test_references_are_the_first_trials_and_rows_of_the_result(folder: Path) -> None:
    found = search(**SYNTHETIC, trials=6)
    assert [row["name"] for row in found["references"]] == ["efficientnet_b0", "deepest", "late"]
    assert found["references"][0]["metrics"]["params"] == 5_288_548
    first = [row["arch_id"] for row in rows(found)[:3]]
    assert first == [row["arch_id"] for row in found["references"]]
    assert found["references_counted"] == [] and found["trials"] == 6
    beaten = {gain["over"] for gain in found["gains"]}
    others = {"search", "random search", *(row["name"] for row in found["references"])}
    assert beaten == others - {found["best"]["label"], found["best"]["origin"]}


def test_a_reference_above_the_target_is_counted_and_not_evaluated(folder: Path) -> None:
    found = search(evaluator="synthetic", target_flops="100M", trials=8)
    counted = {row["name"]: row for row in found["references_counted"]}
    assert "above the target" in counted["efficientnet_b0"]["reason"]
    assert counted["efficientnet_b0"]["metrics"]["params"] == 5_288_548
    assert "accuracy" not in counted["efficientnet_b0"]["metrics"]
    ids = {row["arch_id"] for row in rows(found)}
    assert not ids & {row["arch_id"] for row in counted.values()}


@pytest.mark.parametrize(("trials", "first"), [(1, 1), (2, 1), (3, 2), (5, 3), (8, 3)])
def test_references_are_at_most_half_of_few_trials(folder: Path, trials: int, first: int) -> None:
    found = search(**SYNTHETIC, trials=trials, random_search=False)
    assert len(found["references"]) == first and found["trials"] == trials


def test_a_gain_below_two_standard_deviations_is_noise() -> None:
    def gain(mine: float, other: float, sd: float) -> dict[str, float | bool]:
        metrics = ({"accuracy": a, "accuracy_std": sd} for a in (mine, other))
        return conclude.compare(*metrics)

    assert gain(70, 69.5, 0.3)["within_noise"] is True
    assert gain(70, 69.0, 0.3)["within_noise"] is False
    assert gain(70, 69.0, 0.3)["accuracy_std"] == pytest.approx(0.3 * 2**0.5)
    unknown = conclude.compare({"accuracy": 2.0}, {"accuracy": 1.0})
    assert unknown["within_noise"] is None and unknown["accuracy_std"] is None


def test_workers_find_the_same_archs_good(folder: Path) -> None:
    alone = search(**SMALL, trials=20, controller="random", random_search=False)
    pair = search(**SMALL, trials=20, controller="random", random_search=False, workers=2)
    scores = [{r["arch_id"]: r["reward"] for r in rows(f) if r["reward"]} for f in (alone, pair)]
    assert pair["trials"] == 20
    assert all(scores[0][i] == scores[1][i] for i in set(scores[0]) & set(scores[1]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_latency": "2ms", "evaluator": "surrogate"}, "needs a --device"),
        ({"target_latency": "2ms"}, "needs a --device to say whose latency: cpu"),
        ({"w": -0.07, "target_flops": None}, "--w shapes the reward around a target"),
        ({"objective": "pareto", "w": -0.07}, "--w has no effect"),
        ({"objective": "pareto", "target_params": "5M"}, "give one target"),
        (
            {"objective": "pareto", "controller": "evolution"},
            "use one of gp, nsga2, predictor, random, tpe",
        ),
        ({"objective": "front"}, "--objective takes reward or pareto"),
        ({"device": "a100"}, "--device of evaluator synthetic takes one of cpu"),
        ({"pruner": "halving"}, "--pruner belongs to trainings: give --data"),
        ({"recipe": "proxy"}, "--recipe belongs to trainings, and synthetic trains nothing"),
        ({"data": "digits"}, "--data belongs to trainings, and synthetic trains nothing"),
        ({"executor": "slurm"}, "no executor named 'slurm'"),
        ({"trials": 0}, "--trials takes a whole number of at least 1"),
        ({"trials": "many"}, "--trials takes a whole number"),
        ({"workers": 0}, "--workers takes"),
        ({"seed": -1}, "--seed takes"),
        ({"space": 5}, "--space takes a word"),
        ({"random_search": "perhaps"}, "--random-search takes true or false"),
        ({"controller_options": [1]}, "--controller-option takes a mapping"),
        ({"target_flop": 5}, "no setting 'target_flop' \\(did you mean 'target_flops'\\?\\)"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(
    folder: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        search(**{**SYNTHETIC, **settings})
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("(16, 24, 32)", "(16, 0)", "channels must be a whole number of at least 1, not 0"),
        ("stride=2, expansion", "stride=64, expansion", "shrinks below one pixel"),
        ('choices["channels"]', 'choices["width"]', "decode fails on .*KeyError: 'width'"),
        ("return Arch", "Arch", "decode gives no Arch .* but NoneType"),
        ("SPACE = Space", "PLACE = Space", "does not define SPACE"),
        ("SPACE = Space(", "SPACE = dict(a=1) or (", "must be a nas.interfaces.Space, not dict"),
        ('"layers": (1, 2)', '"layers": ()', "needs at least one choice, each with an option"),
        ('"layers": (1, 2)', '"layers": ((1, 2),)', "layers has the option"),
        ('"layers": (1, 2)', '"layers": (1, 1)', "layers has an option twice"),
    ],
)
def test_a_users_space_that_is_no_space_is_refused(
    folder: Path, old: str, new: str, message: str
) -> None:
    text = (folder / "space.py").read_text()
    assert old in text
    (folder / "bad.py").write_text(text.replace(old, new))
    with pytest.raises(OptionError, match=message) as error:
        search(space="bad.py", evaluator="ledger.py")
    assert "\n" not in str(error.value)
    assert not (folder / "runs").exists()


def test_workers_do_not_run_the_script_that_searches(folder: Path) -> None:
    script = "import nas\nnas.search(evaluator='synthetic', trials=4, workers=2)\n"
    (folder / "script.py").write_text(script)
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list((folder / "runs" / "search").iterdir())) == 1
