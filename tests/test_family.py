"""The family that is trained: members, their own GPUs, what is on file, what is refused."""

import importlib.util
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli, Nodes, parse
from digits import TINY

from nas import catalog, members, report, run
from nas.errors import OptionError
from nas.executors.local import _share
from nas.flags import given
from nas.interfaces import Executor, Outcome, Task, Work
from nas.member_setup import advice, memory_needed, recipe_options
from nas.pages import family as pages
from nas.settings.scale import scale_settings_from
from nas.training.recipe import load_recipe
from nas.verbs.scale import scale
from nas.workers import VISIBLE, Processes

# says which GPUs it sees, and writes down when it begins and ends
SEEN = """
import os, time

TRAINS = True

def make():
    return Seen()

class Seen:
    title, rungs = "seen", (1,)

    def check(self, arch):
        pass

    def train(self, arch, *, seed, epochs, folder):
        ids = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        with open(os.path.join(os.path.dirname(__file__), "seen.txt"), "a") as file:
            file.write(f"{seed} begins {ids}\\n")
            file.flush()
            time.sleep(0.3)
            file.write(f"{seed} ends\\n")
        return {"accuracy": 50.0, "gpus": float(len([i for i in ids.split(",") if i]))}
"""
DIGITS = {"data": "digits", "recipe": "proxy", "epochs": 1, "accelerator": "cpu"}


@pytest.fixture
def place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with tiny.json and seen.py; one thread, a cache of its own."""
    monkeypatch.setenv("NAS_CACHE", str(folder / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (folder / "tiny.json").write_text(TINY.to_json())
    (folder / "seen.py").write_text(SEEN)
    return folder


def family(place: Path, **more: Any) -> dict[str, Any]:
    given = {**DIGITS, "train": True, "phi": "0.5,1", "device": "fake", "name": "f", **more}
    return scale(str(place / "tiny.json"), **given)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A family that was trained once, and its result."""
    home = tmp_path_factory.mktemp("family")
    (home / "tiny.json").write_text(TINY.to_json())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAS_CACHE", str(home / "cache"))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.chdir(home)
        yield home, family(home)


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_every_member_is_a_train_run_with_its_measurements(
    trained: tuple[Path, dict[str, Any]],
) -> None:
    home, result = trained
    assert (result["missing"], result["stopped"]) == ({}, "")
    for member in result["members"]:
        folder = home / result["run"] / member["name"]
        found, theirs = member["training"], run.read_json(folder / "result.json")
        assert found["accuracy"] == theirs["val"]["top1"]
        assert found["test_accuracy"] == theirs["test"]["top1"]
        assert (theirs["flops"], theirs["imgsz"]) == (member["flops"], member["resolution"])
        assert found["memory_estimate"] == memory_needed(member, 64)
        assert found["latency_ms"] > 0 and found["images_per_second"] > 0
        for name in ("args.yaml", "results.csv", "weights/best.safetensors", "config.json"):
            assert (folder / name).is_file()
    rows = run.read_csv(home / result["run"] / "family.csv")
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
    for name, changed in (("wide", {}), ("longer", {"epochs": 9})):
        shutil.copytree(place / "f", place / name)
        on = {**result["trained_on"], **changed}
        rule = {"rule": "width", "run": f"runs/scale/{name}", "trained_on": on}
        run.write_json(place / name / "result.json", {**result, **rule})
    (found,) = report.families_beside(place / "f", result)
    assert (found["rule"], found["run"]) == ("width", "runs/scale/wide")
    page = report.write(place / "f").read_text()
    assert "of the same base trained alike: width, runs/scale/wide." in page
    assert '"name":"width"' in page and "Not trained yet" not in page


def test_latencies_of_other_devices_are_not_compared() -> None:
    spot = {"test_accuracy": 50.0, "test_accuracy_std": 1.0, "latency_ms": 3.0}
    member = {"name": "b1", "flops": 9, "training": {**spot, "latency_device": "cpu"}}
    family = {"members": [member]}
    assert [s.cost for s in pages._spots(family, "latency_ms", {"cpu"})] == [3.0]
    assert pages._spots(family, "latency_ms", {"cuda"}) == []
    assert [s.cost for s in pages._spots(family, "flops", {"cuda"})] == [9]


