"""Val on folders of their own: every image that has a label is scored, whatever the layout."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from nas.core.errors import OptionError
from nas.data.dataset import open_dataset
from nas.models.arch import Arch, Head, Stage, Stem
from nas.models.build import Model
from nas.searching.search import search
from nas.training.predict import predict
from nas.training.val import val

CLASSES = ["Red Fox", "lynx", "wolf"]
TINY = Arch("tiny", (Stage("conv", 8, stride=2),), Stem(8), Head(16, classes=3), resolution=32)


def images(root: Path, *folders: str, number: int = 4) -> Path:
    rng = np.random.default_rng(len(folders))
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(number):
            pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{i}.png")
    return root


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trained model of three classes, and the ten images of each that it was trained on."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    own = images(tmp_path / "own", *CLASSES, number=10)
    torch.manual_seed(0)
    (tmp_path / "run" / "weights").mkdir(parents=True)
    save_file(Model(TINY).state_dict(), tmp_path / "run" / "weights" / "best.safetensors")
    config = {"schema": 1, "arch": TINY.to_dict(), "classes": CLASSES, "input_size": [3, 32, 32]}
    config |= {"mean": [0.5] * 3, "std": [0.25] * 3, "crop_pct": 1.0, "data": str(own)}
    config |= {"fingerprint": open_dataset(str(own)).fingerprint}
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    return tmp_path / "run"


def counts(found: dict[str, Any]) -> list[int]:
    return [row["n"] for row in found["per_class"]]


@pytest.mark.parametrize(
    "folders, expected",
    [
        (("lynx", "wolf"), [0, 4, 4]),  # some of the classes
        (("wolf",), [0, 0, 4]),
        (("red_fox", "WOLF"), [4, 0, 4]),  # names that differ in case and spaces
        (("test/lynx", "test/wolf"), [0, 4, 4]),  # no train split
        (("train/lynx", "test/wolf", "val/wolf"), [0, 4, 8]),  # all splits, of other classes
        (("wrapped/in/lynx", "wrapped/in/wolf"), [0, 4, 4]),
        (("lynx/day", "lynx/night", "wolf"), [0, 8, 4]),
        (("seg_test/seg_test/lynx", "seg_train/seg_train/lynx"), [0, 8, 0]),
    ],
)
def test_all_images_of_another_folder_are_scored(
    run: Path, tmp_path: Path, folders: tuple[str, ...], expected: list[int]
) -> None:
    found = val(run, data=images(tmp_path / "other", *folders))
    assert counts(found) == expected
    assert found["n"] == found["images"] == sum(expected) and found["split"] == "all"
    said = predict(run, [tmp_path / "other"])["images"]
    assert len(said) == found["n"]
    answers = [sum(row[i] for row in found["confusion"]) for i in range(3)]
    assert answers == [sum(row["top"][0]["class"] == name for row in said) for name in CLASSES]


def test_a_folder_without_labels_is_refused_and_one_called_like_a_class_is_not(
    run: Path, tmp_path: Path
) -> None:
    assert counts(val(run, data=images(tmp_path / "Wolf", "."))) == [0, 0, 4]
    with pytest.raises(OptionError, match=r"4 images but no class folders.*for nas predict"):
        val(run, data=images(tmp_path / "loose", "."))
    with pytest.raises(OptionError, match="only classes that the model does not know: a"):
        val(run, data=images(tmp_path / "letters", "a", "b"))


def test_the_split_of_another_folder_can_be_named(run: Path, tmp_path: Path) -> None:
    other = images(tmp_path / "other", "train/lynx", "test/wolf")
    assert counts(val(run, data=other, split="test")) == [0, 0, 4]
    assert counts(val(run, data=other, split="all")) == [0, 4, 4]
    with pytest.raises(OptionError, match="no val split of its own, only train, test: leave"):
        val(run, data=other, split="val")
    tree = images(tmp_path / "tree", "wolf")
    with pytest.raises(OptionError, match="no test split of its own, it is one tree"):
        val(run, data=tree, split="test")


def test_of_its_own_images_the_test_split_is_scored(run: Path, tmp_path: Path) -> None:
    split = {name: val(run, split=name)["n"] for name in ("test", "val", "train", "all")}
    assert split == {"test": 6, "val": 6, "train": 18, "all": 30}
    shutil.copytree(tmp_path / "own", tmp_path / "copy")
    for data in ("own", tmp_path / "own" / ".." / "own", "copy"):
        found = val(run, data=data)
        assert (found["split"], found["n"]) == ("test", 6)
        assert any("is what the model was trained on" in note for note in found["notes"])
    inside = val(run, data=tmp_path / "own" / "wolf")
    assert counts(inside) == [0, 0, 10]
    assert any("overlap" in note for note in inside["notes"])


def test_broken_and_unknown_images_are_counted(run: Path, tmp_path: Path) -> None:
    other = images(tmp_path / "other", "wolf", number=150)
    images(other, "bear", number=2)
    (other / "wolf" / "0.png").write_bytes(b"")
    found = val(run, data=other)
    assert (found["n"], found["images"]) == (149, 152)
    assert any("bear (2 images)" in note for note in found["notes"])
    assert any("1 broken left out" in note for note in found["notes"])


def test_a_search_is_scored_on_images_that_it_did_not_train_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    data = images(tmp_path / "own", *CLASSES, number=20)
    chosen = {"trials": 1, "epochs": 1, "finalists": 0, "random_search": False, "workers": 1}
    found = search(data=str(data), max_flops="3M", **chosen)
    for other in ({}, {"data": data}, {"data": shutil.copytree(data, tmp_path / "copy")}):
        scored = val(found["run"], **other)
        assert (scored["split"], scored["n"]) == ("test", 12) and scored["images"] == 12
