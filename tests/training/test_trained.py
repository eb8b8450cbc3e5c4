"""Trained models as files: what is loaded, what is refused, what a training can start from."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from digits import TINY, digits, equal

from nas.core.errors import OptionError, RunError
from nas.models.arch import Arch
from nas.models.build import Model
from nas.training.checkpoint import write_weights
from nas.training.trained import config, load_finite, load_trained
from nas.training.weights.sources import initial_weights

OTHER = dataclasses.replace(TINY, head=dataclasses.replace(TINY.head, classes=3))
WIDER = dataclasses.replace(TINY, head=dataclasses.replace(TINY.head, channels=24))


def model(arch: Arch = TINY, seed: int = 0) -> Model:
    torch.manual_seed(seed)
    return Model(arch)


def save(folder: Path, place: str = "weights/best.safetensors", arch: Arch = TINY) -> Model:
    """Leave a trained model in a folder, as a training does; return it."""
    trained = model(arch)
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    write_weights(folder / place, trained.state_dict())
    (folder / "config.json").write_text(json.dumps(config(arch, digits(), recipe={"name": "x"})))
    return trained


@pytest.mark.parametrize(
    ("inner", "place"),
    [
        ("", "weights/best.safetensors"),  # of nas train
        ("best", "model.safetensors"),  # of a search
        ("", "model.safetensors"),  # exported
    ],
)
def test_a_model_comes_back_from_each_kind_of_folder(
    tmp_path: Path, inner: str, place: str
) -> None:
    mine = save(tmp_path / inner, place)
    found, described = load_trained(tmp_path)
    assert equal(found.state_dict(), mine.state_dict())
    assert not found.training
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(found(images), mine.eval()(images))
    assert Arch.from_dict(described["arch"]).id == TINY.id
    assert described["classes"] == list(digits().classes)
    assert described["input_size"] == [3, 32, 32] and described["recipe"] == {"name": "x"}


def test_what_is_not_there_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="there is no such run, folder or file"):
        load_trained(tmp_path / "nothing")
    with pytest.raises(OptionError, match=r"holds no trained model .*nas train"):
        load_trained(tmp_path)
    save(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(OptionError, match="holds no trained model"):
        load_trained(tmp_path)


def _no_json(folder: Path) -> None:
    (folder / "config.json").write_text('{"schema": 1,')


def _bytes(folder: Path) -> None:
    (folder / "config.json").write_bytes(b"\xff\xfe\x00")


def _no_arch(folder: Path) -> None:
    (folder / "config.json").write_text('{"schema": 1}')


def _bad_arch(folder: Path) -> None:
    described = json.loads((folder / "config.json").read_text())
    described["arch"]["stages"] = []
    (folder / "config.json").write_text(json.dumps(described))


def _arch_is_a_word(folder: Path) -> None:
    (folder / "config.json").write_text('{"schema": 1, "arch": "resnet50"}')


def _torn_weights(folder: Path) -> None:
    path = folder / "weights/best.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _empty_weights(folder: Path) -> None:
    (folder / "weights/best.safetensors").write_bytes(b"")


@pytest.mark.parametrize(
    "damage",
    [_no_json, _bytes, _no_arch, _bad_arch, _arch_is_a_word, _torn_weights, _empty_weights],
)
def test_damaged_files_are_one_line_with_their_name(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    save(tmp_path)
    damage(tmp_path)
    with pytest.raises(RunError) as error:
        load_trained(tmp_path)
    text = str(error.value)
    assert "\n" not in text
    assert "config.json" in text or "best.safetensors" in text


def described(folder: Path, **changes: Any) -> None:
    """Change a config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"input_size": [3, 32]}, "input_size must be three whole numbers"),
        ({"input_size": "3x32x32"}, "input_size must be three"),
        ({"input_size": [3, 32, 0]}, "input_size must be three"),
        ({"input_size": [3, 32, 31.5]}, "input_size must be three"),
        ({"mean": [0.5]}, "mean must be 3 numbers"),
        ({"mean": [0.5, 0.5, float("nan")]}, "mean must be 3 numbers"),
        ({"mean": None}, "mean must be 3 numbers, not None"),
        ({"std": [0.5, 0.5, "x"]}, "std must be 3 numbers"),
        ({"std": [0.5, 0.5, 0]}, "std must be above 0"),
        ({"classes": ["a"]}, "classes must be the names of the 10 outputs"),
        ({"classes": 10}, "classes must be the names"),
        ({"classes": list(range(10))}, "classes must be words"),
        ({"crop_pct": 0}, "crop_pct must lie above 0"),
        ({"crop_pct": 1.5}, "crop_pct must lie above 0"),
        ({"crop_pct": True}, "crop_pct must lie above 0"),
    ],
    ids=str,
)
def test_a_config_that_is_damaged_is_one_line(
    tmp_path: Path, changes: dict[str, Any], text: str
) -> None:
    save(tmp_path)
    described(tmp_path, **changes)
    with pytest.raises(RunError, match=rf"config\.json is damaged: {text}.*; train again") as error:
        load_trained(tmp_path)
    assert "\n" not in str(error.value)


