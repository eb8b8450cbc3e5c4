"""`nas train` with default flags: what it says, that it learns, and what is said if it did not."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from nas.core import run_folder
from nas.core.errors import OptionError
from nas.exporting.export import export
from nas.models.arch import Arch, Head, Stage, Stem
from nas.reporting.terminal.train import show_train
from nas.training.checkpoint import read_weights
from nas.training.predict import predict
from nas.training.train import go_on, train
from nas.training.val import val

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = Arch(
    "tiny",
    (Stage("conv", 16, stride=2), Stage("mbconv", 24, stride=2, expansion=2)),
    Stem(8),
    Head(32),
    resolution=32,
)
QUIET: dict[str, Any] = {"tracker": ["none"], "device": "cpu"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    return tmp_path


def pictures(folder: Path, number: int, *, told: bool = True, gray: bool = False) -> Path:
    """Write noisy pictures of two classes; `told`: the class shows, as a bright or dark middle."""
    rng = np.random.default_rng(0)
    for place in range(number):
        label = place % 2
        pixels = rng.integers(60, 196, (32, 32, 1 if gray else 3)).repeat(3 if gray else 1, 2)
        if told:
            pixels[8:24, 8:24] = 250 if label else 5
        path = folder / f"class {label}" / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return folder


class Said(list[str]):
    """What a training says."""

    def train(self, data: Path, **more: Any) -> dict[str, Any]:
        from nas.reporting.terminal.train import TrainingScreen

        screen = TrainingScreen(Console(quiet=True, force_terminal=False))
        screen.say = self.append  # type: ignore[method-assign]
        return train(TINY, data=str(data), screen=screen, **{**QUIET, **more})


@pytest.mark.parametrize(
    "given", [{"epochs": 40}, pytest.param({}, marks=pytest.mark.slow)], ids=["short", "default"]
)
def test_a_small_folder_is_learnt_by_default(home: Path, given: dict[str, Any]) -> None:
    said = Said()
    result = said.train(pictures(home / "data", 60), **given)
    assert result["test"]["top1"] == 100.0 and result["warning"] == ""
    assert result["recipe"] == "auto" and result["epochs_done"] <= result["epochs"]
    [line] = [line for line in said if line.startswith("recipe auto")]
    assert "optimiser steps" in line and "from nothing" in line and "shifts and flips" in line
    kept = run_folder.read_json(Path(result["run"]) / "recipe.json")
    assert kept["name"] == "auto" and kept["augment"]["flip"] and kept["clip"] == 1.0
    assert run_folder.read_args(Path(result["run"]))["epochs"] == result["epochs"]


def test_gray_images_are_not_mirrored(home: Path) -> None:
    result = Said().train(pictures(home / "data", 40, gray=True), epochs=1)
    assert not run_folder.read_json(Path(result["run"]) / "recipe.json")["augment"]["flip"]


def test_a_training_that_came_to_nothing_says_so_wherever_it_is_used(home: Path) -> None:
    data = pictures(home / "data", 120, told=False)
    result = Said().train(data, epochs=2)
    assert "not shown to be better than always naming the largest class" in result["warning"]
    folder = Path(result["run"])
    for name in ("result.json", "config.json"):
        assert run_folder.read_json(folder / name)["warning"] == result["warning"]
    assert result["warning"] in (folder / "README.md").read_text()
    console = Console(record=True, width=400, file=io.StringIO())
    show_train(result, console)
    assert result["warning"] in console.export_text()
    assert result["warning"] in val(folder)["notes"]
    assert predict(folder, data / "class 0")["warning"] == result["warning"]
    exported = export(folder, format="pt2", output=home / "net.pt2")
    assert result["warning"] in exported["notes"]


def test_a_resumed_training_keeps_the_recipe_it_was_started_with(home: Path) -> None:
    data = pictures(home / "data", 60)
    whole = Said().train(data, epochs=30, name="whole")
    asked = iter([True])
    part = Said().train(data, epochs=30, name="part", interrupted=lambda: next(asked, False))
    assert part["stopped"]
    kept = home / "runs/train/part/recipe.json"
    again = go_on(home / "runs/train/part", {})
    assert again["test"] == whole["test"]
    assert run_folder.read_json(kept) == run_folder.read_json(home / "runs/train/whole/recipe.json")
    weights = [
        read_weights(home / f"runs/train/{name}/weights/best.safetensors")
        for name in ("part", "whole")
    ]
    assert all((weights[0][key] == weights[1][key]).all() for key in weights[0])


def test_a_time_limit_sets_the_epochs(home: Path) -> None:
    data, said = pictures(home / "data", 60), Said()
    result = said.train(data, time_limit="1s")
    assert result["epochs"] >= 1 and any("what the time allows" in line for line in said)
    with pytest.raises(OptionError, match="--time-limit sets the number of --epochs"):
        said.train(data, time_limit="1s", epochs=2)


def test_weights_bring_their_normalisation(home: Path) -> None:
    parent = Said().train(pictures(home / "data", 60), epochs=2)
    other = home / "bright"
    for path in pictures(home / "other", 40).rglob("*.png"):
        place = other / path.parent.name / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(Image.open(path)) // 2 + 127).save(place)
    said = Said()
    child = said.train(other, init=parent["run"], epochs=1)
    configs = [run_folder.read_json(Path(each["run"]) / "config.json") for each in (parent, child)]
    assert configs[0]["mean"] == configs[1]["mean"] and configs[0]["std"] == configs[1]["std"]
    assert any("normalised by mean" in line and "of the weights" in line for line in said)
    assert any("from weights" in line for line in said)
    fresh = Said().train(other, epochs=1)
    assert run_folder.read_json(Path(fresh["run"]) / "config.json")["mean"] != configs[0]["mean"]


def test_a_recipe_that_does_not_fit_says_so_before_it_starts(home: Path) -> None:
    said = Said()
    options = {"policy": "none"}
    said.train(
        pictures(home / "data", 120), recipe="efficientnet", recipe_options=options, epochs=1
    )
    assert any("one optimiser step an epoch" in line for line in said)
    assert any("averages weights over 10,000 steps" in line for line in said)
