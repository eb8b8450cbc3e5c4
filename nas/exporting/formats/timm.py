"""A folder for timm's `create_model("local-dir:...")`, with classifier or `features_only`.

What is one of timm's own architectures, or a ResNet, needs nothing but timm. For other nets of
mbconv, sepconv, depthwise, fused_mbconv and conv blocks nas_effnet.py lies beside the weights;
importing it makes the architecture known to timm. The folder is run in a fresh interpreter in which
nas cannot be imported.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from nas.core import registry
from nas.core.errors import ArchError, MissingError, NasError, OptionError, install
from nas.exporting.request import ExportRequest, answers_apart, harmless, refuse
from nas.models import cost
from nas.models.arch import Arch, Block
from nas.models.layers import Conv, SqueezeExcite
from nas.training.checkpoint import write_weights
from nas.training.weights.libraries import TIMM
from nas.training.weights.naming import named_as

FILE = "timm"
CODE = "nas_effnet"
_ACTS = {"relu": "re", "relu6": "r6", "hardswish": "hs", "silu": "sw"}
# timm's word for a block of an op, by how many convolutions it has
_OPS = {
    "conv": {1: "cn"},
    "fused_mbconv": {1: "cn", 2: "er"},
    "depthwise": {2: "dsa"},
    "sepconv": {2: "ds"},
    "mbconv": {2: "ds", 3: "ir"},
}
_NAMES = {"silu": "swish", "hardswish": "hard_swish", "hardsigmoid": "hard_sigmoid"}


class TimmPlan(NamedTuple):
    """How timm builds an arch: an architecture of timm's or of CODE, and its arguments."""

    architecture: str
    arguments: dict[str, Any]
    first: str = "conv_stem"
    last: str = "classifier"


def check(request: ExportRequest) -> None:
    """Refuse what timm cannot build.

    Raises:
        MissingError: timm is not installed, or too old for local folders.
        OptionError: the preprocessing is wanted in the file.
        ArchError: timm has no such blocks; the message names the first.
    """
    refuse("timm", request, preprocessing="timm's own transforms read it from config.json")
    plan(request.arch)
    if request.features_only and request.arch.head.hidden:
        raise OptionError(
            "--format timm: the last map of timm's MobileNetV3 is that of its head; leave out "
            "--features-only, or export with --format onnx, pt2 or standalone"
        )
    _timm()


