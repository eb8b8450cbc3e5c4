"""nas as a library: what it lists, what its functions take, and what they refuse."""

import inspect
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from digits import TINY
from PIL import Image

import nas
from nas.core.arguments import checked
from nas.core.errors import OptionError
from nas.core.run_folder import find
from nas.models.build import Features, Model
from nas.training.checkpoint import write_weights
from nas.training.settings import TrainSettings
from nas.training.train import _anchored
from nas.training.trained import CONFIG

FUNCTIONS = sorted(name for name in nas.__all__ if inspect.isfunction(getattr(nas, name)))


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of a training, as files alone, in the working directory's runs."""
    folder = tmp_path / "runs" / "train" / "tiny2"
    (folder / "weights").mkdir(parents=True)
    (folder / "arch.json").write_text(TINY.to_json())
    write_weights(folder / "weights" / "best.safetensors", nas.build_model(TINY).state_dict())
    names = [str(number) for number in range(TINY.head.classes)]
    described = {"schema": 1, "arch": TINY.to_dict(), "classes": names}
    described |= {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 1.0}
    (folder / CONFIG).write_text(json.dumps(described))
    monkeypatch.chdir(tmp_path)
    return folder


def test_dir_lists_the_api_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, nas; names = dir(nas); "
        "print(*sorted({'torch', 'optuna', 'numpy', 'rich', 'yaml'} & set(sys.modules))); "
        "print(*names)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded, names = done.stdout.splitlines()
    assert loaded == "" and set(names.split()) == {*nas.__all__, "__version__"}
    assert {"search", "train", "load_weights", "NasError"} <= set(names.split())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_has_its_signature_and_a_docstring(name: str) -> None:
    function = getattr(nas, name)
    assert function is getattr(nas, name) and function.__name__ == name
    assert inspect.getdoc(function) and inspect.signature(function).parameters


def test_no_other_name() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'seeking'"):
        _ = nas.seeking  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("value", [object(), 3.5, b"x", {1}, True], ids=lambda v: type(v).__name__)
