"""Class activation maps: what they add up to, what is drawn, and the command."""

import json
import os
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import run_here
from PIL import Image
from safetensors.torch import save_file

from nas.core.errors import MissingError, OptionError, RunError
from nas.core.run_folder import read_json
from nas.models import cam
from nas.models.arch import Arch, Head, Stage, Stem
from nas.models.build import Model
from nas.models.load import load_arch
from nas.reporting import explain as verb
from nas.reporting import pictures
from nas.reporting.explain import explain

TINY = Arch(
    "tiny",
    (Stage("mbconv", 8, stride=2, expansion=2.0),),
    Stem(8),
    Head(16, classes=3),
    resolution=32,
)
CLASSES = ["red", "green", "blue"]
ARCHS = {
    "tiny": TINY,
    "no conv in the head": replace(TINY, head=Head(0, classes=3)),
    "relu": replace(TINY, activation="relu"),
    "a hidden layer": replace(TINY, head=Head(16, 12, classes=3)),
}
Answer = tuple[int, str, str]


def lively(arch: Arch, seed: int = 0) -> Model:
    """Return a net in eval mode whose norms and biases have left their start."""
    torch.manual_seed(seed)
    model = Model(arch)
    with torch.no_grad():
        model.train()(torch.randn(8, 3, arch.resolution, arch.resolution))
        torch.nn.init.normal_(model.get_classifier().bias)  # type: ignore[arg-type]
    return model.eval()


