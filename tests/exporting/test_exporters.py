"""What a network becomes in a standalone folder and in timm, layer by layer."""

import importlib.util
import shlex
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from digits import TINY

import nas
from nas.core import registry
from nas.core.errors import ArchError, NasError
from nas.exporting import request
from nas.exporting.request import ExportRequest, answers_apart, make_facts
from nas.models.arch import Arch, Head, Norm, Squeeze, Stage, Stem
from nas.models.build import Model
from nas.models.cost import count
from nas.models.load import baselines

torch.set_num_threads(1)

standalone: Any = registry.load("exporters", "standalone")
to_timm: Any = registry.load("exporters", "timm")


def shaken(arch: Arch) -> Model:
    """Return a model none of whose weights can be taken for another of the same shape."""
    generator = torch.Generator().manual_seed(0)
    model = Model(arch).eval()
    for name, value in model.state_dict().items():
        if name.endswith(("norm.weight", "running_var")):
            value.copy_(torch.rand(value.shape, generator=generator) * 0.4 + 0.8)
        elif name.endswith(("bias", "running_mean")):
            value.copy_(torch.randn(value.shape, generator=generator) * 0.1)
    return model


def request_of(arch: Arch, **options: Any) -> ExportRequest:
    return ExportRequest(arch, shaken(arch), make_facts(arch, None), **options)


def built(source: str) -> Any:
    """Return the network of a standalone model.py."""
    module = types.ModuleType("model")
    module.__file__ = "model.py"
    exec(compile(source, "model.py", "exec"), module.__dict__)
    return module.build()  # type: ignore[attr-defined]


def test_a_standalone_folder_imports_torch_and_safetensors_alone(tmp_path: Path) -> None:
    standalone.write(request_of(TINY), tmp_path / "net")
    files = sorted(file.name for file in (tmp_path / "net").iterdir())
    assert files == ["README.md", "model.py", "model.safetensors"]
    text = (tmp_path / "net/model.py").read_text()
    names = {line.split()[1].split(".")[0] for line in text.splitlines() if "import " in line[:7]}
    names |= {line.split()[1].split(".")[0] for line in text.splitlines() if line[:5] == "from "}
    assert names - set(sys.stdlib_module_names) == {"torch", "safetensors"}


def test_a_net_of_other_channels_reads_no_images(tmp_path: Path) -> None:
    grey = request_of(replace(TINY, in_channels=1))
    text = standalone.source(grey)
    assert "read_image" not in text and "def main" not in text and "import sys" not in text
    assert built(text)
    folder = tmp_path / "it's"
    lines = standalone.hint(folder, grey)
    assert lines[-2:] == ["from model import load", "model = load()"]
    compile("\n".join(lines), "hint", "exec")
    standalone.write(grey, folder)
    assert "IMAGE" not in (folder / "README.md").read_text()
    [line] = standalone.hint(folder, request_of(TINY))
    assert shlex.split(line) == ["python", str(folder / "model.py"), "IMAGE"]


def test_an_isolated_interpreter_finds_packages_that_are_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torch may be of PYTHONPATH or of the user's own site, which -I leaves out."""
    for package in ("timm", "nas_other"):
        (tmp_path / f"site/{package}").mkdir(parents=True)
        (tmp_path / f"site/{package}/__init__.py").write_text("SCALE = 2.0")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    assert str(tmp_path / "site") in request._package_folders()
    lines = "import nas_other\nmodel = lambda x: x * nas_other.SCALE"
    [[found]] = answers_apart(tmp_path, lines, [torch.ones(2, 3)])
    assert torch.equal(found, torch.full((2, 3), 2.0))
    with pytest.raises(NasError, match="nas"):
        answers_apart(tmp_path, "import nas\nmodel = nas", [torch.ones(1)])


# --- standalone: all that a net can be made of

