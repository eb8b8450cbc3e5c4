"""Val, predict, resume, doctor and bench as commands: answers, exit codes, one-line errors."""

import json
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import run_here
from PIL import Image

from nas.core import run_folder
from nas.core.errors import OptionError
from nas.models.arch import Arch, Head, Stage, Stem
from nas.training.predict import predict
from nas.training.train import train
from nas.training.val import val

TINY = Arch("tiny", (Stage("conv", 16, stride=2),), Stem(8), Head(16), resolution=32)
COLOURS = {"blue": (40, 40, 200), "green": (40, 200, 40), "red": (200, 40, 40)}
RECIPE = """
from nas.training.recipe import Augment, Recipe

RECIPE = Recipe(
    "quick", "tests", "nothing", epochs=6, batch_size=13, optimizer="sgd", lr=2.0,
    schedule="one_cycle", norm_momentum=0.1, augment=Augment(flip=False),
)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with colours/ (3 classes of 20 images) and a run trained on them."""
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("place")
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (home / "colours" / name).mkdir(parents=True)
        for number in range(20):
            height, width = rng.integers(32, 80, 2)
            noise = rng.normal(0, 60, (height, width, 3))
            pixels = np.clip(noise + colour, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(home / "colours" / name / f"{number}.jpg")
    (home / "tiny.json").write_text(TINY.to_json())
    (home / "quick.py").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("NAS_CACHE", str(home / "cache"))
        train("tiny.json", data="colours", recipe="quick.py", tracker=["none"])
    return home


@pytest.fixture(autouse=True)
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    monkeypatch.setenv("NAS_CACHE", str(place / "cache"))
    return place


RUN = "runs/train/train"


def likeliest(row: dict[str, Any]) -> str:
    answer: str = row["top"][0]["class"]
    return answer


def test_predict_says_of_files_what_val_counts(here: Path) -> None:
    scores = {split: val(RUN, split=split) for split in ("test", "val")}
    assert scores["test"]["n"] == 12 and scores["test"]["top1"] > 60
    said = predict(RUN, ["colours"])
    assert len(said["images"]) == 60 and said["failed"] == 0
    right = sum(likeliest(row) == Path(row["path"]).parent.name for row in said["images"])
    # the files of each split, by the train split's own count
    from nas.data.dataset import open_dataset
    from nas.data.splits import make_splits

    by_path = {Path(row["path"]).relative_to("colours").as_posix(): row for row in said["images"]}
    for split, score in scores.items():
        names = make_splits(open_dataset("colours")).splits[split].names
        hits = sum(likeliest(by_path[name]) == name.split("/")[0] for name in names)
        assert 100 * hits / len(names) == pytest.approx(score["top1"])
    assert right >= 36


def test_probabilities_add_up_and_top_is_bounded_by_the_classes(here: Path) -> None:
    (row,) = predict(RUN, ["colours/red/0.jpg"], top=9)["images"]
    assert [set(each) for each in row["top"]] == [{"class", "probability"}] * 3
    values = [each["probability"] for each in row["top"]]
    assert sum(values) == pytest.approx(1) and values == sorted(values, reverse=True)


def test_an_image_turned_by_exif_or_of_another_mode_is_the_same_image(
    here: Path, tmp_path: Path
) -> None:
    image = Image.open("colours/green/1.jpg")
    image.load()
    image.save(tmp_path / "plain.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    image.convert("RGBA").save(tmp_path / "rgba.png")
    rows = predict(RUN, [tmp_path])["images"]
    assert len(rows) == 3
    assert all(row["top"] == rows[0]["top"] for row in rows[1:])


def test_a_broken_image_is_a_row_with_its_reason(here: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    (folder / "deep").mkdir(parents=True)
    good = (here / "colours/red/2.jpg").read_bytes()
    (folder / "deep" / "good.jpg").write_bytes(good)
    (folder / "cut.jpg").write_bytes(good[:200])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.webp").write_text("no image")
    (folder / "notes.txt").write_text("not looked at")
    done = run_here("predict", RUN, str(folder), "missing.jpg", "--json")
    found = json.loads(done.stdout)
    names = [Path(row["path"]).name for row in found["images"]]
    assert names == ["cut.jpg", "good.jpg", "empty.png", "text.webp", "missing.jpg"]
    errors = {Path(row["path"]).name: row.get("error") for row in found["images"]}
    assert errors["good.jpg"] is None and errors["missing.jpg"] == "No such file or directory"
    assert all(errors[name] for name in ("cut.jpg", "empty.png", "text.webp"))
    assert (done.returncode, found["failed"], found["schema"]) == (0, 4, 1)
    told = run_here("predict", RUN, str(folder / "empty.png"), "missing.jpg")
    assert told.returncode == 1 and "2 of 2 could not be read" in told.stdout


def test_predict_shows_a_line_an_image() -> None:
    done = run_here("predict", RUN, "colours/red/3.jpg", "colours/blue/3.jpg", "--top", "1")
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) == 2 and all("%" in line for line in lines)
    assert lines[0].startswith("colours/red/3.jpg  ")


def test_val_counts_each_class() -> None:
    found = json.loads(run_here("val", RUN, "--json").stdout)
    assert (found["schema"], found["split"], found["n"]) == (1, "test", 12)
    assert [row["n"] for row in found["per_class"]] == [4, 4, 4]
    hits = sum(found["confusion"][i][i] for i in range(3))
    assert found["top1"] == pytest.approx(100 * hits / 12)
    shown = run_here("val", RUN).stdout
    assert (
        "test split of colours: 12 of 12 images, 3 of 3 classes" in shown
        and "hardest classes" in shown
    )


def test_val_takes_other_images_by_the_names_of_their_classes(here: Path, tmp_path: Path) -> None:
    for name in ("red", "blue"):  # of the three; labelled 1 and 0 here, 2 and 0 in the model
        (tmp_path / "two" / name).mkdir(parents=True)
        for number in range(10):
            source = here / "colours" / name / f"{number}.jpg"
            (tmp_path / "two" / name / source.name).write_bytes(source.read_bytes())
    found = val(RUN, data=tmp_path / "two")
    assert [row["n"] for row in found["per_class"]] == [10, 0, 10]
    assert found["per_class"][1]["top1"] is None and found["top1"] >= 50
    (tmp_path / "two" / "red").rename(tmp_path / "two" / "rd")
    found = val(RUN, data=tmp_path / "two")
    assert (found["n"], found["images"], found["split"]) == (10, 20, "all")
    unknown = r"left out 10 images of classes that the model does not know: rd .*mean 'red'"
    assert any(re.search(unknown, note) for note in found["notes"])
    (tmp_path / "two" / "blue").rename(tmp_path / "two" / "bl")
    with pytest.raises(OptionError, match="two has only classes that the model does not know"):
        val(RUN, data=tmp_path / "two")


def test_val_warns_when_the_images_have_changed(here: Path) -> None:
    removed = here / "colours/red/19.jpg"
    kept = removed.read_bytes()
    removed.unlink()
    try:
        assert any("has changed" in note for note in val(RUN)["notes"])
    finally:
        removed.write_bytes(kept)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("val nowhere", "no trained model nowhere"),
        ("val pretrained --data digits", "names weights alone: train from them"),
        ("val colours", "holds no trained model"),
        (
            f"val {RUN} --split tst",
            "--split takes test, val, train or all, not 'tst' (did you mean 'test'?)",
        ),
        (f"val {RUN} --data nowhere", "no data 'nowhere'"),
        (f"val {RUN} --device gpu", "--device takes auto, cpu"),
        (f"val {RUN} -b 0", "--batch-size"),
        ("predict nowhere x.jpg", "no trained model nowhere"),
        (f"predict {RUN}", "Missing argument 'images'"),
        (f"predict {RUN} cache", "holds no images"),
        (f"predict {RUN} colours --top 0", "--top"),
        ("resume nowhere", "nowhere is no run: it holds no args.yaml"),
        ("resume exported/export/e", "only search, train, scale and proxy-check go on"),
        ("train", "Missing argument 'arch'"),
        ("train tiny.json", "train needs --data"),
        ("train tiny.json --data nowhere --recipe proxy", "no data 'nowhere'"),
        ("train nosuch --data colours", "no baseline, file or run 'nosuch'"),
        ("train tiny.json --data colours --config none.yaml", "cannot read none.yaml"),
        ("train tiny.json --data colours --epochs some", "--epochs takes a whole number"),
        ("bench nosuch", "no baseline, file or run 'nosuch'"),
        ("bench tiny.json --device gpu", "no device named 'gpu'"),
        ("bench tiny.json --device-option runs", "name=value"),
        ("proxy-check", "--data"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(here: Path, words: str, message: str) -> None:
    (here / "exported/export/e").mkdir(parents=True, exist_ok=True)
    (here / "exported/export/e/args.yaml").write_text("base: x\n")
    done = run_here(*words.split())
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("nas: ") and message in last
    assert [path.name for path in (here / "runs/train").iterdir()] == ["train"]


def test_train_prints_one_object_and_resume_its_result_again(tmp_path: Path) -> None:
    words = "train tiny.json --data colours --recipe proxy --epochs 1 --tracker none --json"
    done = run_here(*words.split(), "--project", str(tmp_path), "--recipe-option", "lr=0.01")
    found = json.loads(done.stdout)
    assert done.returncode == 0 and found["schema"] == 1 and found["test"]["n"] == 12
    assert "epoch 1/1 loss" in done.stderr
    assert run_folder.read_args(Path(found["run"]))["recipe_options"] == {"lr": 0.01}
    again = run_here("resume", found["run"], "--json", "-q")
    assert (again.returncode, again.stderr) == (0, "") and json.loads(again.stdout) == found


def test_an_interrupted_training_prints_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nas.reporting.terminal import train as train_screen

    epoch = train_screen.TrainingScreen.epoch

    def pressed(self: train_screen.TrainingScreen, row: train_screen.Row) -> None:
        epoch(self, row)
        signal.raise_signal(signal.SIGINT)

    words = "train tiny.json --data colours --recipe proxy --epochs 2 --tracker none"
    with monkeypatch.context() as patch:
        patch.setattr(train_screen.TrainingScreen, "epoch", pressed)
        done = run_here(*words.split(), "--project", str(tmp_path))
    assert done.returncode == 130 and "stopped after epoch 1 of 2" in done.stdout
    line = done.stderr.splitlines()[-1]
    assert line == f"resume with: nas {words} --project {tmp_path} --resume"
    gone_on = run_here(*line.removeprefix("resume with: nas ").split())
    assert gone_on.returncode == 0 and "epoch 2/2" in gone_on.stderr
    assert "epoch 1/2" not in gone_on.stderr


def test_ctrl_c_before_the_first_epoch_stops_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nas.training import setup

    monkeypatch.setattr(setup, "open_asked", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    words = f"train tiny.json --data colours --recipe proxy --project {tmp_path}"
    done = run_here(*words.split())
    assert done.returncode == 130 and not list(tmp_path.iterdir())
    assert done.stderr.splitlines()[-1] == f"resume with: nas {words} --resume"


def test_resume_goes_on_with_a_search(tmp_path: Path) -> None:
    search = f"search --evaluator synthetic --target-flops 400M --trials 4 --project {tmp_path}"
    first = json.loads(run_here(*search.split(), "--json", "-q").stdout)
    arguments = run_folder.read_args(Path(first["run"]))
    run_folder.write_args(Path(first["run"]), {**arguments, "trials": 6})
    again = json.loads(run_here("resume", first["run"], "--json", "-q").stdout)
    assert (again["run"], again["trials"]) == (first["run"], 6)


def test_doctor_shows_data_machine_and_advice() -> None:
    done = run_here("doctor", "--data", "colours")
    assert done.returncode == 0
    for text in ("colours: 60 images, 3 classes", "JPEG 60", "machine", "torch", "nas search"):
        assert text in done.stdout
    refused = run_here("doctor", "--data", "nowhere")
    assert refused.returncode == 1 and "no data 'nowhere'" in refused.stdout
    alone = json.loads(run_here("doctor", "--json").stdout)
    assert alone["schema"] == 1 and alone["data"] is None


def test_bench_shows_the_latency_of_a_run() -> None:
    done = run_here("bench", RUN, "--device", "fake", "--batch-size", "2")
    assert done.returncode == 0, done.stderr
    assert "latency" in done.stdout and "images/s" in done.stdout and "tiny at 32" in done.stdout