def test_a_config_may_know_no_classes(tmp_path: Path) -> None:
    save(tmp_path)
    described(tmp_path, classes=[])
    assert load_trained(tmp_path)[1]["classes"] == []


def test_what_was_exported_names_the_way_back(tmp_path: Path) -> None:
    save(tmp_path / "timm", "model.safetensors")
    described(tmp_path / "timm", architecture="nas_effnet")
    (tmp_path / "standalone").mkdir()
    (tmp_path / "standalone/model.py").write_text("")
    for folder in ("timm", "standalone"):
        with pytest.raises(OptionError, match="exported for other programs; name the run it came"):
            load_trained(tmp_path / folder)


def test_weights_that_are_not_finite_are_told(tmp_path: Path) -> None:
    weights = save(tmp_path).state_dict()
    assert load_finite(tmp_path)[1]["schema"] == 1
    weights["stem.conv0.conv.weight"][0] = float("inf")
    write_weights(tmp_path / "weights/best.safetensors", weights)
    load_trained(tmp_path)
    with pytest.raises(RunError, match=r"not finite \(stem.conv0.conv.weight\): the training"):
        load_finite(tmp_path)


@pytest.mark.parametrize("content", ["[]", "3", "null", "{}", '{"schema": 2}', '{"schema": "1"}'])
def test_another_schema_is_refused(tmp_path: Path, content: str) -> None:
    save(tmp_path)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(OptionError, match="is not of schema 1: train again, or upgrade"):
        load_trained(tmp_path)


def test_weights_of_another_arch_than_the_configs_are_refused(tmp_path: Path) -> None:
    save(tmp_path)
    weights = model(WIDER).state_dict()
    path = tmp_path / "weights/best.safetensors"
    write_weights(path, weights)
    with pytest.raises(OptionError, match=r"does not fit the arch .* has shape \(24"):
        load_trained(tmp_path)
    own = model().state_dict()
    gone = list(own)[3]
    write_weights(path, {name: tensor for name, tensor in own.items() if name != gone})
    with pytest.raises(OptionError, match=f"{gone} is missing"):
        load_trained(tmp_path)
    write_weights(path, {**own, "more": torch.zeros(2)})
    with pytest.raises(OptionError, match="more is not of it"):
        load_trained(tmp_path)


@pytest.mark.parametrize("from_file", [True, False])
def test_all_weights_are_taken_where_all_fit(tmp_path: Path, from_file: bool) -> None:
    mine = save(tmp_path)
    source = tmp_path / "weights/best.safetensors" if from_file else tmp_path
    assert equal(initial_weights(model(seed=1), source), mine.state_dict())


def test_another_classifier_is_left_out_and_nothing_else(tmp_path: Path) -> None:
    mine = save(tmp_path)
    start = model(OTHER, seed=1)
    found = initial_weights(start, tmp_path)
    left = set(mine.state_dict()) - set(found)
    assert {start.state_dict()[name].shape[0] for name in left} == {3} and len(left) == 2
    assert equal(found, {n: t for n, t in mine.state_dict().items() if n not in left})
    missing, unexpected = start.load_state_dict(found, strict=False)
    assert set(missing) == left and not unexpected


def test_a_start_from_another_arch_is_refused(tmp_path: Path) -> None:
    save(tmp_path, arch=dataclasses.replace(TINY, stages=TINY.stages[:1]))
    with pytest.raises(OptionError, match=r"--init .* holds the weights of another arch, .*stages"):
        initial_weights(model(), tmp_path)


def test_an_arch_of_the_same_skeleton_inherits(tmp_path: Path) -> None:
    save(tmp_path, arch=WIDER)
    start = model()
    found = initial_weights(start, tmp_path)
    assert all(found[name].shape == value.shape for name, value in start.state_dict().items())


def test_a_start_from_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="there is no such run, folder or file"):
        initial_weights(model(), tmp_path / "no.safetensors")
    with pytest.raises(OptionError, match="holds no trained model"):
        initial_weights(model(), tmp_path)
    (tmp_path / "text.safetensors").write_text("not weights")
    with pytest.raises(RunError, match=r"text\.safetensors") as error:
        initial_weights(model(), tmp_path / "text.safetensors")
    assert "\n" not in str(error.value)