def test_members_that_are_one_network_are_trained_once() -> None:
    rows = [{"name": n, "arch": {"name": n, "stages": k}} for n, k in (("b1", 1), ("b2", 2))]
    again = {"name": "b3", "arch": {"name": "b3", "stages": 1}}
    assert members._twins([*rows, again]) == {"b3": "b1"}


def test_what_is_on_file_is_not_trained_again(trained: tuple[Path, dict[str, Any]]) -> None:
    home, result = trained
    before = {path: path.stat().st_mtime_ns for path in home.glob("runs/scale/f/*/member.json")}
    again = family(home, resume=True)
    assert again["members"] == json.loads(json.dumps(result["members"]))
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_damaged_member_is_measured_again_and_lost_weights_are_told(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, _ = trained
    monkeypatch.chdir(tmp_path)
    shutil.copytree(home / "runs", tmp_path / "runs")
    place = tmp_path / "runs" / "scale" / "f"
    (place / "b1" / "member.json").write_text("{")
    (place / "b0.5" / "member.json").unlink()
    (place / "b0.5" / "weights" / "best.safetensors").unlink()
    epochs = (place / "b1" / "results.csv").read_text()
    result = family(home, resume=True, project=str(tmp_path / "runs"))
    assert list(result["missing"]) == ["b0.5"]
    assert "has lost its weights: delete the folder" in result["missing"]["b0.5"]
    assert "training" in result["members"][1] and "training" not in result["members"][0]
    assert (place / "b1" / "results.csv").read_text() == epochs


def test_a_family_that_lacks_a_member_ends_with_one_line(place: Path, cli: Cli) -> None:
    words = "scale tiny.json --phi 1 --train --data digits --recipe proxy --epochs 1 --device fake"
    done = cli(*words.split(), "--recipe-option", "lr=900", "--accelerator", "cpu", "--json")
    assert done.returncode == 1, done.stderr
    result = json.loads(done.stdout)
    assert result["missing"]["b1"].startswith("the loss is ")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("nas: 1 of 1 members are missing (b1: the loss is ")
    assert last.endswith("`nas resume runs/scale/scale` tries them again")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"data": "nowhere"}, "no data 'nowhere'"),
        ({"member_gpus": {"b9": 2}, "accelerator": "auto"}, "the family has no b9; it has b0.5"),
        ({"member_gpus": {"b1": 0}, "accelerator": "auto"}, "at least 1, not 0"),
        ({"member_gpus": {"b1": 2}}, "needs CUDA devices, not --accelerator cpu"),
        ({"member_gpus": {"b1": 3}, "accelerator": "auto"}, "no multiple of 3"),
        ({"member_gpus": {"b1": 64}, "accelerator": "auto"}, "64 GPUs for one training"),
        ({"recipe_options": {"nope": 1}}, "has no option 'nope'"),
        ({"recipe": "nope"}, "no recipe named 'nope'"),
        ({"device": "nope"}, "no device named 'nope'"),
        ({"train": False, "data": None, "epochs": 3}, "--epochs belongs to --train"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    place: Path, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError) as caught:
        family(place, **more)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_own_gpus_are_given_by_name() -> None:
    words = "nas scale b.json --phi 1 --train --data d --member-gpus b1=2 --member-gpus b2=4"
    typed = parse(words.split())
    chosen = given({k: v for k, v in typed.items() if k in ("train", "data", "member_gpus")}, None)
    assert scale_settings_from(chosen).member_gpus == {"b1": 2, "b2": 4}


def test_the_augmentation_grows_with_the_member() -> None:
    drawn = load_recipe("efficientnet", {"policy": "randaugment"})
    found = [recipe_options(phi, drawn).get("magnitude") for phi in (0.0, 5.0, 6.0, 7.0, 9.0)]
    assert found == [9, 17, 22, 28, 30]
    assert recipe_options(7, load_recipe("efficientnet", {})) == {}


def test_a_member_that_does_not_fit_says_what_would() -> None:
    member = {"name": "b7", "training_bytes": 10, "training_bytes_per_image": 100}
    assert advice(member, 4, 1, 410) == advice(member, 8, 2, 410) == ""
    assert "2 fit; --accumulate 2 or --grad-checkpointing" in advice(member, 4, 1, 210)
    assert "not one image fits" in advice(member, 4, 1, 100)
    assert "pipeline stages (GPipe) are not built" in advice(member, 4, 1, 5)


