"""Nets of timm and torchvision that are ours too: their names, how each is built, their weights."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

from nas.core.errors import MissingError, OptionError, did_you_mean, first_line, install
from nas.core.registry import error_text
from nas.data.batches import Input, Triple
from nas.models.arch import Arch
from nas.models.load import baselines

# our baselines that are architectures of timm, with other names there
TIMM = {
    "mnasnet_a1": "semnasnet_100",
    "mnasnet_b1": "mnasnet_100",
    "mnasnet_small": "mnasnet_small",
    "mobilenet_v1": "mobilenetv1_100",
    "mobilenet_v2": "mobilenetv2_100",
    "mobilenet_v2_140": "mobilenetv2_140",
    "mobilenet_v3_large": "mobilenetv3_large_100",
    "mobilenet_v3_small": "mobilenetv3_small_100",
    **{f"efficientnet_b{n}": f"efficientnet_b{n}" for n in range(9)},
    **{f"efficientnet_lite{n}": f"efficientnet_lite{n}" for n in range(5)},
    **{f"efficientnet_v2_{size}": f"efficientnetv2_{size}" for size in "sml"},
    "efficientnet_l2": "efficientnet_l2",
}
RESNETS = {name: name for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")}
# with TensorFlow's padding alone, or by plan of the layers (the exporter)
TIMM_MORE = RESNETS | {f"efficientnet_v2_b{n}": f"efficientnetv2_b{n}" for n in range(4)}
TORCHVISION = {
    "mnasnet_b1": "mnasnet1_0",
    **{name: name for name in ("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small")},
    **{f"efficientnet_b{n}": f"efficientnet_b{n}" for n in range(8)},
    **{f"efficientnet_v2_{size}": f"efficientnet_v2_{size}" for size in "sml"},
    **RESNETS,
}
LIBRARIES = ("timm", "torchvision")
IMAGENET: tuple[Triple, Triple] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_OF_TENSORFLOW = "tf_"  # timm's names of nets with TensorFlow's padding and epsilon


class Published(NamedTuple):
    """Weights that a library publishes, under its names."""

    tensors: Mapping[str, Tensor]
    arch: Arch
    input: Input
    classes: tuple[str, ...]


def published(library: str, name: str) -> Published:
    """Return the pretrained weights of a net of a library, from its cache or the network.

    Raises:
        MissingError: the library is not installed.
        OptionError: its net is none of ours, or the weights cannot be had.
    """
    return _of_timm(name) if library == "timm" else _of_torchvision(name)


def baseline_of(library: str, name: str) -> str:
    """Return our baseline that a net of a library is; its tag, after a point, does not matter.

    Raises:
        OptionError: it is none of ours.
    """
    ours = TORCHVISION if library == "torchvision" else TIMM | TIMM_MORE
    known = {theirs: own for own, theirs in ours.items()}
    plain = name.partition(".")[0]
    found = known.get(plain.removeprefix(_OF_TENSORFLOW) if library == "timm" else plain)
    if found is None:
        raise OptionError(
            f"{library}:{name} is no net that a baseline of ours is{did_you_mean(plain, known)}: "
            f"take one of {', '.join(sorted(known))}"
        )
    return found


def built_like(arch: Arch, *, same: bool, eps: float) -> Arch:
    """Return an arch with TensorFlow's padding or without, and with the epsilon of its norms."""
    padding = "same" if same else "symmetric"
    return dataclasses.replace(arch, norm=dataclasses.replace(arch.norm, eps=eps), padding=padding)


def of_timm(arch: Arch, name: str) -> Arch:
    """Return an arch with padding and epsilon as timm builds the net of this name."""
    same = name.startswith(_OF_TENSORFLOW)
    return built_like(arch, same=same, eps=1e-3 if same else 1e-5)


def of_torchvision(arch: Arch, baseline: str) -> Arch:
    """Return an arch with padding and epsilon as torchvision builds this baseline."""
    with torch.device("meta"):
        return _as_module(arch, _vision().get_model(TORCHVISION[baseline]))


def imagenet_classes() -> tuple[str, ...]:
    """Return the names of ImageNet's 1,000 classes, as torchvision publishes them."""
    return tuple(_vision().MobileNet_V2_Weights.DEFAULT.meta["categories"])


