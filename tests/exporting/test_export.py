"""Export: what each format writes answers as the network does, and what cannot be is one line."""

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Cli
from digits import TINY
from PIL import Image
from torch import Tensor

import nas
from nas.core import registry
from nas.core.errors import ArchError, MissingError, NasError, OptionError, RunError, install
from nas.core.run_folder import read_json
from nas.data import augment
from nas.data.images import shrink
from nas.data.loader import stored_side
from nas.exporting import export as verb
from nas.exporting import plain
from nas.exporting.request import ExportRequest, make_facts
from nas.models.arch import Arch, Stage
from nas.models.build import Model
from nas.models.cost import count
from nas.testing import ExporterContract, each
from nas.training.checkpoint import read_weights, write_weights
from nas.training.trained import load_trained

torch.set_num_threads(1)

NEEDS = {"onnx": ("onnx", "onnxruntime", "onnxscript"), "timm": ("timm",)}
NET = replace(TINY, head=replace(TINY.head, dropout=0.1), stochastic_depth=0.2)


def have(format: str) -> bool:
    return all(importlib.util.find_spec(package) for package in NEEDS.get(format, ()))


def needs(format: str) -> None:
    if not have(format):
        pytest.skip(f"{format} needs {NEEDS[format]}")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small net, trained on the digits for an epoch."""
    home = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAS_CACHE", str(home / "cache"))
        found = nas.train(
            NET.to_dict(),
            data="digits",
            recipe="proxy",
            recipe_options={"flip": False},
            epochs=1,
            tracker=["none"],
            project=home,
        )
    return Path(found["run"])


SLOW = {"pytestmark": pytest.mark.slow}  # to import
globals().update(
    each(
        ExporterContract, [f for f in registry.names("exporters") if have(f)], onnx=SLOW, timm=SLOW
    )
)


# --- every format, of a trained net


@pytest.mark.parametrize(
    "format", [pytest.param(f, marks=pytest.mark.slow) for f in registry.names("exporters")]
)
def test_a_trained_net_answers_the_same_in_every_format(
    format: str, run: Path, tmp_path: Path
) -> None:
    needs(format)
    found = nas.export(run, format=format, project=tmp_path)
    assert [row["batch"] for row in found["comparison"]] == [1, 2, 5]
    assert [row["argmax_equal"] for row in found["comparison"]] == [1, 2, 5]
    assert 0 <= found["max_ratio"] <= found["tolerance"] == 1e-4 and found["rounding"] is None
    assert found["trained"] and found["notes"] == [] and found["imgsz"] == 32
    output = Path(found["output"])
    assert output.exists() and found["bytes"] > 4 * found["params"]
    assert read_json(output.parent / "result.json") == found
    assert [p.name for p in output.parent.glob(".*")] == []


@pytest.mark.slow
def test_onnx_runs_on_its_own_and_says_what_it_is(run: Path, tmp_path: Path) -> None:
    needs("onnx")
    import onnxruntime

    path = tmp_path / "net.onnx"
    found = nas.export(run, output=path, preprocessing=True, features_only=True)
    model, config = load_trained(run)
    assert found["channels"] == [8, 8] and found["strides"] == [2, 4]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    meta = session.get_modelmeta().custom_metadata_map
    assert json.loads(meta["classes"]) == [str(digit) for digit in range(10)]
    assert json.loads(meta["mean"]) == config["mean"] and meta["nas"] == nas.__version__
    assert int(meta["multiply_adds"]) == count(NET).flops
    assert [out.name for out in session.get_outputs()] == ["map2", "map4"]
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)
    maps = session.run(None, {"images": pixels})
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.inference_mode():
        wanted = model.features((torch.from_numpy(pixels) / 255 - mean) / std)
    for one, other in zip(wanted, maps, strict=True):
        torch.testing.assert_close(torch.from_numpy(other), one, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [{}, {"preprocessing": True}, {"features_only": True}, {"batch_size": 3}, {"imgsz": 48}],
    ids=str,
)
def test_pt2_has_every_option(options: dict[str, Any], run: Path, tmp_path: Path) -> None:
    found = nas.export(run, format="pt2", output=tmp_path / "net.pt2", **options)
    batches = [options["batch_size"]] if "batch_size" in options else [1, 2, 5]
    assert [row["batch"] for row in found["comparison"]] == batches
    module = torch.export.load(tmp_path / "net.pt2").module()
    side = options.get("imgsz", 32)
    images = torch.randint(0, 256, (3, 3, side, side), dtype=torch.uint8)
    taken = images if "preprocessing" in options else images.float()
    answer = module(taken)
    shapes = [tuple(x.shape) for x in ([answer] if isinstance(answer, Tensor) else answer)]
    maps = "features_only" in options
    assert shapes == ([(3, 8, 16, 16), (3, 8, 8, 8)] if maps else [(3, 10)])


@pytest.mark.parametrize("crop_pct", [1.0, 0.875])
@pytest.mark.parametrize("shape", [(8, 8), (32, 32), (36, 50), (67, 91), (300, 40)], ids=str)
def test_a_copied_reader_sees_what_predict_sees(
    shape: tuple[int, int], crop_pct: float, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.png")
    store = augment.store_images([shrink(noise, stored_side(32))])
    wanted = augment.plain_crops(store, torch.tensor([0]), 32, crop_pct=crop_pct)
    found = plain.read_image(tmp_path / "photo.png", 32, crop_pct)
    assert found.shape == (1, 3, 32, 32) and found.dtype == torch.uint8
    assert (found.int() - wanted.int()).abs().max() <= 1  # of 255, by rounding


@pytest.mark.slow
def test_standalone_tells_a_photo_as_predict_does(run: Path, tmp_path: Path) -> None:
    config = read_json(run / "config.json") | {"crop_pct": 0.875}
    write_weights(tmp_path / "net/model.safetensors", load_trained(run)[0].state_dict())
    (tmp_path / "net/config.json").write_text(json.dumps(config))
    noise = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    photo = tmp_path / "photo.png"
    Image.fromarray(noise).resize((91, 67), Image.Resampling.BICUBIC).save(photo)
    folder = tmp_path / "alone"
    model, config = load_trained(tmp_path / "net")
    facts = make_facts(model.arch, config)
    standalone = registry.load("exporters", "standalone")
    standalone.write(ExportRequest(model.arch, model, facts, preprocessing=True), folder)
    done = subprocess.run(
        [sys.executable, "-I", folder / "model.py", "no.png", photo],
        capture_output=True, text=True, cwd="/",
    )  # fmt: skip
    assert done.returncode == 1  # by the one that cannot be read
    assert done.stderr.startswith("no.png cannot be read: ") and done.stderr.count("\n") == 1
    told = [part.split() for part in done.stdout.strip().split("  ")[1:]]
    wanted = nas.predict(tmp_path / "net", [photo])["images"][0]["top"]
    assert [name for name, *_ in told] == [row["class"] for row in wanted]
    shares = [float(share) for _, share, _ in told]
    assert shares == pytest.approx([100 * row["probability"] for row in wanted], abs=0.2)


# --- what is wrong


def break_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-50])


def blow_up(folder: Path) -> None:
    weights = read_weights(folder / "model.safetensors")
    weights["stem.conv0.conv.weight"][0] = float("nan")
    write_weights(folder / "model.safetensors", weights)


def lose(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (break_weights, "cannot read the weights"),
        (blow_up, r"not finite \(stem.conv0.conv.weight\): the training diverged"),
        (lose, "holds no trained model"),
    ],
)
def test_a_damaged_source_is_never_exported_with_fresh_weights(
    damage: Callable[[Path], None], text: str, run: Path, tmp_path: Path
) -> None:
    write_weights(tmp_path / "net/model.safetensors", load_trained(run)[0].state_dict())
    (tmp_path / "net/config.json").write_text((run / "config.json").read_text())
    damage(tmp_path / "net")
    with pytest.raises((RunError, OptionError), match=text) as error:
        nas.export(tmp_path / "net", format="pt2", project=tmp_path)
    assert "\n" not in str(error.value) and not (tmp_path / "export").exists()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"format": "onxx"}, "no exporter named 'onxx' .did you mean 'onnx'"),
        ({"format": "./none.py"}, "no file none.py"),
        ({"batch_size": -1}, "--batch-size takes"),
        ({"imgsz": 16}, "at least 32 pixels, not 16"),
        ({"batches": ()}, "batches takes"),
        ({"seed": -1}, "--seed takes a whole number from 0 below 2.63, not -1"),
        ({"seed": 2**63}, "--seed takes a whole number"),
        ({"output": "net.pt2", "name": "x"}, "--name is of a run's folder"),
        ({"output": "net.onnx", "format": "pt2"}, r"must end in \.pt2, not 'net.onnx'"),
        ({"source": "weights.safetensors"}, "takes the folder of a run"),
        ({"source": "efficientnet_bo"}, "did you mean 'efficientnet_b"),
        ({"source": replace(TINY, in_channels=1), "preprocessing": True}, "takes RGB images"),
        ({"format": "timm", "preprocessing": True}, "does not take --preprocessing"),
    ],
    ids=str,
)
def test_a_wrong_option_is_one_line(
    options: dict[str, Any], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = options.get("source", TINY)
    more = {key: value for key, value in options.items() if key != "source"}
    with pytest.raises(OptionError, match=text) as error:
        nas.export(source, **{"format": "pt2"} | more)
    assert "\n" not in str(error.value) and list(tmp_path.iterdir()) == []


def test_strides_beyond_the_pixels_are_refused() -> None:
    deep = Arch("deep", tuple(Stage("conv", 8, stride=2) for _ in range(6)), resolution=128)
    with pytest.raises(ArchError, match="shrinks below one pixel: resolution 64"):
        nas.export(deep, format="pt2", imgsz=64)


def test_an_output_that_exists_is_kept(tmp_path: Path) -> None:
    (tmp_path / "net.pt2").write_text("mine")
    with pytest.raises(OptionError, match="exists: name another, or delete it"):
        nas.export(TINY, format="pt2", output=tmp_path / "net.pt2")
    assert (tmp_path / "net.pt2").read_text() == "mine"
    with pytest.raises(OptionError, match=r"is a folder: name a file in it, as .*model\.pt2"):
        nas.export(TINY, format="pt2", output=tmp_path)
    with pytest.raises(RunError, match=r"cannot write .*net\.pt2/x\.pt2"):
        nas.export(TINY, format="pt2", output=tmp_path / "net.pt2/x.pt2")


def test_weights_that_were_never_trained_are_called_fresh(tmp_path: Path) -> None:
    (tmp_path / "b1").mkdir()
    (tmp_path / "b1/arch.json").write_text(TINY.to_json())
    found = nas.export(tmp_path / "b1", format="pt2", project=tmp_path, batches=(1,))
    assert not found["trained"] and "fresh weights" in found["notes"][0]
    again = nas.export(tmp_path / "b1", format="pt2", project=tmp_path, batches=(1,))
    assert again["run"] == str(tmp_path / "export/export2")
    files = [Path(one["output"]) for one in (found, again)]
    first, second = (torch.export.load(file).state_dict for file in files)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("format", "missing"), [("onnx", "onnxruntime"), ("onnx", "onnxscript"), ("timm", "timm")]
)
def test_a_missing_package_is_told_with_its_pip_line(
    format: str, missing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingError, match=re.escape(install(format))):
        nas.export(TINY, format=format, project=tmp_path)
    assert list(tmp_path.iterdir()) == []


MINE = """
import torch