def test_an_argument_of_a_wrong_kind_is_refused_in_one_line(name: str, value: Any) -> None:
    function = getattr(nas, name)
    first = next(iter(inspect.signature(function).parameters.values()))
    given = {first.name: value}
    if first.kind is first.KEYWORD_ONLY:
        given = {"project": value}
    if name == "predict":
        given["paths"] = ["x.png"]
    if name == "inherit":
        given |= {"weights": {}, "arch": value}
    with pytest.raises(nas.NasError) as error:
        function(**given)
    assert "\n" not in str(error.value) and repr(value)[:80] in str(error.value)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: nas.build_model("efficientnet_b0", classes="5"), "takes classes as a whole"),
        (lambda: nas.build_model("efficientnet_b0", classes=0), "head.classes"),
        (lambda: nas.build_model("efficientnet_b0", out_indices=2), "a list of a whole number"),
        (lambda: nas.build_model("efficientnet_b9"), "did you mean"),
        (lambda: nas.count("efficientnet_b0", "224"), "takes resolution as a whole number"),
        (lambda: nas.scale("efficientnet_b0", phi=[1, "x"]), "--phi takes numbers"),
        (lambda: nas.scale("efficientnet_b0", phi=[]), "--phi is empty"),
        (lambda: nas.scale("efficientnet_b0", phi=True), "--phi takes a word|--phi takes numbers"),
        (lambda: nas.search(trials="many"), "--trials"),
        (lambda: nas.search(name=5), "search takes name as a word or None, not 5"),
        (lambda: nas.train("efficientnet_b0", data=5), "--data takes"),
        (lambda: nas.predict("x", [5]), "takes paths as a word or a path or a list of"),
        (lambda: nas.predict("x", "y.png", top="3"), "takes top as a whole number, not '3'"),
        (lambda: nas.val("x", batch_size=1.5), "takes batch_size as a whole number"),
        (lambda: nas.load_weights("efficientnet_b0"), "no trained model"),
        (lambda: nas.load_weights(TINY), "takes weights as a run"),
        (lambda: nas.load_weights(TINY, {"stem": 3}), "holds tensors alone, not 3"),
        (lambda: nas.load_weights(TINY, {}), "the state dict holds the weights of another arch"),
    ],
)
def test_wrong_values_are_refused_with_the_way_out(call: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(nas.NasError, match=message):
        call()


def test_unknown_arguments_are_pythons_own_error() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'tops'"):
        nas.predict("x", "y.png", tops=3)  # type: ignore[call-arg]


def test_networks_are_built_from_a_name_a_path_a_run_and_an_arch(trained: Path) -> None:
    counts = {
        nas.count(source).flops
        for source in (TINY, TINY.to_dict(), trained, str(trained / "arch.json"), "tiny2")
    }
    assert counts == {nas.count(TINY).flops}
    model = nas.build_model("tiny2", classes=3)
    assert isinstance(model, Model) and model.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
    assert nas.count("efficientnet_b0", 448).flops > 3 * nas.count("efficientnet_b0").flops
    features = nas.build_model("efficientnet_b0", features_only=True)
    assert isinstance(features, Features) and len(features.channels) == 5


def test_weights_are_loaded_into_what_is_given(trained: Path) -> None:
    file = trained / "weights" / "best.safetensors"
    first = nas.load_weights("tiny2")
    assert not first.training
    images = torch.randn(2, 3, 32, 32)
    for source in (trained, str(file), file, first.state_dict()):
        assert torch.equal(nas.load_weights(TINY, source)(images), first(images))
    own = nas.build_model(TINY)
    assert nas.load_weights(own, "tiny2") is own and torch.equal(own(images), first(images))
    backbone = nas.load_weights(nas.build_model(TINY, features_only=True), trained)
    assert isinstance(first, Model)
    assert torch.equal(backbone(images)[-1], first.forward_features(images))
    fewer = nas.load_weights(nas.build_model(TINY, classes=3), trained)
    assert fewer(images).shape == (2, 3)
    other = replace(TINY, stages=TINY.stages[:1])
    with pytest.raises(OptionError, match="tiny2 holds the weights of another arch"):
        nas.load_weights(other, "tiny2")


def test_a_run_is_found_by_its_name_where_it_is_used(trained: Path, tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save("a.png")
    assert len(nas.predict("tiny2", "a.png", top=2)["images"][0]["top"]) == 2
    exported = nas.export("tiny2", format="pt2", output="a.pt2", batches=(1,))
    assert exported["trained"]
    assert nas.explain("a.png", models="tiny2", output="b.png")["models"][0]["name"] == "tiny2"
    chosen = TrainSettings.model_validate({"data": "digits", "init": "tiny2"})
    assert Path(_anchored(chosen, Path("runs")).init or "") == trained
    # a folder of that name which is no model hides none
    Path("tiny2").mkdir()
    assert len(nas.predict("tiny2", ["a.png"])["images"]) == 1


def test_a_name_of_two_runs_is_refused(trained: Path) -> None:
    (trained.parent.parent / "search" / "tiny2").mkdir(parents=True)
    with pytest.raises(OptionError, match=r"runs/search/tiny2 and of runs/train/tiny2: give one"):
        nas.load_arch("tiny2")
    assert find("tiny2", ("train",)) == Path("runs/train/tiny2")


@pytest.mark.parametrize("phi", [[1, 2], (1, 2), range(1, 3), "1,2", ["1", 2.0]])
def test_phi_is_a_list_or_text(phi: Any, tmp_path: Path) -> None:
    found = nas.scale("mobilenet_v2", phi=phi, project=tmp_path)
    assert [member["phi"] for member in found["members"]] == [1, 2]


def test_numbers_that_are_whole_are_numbers_and_truths_are_not() -> None:
    @checked
    def function(share: float, count: "int | None" = None, *rest: str) -> float:
        return share

    assert function(1) == 1 and function(0.5, 3, "x") == 0.5
    for given in [(True,), ("1",), (1.0, 2.0), (1.0, False)]:
        with pytest.raises(OptionError):
            function(*given)  # type: ignore[arg-type]