def cached(baseline: str) -> str:
    """Return the source of weights of a baseline that a library has in its cache; "": none has."""
    if baseline in TORCHVISION:
        url = _vision().get_model_weights(TORCHVISION[baseline]).DEFAULT.url
        if (Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name).is_file():
            return f"torchvision:{TORCHVISION[baseline]}"
    name = (TIMM | TIMM_MORE).get(baseline, "")
    found = [n for n in (f"{_OF_TENSORFLOW}{name}", name) if name and _in_cache_of_timm(n)]
    return f"timm:{found[0]}" if found else ""


def _in_cache_of_timm(name: str) -> bool:
    try:
        import timm
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return False
    config = timm.get_pretrained_cfg(name, allow_unregistered=True) if name else None
    where = str(config.hf_hub_id) if config and config.hf_hub_id else ""
    files = ("model.safetensors", "pytorch_model.bin") if where else ()
    return any(isinstance(try_to_load_from_cache(where, file), str) for file in files)


def _of_timm(name: str) -> Published:
    baseline = baseline_of("timm", name)
    try:
        import timm
    except ImportError as error:
        raise MissingError(f"timm:{name} needs timm: {install('timm')}") from error
    model = _had(f"timm:{name}", lambda: timm.create_model(name, pretrained=True))
    arch = _as_module(baselines()[baseline], model)
    config = model.pretrained_cfg
    return Published(
        model.state_dict(), arch, input_of(config), _names(int(config.get("num_classes", 0)))
    )


def _of_torchvision(name: str) -> Published:
    baseline, (plain, _, tag) = baseline_of("torchvision", name), name.partition(".")
    known = _vision().get_model_weights(plain)
    if tag and tag not in known.__members__:
        raise OptionError(
            f"torchvision has no weights {tag!r} of {plain}: take {', '.join(known.__members__)}"
        )
    weights = known[tag] if tag else known.DEFAULT
    tensors = _had(f"torchvision:{name}", lambda: weights.get_state_dict(progress=False))
    shown = weights.transforms()
    taken = Input(
        int(shown.crop_size[0]),
        min(1.0, shown.crop_size[0] / shown.resize_size[0]),
        tuple(shown.mean),
        tuple(shown.std),
        interpolation=str(shown.interpolation.value),
    )
    arch = of_torchvision(baselines()[baseline], baseline)
    return Published(tensors, arch, taken, tuple(weights.meta["categories"]))


def input_of(config: Mapping[str, Any]) -> Input:
    """Return what a net takes as a `pretrained_cfg` of timm tells it."""
    mean, std = (tuple(map(float, config[key])) for key in ("mean", "std"))
    size = int(config["input_size"][-1])
    how = str(config.get("interpolation", "bicubic"))
    return Input(size, float(config["crop_pct"]), mean, std, interpolation=how)  # type: ignore[arg-type]


def _names(count: int) -> tuple[str, ...]:
    return imagenet_classes() if count == 1000 else ()


def _as_module(arch: Arch, model: nn.Module) -> Arch:
    """Return an arch with the padding and the epsilon that a module of a library has."""
    modules = list(model.modules())
    eps = next((m.eps for m in modules if isinstance(m, nn.BatchNorm2d)), arch.norm.eps)
    return built_like(arch, same=any(type(m).__name__ == "Conv2dSame" for m in modules), eps=eps)


def _had(what: str, get: Callable[[], Any]) -> Any:
    """Return what a library finds in its cache or the network.

    Raises:
        OptionError: it finds nothing.
    """
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return get()
    except Exception as error:  # of urllib, of requests, of the hub, of the library
        raise OptionError(
            f"{what} is neither in the library's cache nor to be had from the network "
            f"({first_line(error_text(error), 120)}): get the file where there is one and give it, "
            "or take --init pretrained"
        ) from error
    finally:
        logging.disable(level)


def _vision() -> Any:
    try:
        from torchvision import models
    except Exception as error:  # of another version than torch's, it fails as it likes
        raise MissingError(f"this needs torchvision ({first_line(error)}): install it") from error
    return models
