"""How well short trainings rank: the judgement, the sampling, and real trainings on digits."""

import dataclasses
import json
import math
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SPACE
from rich.console import Console

from nas.core import registry, run_folder
from nas.core.errors import NasError, OptionError, RunError
from nas.data import splits
from nas.data.dataset import Dataset
from nas.data.loader import open_data
from nas.models.cost import count
from nas.reporting.terminal.proxy import show_proxy_check
from nas.searching.fidelity import study
from nas.searching.fidelity.proxies import (
    BudgetTrainings,
    ProxyBudget,
    default_budgets,
    parse_budget,
    rank_budgets,
)
from nas.searching.fidelity.proxy_check import INTERRUPTED, proxy_check
from nas.searching.fidelity.result import ProxyCheckResult
from nas.searching.fidelity.sampled import spread_archs
from nas.searching.fidelity.settings import ProxySettings
from nas.searching.fidelity.study import open_study
from nas.training.auto import Situation, resolve_recipe
from nas.training.loop import fit
from nas.training.state import Job

LONG = ProxyBudget(16, 1.0, 32)

# ------------------------------------------------------------------------------- the judgement


def trained(
    budget: ProxyBudget, truth: np.ndarray, noise: float, seed: int, seeds: int = 2
) -> BudgetTrainings:
    rng = np.random.default_rng(seed)
    accuracies = truth[:, None] + noise * rng.normal(size=(len(truth), seeds))
    return BudgetTrainings(budget, accuracies, float(budget.epochs), 1e9 * budget.epochs)


def judged(n: int, noises: dict[int, float], *, long: float = 0.05, **more: Any) -> dict[str, Any]:
    truth = np.random.default_rng(0).normal(size=n)
    shorts = [trained(LONG._replace(epochs=e), truth, s, e) for e, s in noises.items()]
    flops = more.pop("flops", np.random.default_rng(1).permutation(n))
    return rank_budgets(
        shorts, trained(LONG, truth, long, 99), list(flops), more.pop("threshold", 0.5)
    )


def test_the_cheapest_budget_that_ranks_well_is_chosen() -> None:
    found = judged(20, {1: 5.0, 4: 0.2, 8: 0.1})
    assert [row["enough"] for row in found["budgets"]] == ["no", "yes", "yes"]
    assert found["chosen"] == found["budgets"][1]
    assert found["chosen"]["budget"] == "4:1:32"
    assert found["chosen"]["share_of_long"] == 0.25
    assert found["chosen"]["tau"]["low"] >= 0.5
    assert found["chosen"]["accuracy_std"] == pytest.approx(0.2, rel=0.3)
    assert "4:1:32 is the cheapest budget" in found["verdict"]
    assert found["n"] == 20
    assert not found["warnings"]


def test_nothing_is_chosen_where_nothing_ranks() -> None:
    bad = judged(20, {1: 9.0, 2: 9.0})
    assert bad["chosen"] is None
    assert "no budget ranks well enough" in bad["verdict"]
    open_ended = judged(8, {2: 0.6}, threshold=0.6)
    assert open_ended["budgets"][0]["enough"] == "unclear"
    assert "archs would show it" in open_ended["verdict"]


def test_a_ranking_of_too_few_archs_is_no_ranking() -> None:
    for n in (0, 1, 2, 5):
        found = judged(n, {4: 0.0}, long=0.0)
        assert found["chosen"] is None
        assert "too few archs" in found["verdict"]
        json.dumps(found, allow_nan=False)


def test_a_long_training_that_disagrees_with_itself_judges_nothing() -> None:
    found = judged(12, {4: 0.1}, long=8.0)
    assert found["chosen"] is None
    assert {row["enough"] for row in found["budgets"]} == {"unclear"}
    assert "does not rank these archs itself" in found["verdict"]


def test_a_budget_as_good_as_a_second_long_training_is_enough() -> None:
    found = judged(40, {4: 0.2}, long=0.7, threshold=0.9)
    noise, row = found["long"]["self"], found["budgets"][0]
    assert 0 < noise["low"] <= row["tau_to_one"]["low"] < 0.9
    assert row["tau"]["low"] < 0.9
    assert row["enough"] == "yes"
    assert "as a second long training has it" in found["verdict"]


def test_it_says_when_flops_alone_rank_as_well() -> None:
    truth = np.random.default_rng(0).normal(size=20)
    found = judged(20, {4: 0.5}, flops=np.argsort(np.argsort(truth)))
    assert "counting FLOPs ranks these archs as well" in found["warnings"][0]


