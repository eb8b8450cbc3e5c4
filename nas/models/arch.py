"""Arch: a complete description of a stage-wise CNN, frozen, plain JSON in and out.

An Arch knows no space, no evaluator and no tensor library. A net from a paper, a search result
and a scaled member are the same kind of thing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

from nas.core.errors import ArchError
from nas.models.checks import fraction, odd, one_of, whole

T = TypeVar("T")
SCHEMA = 1
MOST_LAYERS = 10_000
ACTIVATIONS = ("relu", "relu6", "silu", "hardswish", "gelu")
GATES = ("sigmoid", "hardsigmoid")
SKIPS = ("identity", "pool", "projection", "none")
PADDINGS = ("symmetric", "same")


@dataclass(frozen=True)
class Norm:
    """Normalisation after every convolution: `batch`, or `group` with 8 channels a group.

    The defaults are EfficientNet's. `momentum` is PyTorch's (TensorFlow's 0.99 is 0.01 here).
    """

    kind: str = "batch"
    eps: float = 1e-3
    momentum: float = 0.01

    @cached_property
    def problem(self) -> str:
        """Return which field is impossible, with its value; "" if none is. Checked once."""
        return _problem(_check_norm, self)


@dataclass(frozen=True)
class Squeeze:
    """How squeeze-and-excitation is built where a stage has a ratio.

    `of="input"`: the squeezed width is floor(ratio * block input channels), at least 1
    (EfficientNet, MnasNet). `of="expanded"`: ratio * expanded channels rounded to 8 (MobileNetV3).
    `activation=None` takes the block's own.
    """

    of: str = "input"
    activation: str | None = None
    gate: str = "sigmoid"

    @cached_property
    def problem(self) -> str:
        """Return which field is impossible, with its value; "" if none is. Checked once."""
        return _problem(_check_squeeze, self)


@dataclass(frozen=True)
class Stem:
    """The first convolution, with a 3x3 max pool of stride `pool` after it (1: none)."""

    channels: int = 32
    kernel: int = 3
    stride: int = 2
    pool: int = 1

    @cached_property
    def problem(self) -> str:
        """Return which field is impossible, with its value; "" if none is. Checked once."""
        return _problem(_check_stem, self)


@dataclass(frozen=True)
class Head:
    """1x1 convolution to `channels` (0: none), pool, linear to `hidden` (0: none), classifier."""

    channels: int = 0
    hidden: int = 0
    dropout: float = 0.0
    classes: int = 1000

    @cached_property
    def problem(self) -> str:
        """Return which field is impossible, with its value; "" if none is. Checked once."""
        return _problem(_check_head, self)


@dataclass(frozen=True)
class Stage:
    """`layers` blocks of one kind; only the first strides and changes the channels.

    `op` names a file of nas/models/ops, which says what the other fields mean to it; a field
    that an op does not read must keep its default. `skip` acts where it can: `identity` at stride 1
    with equal channels, `pool` (3x3 average) with equal channels, `projection` everywhere (identity
    where shapes agree, else a 1x1 convolution).
    """

    op: str
    channels: int
    layers: int = 1
    kernel: int = 3
    stride: int = 1
    expansion: float = 1.0
    se: float = 0.0
    skip: str = "identity"
    activation: str | None = None

    @cached_property
    def problem(self) -> str:
        """Return which field is impossible, with its value; "" if none is. Checked once."""
        return _problem(_check_stage, self)

    def runs(
        self, inputs: int, norm: Norm, squeeze: Squeeze, activation: str, padding: str = "symmetric"
    ) -> list[tuple[Block, int]]:
        """Return the blocks as (block, repeats) in a network that has these: first, then rest."""
        first = _block(self, inputs, self.stride, norm, squeeze, activation, padding)
        if self.layers == 1:
            return [(first, 1)]
        rest = _block(self, self.channels, 1, norm, squeeze, activation, padding)
        return [(first, 1), (rest, self.layers - 1)]


class Block(NamedTuple):
    """One block of a network as it will be built: what an op turns into layers."""

    op: str
    inputs: int
    outputs: int
    kernel: int
    stride: int
    expansion: float
    se: float
    skip: str
    activation: str
    norm: Norm
    squeeze: Squeeze
    padding: str = "symmetric"


@dataclass(frozen=True)
class Arch:
    """A complete network: stem, stages, head and everything they share.

    `resolution` is the side of the square input in pixels that costs are counted at; the built
    model takes any H x W from 32 up. `stochastic_depth` is the drop probability at the nominal
    end: block i of N is dropped with probability stochastic_depth * i / N. `padding="same"` pads
    convolutions as TensorFlow does, on the right and below first; pools stay symmetric.

    Raises:
        ArchError: a field is impossible; the message names it with its value.
    """

    name: str
    stages: tuple[Stage, ...]
    stem: Stem = Stem()
    head: Head = Head()
    resolution: int = 224
    in_channels: int = 3
    activation: str = "silu"
    norm: Norm = Norm()
    squeeze: Squeeze = Squeeze()
    stochastic_depth: float = 0.0
    padding: str = "symmetric"

    def __post_init__(self) -> None:
        _check(self)

    def runs(self, stage: int) -> list[tuple[Block, int]]:
        """Return the blocks of one stage as (block, repeats): the first, then the equal rest."""
        inputs = self.stages[stage - 1].channels if stage else self.stem.channels
        style = (self.norm, self.squeeze, self.activation, self.padding)
        return self.stages[stage].runs(inputs, *style)

    def blocks(self) -> list[Block]:
        """Return every block from the first stage to the last."""
        runs = (run for stage in range(len(self.stages)) for run in self.runs(stage))
        return [block for block, repeats in runs for _ in range(repeats)]

    @cached_property
    def id(self) -> str:
        """Return 12 hex digits that name the network: equal networks, equal ids.

        The blocks as built are hashed, not the choices: the name, the split into stages and a
        skip that cannot act do not matter. What is at its default is left out, so that a field
        added later changes no id.
        """
        shared = _unusual(self, leave_out=("name", "stages", "squeeze"))
        if any(stage.se for stage in self.stages):
            shared["squeeze"] = _unusual(self.squeeze)
        text = json.dumps([SCHEMA, shared, _merged_runs(self)], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data with a schema number; `from_dict` reads it back."""
        data = dataclasses.asdict(self)
        return {"schema": SCHEMA, **data, "stages": list(data["stages"])}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Arch:
        """Return the Arch that `to_dict` wrote.

        Raises:
            ArchError: another schema, an unknown or missing field, or an impossible value.
        """
        return _from_dict(data)

    def to_json(self) -> str:
        """Return `to_dict` as indented JSON text."""
        return json.dumps(self.to_dict(), indent=1)


def ceil_div(size: int, stride: int) -> int:
    """Return the output side of a symmetrically padded layer with an odd kernel."""
    return -(-size // stride)


def _unusual(part: Any, leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the fields that are not at their default; equal numbers alike, 0 as 0.0."""
    found: dict[str, Any] = {}
    for each in dataclasses.fields(part):
        value = getattr(part, each.name)
        if each.name in leave_out:
            continue
        if dataclasses.is_dataclass(value):
            found[each.name] = _unusual(value)
        elif value != each.default:
            found[each.name] = float(value) if isinstance(value, int | float) else value
    return {name: value for name, value in found.items() if value != {}}


def _merged_runs(arch: Arch) -> list[list[Any]]:
    """Return the blocks in order as [fields, repeats], runs of equal blocks made one."""
    merged: list[list[Any]] = []
    for stage in range(len(arch.stages)):
        for block, repeats in arch.runs(stage):
            fields = list(block[:9])
            if merged and merged[-1][0] == fields:
                merged[-1][1] += repeats
            else:
                merged.append([fields, repeats])
    return merged


def _block(
    stage: Stage,
    inputs: int,
    stride: int,
    norm: Norm,
    squeeze: Squeeze,
    activation: str,
    padding: str,
) -> Block:
    same = inputs == stage.channels
    skip = stage.skip
    if skip == "projection" and same and stride == 1:
        skip = "identity"
    elif (skip == "identity" and not (same and stride == 1)) or (skip == "pool" and not same):
        skip = "none"
    return Block(
        stage.op,
        inputs,
        stage.channels,
        stage.kernel,
        stride,
        float(stage.expansion),
        float(stage.se),
        skip,
        stage.activation or activation,
        norm,
        squeeze,
        padding,
    )


def _check(arch: Arch) -> None:
    if not isinstance(arch.name, str):
        raise ArchError(f"name must be text, not {arch.name!r}")
    whole("resolution", arch.resolution, 32)
    whole("in_channels", arch.in_channels, 1)
    fraction("stochastic_depth", arch.stochastic_depth)
    one_of("activation", arch.activation, ACTIVATIONS)
    one_of("padding", arch.padding, PADDINGS)
    if not arch.stages:
        raise ArchError("an arch needs at least one stage; it has none")
    for part in (arch.stem, arch.head, arch.norm, arch.squeeze):
        if part.problem:
            raise ArchError(part.problem)
    for number, stage in enumerate(arch.stages, 1):
        if stage.problem:
            raise ArchError(f"stage {number}: {stage.problem}")
    strides = [arch.stem.stride, arch.stem.pool, *[stage.stride for stage in arch.stages]]
    if math.prod(strides) > arch.resolution:
        raise ArchError(
            f"the feature map shrinks below one pixel: resolution {arch.resolution} with strides "
            f"{' x '.join(map(str, strides))} = {math.prod(strides)}; "
            "use fewer strides or more pixels"
        )


def _problem(check: Callable[[T], None], part: T) -> str:
    """Return what a check says of a part of an arch, "" if it passes."""
    try:
        check(part)
    except ArchError as error:
        return str(error)
    return ""


def _check_stem(stem: Stem) -> None:
    whole("stem.channels", stem.channels, 1)
    odd("stem.kernel", stem.kernel)
    whole("stem.stride", stem.stride, 1)
    whole("stem.pool", stem.pool, 1)


def _check_head(head: Head) -> None:
    whole("head.channels", head.channels, 0)
    whole("head.hidden", head.hidden, 0)
    whole("head.classes", head.classes, 1)
    fraction("head.dropout", head.dropout)


def _check_norm(norm: Norm) -> None:
    one_of("norm.kind", norm.kind, ("batch", "group"))
    fraction("norm.eps", norm.eps)
    fraction("norm.momentum", norm.momentum)


def _check_squeeze(squeeze: Squeeze) -> None:
    one_of("squeeze.of", squeeze.of, ("input", "expanded"))
    one_of("squeeze.gate", squeeze.gate, GATES)
    if squeeze.activation is not None:
        one_of("squeeze.activation", squeeze.activation, ACTIVATIONS)


def _check_stage(stage: Stage) -> None:
    if not isinstance(stage.op, str):
        raise ArchError(f"op must be a word such as mbconv, not {stage.op!r}")
    whole("channels", stage.channels, 1)
    whole("layers", stage.layers, 1)
    if stage.layers > MOST_LAYERS:
        raise ArchError(f"layers must be at most {MOST_LAYERS}, not {stage.layers}")
    odd("kernel", stage.kernel)
    whole("stride", stage.stride, 1)
    fraction("se", stage.se)
    one_of("skip", stage.skip, SKIPS)
    if stage.activation is not None:
        one_of("activation", stage.activation, ACTIVATIONS)
    if not (isinstance(stage.expansion, int | float) and 0 < stage.expansion < 1000):
        raise ArchError(f"expansion must lie between 0 and 1000, not {stage.expansion!r}")


def _from_dict(data: Mapping[str, Any]) -> Arch:
    if not isinstance(data, Mapping) or "stages" not in data:
        raise ArchError("this is no arch: a JSON object with 'schema' and 'stages' is expected")
    if data.get("schema") != SCHEMA:
        raise ArchError(
            f"arch schema {data.get('schema')!r} cannot be read here: this version reads schema "
            f"{SCHEMA}; write the file again with the version that made it or upgrade nas"
        )
    fields = {key: value for key, value in data.items() if key != "schema"}
    parts = {"stem": Stem, "head": Head, "norm": Norm, "squeeze": Squeeze}
    for key, kind in parts.items():
        if key in fields:
            fields[key] = _part(kind, fields[key], key)
    if not isinstance(fields["stages"], list | tuple):
        raise ArchError(f"stages must be a list, not {fields['stages']!r}")
    stages = enumerate(fields["stages"], 1)
    fields["stages"] = tuple(_part(Stage, stage, f"stage {n}") for n, stage in stages)
    return _part(Arch, fields, "arch")


def _part(kind: type[T], data: object, where: str) -> T:
    if not isinstance(data, Mapping):
        raise ArchError(f"{where} must be a JSON object, not {data!r}")
    known = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(data) - known)
    if unknown:
        raise ArchError(f"{where} has an unknown field {unknown[0]!r}; known: {sorted(known)}")
    try:
        return kind(**data)
    except TypeError as error:
        raise ArchError(f"{where} lacks a field: {error}") from None