FILE = "net.txt"

def check(request):
    pass

def write(request, path):
    {write}

def run(path, batches, request):
    return {run}

def hint(path, request):
    return ["cat " + str(path)]
"""
RIGHT = "[request.answer(batch) for batch in batches]"


@pytest.mark.parametrize(
    ("write", "run", "text"),
    [
        ("path.write_text('x')", "[[torch.zeros(len(b), 10)] for b in batches]", "is kept, do not"),
        ("path.write_text('x')", "[[torch.full((len(b), 10), torch.nan)] for b in batches]", "nan"),
        ("path.write_text('x')", "[[torch.zeros(3, 3)] for b in batches]", "the network gives"),
        ("path.write_text('x')", "1 / 0", "written and cannot be run: ZeroDivisionError"),
        ("1 / 0", RIGHT, "cannot be exported: ZeroDivisionError"),
    ],
)
def test_a_file_that_disagrees_is_an_error_and_stays(
    write: str, run: str, text: str, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(MINE.format(write=write, run=run))
    with pytest.raises(NasError, match=text) as error:
        nas.export(TINY, format=str(mine), project=tmp_path)
    assert error.value.exit_code == 1 and "\n" not in str(error.value)
    assert (tmp_path / "export/export/net.txt").exists() == ("x" in write)


@pytest.mark.parametrize(("error", "good"), [(2e-5, True), (1e-3, True), (5e-3, False)])
def test_rounding_is_judged_by_float64(
    error: float, good: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verb, "_rounding", lambda *_: [[4e-4]])
    (tmp_path / "mine.py").write_text(
        MINE.format(
            write="path.write_text('x')",
            run=f"[[a + {error} * a.abs().max()] for b in batches for a in request.answer(b)]",
        )
    )
    options: dict[str, Any] = {"format": str(tmp_path / "mine.py"), "project": tmp_path}
    if good:
        found = nas.export(TINY, **options, batches=(4,))
        assert found["max_ratio"] == pytest.approx(error, rel=0.1)
        wide = error > 1e-4
        assert found["tolerance"] == pytest.approx(1.6e-3 if wide else 1e-4)
        assert found["rounding"] == (4e-4 if wide else None)
        assert any("amplifies rounding" in note for note in found["notes"]) is wide
    else:
        with pytest.raises(NasError, match="answers otherwise"):
            nas.export(TINY, **options, batches=(4,))


def test_each_output_is_held_against_its_own_largest_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small map that is wrong does not hide behind a large one."""
    monkeypatch.setattr(
        ExportRequest, "answer", lambda _, x: [torch.ones(len(x), 2), x.new_ones(9) * 99]
    )
    monkeypatch.setattr(verb, "_rounding", lambda *_: [[0.0, 1.0]])
    mine = tmp_path / "mine.py"
    run = "[[a + d for a, d in zip(request.answer(b), ({}))] for b in batches]"
    options: dict[str, Any] = {"features_only": True, "project": tmp_path, "batches": (1,)}
    mine.write_text(MINE.format(write="path.write_text('x')", run=run.format("5e-3, 0")))
    with pytest.raises(NasError, match=r"map2 is 0\.005 apart where 0\.0001 is allowed"):
        nas.export(TINY, format=str(mine), **options)
    mine.write_text(MINE.format(write="path.write_text('x')", run=run.format("5e-5, 0.5")))
    [row] = nas.export(TINY, format=str(mine), **options)["comparison"]
    assert row["output"] == "map4" and row["largest"] == 99
    assert row["ratio"] == pytest.approx(0.5 / 99, rel=1e-3) and row["tolerance"] == 1e-2