OPS = {
    op: Arch(op, (Stage(op, 16, 2, stride=2), Stage(op, 24, 2)), Stem(16), Head(classes=5))
    for op in registry.names("ops")
}
ODD = replace(
    OPS["mbconv"],
    stem=Stem(16, 5, 1, 2),
    stages=(Stage("mbconv", 16, 2, 5, 2, 3.0, 0.25, "pool", "relu6"), Stage("conv", 20, 2)),
    head=Head(32, 40, 0.1, 7),
    activation="gelu",
    norm=Norm("group", 1e-4),
    squeeze=Squeeze("expanded", "relu", "hardsigmoid"),
    in_channels=1,
    stochastic_depth=0.3,
)
CHEAP = [baselines()[name] for name in ("mobilenet_v3_small", "resnet18", "mnasnet_small")]


# SAME padding, with kernels of 3 and 5, in a block with a shortcut and beside a pool
SAME = [
    replace(arch, name=f"same_{arch.name}", padding="same")
    for arch in (OPS["bottleneck"], OPS["mbconv"], replace(ODD, stem=Stem(16, 5, 2, 2)), CHEAP[0])
]


@pytest.mark.parametrize("arch", [*OPS.values(), ODD, *CHEAP, *SAME], ids=lambda arch: arch.name)
def test_standalone_equals_the_network_to_the_bit(arch: Arch) -> None:
    this = request_of(replace(arch, resolution=64))
    network = built(standalone.source(this))
    network.load_state_dict(this.model.state_dict())
    images = this.images(2)
    with torch.inference_mode():
        assert torch.equal(network.eval()(images), this.model(images))
        for one, other in zip(network.features(images), this.model.features(images), strict=True):
            assert torch.equal(one, other)
        torch.manual_seed(0)
        trains = network.train()(images)
        torch.manual_seed(0)
        assert torch.equal(trains, this.model.train()(images))


@pytest.mark.parametrize("name", baselines())
def test_standalone_of_every_baseline_has_its_weights(name: str) -> None:
    arch = baselines()[name]
    with torch.device("meta"):
        this = ExportRequest(arch, Model(arch), make_facts(arch, None))
        network = built(standalone.source(this))
    shapes = [{k: v.shape for k, v in net.state_dict().items()} for net in (network, this.model)]
    assert shapes[0] == shapes[1]
    assert sum(p.numel() for p in network.parameters()) == count(arch).params


def test_a_name_from_a_stranger_stays_text() -> None:
    name = 'x"""\nraise SystemExit(7)\n"""'
    this = request_of(replace(TINY, name=name))
    this.facts["classes"] = ['"]; raise SystemExit(8); ["'] * 10
    assert built(standalone.source(this))


# --- timm


def test_timm_builds_what_is_its_own_without_our_code() -> None:
    plans = {name: to_timm.plan(arch).architecture for name, arch in baselines().items()}
    own = {name for name, architecture in plans.items() if architecture != "nas_effnet"}
    assert set(plans) - own == {f"efficientnet_v2_b{n}" for n in range(4)}
    assert plans["mnasnet_a1"] == "semnasnet_100" and plans["resnet152"] == "resnet50"
    changed = replace(baselines()["efficientnet_b0"], head=Head(1280, classes=7), resolution=64)
    assert to_timm.plan(changed).architecture == "efficientnet_b0"
    padded = to_timm.plan(replace(changed, padding="same"))
    assert padded.architecture == "efficientnet_b0" and padded.arguments["pad_type"] == "same"
    # timm's own is relu6, which fresh weights never reach
    assert to_timm.plan(baselines()["mobilenet_v1"]).arguments["act_layer"] == "relu"


def test_blocks_become_timms_strings() -> None:
    stages = (
        Stage("mbconv", 16, 1, se=0.25),
        Stage("mbconv", 24, 2, 5, 2, 6.0, 0.1),
        Stage("fused_mbconv", 24, 1, expansion=4.0, skip="none"),
        Stage("conv", 24, 2, activation="relu"),
        Stage("depthwise", 40, stride=2),
    )
    found = to_timm.plan(Arch("x", stages, resolution=64)).arguments
    assert found["stages"] == [
        ["ds_r1_k3_s1_c16_se0.25"],
        ["ir_r1_k5_s2_e6.0_c24_se0.0625", "ir_r1_k5_s1_e6.0_c24_se0.08333333333333333"],
        ["er_r1_k3_s1_e4.0_c24_noskip"],
        ["cn_r1_k3_s1_c24_nre_skip", "cn_r1_k3_s1_c24_nre_skip"],
        ["dsa_r1_k3_s2_c40"],
    ]
    assert found["stem"] == {"channels": 32, "kernel": 3, "stride": 2}