def done(executor: Executor, tasks: list[Task]) -> dict[int, Outcome]:
    for task in tasks:
        executor.submit(task)
    found: dict[int, Outcome] = {}
    while len(found) < len(tasks):
        found |= {outcome.number: outcome for outcome in executor.wait()}
    return found


def seen_tasks(*gpus: int) -> list[Task]:
    return [Task(n, TINY.to_dict(), n, 1, gpus=count) for n, count in enumerate(gpus)]


def test_a_task_gets_its_own_gpus_and_waits_for_them(place: Path) -> None:
    shares = [{VISIBLE: gpu} for gpu in "01"]
    executor = Processes(Work(str(place / "seen.py")), shares, ["0", "1", "2"])
    try:
        found = done(executor, seen_tasks(2, 3, 1, 0))
    finally:
        executor.close()
    assert [found[n].metrics["gpus"] for n in range(4)] == [2, 3, 1, 1]
    begun = [line for line in lines((place / "seen.txt").read_text()) if line[1] == "begins"]
    assert [line[2] for line in begun][:2] == ["0,1", "0,1,2"]
    events = [line[:2] for line in lines((place / "seen.txt").read_text())]
    assert events.index(["0", "ends"]) < events.index(["1", "begins"])
    assert events.index(["1", "ends"]) < events.index(["2", "begins"])


def test_gpus_that_are_not_there_are_no_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "0,1")
    assert _share(0, 1, [])[VISIBLE] == ""
    assert _share(1, 2, ["4", "5"])[VISIBLE] == "5"
    monkeypatch.delenv(VISIBLE)
    assert VISIBLE not in _share(0, 1, [])


@pytest.mark.slow
def test_a_task_gets_its_own_gpus_on_a_cluster(place: Path, cluster: Nodes) -> None:
    node = cluster.add(num_gpus=2)
    try:
        for through in ("tasks", "tune"):
            options = {"address": cluster.address, "patience": 10.0, "through": through}
            work = Work(str(place / "seen.py"))
            executor = catalog.make("executors", "ray", work, options=options, folder=place)
            try:
                found = done(executor, seen_tasks(2, 1, 0))
            finally:
                executor.close()
            assert [found[n].metrics["gpus"] for n in range(3)] == [2, 1, 0]
            assert ["gpu 0,1" in found[0].place, "gpu" in found[2].place] == [True, False]
    finally:
        cluster.remove(node)


@pytest.mark.slow
def test_gpus_that_no_node_has_are_refused_in_one_line(place: Path, cluster: Nodes) -> None:
    options = {"address": cluster.address, "patience": 0.0, "through": "tasks"}
    work = Work(str(place / "seen.py"))
    executor = catalog.make("executors", "ray", work, options=options, folder=place)
    try:
        with pytest.raises(OptionError, match=r"no node can hold .* 9 GPUs.*--member-gpus"):
            executor.submit(Task(9, TINY.to_dict(), 0, 1, gpus=9))
    finally:
        executor.close()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="gloo by torchrun")
def test_several_gpus_train_together(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "0,1")  # pretended: the two processes meet by gloo
    options = {**DIGITS, "accelerator": "auto", "latency_on": "fake", "batch_size": 64}
    evaluator = catalog.make("evaluators", "member", options=options)
    found = evaluator.train(TINY, seed=0, epochs=1, folder=str(place / "two"))
    assert found["accuracy"] > 0 and found["epochs"] == 1
    log = (place / "two" / "log.txt").read_text()
    assert log.count("epoch 1/1") == 1  # one of the two tells
    assert run.read_json(place / "two" / "result.json")["splits"]["test"] == 359


@pytest.mark.slow
def test_kills_change_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = Path(__file__).parents[1] / "scripts" / "kill_family.py"
    spec = importlib.util.spec_from_file_location("kill_family", script)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "kill_family", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    code = module.main(["--kills", "2", "--phi", "0", "--epochs", "2"])
    assert code == 0, capsys.readouterr().out
