"""Build a plain torch module from an arch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from nas.core.errors import ArchError
from nas.core.system import free_memory
from nas.core.units import format_bytes
from nas.models import cost
from nas.models.arch import Arch
from nas.models.layers import Layer
from nas.models.modules import Residual, initialise, initialise_classifier

UNCHECKED_BYTES = 2**26  # as much is always free


class Model(nn.Module):
    """A CNN built from an Arch: images (N, C, H, W) in, logits (N, classes) out; H, W >= 32.

    `features(x)` returns the last map at each stride; `feature_info` states their channels and
    strides. The method names are timm's.
    """

    def __init__(self, arch: Arch) -> None:
        super().__init__()
        check_memory(arch)
        self.arch = arch
        style = (arch.norm, arch.activation)
        self.stem = _sequence(cost.stem_layers(arch.stem, arch.in_channels, *style, arch.padding))
        self.stages = nn.ModuleList(_stages(arch))
        self.head = _sequence(cost.head_layers(arch.head, arch.stages[-1].channels, *style))
        self.feature_info = feature_info(arch)
        self.apply(initialise)
        initialise_classifier(self.get_classifier())

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the last feature map at each stride, as `feature_info` lists them."""
        return _maps(self, self.feature_info, x)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last map, before the head."""
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return logits, or with `pre_logits` the vector that the classifier reads."""
        layers = list(self.head)
        for layer in layers[:-1] if pre_logits else layers:
            x = layer(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Linear:
        """Return the last linear layer."""
        last = self.head[-1]
        assert isinstance(last, nn.Linear)
        return last

    def reset_classifier(self, classes: int) -> None:
        """Replace the last linear layer by a fresh one with that many outputs."""
        old = self.get_classifier()
        self.head[-1] = nn.Linear(old.in_features, classes, device=old.weight.device)
        initialise_classifier(self.get_classifier())


def check_memory(arch: Arch, images: int = 0) -> None:
    """Refuse a network that would fill the main memory: its weights, and what `images` take in it.

    Raises:
        ArchError: the estimate exceeds what is free.
    """
    found = cost.count(arch)
    weights = cost.FLOAT_BYTES * (found.params + found.buffers)
    needed = weights + images * (found.inference_bytes - weights)
    if needed < UNCHECKED_BYTES or needed <= (free := free_memory()):
        return
    views = f" and {images} image(s) of {arch.resolution} pixels" if images else ""
    raise ArchError(
        f"{arch.name} does not fit into memory: its weights{views} need about "
        f"{format_bytes(needed)}, and {format_bytes(free)} are free; take fewer channels, layers "
        "or pixels"
    )


class Features(nn.Module):
    """The feature maps of a Model without its head: images (N, C, H, W) in, a list of maps out.

    `channels` and `strides` state each map: map i has channels[i] channels and the input's height
    and width by strides[i], rounded up. Its weights are called as the Model's.
    """

    def __init__(self, model: Model, out_indices: Sequence[int]) -> None:
        super().__init__()
        infos = model.feature_info
        self.arch = model.arch
        self.stem, self.stages = model.stem, model.stages
        self.out_indices = tuple(range(len(infos))[index] for index in out_indices)
        self.feature_info = [infos[index] for index in self.out_indices]
        self.channels = [int(info["num_chs"]) for info in self.feature_info]
        self.strides = [int(info["reduction"]) for info in self.feature_info]

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = sorted(set(self.out_indices))
        maps = dict(zip(levels, _maps(self, self.feature_info, x), strict=True))
        return [maps[index] for index in self.out_indices]

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Load the weights of the whole Model; those of its head are left out.

        Raises:
            ArchError: they are of another arch.
        """
        body = {name: value for name, value in weights.items() if not name.startswith("head.")}
        try:
            self.load_state_dict(body)
        except RuntimeError as error:
            first = str(error).splitlines()[1].strip()
            raise ArchError(f"these weights are not of {self.arch.name}: {first}") from error


def build_model(
    arch: Arch, *, features_only: bool = False, out_indices: Sequence[int] | None = None
) -> Model | Features:
    """Return the module of an arch with fresh weights.

    With `features_only`, images (N, C, H, W) give a list of maps, by default one per stride
    (2, 4, 8, 16, 32); `out_indices` chooses among them and `feature_info` describes each.

    Raises:
        ArchError: an op is unknown, an index names no map, or indices stand without features_only.
    """
    if out_indices is not None and not features_only:
        raise ArchError("out_indices choose among maps: give features_only=True, or leave them out")
    model = Model(arch)
    return features_of(model, out_indices) if features_only else model


def features_of(model: Model, out_indices: Sequence[int] | None = None) -> Features:
    """Return the feature maps of a model as a module that shares its weights.

    `out_indices` chooses among the maps, negative ones from the last; by default all are given.

    Raises:
        ArchError: an index names no map.
    """
    levels = len(model.feature_info)
    chosen = tuple(range(levels)) if out_indices is None else tuple(out_indices)
    if not chosen or any(not -levels <= index < levels for index in chosen):
        raise ArchError(f"out_indices must lie in 0..{levels - 1} for this arch, not {chosen}")
    return Features(model, chosen)


def feature_info(arch: Arch) -> list[dict[str, Any]]:
    """Return channels, stride (reduction) and stage of the last map at each stride; 0: the stem."""
    maps = {arch.stem.stride: (arch.stem.channels, 0)}
    stride = arch.stem.stride * arch.stem.pool
    for index, stage in enumerate(arch.stages, 1):
        stride *= stage.stride
        maps[stride] = (stage.channels, index)
    return [
        {"num_chs": channels, "reduction": stride, "stage": stage}
        for stride, (channels, stage) in maps.items()
    ]


def _maps(model: Model | Features, infos: Sequence[Mapping[str, Any]], x: Tensor) -> list[Tensor]:
    """Return the maps of the stages that `infos` name, in the order of the network."""
    wanted = {info["stage"] for info in infos}
    maps: list[Tensor] = []
    for place, module in enumerate(model.stem):
        x = module(x)
        if 0 in wanted and place == 0:
            maps.append(x)
    for index, stage in enumerate(model.stages, 1):
        if index > max(wanted):
            break
        x = stage(x)
        if index in wanted:
            maps.append(x)
    return maps


def _sequence(layers: Sequence[Layer]) -> nn.Sequential:
    names = (f"{type(layer).__name__.lower()}{index}" for index, layer in enumerate(layers))
    return nn.Sequential(
        OrderedDict((name, layer.module()) for name, layer in zip(names, layers, strict=True))
    )


def _stages(arch: Arch) -> list[nn.Sequential]:
    total, done = len(arch.blocks()), 0
    stages: list[nn.Sequential] = []
    for index in range(len(arch.stages)):
        blocks: list[nn.Module] = []
        for block, repeats in arch.runs(index):
            body, side = cost.body(block), cost.shortcut(block)
            for _ in range(repeats):
                drop = arch.stochastic_depth * done / total
                keep = nn.Identity() if block.skip == "identity" else None
                bypass = side.module() if side else keep
                blocks.append(Residual(_sequence(body.main), bypass, body.after, drop))
                done += 1
        stages.append(nn.Sequential(*blocks))
    return stages