def test_one_seed_has_no_seed_against_seed() -> None:
    truth = np.arange(12.0)
    shorts = [trained(LONG._replace(epochs=2), truth, 0.1, 0, seeds=1)]
    found = rank_budgets(shorts, trained(LONG, truth, 0.1, 1, seeds=1), list(truth), 0.5)
    assert found["long"]["self"] is None
    assert found["long"]["accuracy_std"] is None
    assert found["chosen"]["budget"] == "2:1:32"


# ------------------------------------------------------------------------ budgets and settings


def test_budgets_are_read_as_written() -> None:
    assert parse_budget("4", 32) == (4, 1.0, 32)
    assert parse_budget(4, 64) == (4, 1.0, 64)
    assert parse_budget("8:0.5", 32) == (8, 0.5, 32)
    assert parse_budget("8:0.25:48", 64) == (8, 0.25, 48)
    assert parse_budget(str(ProxyBudget(8, 0.25, 48)), 64) == (8, 0.25, 48)
    assert [b.epochs for b in default_budgets(LONG)] == [2, 4, 8]
    assert default_budgets(LONG._replace(epochs=1)) == []


@pytest.mark.parametrize("text", ["", "x", "0", "1.5", "-1", "4:0", "4:1.1", "4:1:16", "4:1:32:1"])
def test_a_malformed_budget_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="--budget"):
        parse_budget(text, 32)


def test_settings_take_text_and_numbers() -> None:
    found = ProxySettings.model_validate(
        {"data": "digits", "archs": "12", "fraction": "0.5", "max_flops": "20M", "budget": [2]}
    )
    assert (found.archs, found.fraction, found.max_flops) == (12, 0.5, 20_000_000)
    assert found.budget == ["2"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "needs --data"),
        ({"data": "x", "arch": 3}, "did you mean 'archs'"),
        ({"data": "x", "archs": 1}, "--archs takes a whole number of at least 2"),
        ({"data": "x", "archs": True}, "--archs"),
        ({"data": "x", "seeds": "two"}, "--seeds"),
        ({"data": "x", "imgsz": 28}, "--imgsz .* at least 32"),
        ({"data": "x", "fraction": 0}, "--fraction"),
        ({"data": "x", "threshold": "nan"}, "--threshold"),
        ({"data": "x", "budget": "4"}, "--budget takes a list"),
        ({"data": "x", "min_flops": "2M", "max_flops": "1M"}, "no arch is left"),
        ({"data": 3}, "--data takes a word"),
    ],
)
def test_a_wrong_setting_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        ProxySettings.model_validate(given)


# -------------------------------------------------------------------------------- the sampling


def test_archs_are_spread_over_flops() -> None:
    space = registry.export("spaces", "mbconv_small", "SPACE")
    found = spread_archs(space, 8, seed=1, least=2e6, most=2e7)
    flops = [each.flops for each in found]
    assert flops == sorted(flops)
    assert 2e6 <= flops[0] < 5e6 < 1.5e7 < flops[-1] <= 2e7
    assert len({each.arch.id for each in found}) == 8
    assert all(space.decode(each.choices) == each.arch for each in found)
    assert all(count(each.arch).flops == each.flops for each in found)


def test_a_range_that_random_archs_hardly_meet_is_filled_by_mutation() -> None:
    space = registry.export("spaces", "mbconv_small", "SPACE")
    found = spread_archs(space, 4, seed=0, least=1.4e6, most=1.6e6)
    assert len({each.arch.id for each in found}) == 4
    assert all(1.4e6 <= each.flops <= 1.6e6 for each in found)


def test_archs_are_seeded_and_all_different(folder: Path) -> None:
    space = registry.export("spaces", "space.py", "SPACE")
    first, again, other = (
        spread_archs(space, 5, seed=seed, least=0, most=math.inf) for seed in (1, 1, 2)
    )
    assert first == again != other
    # 36 points of the space are 27 networks
    assert len({each.arch.id for each in spread_archs(space, 27, seed=0, least=0, most=1e9)}) == 27
    with pytest.raises(OptionError, match="only 27 different archs"):
        spread_archs(space, 28, seed=0, least=0, most=math.inf)