@pytest.mark.parametrize(
    ("arch", "why"),
    [
        (ODD, "norm is group"),
        (replace(OPS["mbconv"], stem=Stem(16, pool=2)), "stem has a pool"),
        (replace(OPS["mbconv"], head=Head(16, 32)), "hidden layer"),
        (replace(OPS["basic"], stem=Stem(16)), "ResNet"),
        (OPS["depthwise"], "depthwise block with a shortcut"),
        (Arch("x", (Stage("conv", 16, se=0.25),)), "conv on 16 channels with squeeze"),
        (Arch("x", (Stage("mbconv", 32, 2, skip="pool"),)), "skip pool"),
        (Arch("x", (Stage("mbconv", 16, stride=4),)), "stride 4"),
        (replace(baselines()["resnet18"], padding="same"), "ResNet has no SAME padding"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_timm_cannot_build_is_refused_in_one_line(arch: Arch, why: str) -> None:
    with pytest.raises(ArchError, match=why) as error:
        to_timm.plan(arch)
    assert "\n" not in str(error.value) and "--format onnx" in str(error.value)


def test_the_lines_for_timm_are_python() -> None:
    for place, more in (("it's", True), ('a "b"\\', False)):
        lines = to_timm._lines(place, True, more)
        compile("\n".join(lines), "hint", "exec")
        assert (", features_only=True)" in lines[-1]) is more


SMALL = Arch(
    "small",
    (Stage("mbconv", 16, 2, 3, 1, 1.0, 0.25), Stage("fused_mbconv", 24, 2, 3, 2, 4.0, 0.25),
     Stage("mbconv", 40, 2, 5, 2, 6.0, 0.25, activation="relu")),
    Stem(16, 5, 1), Head(64, dropout=0.1, classes=7), 32, activation="hardswish",
    squeeze=Squeeze("expanded", "relu", "hardsigmoid"),
)  # fmt: skip


@pytest.mark.skipif(not importlib.util.find_spec("timm"), reason="timm is not installed")
@pytest.mark.parametrize(
    "arch",
    [SMALL, *CHEAP, replace(SMALL, name="same", stem=Stem(16, 5), padding="same"), SAME[-1]],
    ids=lambda arch: arch.name,
)
def test_timms_net_answers_the_same(arch: Arch) -> None:
    this = request_of(replace(arch, resolution=32))
    found = to_timm.plan(arch)
    network = to_timm._built(this, found, to_timm._config(this, found))
    network.load_state_dict(to_timm._renamed(this, found))
    features = found._replace(arguments=found.arguments | {"features_only": True})
    backbone = to_timm._built(this, features, to_timm._config(this, found))
    infos = this.model.feature_info
    assert backbone.feature_info.reduction() == [info["reduction"] for info in infos]
    if not arch.head.hidden:  # timm's last map of MobileNetV3 is that of its head
        assert backbone.feature_info.channels() == [info["num_chs"] for info in infos]
    images = this.images(2)
    with torch.inference_mode():
        torch.testing.assert_close(network.eval()(images), this.model(images), rtol=1e-5, atol=1e-6)
    if not arch.head.hidden:
        weights = network.state_dict()
        backbone.load_state_dict({name: weights[name] for name in backbone.state_dict()})
        with torch.inference_mode():
            pairs = zip(backbone.eval()(images), this.model.features(images), strict=True)
            for one, other in pairs:
                torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not importlib.util.find_spec("timm"), reason="timm is not installed")
@pytest.mark.slow
def test_timms_folder_gives_maps(tmp_path: Path) -> None:
    found = nas.export(SMALL, format="timm", features_only=True, project=tmp_path, batches=(2,))
    assert found["channels"] == [16, 24, 40] and found["max_ratio"] < 1e-4
    assert "features_only=True)" in found["next"][-1]
