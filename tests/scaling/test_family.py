"""The family that is trained: members, their own GPUs, what is on file, what is refused."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import parse, run_here
from digits import TINY

from nas.cli.commands import member as command
from nas.cli.flags import given
from nas.core import registry, run_folder
from nas.core.errors import NasError, OptionError, RunError
from nas.core.processes import expect_error, told_error
from nas.evaluation.evaluate import FATAL
from nas.evaluation.evaluators.member import _fail
from nas.models.build import Model
from nas.reporting import report
from nas.reporting.html import family as pages
from nas.scaling import members
from nas.scaling.member_setup import memory_needed, recipe_options
from nas.scaling.progress import ScalingProgress
from nas.scaling.result import ScaleResult
from nas.scaling.scale import go_on, scale
from nas.scaling.settings import ScaleSettings
from nas.training.recipe import load_recipe
from nas.training.settings import TrainSettings
from nas.training.train import train
from nas.training.weights.sources import Weights, find_weights, save_weights

LOST = """
from nas.core.errors import OptionError

def make():
    raise OptionError("it is not here")
"""
ON_RAY = {"executor": "ray", "accelerator": "auto"}
DIGITS = {"data": "digits", "recipe": "proxy", "epochs": 1, "accelerator": "cpu"}


@pytest.fixture
def place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with tiny.json; one thread, a cache of its own."""
    monkeypatch.setenv("NAS_CACHE", str(folder / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (folder / "tiny.json").write_text(TINY.to_json())
    return folder


class Told(ScalingProgress):
    """A screen that keeps its lines."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self.lines = lines

    def say(self, line: str) -> None:
        self.lines.append(line)


def family(place: Path, **more: Any) -> dict[str, Any]:
    given = {**DIGITS, "train": True, "phi": "0.5,1", "device": "fake", "name": "f", **more}
    return scale(str(place / "tiny.json"), **given)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A family that was trained once, for two epochs, and its result."""
    home = tmp_path_factory.mktemp("family")
    (home / "tiny.json").write_text(TINY.to_json())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAS_CACHE", str(home / "cache"))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.chdir(home)
        yield home, family(home, epochs=2)


def test_every_member_is_a_train_run_with_its_measurements(
    trained: tuple[Path, dict[str, Any]],
) -> None:
    home, result = trained
    assert (result["missing"], result["stopped"]) == ({}, "")
    images = result["trained_on"]["fingerprint"]
    for member in ScaleResult.from_dict(result).members:
        folder = home / result["run"] / member["name"]
        found, theirs = member["training"], run_folder.read_json(folder / "result.json")
        assert found["accuracy"] == theirs["val"]["top1"]
        assert found["test_accuracy"] == theirs["test"]["top1"]
        assert (theirs["flops"], theirs["imgsz"]) == (member["flops"], member["resolution"])
        assert found["memory_estimate"] == memory_needed(member, 64)
        assert run_folder.read_json(folder / "member.json")["fingerprint"] == images
        assert found["latency_ms"] > 0 and found["images_per_second"] > 0
        for name in ("args.yaml", "results.csv", "weights/best.safetensors", "config.json"):
            assert (folder / name).is_file()
    rows = run_folder.read_csv(home / result["run"] / "family.csv")
    assert [row["name"] for row in rows] == ["b0.5", "b1"]
    assert all(float(row["test_accuracy"]) > 0 and row["device"] == "cpu" for row in rows)


def test_a_card_tells_the_place_in_the_family(trained: tuple[Path, dict[str, Any]]) -> None:
    home, result = trained
    card = (home / result["run"] / "b1" / "README.md").read_text()
    assert "Member b1 (φ = 1) of the family of tiny" in card
    assert card.count("## Its family") == 1 and "| test |" in card


def test_families_of_one_base_trained_alike_are_drawn_beside_each_other(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    home, result = trained
    shutil.copytree(home / "runs", tmp_path / "runs")
    place = tmp_path / "runs" / "scale"
    more = {"recipe_options": {"lr": 9}}
    for name, changed in (("wide", {}), ("longer", {"epochs": 9}), ("fast", more)):
        shutil.copytree(place / "f", place / name)
        on = {**result["trained_on"], **changed}
        rule = {"rule": "width", "run": f"runs/scale/{name}", "trained_on": on}
        run_folder.write_json(place / name / "result.json", {**result, **rule})
    (found,) = report.families_beside(place / "f", ScaleResult.from_dict(result))
    assert (found.rule, str(found.run)) == ("width", "runs/scale/wide")
    page = report.write(place / "f").read_text()
    assert "of the same base trained alike: width, runs/scale/wide." in page
    assert '"name":"width"' in page and "Not trained yet" not in page


def test_latencies_of_other_devices_are_not_compared() -> None:
    spot = {"test_accuracy": 50.0, "test_accuracy_std": 1.0, "latency_ms": 3.0}
    steady = SimpleNamespace(**spot, latency_device="cpu", latency_unrest=0.0)
    member = SimpleNamespace(name="b1", flops=9, training=steady)
    family: Any = SimpleNamespace(members=[member])
    assert [s.cost for s in pages._spots(family, "latency_ms", {"cpu"})] == [3.0]
    assert pages._spots(family, "latency_ms", {"cuda"}) == []
    assert [s.cost for s in pages._spots(family, "flops", {"cuda"})] == [9]


def test_members_that_are_one_network_are_trained_once() -> None:
    def row(name: str, dropout: float) -> Any:
        head = replace(TINY.head, dropout=dropout)
        return SimpleNamespace(name=name, arch=replace(TINY, name=name, head=head))

    rows, again = [row("b1", 0.1), row("b2", 0.2)], row("b3", 0.1)
    assert members._twins([*rows, again]) == {"b3": "b1"}


def test_what_is_on_file_is_not_trained_again(trained: tuple[Path, dict[str, Any]]) -> None:
    home, result = trained
    before = {path: path.stat().st_mtime_ns for path in home.glob("runs/scale/f/*/member.json")}
    again = family(home, epochs=2, resume=True)
    assert again["members"] == json.loads(json.dumps(result["members"]))
    assert before == {path: path.stat().st_mtime_ns for path in before}


@pytest.fixture
def copied(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A copy of the trained family's run folder, two folders below the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    shutil.copytree(trained[0] / "runs", tmp_path / "runs")
    return Path("runs") / "scale" / "f"


def test_a_damaged_member_is_measured_again_and_lost_weights_end_in_one_line(
    copied: Path,
) -> None:
    (copied / "b1" / "member.json").write_text('{"schema": 1, "metrics": {"test_accuracy": 9}}')
    (copied / "b0.5" / "member.json").unlink()
    (copied / "b0.5" / "weights" / "best.safetensors").unlink()
    epochs = (copied / "b1" / "results.csv").read_text()
    said = run_here("resume", str(copied), "--json")
    assert said.returncode == 1, said.stderr
    result = json.loads(said.stdout)
    assert list(result["missing"]) == ["b0.5"]
    assert "has lost its weights: delete the folder" in result["missing"]["b0.5"]
    assert "training" in result["members"][1] and "training" not in result["members"][0]
    assert (copied / "b1" / "results.csv").read_text() == epochs
    assert "b1/member.json is damaged: measured again" in said.stderr
    last = said.stderr.splitlines()[-1]
    assert last.startswith("nas: 1 of 2 members are missing (b0.5: ")
    assert last.endswith(f"`nas resume {copied.resolve()}` tries them again")


def test_members_that_were_trained_on_other_images_are_refused(copied: Path) -> None:
    data = run_folder.read_json(copied / "b1" / "data.json")
    run_folder.write_json(copied / "b1" / "data.json", {**data, "fingerprint": "another"})
    with pytest.raises(RunError, match=r"not those that runs/scale/f/b1 was trained on: put"):
        go_on(copied, {})


def test_what_is_trained_is_told_before_a_fatal_error(copied: Path) -> None:
    (copied / "b0.5" / "member.json").unlink()
    (copied / "b0.5" / "args.yaml").unlink()
    (copied / "b0.5" / "args.yaml").mkdir()  # cannot be written, as on a full disk
    (copied / "family.csv").unlink()
    with pytest.raises(RunError, match=r"args\.yaml"):
        go_on(copied, {})
    rows = {row["name"]: row for row in run_folder.read_csv(copied / "family.csv")}
    assert float(rows["b1"]["test_accuracy"]) > 0 and rows["b0.5"]["test_accuracy"] == ""


def test_a_member_that_became_another_network_is_kept_aside(copied: Path) -> None:
    found = run_folder.read_json(copied / "b1" / "member.json")
    assert members.put_aside(copied / "b1", found["arch_id"]) == ""
    assert members.put_aside(copied / "b1", "other") == f"b1-{found['arch_id']}"
    (copied / "b0.5" / "member.json").unlink()  # not finished: arch.json tells
    assert members.put_aside(copied / "b0.5", "other").startswith("b0.5-")
    assert not (copied / "b1").exists() and not (copied / "b0.5").exists()


def test_every_part_of_a_member_on_file_is_needed(trained: tuple[Path, dict[str, Any]]) -> None:
    home, result = trained
    whole = run_folder.read_json(home / result["run"] / "b1" / "member.json")
    assert members._valid(whole)
    assert not any(members._valid({k: v for k, v in whole.items() if k != key}) for key in whole)
    for key in members.METRICS:
        assert not members._valid({**whole, "metrics": {**whole["metrics"], key: "x"}})


def test_a_device_that_cannot_be_used_costs_a_member_no_training(place: Path) -> None:
    (place / "lost.py").write_text(LOST)
    options = {**DIGITS, "latency_on": str(place / "lost.py")}
    evaluator = registry.make("evaluators", "member", options=options)
    with pytest.raises(NasError, match="no latency can be measured: it is not here") as caught:
        evaluator.train(TINY, seed=0, epochs=1, folder=str(place / "one"))
    assert not isinstance(caught.value, FATAL) and not (place / "one").exists()


def test_a_training_that_fails_says_why_in_its_last_words(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {"recipe_options": {"lr": 900}, "device": "cpu", "batch_size": 64, "arch": "tiny.json"}
    given = {k: v for k, v in DIGITS.items() if k != "accelerator"}
    run_folder.write_args(
        place / "bad",
        {**TrainSettings.model_validate({**given, "device": "cpu"}).model_dump(), **more},
    )
    answer = place / "bad" / "error.json"
    expect_error(answer)
    code = command._trained(place / "bad")
    said = capsys.readouterr().err
    assert code == 1 and said.splitlines()[-1].startswith("NasError: the loss is ")
    with pytest.raises(NasError, match=r"^the loss is "):
        _fail(code, told_error(answer), "RuntimeError: of a library")
    with pytest.raises(OptionError, match=r"^no data"):
        _fail(2, OptionError("no data"), "Traceback\nChildFailedError: y\n")
    with pytest.raises(RunError, match="No space left"):
        _fail(2, RunError("cannot write: No space left on device"), "")
    with pytest.raises(NasError) as caught:
        _fail(2, RunError("the folder is damaged"), "")
    assert not isinstance(caught.value, FATAL)
    with pytest.raises(NasError, match=r"exit code 1: ImportError: no torch$"):
        _fail(1, None, "Traceback\nImportError: no torch\n")


def test_a_training_that_was_killed_ends_its_worker_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    killed = []
    monkeypatch.setattr("os.kill", lambda *given: killed.append(given))
    with pytest.raises(NasError, match="exit code -9"):  # not reached where a kill is one
        _fail(-9, None, "")
    assert killed == [(os.getpid(), 9)]


NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="of machines without a GPU")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"data": "nowhere"}, "no data 'nowhere'"),
        ({"member_gpus": {"b9": 2}, "accelerator": "auto"}, "the family has no b9; it has b0.5"),
        ({"member_gpus": {"b1": 0}, "accelerator": "auto"}, "at least 1, not 0"),
        ({"member_gpus": {"b1": 2}}, "needs CUDA devices, not --accelerator cpu"),
        ({**ON_RAY, "member_gpus": {"b1": 3}}, "--member-gpus b1=3: the batch of 64 images"),
        ({**ON_RAY, "gpus_per_trial": 3}, "64 is no multiple of 3; set --batch-size"),
        ({"member_gpus": {"b1": 64}, "accelerator": "auto"}, "b1=64: this machine has"),
        pytest.param({"device": "cuda"}, "--device cuda:0: torch", marks=NO_GPU),
        pytest.param({"accelerator": "cuda"}, "; use --accelerator cpu", marks=NO_GPU),
        ({"recipe_options": {"nope": 1}}, "has no option 'nope'"),
        ({"recipe": "nope"}, "no recipe named 'nope'"),
        ({"device": "nope"}, "no device named 'nope'"),
        ({"train": False, "data": None, "epochs": 3}, "--epochs belongs to --train"),
        ({"train": False, "data": None, "init": "x"}, "--init belongs to --train"),
        ({"init": "nowhere"}, "nowhere"),
        ({"train": False, "data": None, "teacher": "x"}, "--teacher belongs to --train"),
        ({"teacher": "nowhere"}, "no such run"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    place: Path, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError) as caught:
        family(place, **more)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not (place / "runs").exists()


@pytest.fixture
def base(place: Path) -> str:
    """A folder with weights of the tiny arch."""
    torch.manual_seed(0)
    save_weights(place / "base", Weights(Model(TINY).state_dict(), TINY, told="a test"))
    return str(place / "base")


def test_members_start_from_the_grown_weights_of_the_base(place: Path, base: str) -> None:
    told: list[str] = []
    result = family(place, phi="1", init=base, screen=Told(told))
    assert any("from the grown weights of" in line for line in told)
    on = ScaleResult.from_dict(result).trained_on
    assert on and on.init == "a test"
    folder = place / result["run"]
    kept = find_weights(folder / "parent")
    torch.manual_seed(0)
    assert all(torch.equal(kept.tensors[n], t) for n, t in Model(TINY).state_dict().items())
    assert run_folder.read_args(folder / "b1")["init"] == str(folder / "parent")
    shutil.rmtree(base)  # a family depends on no other folder
    (folder / "b1" / "member.json").unlink()
    assert go_on(folder, {})["missing"] == {}


@pytest.mark.slow
def test_members_have_a_teacher(place: Path) -> None:
    run = train(TINY, data="digits", epochs=1, recipe="proxy", tracker=["none"]).run
    result = family(place, phi="1", teacher=str(run))
    folder = place / result["run"]
    on = ScaleResult.from_dict(result).trained_on
    assert on and on.teacher == str(run.resolve())
    told = run_folder.read_json(folder / "b1" / "result.json")["teacher"]
    assert told["source"] == str(run.resolve()) and not told["probed"]


def test_a_base_of_another_skeleton_than_the_weights_is_refused(place: Path, base: str) -> None:
    other = replace(TINY, stages=TINY.stages[:1])
    with pytest.raises(OptionError, match=r"does not fit the skeleton of tiny, .* stages: 1, "):
        scale(other, **DIGITS, train=True, phi="1", init=base)
    assert not (place / "runs" / "scale").exists()


def test_own_gpus_are_given_by_name() -> None:
    words = "nas scale b.json --phi 1 --train --data d --member-gpus b1=2 --member-gpus b2=4"
    typed = parse(words.split())
    chosen = given({k: v for k, v in typed.items() if k in ("train", "data", "member_gpus")}, None)
    assert ScaleSettings.model_validate(chosen).member_gpus == {"b1": 2, "b2": 4}


def test_the_augmentation_grows_with_the_member() -> None:
    drawn = load_recipe("efficientnet", {"policy": "randaugment"})
    found = [recipe_options(phi, drawn).get("magnitude") for phi in (0.0, 5.0, 6.0, 7.0, 9.0)]
    assert found == [9, 17, 22, 28, 30]
    assert recipe_options(7, load_recipe("efficientnet", {})) == {}
