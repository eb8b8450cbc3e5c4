"""The result of a search: what --json prints, for scripts and for notebooks."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

import nas
from nas.core.run_folder import read_json
from nas.models.arch import Arch
from nas.searching.result import BestArch, SearchResult

Cli = Callable[..., CompletedProcess[str]]
# the keys that `nas search --json` has had since schema 1, in their order
KEYS = [
    *("schema", "run", "space", "controller", "warm_start", "evaluator", "objective", "reward"),
    *("pareto", "targets", "limits", "trials", "proposals", "states", "seconds", "retries"),
    *("training_flops", "fleet", "stopped", "ends", "met", "data", "best", "verdict", "weights"),
    *("observed_best", "leaders", "search", "references", "references_counted", "random", "gains"),
    *("finals", "finals_length", "front", "hypervolume", "parent"),
]
ENTRY = ["name", "number", "state", "reward", "metrics", "posterior", "choices", "arch", "arch_id"]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    folder = tmp_path_factory.mktemp("search")
    return nas.search(evaluator="synthetic", target_flops="400M", trials=12, project=folder)


def test_the_keys_of_the_json_are_those_of_schema_1(found: SearchResult) -> None:
    told = found.to_dict()
    assert list(told) == KEYS
    assert list(told["best"]) == [*ENTRY, "origin", "label"]
    assert list(told["leaders"][0]) == [*ENTRY, "reference"]
    assert list(told["references"][0]) == ENTRY == list(told["search"])
    assert list(told["random"]) == [*ENTRY, "trials", "training_flops"]
    assert list(told["gains"][0]) == ["over", "reward", "accuracy", "accuracy_std", "within_noise"]
    assert list(told["best"]["posterior"]) == ["accuracy", "accuracy_std", "reward"]
    assert found.best and told["best"]["arch"] == found.best.arch.to_dict()


def test_the_file_the_json_and_the_result_are_one(found: SearchResult, cli: Cli) -> None:
    settings = ("--evaluator", "synthetic", "--target-flops", "400M", "--trials", "12")
    printed = json.loads(cli("search", *settings, "--quiet", "--json").stdout)
    again = read_json(Path(printed["run"]) / "result.json")
    assert json.dumps(printed) == json.dumps(SearchResult.from_dict(again).to_dict())
    same = {k for k in KEYS if k not in ("run", "seconds")}
    assert {k: printed[k] for k in same} == {k: found.to_dict()[k] for k in same}
    kept = read_json(found.run / "result.json")
    assert json.dumps(found.to_dict()) == json.dumps({k: kept[k] for k in found})
    assert json.dumps(SearchResult.from_dict(kept).to_dict()) == json.dumps(found.to_dict())


def test_attributes_tell_what_was_found(found: SearchResult) -> None:
    assert isinstance(found.best, BestArch) and isinstance(found.best.arch, Arch)
    assert found.best.arch.id == found.best.arch_id and found.met and not found.stopped
    assert found.baseline is found.random and found.random and found.random.trials == 12
    ids = [each.arch_id for each in found.leaderboard]
    assert ids[: len(found.leaders)] == [each.arch_id for each in found.leaders]
    assert len(set(ids)) >= len(ids) - 1 and found.leaderboard[-1] is found.random
    assert found["best"]["metrics"]["accuracy"] == found.best.metrics["accuracy"]


def test_it_shows_in_a_line_and_in_a_notebook(found: SearchResult) -> None:
    assert repr(found).startswith("SearchResult(space='mbconv', trials=12, best=BestArch(name=")
    assert "\n" not in repr(found) and len(repr(found)) < 400
    page = found._repr_html_()
    assert found.best and page.count(found.best.arch_id) >= 2 and "random search" in page


def test_a_search_that_has_evaluated_nothing_says_so(found: SearchResult) -> None:
    empty = dataclasses.replace(found, winner=None)
    assert empty.to_dict()["best"] is None
    with pytest.raises(nas.NasError, match="has evaluated no arch yet"):
        _ = empty.best
