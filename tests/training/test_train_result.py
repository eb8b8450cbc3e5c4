"""The results of train, val and predict: what --json prints, for scripts and for notebooks."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from digits import TINY

import nas
from nas.core.errors import RunError
from nas.core.run_folder import read_json, read_record, write_json
from nas.training.result import TrainResult, ValScore

Cli = Callable[..., CompletedProcess[str]]
# the keys that `nas train --json` has had since schema 1, in their order
KEYS = [
    *("schema", "run", "stopped", "arch", "arch_id", "params", "flops", "recipe", "epochs"),
    *("epochs_done", "best_epoch", "val", "test", "classes", "data", "splits", "imgsz", "device"),
    *("seconds", "images_per_second", "notes", "warning"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    home = tmp_path_factory.mktemp("train")
    (home / "tiny.json").write_text(TINY.to_json())
    settings = {"data": "digits", "epochs": 1, "recipe": "proxy", "device": "cpu"}
    return nas.train(home / "tiny.json", project=home, **settings)


def test_the_keys_of_the_json_are_those_of_schema_1(trained: TrainResult) -> None:
    told = trained.to_dict()
    assert list(told) == KEYS
    assert list(told["test"]) == ["top1", "top5", "loss", "n", "standard_error"]
    assert list(told["val"])[:3] == ["loss", "top1", "top5"]
    assert list(told["val"])[-2:] == ["n", "standard_error"]
    kept = read_json(trained.run / "result.json")
    assert json.dumps(TrainResult.from_dict(kept).to_dict()) == json.dumps(told)
    # a long path is cut
    assert trained.test and f"epochs=1, run='{str(trained.run)[:20]}" in repr(trained)
    assert f"{trained.test.top1:.6g}" in trained._repr_html_()


def test_what_is_printed_is_what_is_returned(trained: TrainResult, cli: Cli) -> None:
    run = str(trained.run)
    again = json.loads(cli("resume", run, "--quiet", "--json").stdout)
    assert again == {**trained.to_dict(), "run": again["run"]}
    score, printed = nas.val(run, batch_size=256), json.loads(cli("val", run, "--json").stdout)
    assert json.dumps(score.to_dict()) == json.dumps(printed)
    assert list(printed["per_class"][0]) == ["class", "n", "top1", "confused_with", "confused"]
    assert score.per_class[3].name == "3" and "<td>3</td>" in score._repr_html_()


def test_predictions_have_a_top_or_an_error(trained: TrainResult, cli: Cli) -> None:
    image = pytest.importorskip("PIL.Image")
    image.new("RGB", (40, 40)).save("gray.png")
    Path("text.png").write_text("no image")
    found = nas.predict(trained.run, ["gray.png", "text.png"], top=2)
    printed = cli("predict", str(trained.run), "gray.png", "text.png", "--top", "2", "--json")
    assert json.dumps(found.to_dict()) == json.dumps(json.loads(printed.stdout))
    good, bad = found.images
    assert list(found["images"][0]) == ["path", "top"] and list(bad) == ["path", "error"]
    assert list(good["top"][0]) == ["class", "probability"] and len(good.top) == 2
    assert good.top[0].probability >= good.top[1].probability and bad.error and found.failed == 1
    assert "text.png" in found._repr_html_()


def test_a_stopped_training_tells_what_it_has() -> None:
    known = {"epochs": 9, "epochs_done": 2, "best_epoch": 1, "val": ValScore(top1=50.0)}
    told = TrainResult(run=Path("runs/train/x"), stopped="interrupted", **known).to_dict()
    assert list(told) == [*KEYS[:3], *KEYS[8:12]] and told["val"] == {"top1": 50.0}
    assert TrainResult.from_dict(told) == told and not TrainResult(run=Path("x"))


def test_a_damaged_file_is_named_in_one_line(tmp_path: Path) -> None:
    write_json(tmp_path / "result.json", {"schema": 1, "run": "x", "test": {"top1": 1.0}})
    with pytest.raises(RunError, match=r"result\.json is damaged \(KeyError: 'n'\); was it edited"):
        read_record(tmp_path / "result.json", TrainResult)