def test_nothing_but_zeros_differs_by_a_share() -> None:
    zeros, ones = [torch.zeros(1, 2)], [torch.ones(1, 2)]
    assert verb._gaps(zeros, zeros)[0]["ratio"] == 0
    assert verb._gaps(zeros, ones)[0]["ratio"] == float("inf")
    assert verb._gaps(ones, [torch.full((1, 2), torch.nan)])[0]["ratio"] == float("inf")


def test_float32_is_near_float64_for_a_small_net() -> None:
    model = Model(TINY).eval()
    for options in ({}, {"preprocessing": True}, {"features_only": True}):
        this = ExportRequest(TINY, model, make_facts(TINY, None), **options)
        images = [this.images(2)]
        answers = [this.answer(images[0])]
        [shares] = verb._rounding(this, images, answers)
        assert len(shares) == len(this.outputs) and 0 < max(shares) < 1e-5
    assert next(model.parameters()).dtype == torch.float32


def test_your_own_format_is_a_file(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(MINE.format(write="path.write_text('x')", run=RIGHT))
    found = nas.export(TINY, format=str(mine), project=tmp_path)
    assert Path(found["output"]).read_text() == "x" and found["next"][0].startswith("cat ")


def test_the_screen_tells_what_the_file_takes_and_gives(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE.format(write="path.write_text('x')", run=RIGHT))
    (tmp_path / "tiny.json").write_text(TINY.to_json())
    words = ("--format", "mine.py", "--features-only", "--preprocessing", "-o", "net.txt")
    done = cli("export", "tiny.json", *words)
    assert done.returncode == 0, done.stderr
    for text in ("fresh weights", "uint8 RGB (N, 3, 32, 32)", "8 channels at 1/4", "batch 5",
                 "net.txt", "now try", "of the largest number", "(map"):  # fmt: skip
        assert text in done.stdout
    assert "multiply-adds (MACs)" in done.stdout