def write(request: ExportRequest, path: Path) -> None:
    """Write the folder: config.json, model.safetensors, README.md and, if needed, the code."""
    found = plan(request.arch)
    path.mkdir()
    config = _config(request, found)
    write_weights(path / "model.safetensors", _renamed(request, found))
    (path / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    if found.architecture == CODE:
        code = Path(__file__).with_name("_effnet.py").read_text(encoding="utf-8")
        (path / f"{CODE}.py").write_text(code, encoding="utf-8")
    text = "\n".join(_lines("FOLDER", found.architecture == CODE, request.features_only))
    (path / "README.md").write_text(
        f"# {harmless(request.arch.name)}\n\n```python\n{text}\n```\n", encoding="utf-8"
    )


def run(path: Path, batches: Sequence[Tensor], request: ExportRequest) -> list[list[Tensor]]:
    """Return what timm answers in a fresh interpreter without nas."""
    more = ", features_only=True" if request.features_only else ""
    made = f"timm.create_model('local-dir:' + folder, pretrained=True{more}).eval()"
    code = f"import {CODE}\n" if (path / f"{CODE}.py").exists() else ""
    return answers_apart(path, f"import timm\n{code}model = {made}", batches)


def hint(path: Path, request: ExportRequest) -> list[str]:
    """Return the lines that use the folder from Python."""
    return _lines(str(path), (path / f"{CODE}.py").exists(), request.features_only)


def _lines(folder: str, own: bool, features_only: bool) -> list[str]:
    """Return the lines that use a folder, with our own code or without."""
    more = ", features_only=True)" if features_only else ")  # features_only=True"
    made = f"model = timm.create_model({f'local-dir:{folder}'!r}, pretrained=True{more}"
    code = ["import sys", f"sys.path.insert(0, {folder!r})", f"import {CODE}"]
    return ["import timm", *(code if own else []), made]


def plan(arch: Arch) -> TimmPlan:
    """Return how timm builds an arch.

    Raises:
        ArchError: it cannot.
    """
    shared = {"drop_rate": arch.head.dropout, "drop_path_rate": arch.stochastic_depth}
    norm: dict[str, Any] = {"bn_eps": arch.norm.eps, "bn_momentum": arch.norm.momentum}
    if arch.norm.kind != "batch":
        raise _no(arch, f"its norm is {arch.norm.kind}, not batch")
    if arch.padding == "same":
        norm["pad_type"] = "same"
    if all(stage.op in ("basic", "bottleneck") for stage in arch.stages):
        return TimmPlan(*_resnet(arch, shared), "conv1", "fc")
    if name := _own(arch):
        if name.startswith("mobilenetv1"):  # where timm's own is relu6
            norm["act_layer"] = arch.activation
        return TimmPlan(name, shared | norm)
    return TimmPlan(CODE, _effnet(arch) | shared | norm)


def _own(arch: Arch) -> str:
    """Return the name of the architecture of timm that this is but for its classes, or ""."""
    for file in registry.names("baselines"):
        for name, base in registry.export("baselines", file, "ARCHS").items():
            head = replace(arch.head, classes=base.head.classes, dropout=base.head.dropout)
            same = replace(
                base, stages=arch.stages, stem=arch.stem, head=head, activation=arch.activation,
                squeeze=arch.squeeze,
            )  # fmt: skip
            if name in TIMM and same.id == base.id:
                return TIMM[name]
    return ""


def _resnet(arch: Arch, shared: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return timm's ResNet-18 or -50 with the layers and channels of this arch."""
    ops = {stage.op for stage in arch.stages}
    bottleneck = ops == {"bottleneck"}
    stem = (arch.stem.channels, arch.stem.kernel, arch.stem.stride, arch.stem.pool)
    wanted = [(1, 3, 4.0 if bottleneck else 1.0)] + [(2, 3, 4.0 if bottleneck else 1.0)] * 3
    found = [(stage.stride, stage.kernel, float(stage.expansion)) for stage in arch.stages]
    plain = all(
        stage.skip == "projection" and not stage.se and stage.activation in (None, "relu")
        for stage in arch.stages
    )
    if len(ops) > 1 or stem != (64, 7, 2, 2) or found != wanted or not plain:
        raise _no(arch, "its stem, strides, kernels or shortcuts are not those of timm's ResNet")
    if arch.padding != "symmetric":
        raise _no(arch, "timm's ResNet has no SAME padding")
    if arch.head.channels or arch.head.hidden or arch.activation != "relu" or arch.norm.eps != 1e-5:
        raise _no(arch, "its head, activation or epsilon is not that of timm's ResNet")
    inner = [stage.channels // 4 if bottleneck else stage.channels for stage in arch.stages]
    layers = [stage.layers for stage in arch.stages]
    # arguments only where they are needed: older versions of timm have no `channels`
    more = {} if inner == [64, 128, 256, 512] else {"channels": inner}
    return "resnet50" if bottleneck else "resnet18", {"layers": layers} | more | shared


def _effnet(arch: Arch) -> dict[str, Any]:
    """Return the arguments of nas_effnet for an arch."""
    if arch.stem.pool > 1:
        raise _no(arch, "its stem has a pool")
    if arch.head.hidden:
        raise _no(arch, "its head has a hidden layer")
    squeeze, stem = arch.squeeze, arch.stem
    strides = 2
    for stage in arch.stages:
        strides *= stage.stride
    return {
        "stages": [_stage(arch, index) for index in range(len(arch.stages))],
        "stem": {"channels": stem.channels, "kernel": stem.kernel, "stride": stem.stride},
        "num_features": arch.head.channels,
        "act": _NAMES.get(arch.activation, arch.activation),
        "squeeze_act": squeeze.activation and _NAMES.get(squeeze.activation, squeeze.activation),
        "gate": _NAMES.get(squeeze.gate, squeeze.gate),
        # timm turns strides beyond this into dilation
        "output_stride": max(32, strides),
    }


def _stage(arch: Arch, index: int) -> list[str]:
    return [_block(arch, block, repeats) for block, repeats in arch.runs(index)]


def _block(arch: Arch, block: Block, repeats: int) -> str:
    """Return a block as timm's string: ir_r2_k3_s2_e6.0_c24_se0.25.

    Raises:
        ArchError: timm has no such block.
    """
    if block.op not in _OPS or block.stride > 2 or block.skip not in ("identity", "none"):
        raise _no(arch, f"a {block.op} block with stride {block.stride} and skip {block.skip}")
    kind, middle = _kind(block)
    squeezed = [layer for layer in cost.body(block).main if isinstance(layer, SqueezeExcite)]
    if (kind in ("ir", "er") and middle % 8) or (kind == "cn" and squeezed):
        raise _no(arch, f"{block.op} on {middle} channels" + " with squeeze" * bool(squeezed))
    words = [kind, f"r{repeats}", f"k{block.kernel}", f"s{block.stride}"]
    words += [f"e{middle / block.inputs!r}"] if kind in ("ir", "er") else []
    words += [f"c{block.outputs}"]
    # timm's ratio is of the block's input
    words += [f"se{layer.squeezed / block.inputs!r}" for layer in squeezed]
    if block.activation != arch.activation:
        if block.activation not in _ACTS:
            raise _no(arch, f"a block with {block.activation} in a net with {arch.activation}")
        words.append(f"n{_ACTS[block.activation]}")
    return "_".join(words + _skip(arch, kind, block))


def _kind(block: Block) -> tuple[str, int]:
    """Return timm's word for a block, and its channels in the middle."""
    convs = [layer for layer in cost.body(block).main if isinstance(layer, Conv)]
    return _OPS[block.op][len(convs)], convs[0].outputs


def _skip(arch: Arch, kind: str, block: Block) -> list[str]:
    """Return the word for a shortcut that is or is not, where timm would do otherwise."""
    can = block.stride == 1 and block.inputs == block.outputs
    here = block.skip == "identity"
    if kind == "dsa" and here:
        raise _no(arch, "a depthwise block with a shortcut")
    if kind == "cn":
        return ["skip"] if here else []
    return ["noskip"] if can and not here and kind != "dsa" else []


def _no(arch: Arch, why: str) -> ArchError:
    return ArchError(
        f"timm cannot build {arch.name}: {why}; export with --format onnx, pt2 or standalone"
    )


def _timm() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import timm
            from timm.models import parse_model_name

            parse_model_name("local-dir:here")
    except (ImportError, AssertionError, ValueError, RuntimeError) as error:
        raise MissingError(
            f"--format timm needs timm 1.0.16 or later ({' '.join(str(error).split())}): "
            f"{install('timm')}"
        ) from error
    return timm


def _built(request: ExportRequest, found: TimmPlan, config: dict[str, Any]) -> Any:
    """Return timm's module with fresh weights."""
    make = _timm().create_model
    shape = {"num_classes": request.arch.head.classes, "in_chans": request.arch.in_channels}
    arguments = {**found.arguments, **shape, "pretrained_cfg": config["pretrained_cfg"]}
    if found.architecture == CODE:
        return import_module("nas.exporting.formats._effnet").nas_effnet(**arguments)
    return make(found.architecture, **arguments)


def _renamed(request: ExportRequest, found: TimmPlan) -> dict[str, Tensor]:
    """Return the weights with timm's names."""
    theirs = _built(request, found, _config(request, found)).state_dict()
    ours = request.model.state_dict()
    if [v.numel() for v in theirs.values()] != [v.numel() for v in ours.values()]:
        raise NasError(
            f"{request.arch.name} differs from timm's {found.architecture} in its weights: "
            "export with --format onnx, pt2 or standalone"
        )
    return named_as(ours, theirs)


def _config(request: ExportRequest, found: TimmPlan) -> dict[str, Any]:
    """Return config.json as timm reads it."""
    facts, classes = request.facts, request.arch.head.classes
    return {
        "architecture": found.architecture,
        "num_classes": classes,
        "model_args": found.arguments,
        "label_names": facts["classes"] or None,
        "pretrained_cfg": {
            "tag": "",
            "num_classes": classes,
            "input_size": facts["input_size"],
            "fixed_input_size": False,
            "interpolation": facts["interpolation"],
            "crop_pct": facts["crop_pct"],
            "crop_mode": "center",
            "mean": facts["mean"],
            "std": facts["std"],
            "first_conv": found.first,
            "classifier": found.last,
        },
        "nas": facts,
    }