def test_archs_are_of_about_the_size_that_is_searched_for(folder: Path) -> None:
    for given, middle in (({"target_flops": "300k"}, 300e3), ({}, None)):
        study = open_study(
            ProxySettings.model_validate({**GIVEN, "data": "digits", "min_flops": None, **given})
        )
        sizes = [each.flops for each in study.candidates]
        assert max(sizes) / min(sizes) <= 1.1 / 0.9
        assert middle is None or all(0.9 * middle <= size <= 1.1 * middle for size in sizes)
        assert any("--target-flops" in note for note in study.notes) == (not given)


# ------------------------------------------------------------------------------ real trainings

GIVEN: dict[str, Any] = {
    "space": "space.py",
    "archs": 2,
    "min_flops": "1",
    "budget": ["1:0.5"],
    "long_epochs": 2,
    "fraction": 0.1,
    "device": "cpu",
}


@pytest.fixture(scope="module", autouse=True)
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Train on one thread, and keep the user's cache out of it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[str]]:
    """A folder with a check that was never interrupted, its result, and what it said."""
    folder, said = tmp_path_factory.mktemp("whole"), []
    (folder / "space.py").write_text(SPACE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = proxy_check("digits", say=said.append, **GIVEN)
    return folder, result, said


def rows_of(folder: Path, name: str = "proxy-check") -> list[dict[str, str]]:
    return run_folder.read_csv(folder / "runs/proxy-check" / name / "trainings.csv")


def without_times(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_every_training_is_a_row_with_its_own_seed(
    whole: tuple[Path, dict[str, Any], list[str]],
) -> None:
    folder, result, said = whole
    rows = rows_of(folder)
    assert [row["budget"] for row in rows] == 2 * (2 * ["1:0.5:32"] + 2 * ["2:1:32"])
    assert [row["seed"] for row in rows] == 2 * ["0", "1", "2", "3"]
    assert all(0 <= float(row["accuracy"]) <= 100 and row["error"] == "" for row in rows)
    assert result["trainings"] == len(rows) == 8
    assert sum("8/8" in line for line in said) == 1
    assert not (folder / "runs/proxy-check/proxy-check/training").exists()


def test_the_result_tells_the_costs_and_is_json(
    whole: tuple[Path, dict[str, Any], list[str]],
) -> None:
    folder, result, _ = whole
    text = json.dumps(result, allow_nan=False)
    assert json.loads(text) == run_folder.read_json(folder / result["run"] / "result.json")
    (short,), long = result["budgets"], result["long"]
    # 144 of digits' 1,151 training images carved out, a tenth, half of it
    images = {share: long_images(share) for share in (0.05, 0.1)}
    mean = np.mean([arch["flops"] for arch in result["archs"]])
    assert short["training_flops"] == pytest.approx(3 * mean * images[0.05])
    assert long["training_flops"] == pytest.approx(3 * mean * images[0.1] * 2)
    assert short["seconds"] > 0
    assert result["chosen"] is None
    assert "too few archs: of 2" in result["verdict"]


def long_images(share: float) -> int:
    dataset = registry.load("datasets", "digits").read("digits", download=False)
    return len(splits.fraction(splits.make_splits(dataset).splits["train"], share, 0))


def test_a_row_is_what_fit_gives(whole: tuple[Path, dict[str, Any], list[str]]) -> None:
    folder, result, _ = whole
    row = rows_of(folder)[2]
    space = registry.export("spaces", str(folder / "space.py"), "SPACE")
    arch = space.decode(result["archs"][0]["choices"])
    assert arch.id == row["arch_id"]
    dataset = registry.load("datasets", "digits").read("digits", download=False)
    data = open_data(splits.make_splits(dataset), imgsz=32, fraction=0.1, cache=False)
    assert data.gray
    made = resolve_recipe("auto", {}, Situation(long_images(0.1), 10, 32, gray=True, epochs=2))
    job = Job(arch, made.recipe, 2, made.amount.batch, seed=int(row["seed"]))
    epochs = fit(job, data, folder / "again")
    assert float(row["accuracy"]) == epochs[-1]["val_top1"]


def test_it_is_shown(whole: tuple[Path, dict[str, Any], list[str]]) -> None:
    text = StringIO()
    show_proxy_check(ProxyCheckResult.from_dict(whole[1]), Console(file=text, width=200))
    for part in ("2 archs of small on digits", "2:1:32 (long)", "too few archs", "trainings.csv"):
        assert part in text.getvalue()
    more = {"chosen": {**whole[1]["budgets"][0], "imgsz": 48}}
    chosen = ProxyCheckResult.from_dict({**whole[1], **more})
    show_proxy_check(chosen, Console(file=text, width=200))
    command = "nas search --data digits --space small --epochs 1 --fraction 0.05 --train-imgsz 48"
    assert command in text.getvalue()


@pytest.mark.parametrize("calls", [1, 3, 7])
def test_an_interrupted_check_goes_on_to_the_same_rows(
    folder: Path, whole: tuple[Path, dict[str, Any], list[str]], calls: int
) -> None:
    asked = iter(range(1000))
    first = proxy_check("digits", interrupted=lambda: next(asked) >= calls, **GIVEN)
    assert first["stopped"] == INTERRUPTED
    before = rows_of(folder)
    assert len(before) == first["trainings"] < 8
    second = proxy_check("digits", resume=True, **GIVEN)
    assert second["run"] == first["run"]
    assert rows_of(folder)[: len(before)] == before
    assert without_times(rows_of(folder)) == without_times(rows_of(whole[0]))
    assert second["archs"] == whole[1]["archs"]


def test_a_finished_check_trains_nothing_again(
    whole: tuple[Path, dict[str, Any], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, result, _ = whole
    monkeypatch.chdir(folder)

    def no(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(study, "fit", no)
    assert proxy_check("digits", resume=True, **GIVEN) == result


def test_the_test_split_is_never_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def poisoned(dataset: Dataset) -> Dataset:
        def read(i: int) -> bytes:
            raise AssertionError("the test split was read")

        parts = dict(splits.make_splits(dataset).splits)
        parts["test"] = dataclasses.replace(parts["test"], read=read)
        return dataclasses.replace(dataset, splits=parts)

    monkeypatch.setattr(study, "make_splits", poisoned)
    proxy_check("digits", **{**GIVEN, "seeds": 1})


def test_an_arch_that_fails_is_left_out_and_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken: list[str] = []

    def fragile(job: Job, *given: Any, **more: Any) -> Any:
        if broken in ([], [job.arch.id]):
            broken[:] = [job.arch.id]
            raise NasError("the loss is nan in epoch 1")
        return fit(job, *given, **more)

    monkeypatch.setattr(study, "fit", fragile)
    given = {**GIVEN, "archs": 3, "seeds": 1}
    found = proxy_check("digits", **given)
    assert found["n"] == 2
    assert {row["arch_id"] for row in found["failed"]} == set(broken)
    assert "nan" in found["failed"][0]["error"]
    json.dumps(found, allow_nan=False)
    monkeypatch.setattr(study, "fit", None)
    assert proxy_check("digits", resume=True, **given)["failed"] == found["failed"]


def test_a_check_of_nothing_but_failures_fails(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverging(*_: Any, **__: Any) -> None:
        raise NasError("the loss is inf")

    monkeypatch.setattr(study, "fit", diverging)
    with pytest.raises(NasError, match="no arch came through all its trainings: the loss is inf"):
        proxy_check("digits", **GIVEN)
    assert {row["error"] for row in rows_of(folder)} == {"the loss is inf"}


def test_a_run_of_other_settings_or_with_damage_is_not_gone_on_with(folder: Path) -> None:
    one = {**GIVEN, "seeds": 1}
    proxy_check("digits", **one)
    with pytest.raises(RunError, match="was started with seeds 1, not 2"):
        proxy_check("digits", resume=True, name="proxy-check", **GIVEN)
    path = folder / "runs/proxy-check/proxy-check/trainings.csv"
    path.write_text(path.read_text().replace("1:0.5:32,0,", "1:0.5:32,zero,"))
    with pytest.raises(RunError, match="row 1 is damaged"):
        proxy_check("digits", resume=True, **one)
    text = SPACE.replace("Head(32,", "Head(48,")
    path.write_text(path.read_text().replace("1:0.5:32,zero,", "1:0.5:32,0,"))
    (folder / "space.py").write_text(text)
    with pytest.raises(RunError, match="the space or the data has changed"):
        proxy_check("digits", resume=True, **one)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"budget": ["2"]}, "differ from each other and from the long one"),
        ({"budget": ["1", "1:1.0"]}, "differ from each other"),
        ({"budget": [], "long_epochs": 1}, "take more --long-epochs"),
        ({"space": "mbcov"}, "did you mean"),
        ({"recipe": "proxi"}, "did you mean 'proxy'"),
        ({"max_flops": 1000}, "only 0 different archs"),
    ],
)
def test_what_cannot_be_checked_is_refused_before_a_run_is_made(
    folder: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        proxy_check("digits", **{**GIVEN, **given})
    assert not (folder / "runs").exists()