def save(folder: Path, arch: Arch = TINY, classes: list[str] = CLASSES, seed: int = 0) -> Path:
    """Write a trained model, as a training leaves it."""
    (folder / "weights").mkdir(parents=True)
    save_file(lively(arch, seed).state_dict(), folder / "weights" / "best.safetensors")
    size = arch.resolution
    config = {
        "schema": 1,
        "arch": arch.to_dict(),
        "classes": classes,
        "input_size": [3, size, size],
    }
    config |= {"mean": [0.5] * 3, "std": [0.25] * 3, "crop_pct": 1.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def picture(path: Path, size: tuple[int, int] = (40, 48)) -> Path:
    rng = np.random.default_rng(len(path.name))
    Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two runs, a family, and images."""
    monkeypatch.chdir(tmp_path)
    save(Path("runs/train/a"))
    save(
        Path("runs/train/b"), Arch("large", TINY.stages, Stem(8), TINY.head, resolution=64), seed=1
    )
    for name in ("b10", "b2", "b0"):
        save(Path("runs/scale/family") / name)
    Path("runs/scale/family/b9").mkdir()  # not trained
    Path("runs/scale/family/family.csv").write_text("")
    Path("images").mkdir()
    for name in ("one.png", "two.png"):
        picture(Path("images") / name)
    return tmp_path


def nas(*words: str) -> tuple[int, str, str]:
    """Run `nas explain`; return its exit code and what it printed."""
    done = run_here("explain", *words)
    return done.returncode, done.stdout, done.stderr


# --- the maps


@pytest.mark.parametrize("name", [name for name in ARCHS if name != "a hidden layer"])
def test_a_map_and_its_bias_add_up_to_the_logit(name: str) -> None:
    model = lively(ARCHS[name])
    x = torch.randn(5, 3, 64, 48)
    for classes in (None, torch.tensor([0, 1, 2, 0, 1])):
        found = cam.explain(model, x, classes)
        expected = model(x).detach()
        chosen = expected.argmax(1) if classes is None else classes
        assert torch.equal(found.classes, chosen)
        torch.testing.assert_close(found.logits, expected)
        sums = found.maps.mean((1, 2)) + found.bias
        torch.testing.assert_close(
            sums, expected.gather(1, chosen[:, None])[:, 0], atol=1e-4, rtol=0
        )
        assert found.maps.shape == (5, 16, 12) and float(found.maps.std((1, 2)).min()) > 0


def test_b0s_map_adds_up_too() -> None:
    model = lively(replace(load_arch("efficientnet_b0"), resolution=32))
    x = torch.randn(1, 3, 96, 96)
    found = cam.explain(model, x)
    assert found.maps.shape == (1, 3, 3)
    expected = model(x).detach()[0, found.classes[0]]
    assert float(found.maps.mean() + found.bias) == pytest.approx(float(expected), abs=1e-4)


def test_the_gradients_method_is_the_same_on_a_linear_head() -> None:
    model, x = lively(TINY), torch.randn(2, 3, 32, 32)
    plain, grad = (cam.explain(model, x, method=method) for method in ("cam", "gradcam"))
    torch.testing.assert_close(plain.maps, grad.maps)


def test_a_hidden_layer_needs_gradients() -> None:
    model, x = lively(ARCHS["a hidden layer"]), torch.randn(2, 3, 32, 32)
    found = cam.explain(model, x)
    assert found.maps.shape == (2, 8, 8) and torch.isfinite(found.maps).all()
    # more of the map where it is brightest raises the logit, as the first order says
    last = cam.last_map(model, x).detach()
    eps = 1e-3
    raised = cam.pooled(model, last * (1 + eps)).detach()
    rise = (raised - found.logits).gather(1, found.classes[:, None])[:, 0] / eps
    torch.testing.assert_close(found.maps.mean((1, 2)), rise, atol=1e-3, rtol=0.05)
    with pytest.raises(OptionError, match="use --method gradcam"):
        cam.explain(model, x, method="cam")


def test_a_map_points_at_what_is_there() -> None:
    model = lively(TINY)
    image = torch.zeros(1, 3, 64, 64)
    image[:, :, 40:, 40:] = 3.0
    plain = cam.explain(model, torch.zeros_like(image), torch.tensor([1])).maps
    change = (cam.explain(model, image, torch.tensor([1])).maps - plain).abs()[0]
    assert float(change[8:, 8:].mean()) > 10 * float(change[:6, :6].mean())


# --- the verb


def test_a_picture_has_a_row_an_image_and_a_column_a_model(home: Path) -> None:
    models = ["runs/train/a", "runs/train/b"]
    found = explain(["images"], models=models, output="here.png")
    assert [model["name"] for model in found["models"]] == ["a", "b"]
    assert [row["path"] for row in found["images"]] == ["images/one.png", "images/two.png"]
    first, second = found["images"][0]["models"]
    assert np.shape(first["map"]) == (8, 8) and np.shape(second["map"]) == (16, 16)
    for row in (first, second):
        assert row["class"] == row["predicted"] and row["probability"] > 1 / 3
        assert np.mean(row["map"]) + row["bias"] == pytest.approx(row["logit"], abs=1e-4)
    with Image.open("here.png") as image:
        assert image.width > image.height > 300


def test_the_likeliest_class_is_what_predict_says(home: Path) -> None:
    from nas.training.predict import predict

    said = predict("runs/train/b", ["images"], top=1)["images"]
    found = explain(["images"], models=["runs/train/b"])["images"]
    for mine, other in zip(found, said, strict=True):
        assert mine["models"][0]["class"] == other["top"][0]["class"]
        assert mine["models"][0]["probability"] == pytest.approx(other["top"][0]["probability"])


def test_of_a_family_all_trained_members_are_taken_in_order(home: Path) -> None:
    found = explain(["runs/scale/family", "images/one.png", "runs/train/a"])
    assert [model["name"] for model in found["models"]] == ["b0", "b2", "b10", "a"]


def test_images_beside_a_trained_run_are_no_family(home: Path) -> None:
    save(Path("images/model"))
    found = explain(["images"], models=["runs/train/a", "images/model"])
    assert [row["path"] for row in found["images"]] == ["images/one.png", "images/two.png"]
    assert [model["name"] for model in found["models"]] == ["a", "model"]


def test_equal_names_are_told_apart() -> None:
    paths = [Path("runs/scale/x/b1"), Path("runs/scale/y/b1"), Path("runs/scale/y/b2")]
    assert verb._labels(paths) == ["x/b1", "y/b1", "y/b2"]
    assert verb._labels(paths[:1]) == ["b1"]
    assert verb._labels([Path("a.png"), Path("a.png")]) == ["a.png", "a.png"]


def test_a_link_has_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "mine").symlink_to("run")
    assert verb._labels([tmp_path / "mine", tmp_path / "run"]) == ["mine", "run"]


def test_a_class_that_is_asked_for_is_drawn_and_the_likeliest_told(home: Path) -> None:
    likeliest = explain(["images/one.png"], models=["runs/train/a"])["images"][0]["models"][0]
    other = next(name for name in CLASSES if name != likeliest["class"])
    found = explain(["images/one.png"], models=["runs/train/a"], class_name=other)
    [row] = found.images[0].models
    assert (row.name, row.predicted) == (other, likeliest["class"])
    assert row.probability < row.predicted_probability
    seen = verb.Seen(np.zeros((32, 32, 3), np.uint8), row, torch.tensor(row.map))
    assert f"(says {likeliest['class']}" in verb._caption(seen)
    fine = verb.heat(seen)
    assert fine.shape == (32, 32) and fine.min() == 0 and fine.max() == 1
    flat = verb.Seen(seen.view, row, torch.ones(8, 8))
    assert not verb.heat(flat).any()


def test_pictures_are_never_written_over_by_default(home: Path) -> None:
    found = [explain(["images"], models=["runs/train/a"]) for _ in range(2)]
    runs = [f"runs/explain/{name}" for name in ("explain", "explain2")]
    assert [each["run"] for each in found] == runs
    assert [each["output"] for each in found] == [f"{run}/explain.png" for run in runs]
    names = {path.name for path in Path(runs[0]).iterdir()}
    assert names == {"explain.png", "result.json", "args.yaml", "env.json"}
    assert read_json(Path(runs[1], "result.json")) == found[1]
    named = explain(["images"], models=["runs/train/a"], project="here", name="x")
    assert named["output"] == "here/explain/x/explain.png"


@pytest.mark.parametrize("output", ["images/one.png", "folder.html", "link.png"])
def test_what_exists_is_never_written_over(home: Path, output: str) -> None:
    Path("folder.html").mkdir()
    Path("link.png").symlink_to("nowhere.png")
    before = Path("images/one.png").read_bytes()
    with pytest.raises(OptionError, match=f"--output {output} exists: name another, or delete it"):
        explain(["images/one.png"], models=["runs/train/a"], output=output)
    assert Path("images/one.png").read_bytes() == before and not Path("runs/explain").exists()


def test_a_run_folder_is_not_left_empty(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise RunError("the disk is full")

    monkeypatch.setattr(verb, "_write", full)
    with pytest.raises(RunError, match="full"):
        explain(["images"], models=["runs/train/a"])
    assert list(Path("runs/explain").iterdir()) == []


def test_what_is_missing_is_told_before_anything_is_computed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(verb, "_column", lambda *_: pytest.fail("it was computed"))
    with pytest.raises(MissingError, match="pip install matplotlib"):
        explain(["images"], models=["runs/train/a"])


def test_the_method_of_each_map_is_told(home: Path) -> None:
    save(Path("hidden"), ARCHS["a hidden layer"])
    found = explain(["images/one.png"], models=["runs/train/a", "hidden"], output="x.html")
    assert [each["method"] for each in found["images"][0]["models"]] == ["cam", "gradcam"]
    assert verb._titles(["a", "hidden"], found.images) == ["a", "hidden (gradcam)"]
    told = found.to_dict()
    assert list(told) == ["schema", "run", "output", "models", "images", "failed"]
    assert list(told["images"][0]) == ["path", "true", "models"]
    assert list(told["images"][0]["models"][0])[:3] == ["model", "method", "class"]
    assert (told["run"], told["output"]) == (None, "x.html")
    assert "hidden (gradcam)" in Path("x.html").read_text(encoding="utf-8")


def test_weights_that_blew_up_are_refused_and_classes_may_have_no_names(home: Path) -> None:
    save(Path("nameless"), classes=[])
    [row] = explain(["images/one.png"], models=["nameless"])["images"][0]["models"]
    assert row["class"] in ("0", "1", "2")
    weights = lively(TINY).state_dict()
    weights["head.conv0.conv.weight"][0] = torch.nan
    save_file(weights, "nameless/weights/best.safetensors")
    with pytest.raises(RunError, match="not finite"):
        explain(["images/one.png"], models=["nameless"])


def test_a_page_holds_the_picture_and_the_figures(home: Path) -> None:
    bad = Path("images/<b>.png")
    bad.write_bytes(b"no image")
    found = explain(["images"], models=["runs/train/a"], output="page.html")
    text = Path("page.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in text and "&lt;b&gt;.png" in text and "<b>.png" not in text
    assert "http" not in text.replace("http-equiv", "") and found["failed"] == 1


def test_heat_is_drawn_over_grey() -> None:
    view = np.full((16, 16, 3), 90, np.uint8)
    heat = np.zeros((16, 16), np.float32)
    heat[:8] = 1
    cells: list[Any] = [pictures.Cell(view, "x"), pictures.Cell(view, "$y$", heat)]
    with Image.open(BytesIO(pictures.heat_maps([cells], ["image", "net"]))) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    right = pixels[:, pixels.shape[1] // 2 + 20 : -20]
    top, bottom = right[right.shape[0] * 3 // 10], right[right.shape[0] * 7 // 10]
    assert top.mean() > bottom.mean() + 50


# --- the command


def test_a_flat_map_shows_no_place() -> None:
    rounding = torch.full((2, 2), 0.3) + torch.tensor([[0.0, 1e-8], [3e-8, 0.0]])
    seen = verb.Seen(np.zeros((32, 32, 3), np.uint8), {}, rounding)
    assert (verb.heat(seen) == 0).all()
    steep = verb.Seen(seen.view, {}, torch.tensor([[0.0, 1e-3], [0.0, 0.0]]))
    assert verb.heat(steep).max() == 1


def test_explain_lists_what_cannot_be_read(
    home: Path,
) -> None:
    code, out, _ = nas("images/one.png", "lost.png", "--models", "runs/train/a", "runs/train/b")
    assert code == 0 and "lost.png: No such file or directory" in out
    assert "1 of 2 could not be read" in out and "picture  runs/explain/explain/explain.png" in out
    assert "a: " in out and "b: " in out
    code, out, _ = nas("lost.png", "--models", "runs/train/a", "--json")
    assert code == 1 and json.loads(out)["output"] is None
    assert not Path("runs/explain/explain2").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("images", "explain needs trained models: --models RUN"),
        ("runs/train/a", "explain needs images"),
        ("images --models nowhere", "no trained model nowhere"),
        ("images --models timm:resnet18", "names weights alone: train from them"),
        ("images --models images", "holds no trained model"),
        ("images runs/train/a --class rd", "knows no class 'rd' (did you mean 'red'?)"),
        ("images runs/train/a --method cm", "(did you mean 'cam'?)"),
        ("images runs/train/a --output x.jpg", "ends in .png or .html"),
        ("images runs/train/a --output no/x.png", "there is no folder no"),
        ("images runs/train/a --output x.png --name x", "--name is of a run's folder"),
        ("images runs/train/a --device gpu", "--device takes"),
        ("runs/train/a runs", "holds no images"),
    ],
)
def test_explain_refuses_in_one_line(home: Path, words: str, message: str) -> None:
    code, out, err = nas(*words.split())
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert message in err


def test_too_many_images_are_refused(home: Path) -> None:
    for number in range(25):
        picture(Path("images") / f"{number}.png")
    with pytest.raises(OptionError, match="up to 24 images at a time, not 27"):
        explain(["images"], models=["runs/train/a"])


def test_the_true_class_is_told_where_the_folder_tells_it(home: Path) -> None:
    for folder in ("red", "Green/deeper", "elsewhere"):
        (home / "labelled" / folder).mkdir(parents=True)
        picture(home / "labelled" / folder / "x.png")
    found = explain([home / "labelled"], models=["runs/train/a"], output=home / "true.html")
    assert {Path(row["path"]).parent.name: row["true"] for row in found["images"]} == {
        "red": "red",
        "deeper": "green",
        "elsewhere": None,
    }
    assert '<td class="l">green</td>' in (home / "true.html").read_text()


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"\xff\xfe.png", "日本 $x_1$.png".encode()])
@pytest.mark.parametrize("output", [None, "x.html", "x.png"])
def test_a_name_that_is_no_utf8_is_drawn(home: Path, name: bytes, output: str | None) -> None:
    folder = home / "odd"
    folder.mkdir()
    with open(os.path.join(os.fsencode(folder), name), "wb") as file:
        Image.new("RGB", (40, 48)).save(file, "PNG")
    target = ["--output", str(home / output)] if output else ["--project", str(home / "p")]
    code, out, err = nas("runs/train/a", str(folder), *target, "--json")
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert os.fsencode(result["images"][0]["path"]).endswith(name)
    assert Path(result["output"]).stat().st_size > 1000
    if output is None:
        kept = json.loads((Path(result["run"]) / "result.json").read_text(encoding="utf-8"))
        assert kept["images"][0]["path"] == result["images"][0]["path"]
        again = nas("runs/train/a", *map(str, folder.iterdir()), "--project", "q")
        assert again[0] == 0
