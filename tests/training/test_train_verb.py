"""Train: what a run leaves, that it goes on where it stopped, what is refused, what is shown."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from nas.core import run_folder
from nas.core.errors import MissingError, NasError, OptionError, RunError
from nas.models.arch import Arch, Head, Stage, Stem
from nas.reporting import report
from nas.reporting.terminal import train as train_screen
from nas.training.checkpoint import read_weights
from nas.training.train import go_on, train
from nas.training.trained import load_trained
from nas.training.val import val

TINY = Arch(
    "tiny",
    (Stage("conv", 16, stride=2), Stage("mbconv", 24, stride=2, expansion=2)),
    Stem(8),
    Head(32, classes=10),
    resolution=32,
)
COLOURS = {"blue": (40, 40, 200), "green": (40, 200, 40), "red": (200, 40, 40)}
# of our own: the shipped ones may be tuned
RECIPE = """
from nas.training.recipe import Augment, Recipe

RECIPE = Recipe(
    "quick", "tests", "nothing", epochs=9, batch_size=256, optimizer="sgd", lr=0.5,
    schedule="one_cycle",
    norm_momentum=0.1, augment=Augment(flip=False),
)
"""
QUICK = {"recipe": "quick.py", "epochs": 2, "batch_size": 16, "tracker": ["none"]}
# a data set whose reads are written down
SPY = """
import numpy as np
from nas.data.dataset import Dataset, Split

