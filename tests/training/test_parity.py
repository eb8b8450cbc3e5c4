"""Nets of timm and torchvision and the baselines that they are: the same weights, the same logits.

All weights and running statistics are drawn at random; with a package of real ones, photographs.
"""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from nas.core.errors import ArchError
from nas.data import augment
from nas.models.build import Model
from nas.models.load import baselines
from nas.models.published import published_as
from nas.training.predict import predict, read_image, views_of
from nas.training.weights.naming import named_as
from nas.training.weights.packages import PACKAGES, Package, file_of
from nas.training.weights.sources import find_weights

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from lib.library_nets import LibraryNet, built, library_nets, parity

torch.set_num_threads(1)

NETS = library_nets()
# one of each kind of block and of naming; the others are slow
QUICK = {
    *("mnasnet_small", "mobilenetv1_100", "mobilenetv3_small_100", "tf_mobilenetv3_small_100"),
    *("efficientnet_lite0", "tf_efficientnet_lite0", "tf_efficientnetv2_b0", "tf_efficientnet_b0"),
    *("resnet18", "resnet50", "mobilenet_v3_small", "mobilenet_v2", "mnasnet1_0"),
}


def marked(net: LibraryNet) -> object:
    quick = net.name in QUICK or (net.library, net.name) == ("torchvision", "efficientnet_b0")
    marks = [] if quick else [pytest.mark.slow]
    return pytest.param(net, marks=marks, id=f"{net.library}-{net.name}")


@pytest.mark.parametrize("net", [marked(net) for net in NETS])
def test_their_weights_give_their_logits_in_ours_and_ours_in_theirs(net: LibraryNet) -> None:
    pytest.importorskip(net.library)
    found = parity(net)
    assert max(found.there, found.back) <= 1e-5


def test_every_net_of_timm_that_is_a_baseline_is_among_them() -> None:
    timm = pytest.importorskip("timm")
    plain = {net.name.removeprefix("tf_") for net in NETS if net.library == "timm"}
    there = {name for name in timm.list_models() if name.removeprefix("tf_") in plain}
    assert there == {net.name for net in NETS if net.library == "timm"}


@pytest.mark.parametrize("name", ["efficientnet_b4", "efficientnet_b5", "efficientnet_v2_s"])
def test_torchvision_has_two_epsilons(name: str) -> None:
    pytest.importorskip("torchvision")
    modules = built("torchvision", name).modules()
    arch = published_as(baselines()[name], "torchvision", name)
    assert {m.eps for m in modules if isinstance(m, nn.BatchNorm2d)} == {arch.norm.eps}


def test_a_net_is_as_its_library_builds_it_and_no_other_library_is_known() -> None:
    b0, v1 = baselines()["efficientnet_b0"], baselines()["mobilenet_v1"]
    tagged = published_as(b0, "timm", "tf_efficientnet_b0.ns_jft_in1k")
    assert tagged == replace(b0, padding="same")
    assert published_as(b0, "efficientnet_pytorch", "efficientnet-b0") == tagged
    assert published_as(tagged, "torchvision", "efficientnet_b0") == published_as(
        b0, "timm", "efficientnet_b0"
    )
    assert published_as(v1, "timm", "mobilenetv1_100").activation == "relu6"
    with pytest.raises(ArchError, match="library must be timm, torchvision or efficientnet_pytor"):
        published_as(b0, "keras", "efficientnet_b0")


# --- real weights, real photographs


def photographs() -> list[Path]:
    """Return a palace by a lake, and a flower, which come with scikit-learn."""
    package = importlib.util.find_spec("sklearn")
    assert package and package.submodule_search_locations
    folder = Path(package.submodule_search_locations[0], "datasets/images")
    return [folder / "china.jpg", folder / "flower.jpg"]


def brought(package: Package) -> object:
    marks = [] if package is PACKAGES[0] else [pytest.mark.slow]
    return pytest.param(package, marks=marks, id=package.baseline)


@pytest.mark.parametrize("package", [brought(package) for package in PACKAGES])
def test_a_packages_weights_tell_photographs_as_timms_net_does(package: Package) -> None:
    pytest.importorskip("timm")
    if not file_of(package):
        pytest.skip(f"{package.distribution} is not installed")
    found = find_weights("pretrained", baselines()[package.baseline])
    assert found.input and found.arch.padding == "same"
    ours = Model(found.arch).eval()
    ours.load_state_dict(found.tensors)
    theirs = built("timm", f"tf_{package.baseline}").to_empty(device="cpu").eval()
    theirs.load_state_dict(named_as(ours.state_dict(), theirs.state_dict()))
    images = [read_image(path, found.input) for path in photographs()]
    views = augment.finish(views_of(images, found.input), *found.input.scale("cpu"))
    with torch.inference_mode():
        wanted, logits = theirs(views), ours(views)
        symmetric = Model(replace(found.arch, padding="symmetric")).eval()
        symmetric.load_state_dict(found.tensors)
        other = symmetric(views)
    largest = wanted.abs().max()
    assert (logits - wanted).abs().max() <= 1e-5 * largest
    assert (other - wanted).abs().max() > 0.01 * largest  # so that the padding is what counts


def test_pretrained_weights_name_what_photographs_show() -> None:
    if not file_of(PACKAGES[0]):
        pytest.skip(f"{PACKAGES[0].distribution} is not installed")
    rows = predict("pretrained", photographs()).images
    assert [row.top[0].name for row in rows] == ["palace", "daisy"]
