"""Nets of timm and torchvision that are ours too: their names, how each is built, their weights."""

from __future__ import annotations

import contextlib
import logging
import socket
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from torch import Tensor

from nas.core.errors import MissingError, OptionError, did_you_mean, first_line, install
from nas.core.registry import error_text
from nas.data.batches import Input, Triple
from nas.models.arch import Arch
from nas.models.load import baselines
from nas.models.published import published_as
from nas.training.weights.files import read_file

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
# of timm, with TensorFlow's padding alone
TENSORFLOW_ALONE = {f"efficientnet_v2_b{n}": f"efficientnetv2_b{n}" for n in range(4)}
TIMM_MORE = RESNETS | TENSORFLOW_ALONE
TORCHVISION = {
    "mnasnet_b1": "mnasnet1_0",
    **{name: name for name in ("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small")},
    **{f"efficientnet_b{n}": f"efficientnet_b{n}" for n in range(8)},
    **{f"efficientnet_v2_{size}": f"efficientnet_v2_{size}" for size in "sml"},
    **RESNETS,
}
LIBRARIES = ("timm", "torchvision")
IMAGENET: tuple[Triple, Triple] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
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
            f"{library}:{name or '...'} is no net of {library} that a baseline of ours is"
            f"{did_you_mean(plain, known)}; `nas ls baselines` lists these"
        )
    return found


def timm_name(baseline: str) -> str:
    """Return the name of timm's net that a baseline is, without TensorFlow's padding."""
    return (TIMM | TIMM_MORE).get(baseline, baseline)


def source_of(baseline: str) -> str:
    """Return the source of the weights that a library publishes of a baseline; "": none does."""
    if baseline in TORCHVISION:
        return f"torchvision:{TORCHVISION[baseline]}"
    if baseline not in TIMM | TIMM_MORE:
        return ""
    # of the EfficientNets that torchvision has not, timm publishes TensorFlow's weights alone
    theirs = _OF_TENSORFLOW if baseline.startswith("efficientnet") else ""
    return f"timm:{theirs}{timm_name(baseline)}"


def imagenet_classes() -> tuple[str, ...]:
    """Return the names of ImageNet's 1,000 classes, as torchvision publishes them."""
    return tuple(_vision().MobileNet_V2_Weights.DEFAULT.meta["categories"])


def cached(baseline: str) -> str:
    """Return the source of weights of a baseline that a library has in its cache; "": none has."""
    if baseline in TORCHVISION:
        url = _vision().get_model_weights(TORCHVISION[baseline]).DEFAULT.url
        if (Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name).is_file():
            return f"torchvision:{TORCHVISION[baseline]}"
    name = timm_name(baseline)
    for theirs in (f"{_OF_TENSORFLOW}{name}", name):
        with contextlib.suppress(MissingError, OptionError):
            if _in_cache(_config_of_timm(theirs)):
                return f"timm:{theirs}"
    return ""


def _of_timm(name: str) -> Published:
    baseline = baseline_of("timm", name)
    config = _config_of_timm(name)
    found = _in_cache(config) or _had(f"timm:{name}", lambda: _downloaded(config))
    taken = input_of(config.to_dict())
    classes = imagenet_classes() if config.num_classes == 1000 else ()
    arch = published_as(baselines()[baseline], "timm", name)
    return Published(read_file(Path(found)), arch, taken, classes)


def _config_of_timm(name: str) -> Any:
    """Return what timm knows of the weights of a net.

    Raises:
        MissingError: timm is not installed.
        OptionError: it publishes none.
    """
    try:
        import timm
    except ImportError as error:
        raise MissingError(f"timm:{name} needs timm: {install('timm')}") from error
    try:
        known = timm.get_pretrained_cfg(name)
    except RuntimeError:  # it has the net, and no weights of that tag
        known = None
    if known is None or not known.hf_hub_id:
        tags = timm.list_pretrained(f"{name.partition('.')[0]}.*")
        raise OptionError(f"timm publishes no weights {name!r}{did_you_mean(name, tags)}")
    return known


def _in_cache(config: Any) -> str:
    """Return the file of weights that the hub's cache has, "" if none."""
    from huggingface_hub import try_to_load_from_cache

    names = [config.hf_hub_filename] if config.hf_hub_filename else HUB_FILES
    found = (try_to_load_from_cache(config.hf_hub_id, name) for name in names)
    return next((path for path in found if isinstance(path, str)), "")


def _downloaded(config: Any) -> str:
    from huggingface_hub import constants, hf_hub_download

    _check_host(constants.ENDPOINT)
    return str(hf_hub_download(config.hf_hub_id, config.hf_hub_filename or HUB_FILES[0]))


def _check_host(url: str) -> None:
    """Fail at once where there is no network: the hub would try for half a minute."""
    if not getproxies():
        socket.getaddrinfo(urlsplit(url).hostname, 443)


def _of_torchvision(name: str) -> Published:
    baseline, (plain, _, tag) = baseline_of("torchvision", name), name.partition(".")
    known = _vision().get_model_weights(plain)
    if tag and tag not in known.__members__:
        raise OptionError(
            f"torchvision has no weights {tag!r} of {plain}: take {', '.join(known.__members__)}"
        )
    weights = known[tag] if tag else known.DEFAULT
    safe = {"progress": False, "check_hash": True, "weights_only": True}
    tensors = _had(f"torchvision:{name}", lambda: weights.get_state_dict(**safe))
    shown = weights.transforms()
    taken = Input(
        int(shown.crop_size[0]),
        min(1.0, shown.crop_size[0] / shown.resize_size[0]),
        tuple(shown.mean),
        tuple(shown.std),
        interpolation=str(shown.interpolation.value),
    )
    arch = published_as(baselines()[baseline], "torchvision", plain)
    return Published(tensors, arch, taken, tuple(weights.meta["categories"]))


def input_of(config: Mapping[str, Any]) -> Input:
    """Return what a net takes as a `pretrained_cfg` of timm tells it."""
    mean, std = (tuple(map(float, config[key])) for key in ("mean", "std"))
    size = int(config["input_size"][-1])
    how = str(config.get("interpolation", "bicubic"))
    return Input(size, float(config["crop_pct"]), mean, std, interpolation=how)  # type: ignore[arg-type]


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
            f"({first_line(error_text(error))}): get the file where there is one and give it, "
            "or take pretrained weights of a package"
        ) from error
    finally:
        logging.disable(level)


def _vision() -> Any:
    try:
        from torchvision import models
    except Exception as error:  # of another version than torch's, it fails as it likes
        raise MissingError(f"this needs torchvision ({first_line(error)}): install it") from error
    return models