def read(data, *, download):
    rng = np.random.default_rng(0)

    def split(name, n):
        images = rng.integers(0, 256, (n, 8, 8, 3), np.uint8)

        def read(i):
            with open("events.txt", "a") as file:
                file.write(name + "\\n")
            return images[i]

        return Split(np.arange(n) % 2, [f"{name} {i}" for i in range(n)], read)

    sizes = {"train": 8, "val": 4, "test": 6}
    splits = {name: split(name, n) for name, n in sizes.items()}
    return Dataset("spy", ("a", "b"), splits, "random, seed 0")
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of its own, with the arch and a cache in it."""
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tiny.json").write_text(TINY.to_json())
    (tmp_path / "quick.py").write_text(RECIPE)
    return tmp_path


@pytest.fixture
def images(home: Path) -> Path:
    """Noisy colours: 3 classes of 20 images of differing sizes."""
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (home / "colours" / name).mkdir(parents=True)
        for number in range(20):
            height, width = rng.integers(32, 60, 2)
            noise = rng.normal(0, 30, (height, width, 3))
            pixels = np.clip(noise + colour, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(home / "colours" / name / f"{number}.png")
    return home / "colours"


def trained(**settings: Any) -> dict[str, Any]:
    return train("tiny.json", **{"data": "colours", **QUICK, **settings})


def after(epochs: int) -> Callable[[], bool]:
    """Return an `interrupted` that is true when asked for the nth time."""
    calls: list[int] = []

    def asked() -> bool:
        calls.append(1)
        return len(calls) >= epochs

    return asked


def without_times(folder: str | Path) -> list[dict[str, str]]:
    timed = ("seconds", "images_per_second")
    rows = run_folder.read_csv(Path(folder) / "results.csv")
    return [{k: v for k, v in row.items() if k not in timed} for row in rows]


def test_a_run_holds_everything_and_every_file_parses(images: Path, home: Path) -> None:
    found = trained(name="mine", imgsz=40)
    assert found["run"] == "runs/train/mine" and found["stopped"] == ""
    folder = home / found["run"]
    assert run_folder.read_json(folder / "result.json") == json.loads(json.dumps(found))
    assert found["splits"] == {"train": 39, "val": 9, "test": 12}
    assert (found["imgsz"], found["epochs"], found["classes"]) == (40, 2, list(COLOURS))
    assert found["test"]["n"] == 12 and found["val"]["n"] == 9
    assert 0 <= found["test"]["top1"] <= 100 and found["val"]["top1_raw"] == found["val"]["top1"]
    assert [row["epoch"] for row in run_folder.read_csv(folder / "results.csv")] == ["1", "2"]
    report.write(folder)
    for picture in ("results.png", "confusion_matrix.png"):
        with Image.open(folder / picture) as drawn:
            assert drawn.size[0] > 300
    arguments = run_folder.read_args(folder)
    paths = {"arch": home / "tiny.json", "data": images, "recipe": home / "quick.py"}
    assert {key: arguments[key] for key in paths} == {key: str(p) for key, p in paths.items()}
    assert (arguments["epochs"], arguments["batch_size"], arguments["imgsz"]) == (2, 16, 40)
    card = (folder / "README.md").read_text()
    assert f"| test | 12 | {found['test']['top1']:.2f}" in card and "blue, green, red" in card


def test_the_saved_model_gives_the_numbers_of_the_run(images: Path) -> None:
    found = trained()
    model, config = load_trained(found["run"])
    assert config["classes"] == list(COLOURS) and config["input_size"] == [3, 32, 32]
    assert config["metrics"]["test_top1"] == found["test"]["top1"]
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    for split in ("test", "val"):
        again = val(found["run"], split=split)
        assert (again["top1"], again["n"]) == (found[split]["top1"], found[split]["n"])
        assert again["loss"] == pytest.approx(found[split]["loss"], rel=1e-4)


class Events(train_screen.TrainingScreen):
    """A screen that writes the epochs down where the data set writes its reads."""

    def epoch(self, row: train_screen.Row) -> None:
        with open("events.txt", "a") as file:
            file.write("epoch\n")


def test_the_test_split_is_read_once_after_the_last_epoch(home: Path) -> None:
    (home / "spy.py").write_text(SPY)
    found = trained(data="spy.py", screen=Events(Console(quiet=True)))
    events = (home / "events.txt").read_text().split()
    assert events.count("epoch") == 2 and events.count("test") == found["test"]["n"] == 6
    last = len(events) - 1 - events[::-1].index("epoch")
    assert set(events[last + 1 :]) == {"test"} and "test" not in events[:last]


def test_digits_are_learnt(home: Path) -> None:
    found = trained(data="digits", batch_size=32, recipe_options={"lr": 2})
    assert found["test"]["top1"] > 40 and found["test"]["n"] == 359
    right = (found["val"]["top1"] / 100 * 287 + 1) / 289
    assert found["val"]["standard_error"] == pytest.approx(100 * (right * (1 - right) / 289) ** 0.5)


def test_an_interrupted_run_goes_on_to_the_same_numbers(
    images: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"epochs": 3, "recipe_options": {"ema": 0.9}}
    whole = trained(name="whole", **options)
    part = trained(name="part", **options, interrupted=after(1))
    assert (part["stopped"], part["epochs_done"], part["epochs"]) == ("interrupted", 1, 3)
    assert not (home / part["run"] / "result.json").exists()
    (home / "away").mkdir()
    monkeypatch.chdir(home / "away")  # the paths of args.yaml hold anywhere
    found = go_on(home / part["run"], {})
    assert found["test"] == whole["test"] and found["val"] == whole["val"]
    assert without_times(home / part["run"]) == without_times(home / whole["run"])
    assert run_folder.read_json(home / part["run"] / "env.json")["resumed"]


def test_resume_finds_the_run_of_the_settings_that_are_given(images: Path, home: Path) -> None:
    first = trained(name="a", interrupted=after(1))
    trained(name="b", seed=1)
    found = train("tiny.json", data="colours", seed=0, resume=True)
    assert found["run"] == first["run"] and found["stopped"] == ""
    fresh = trained(seed=2, resume=True)
    assert fresh["run"] == "runs/train/train"
    with pytest.raises(RunError, match="was started with seed 1, not 3"):
        trained(name="b", seed=3, resume=True)
    moved = trained(name="b", resume=True, seed=1, workers=0)  # where it runs may change
    assert moved["run"] == "runs/train/b"


def test_a_finished_run_gives_its_result_again_without_its_data(images: Path) -> None:
    found = trained()
    shutil.rmtree(images)
    screen = train_screen.TrainingScreen(Console(file=io.StringIO()))
    assert go_on(Path(found["run"]), {}, screen=screen) == json.loads(json.dumps(found))


def test_a_run_whose_data_has_changed_is_refused(images: Path) -> None:
    part = trained(interrupted=after(1))
    (images / "red" / "0.png").unlink()
    with pytest.raises(RunError, match="has changed since runs/train/train was started"):
        go_on(Path(part["run"]), {})


def test_what_is_no_training_is_refused(home: Path) -> None:
    (home / "args.yaml").write_text("space: mbconv\n")
    with pytest.raises(RunError, match="is no training"):
        go_on(home, {})


def test_weights_of_a_run_start_another_with_other_classes(images: Path, home: Path) -> None:
    first = trained(name="first")
    shutil.copytree(images / "red", images / "scarlet")
    given = {"init": first["run"], "freeze": True, "name": "second"}
    second = train(first["run"], **{**QUICK, "data": "colours", **given})
    assert second["classes"] == [*COLOURS, "scarlet"]
    weights = [
        read_weights(home / found["run"] / "weights/best.safetensors") for found in (first, second)
    ]
    body = [name for name in weights[0] if not name.startswith("head.linear")]
    assert len(body) > 10
    for name in body:
        if "num_batches" not in name:
            assert torch.equal(weights[0][name], weights[1][name]), name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": None}, "train needs --data"),
        ({"data": "nowhere"}, "no data"),
        ({"epochs": 0}, "--epochs takes a whole number of at least 1, not 0"),
        ({"epochs": "two"}, "--epochs takes a whole number"),
        ({"batch_size": -4}, "--batch-size takes a whole number"),
        ({"imgsz": 16}, "--imgsz takes a whole number of at least 32"),
        ({"accumulate": True}, "--accumulate takes a whole number"),
        ({"recipe": "prxy"}, "did you mean 'proxy'"),
        ({"recipe_options": {"lrr": 1}}, "did you mean 'lr'"),
        ({"recipe_options": "lr=1"}, "--recipe-option takes a mapping"),
        ({"device": "gpu"}, "--device takes auto, cpu, cuda"),
        ({"device": "cuda:99"}, "--device cuda:99: "),
        ({"device": "cpu:1"}, "--device takes auto"),
        ({"freeze": True}, "name the weights with --init"),
        ({"freeze": True, "init": "none"}, "name the weights with --init"),
        ({"init": "nowhere"}, "no trained model"),
        ({"amp": "yes"}, "--amp takes true or false"),
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"name": "../x"}, "--name takes a plain folder name"),
        ({"tracker": ["tensorbord"]}, "no tracker named 'tensorbord'"),
        ({"tracker": "none"}, "--tracker takes a list"),
        ({"seed": -1}, "--seed takes a whole number of at least 0"),
    ],
)
def test_a_wrong_setting_is_one_line_and_leaves_no_run(
    images: Path, home: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message) as error:
        trained(**settings)
    assert "\n" not in str(error.value)
    assert not list(home.glob("runs/train/*"))


def test_weights_of_another_arch_are_refused_and_leave_no_run(images: Path, home: Path) -> None:
    first = trained(name="first")
    with pytest.raises(OptionError, match="does not fit the skeleton of tiny"):
        train("resnet18", **{**QUICK, "data": "colours", "init": first["run"], "imgsz": 32})
    assert [path.name for path in home.glob("runs/train/*")] == ["first"]


def test_a_recipe_that_lacks_torchvision_says_so_before_anything_is_read(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.transforms", None)
    with pytest.raises(MissingError, match=r"pip install .*--recipe-option policy=none"):
        trained(recipe="efficientnet", data="nowhere")


def test_a_training_that_diverges_says_so(images: Path) -> None:
    with pytest.raises(NasError, match="diverged"):
        trained(recipe_options={"lr": 1000}, epochs=30, batch_size=8)


def test_a_run_in_use_is_refused(images: Path) -> None:
    part = trained(interrupted=after(1))
    with run_folder.lease(Path(part["run"])), pytest.raises(RunError, match="is in use by process"):
        go_on(Path(part["run"]), {})


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_numbers(images: Path, home: Path) -> None:
    options = {"epochs": 6, "batch_size": 4}
    whole = trained(name="whole", **options)
    code = (
        "import torch; torch.set_num_threads(1)\n"
        "from nas.training.train import train\n"
        f"train('tiny.json', data='colours', name='cut', **{ {**QUICK, **options}!r})"
    )
    with subprocess.Popen([sys.executable, "-c", code], env=os.environ) as process:
        while (
            process.poll() is None
            and len(run_folder.read_csv(home / "runs/train/cut/results.csv")) < 2
        ):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    found = go_on(home / "runs/train/cut", {})
    assert found["test"] == whole["test"] and found["val"] == whole["val"]
    assert without_times(home / "runs/train/cut") == without_times(home / "runs/train/whole")


@pytest.mark.slow
def test_two_processes_make_one_run_and_print_once(images: Path, home: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "nas"]
    words = ["train", "tiny.json", "--data", "colours", "--recipe", "quick.py", "--epochs", "2"]
    done = subprocess.run(
        [*launch, *words, "-b", "12", "--tracker", "none", "--device", "cpu", "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["test"]["n"] == 12 and found["val"]["n"] == 9
    assert [path.name for path in home.glob("runs/train/*")] == ["train"]
    assert done.stderr.count("epoch 2/2") == 1


# ------------------------------------------------------------------------------ the screen


def row(epoch: int, top1: float) -> dict[str, float]:
    return {
        "epoch": epoch,
        "train_loss": 1.5 / epoch,
        "val_top1": top1,
        "seconds": 2.0,
        "images_per_second": 800.4,
    }


def shown(terminal: bool, earlier: list[dict[str, float]], later: list[dict[str, float]]) -> str:
    file = io.StringIO()
    screen = train_screen.TrainingScreen(
        Console(file=file, force_terminal=terminal, width=100, no_color=True)
    )
    screen.begin("tiny on digits", 5, earlier)
    assert screen.running
    for each in later:
        screen.part(0.5)
        screen.epoch(each)
    assert screen.notice("stopping") is terminal
    screen.end()
    assert not screen.running
    return file.getvalue()


def test_a_pipe_gets_one_plain_line_an_epoch() -> None:
    lines = shown(False, [row(1, 40.0)], [row(2, 60.0), row(3, 50.0)]).splitlines()
    assert [line.rsplit(" ", 2)[0] for line in lines] == [
        "epoch 2/5 loss 0.750 val top-1 60.00 % best 60.00 % (epoch 2) 800 images/s",
        "epoch 3/5 loss 0.500 val top-1 50.00 % best 60.00 % (epoch 2) 800 images/s",
    ]


def test_a_terminal_gets_a_bar_with_the_last_epoch_and_keeps_none_of_it() -> None:
    text = shown(True, [row(1, 40.0)], [row(2, 60.0), row(3, 50.0)])
    for part in ("tiny on digits", "3/5 epochs", "best 60.00 % (epoch 2)", "800 images/s", "left"):
        assert part in text
    assert "stopping" in text
    assert text.rstrip("\r").endswith("\x1b[2K")  # it is taken away again


def test_the_time_left_is_of_the_recent_epochs_or_the_share_of_the_first() -> None:
    assert train_screen.time_left([], 10, 3.0, 0.0) is None
    assert train_screen.time_left([], 10, 3.0, 0.25) == pytest.approx(10 * 12 - 3)
    assert train_screen.time_left([100, 2, 2, 2, 2, 2], 3, 0.5, 0.1) == pytest.approx(5.5)
    assert train_screen.time_left([2.0], 1, 9.0, 0.9) == 0.0


@pytest.mark.parametrize("stopped", [False, True])
def test_the_end_says_which_split_a_number_is_of(images: Path, stopped: bool) -> None:
    found = trained(interrupted=(lambda: True) if stopped else (lambda: False))
    file = io.StringIO()
    train_screen.show_train(found, Console(file=file, width=200))
    text = file.getvalue()
    assert "runs/train/train" in text
    if stopped:
        assert "stopped after epoch 1 of 2" in text and "test not read" in text
    else:
        assert f"{found['test']['top1']:.2f} ±" in text and "test was read once" in text
        assert "next    nas predict runs/train/train IMAGE" in text


# ---------------------------------------------------------------------------------- with a teacher


def test_a_run_teaches_another(images: Path, tmp_path: Path) -> None:
    first = train("tiny.json", data=str(images), **QUICK)
    options = {"data": str(images), "teacher": "train", **QUICK, "seed": 1}
    taught = train("tiny.json", name="taught", **options)
    told = taught.teacher
    assert told and first.val and not told.probed
    assert told.top1 == pytest.approx(first.val.top1) and told.n == first.val.n
    assert told.source == str(first.run.resolve()) == run_folder.read_args(taught.run)["teacher"]
    assert "taught by the run" in (taught.run / "README.md").read_text()
    assert run_folder.read_json(taught.run / "result.json")["teacher"]["top1"] == told.top1
    assert "teacher" not in first.to_dict()


def test_a_taught_training_goes_on_without_the_source_of_its_teacher(
    images: Path, tmp_path: Path
) -> None:
    options = {**QUICK, "epochs": 3, "data": str(images), "seed": 1, "teacher": "train"}
    train("tiny.json", data=str(images), **QUICK)
    calm = train("tiny.json", name="calm", **options)
    stopped = train("tiny.json", name="other", **options, interrupted=lambda: True)
    assert stopped.stopped and stopped.done == 1
    shutil.rmtree("runs/train/train")
    assert go_on(stopped.run, {}).val == calm.val
    shutil.rmtree(calm.run / "teacher")
    (calm.run / "result.json").unlink()
    with pytest.raises(OptionError, match="there is no such run"):
        go_on(calm.run, {})
