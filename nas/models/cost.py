"""Exact cost of an arch from its description alone, without building anything.

FLOPs are multiply-adds (MACs) of convolutions and linear layers: the papers' "FLOPS". Tools that
count a multiply and an add as two report twice as many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from nas.core import registry
from nas.core.errors import ArchError
from nas.models.arch import Arch, Block, Head, Norm, Squeeze, Stage, Stem
from nas.models.layers import (
    KEEPS_INPUT,
    Body,
    Conv,
    Dropout,
    GlobalPool,
    Layer,
    Linear,
    Pool,
    Tally,
)

FLOAT_BYTES = 4
# weights, gradients and the two moments of an optimiser such as RMSProp with momentum or Adam
TRAINING_COPIES = 4
_READS = ("kernel", "expansion", "se")


@dataclass(frozen=True)
class Cost:
    """What an arch costs at one resolution.

    `flops` are multiply-adds for one image, `activations` the elements that convolutions, linear
    layers and 3x3 pools put out, `buffers` the running statistics of batch norm. Memory is an
    estimate in bytes for float32: training = `training_bytes` + batch *
    `training_bytes_per_image`, inference of one image = `inference_bytes`; workspace of the
    convolution library comes on top.
    """

    resolution: tuple[int, int]
    params: int
    flops: int
    activations: int
    buffers: int
    training_bytes_per_image: int
    training_bytes: int
    inference_bytes: int


@dataclass(frozen=True)
class StageCost:
    """One row of the table that `nas show` prints; sizes are (height, width) at the input."""

    name: str
    size: tuple[int, int]
    channels: int
    params: int
    flops: int


def count(arch: Arch, resolution: int | tuple[int, int] | None = None) -> Cost:
    """Return the exact params, FLOPs and activations of an arch, and its memory estimate.

    `resolution` (pixels, or (height, width)) replaces the arch's own. Takes under a millisecond.

    Raises:
        ArchError: an op does not exist or does not read a field that a stage sets.
    """
    size = _size(arch, resolution)
    parts = _tallies(arch, *size)
    params = sum(part.params for part in parts)
    saved, peak = sum(part.saved for part in parts), max(part.peak for part in parts)
    weights = FLOAT_BYTES * (params + sum(part.buffers for part in parts))
    return Cost(
        resolution=size,
        params=params,
        flops=sum(part.flops for part in parts),
        activations=sum(part.activations for part in parts),
        buffers=sum(part.buffers for part in parts),
        # while backward makes gradients it frees what forward saved, so these set the peak alone
        training_bytes_per_image=FLOAT_BYTES * saved,
        training_bytes=weights + FLOAT_BYTES * (TRAINING_COPIES - 1) * params,
        inference_bytes=weights + FLOAT_BYTES * peak,
    )


def sections(arch: Arch) -> list[Tally]:
    """Return what the stem, each stage and the head cost at the arch's resolution, in order."""
    return _tallies(arch, *_size(arch, None))


def stages(arch: Arch, resolution: int | tuple[int, int] | None = None) -> list[StageCost]:
    """Return the cost of the stem, each stage and the head, in order."""
    rows: list[StageCost] = []
    height, width = _size(arch, resolution)
    for name, channels, pieces in _sections(arch):
        start, tallies = (height, width), []
        for piece in pieces:
            tally, height, width = _walk(piece, height, width)
            tallies.append(tally)
        params, flops = sum(t.params for t in tallies), sum(t.flops for t in tallies)
        rows.append(StageCost(name, start, channels, params, flops))
    return rows


def body(block: Block) -> Body:
    """Return the layers of a block, from the op's file.

    Raises:
        ArchError: there is no such op, or the block sets a field that the op does not read.
    """
    if block.op not in registry.names("ops"):
        raise ArchError(f"no op named {block.op!r}; known: {', '.join(registry.names('ops'))}")
    op = registry.load("ops", block.op)
    defaults = {"kernel": 3, "expansion": 1.0, "se": 0.0}
    for field in _READS:
        if field not in op.READS and getattr(block, field) != defaults[field]:
            raise ArchError(
                f"op {block.op!r} does not read {field}, which is {getattr(block, field)!r}; "
                f"leave it at {defaults[field]!r} or use another op"
            )
    made: Body = op.body(block)
    if block.padding == "symmetric":
        return made
    # here rather than in each op, so that an op of the user's own needs to know nothing of it
    return made._replace(main=[_padded(layer, block.padding) for layer in made.main])


def _padded(layer: Layer, padding: str) -> Layer:
    return replace(layer, padding=padding) if isinstance(layer, Conv) else layer


def stem_layers(
    stem: Stem, inputs: int, norm: Norm, activation: str, padding: str = "symmetric"
) -> list[Layer]:
    """Return the layers before the first stage."""
    conv = Conv(inputs, stem.channels, stem.kernel, stem.stride, 1, norm, activation, padding)
    return [conv, Pool("max", stem.channels, stem.pool)] if stem.pool > 1 else [conv]


def head_layers(head: Head, width: int, norm: Norm, activation: str) -> list[Layer]:
    """Return the layers after the last stage."""
    layers: list[Layer] = []
    if head.channels:
        conv = Conv(width, head.channels, norm=norm, activation=activation)
        layers, width = [conv], head.channels
    layers.append(GlobalPool(width, kept=activation == "relu"))
    if head.hidden:
        layers.append(Linear(width, head.hidden, activation))
        width = head.hidden
    return [*layers, Dropout(head.dropout), Linear(width, head.classes)]


def shortcut(block: Block) -> Layer | None:
    """Return the layer of a projection or pooling shortcut; identity and none have no layer."""
    if block.skip == "projection":
        return Conv(block.inputs, block.outputs, stride=block.stride, norm=block.norm)
    return Pool("average", block.inputs, block.stride) if block.skip == "pool" else None


def _size(arch: Arch, resolution: int | tuple[int, int] | None) -> tuple[int, int]:
    if resolution is None:
        resolution = arch.resolution
    size = (resolution, resolution) if isinstance(resolution, int) else resolution
    if min(size) < 32:
        raise ArchError(f"the input must have at least 32 x 32 pixels, not {size[0]} x {size[1]}")
    return size


class _Piece(NamedTuple):
    """A body with what runs beside it: the unit that costs are added up from."""

    body: Body
    inputs: int
    side: Layer | None = None
    held: bool = False  # the input stays alive for the shortcut
    outputs: int = 0


def _block_piece(block: Block) -> _Piece:
    return _Piece(body(block), block.inputs, shortcut(block), block.skip != "none", block.outputs)


def _stem_piece(stem: Stem, inputs: int, norm: Norm, activation: str, padding: str) -> _Piece:
    return _Piece(Body(stem_layers(stem, inputs, norm, activation, padding)), inputs)


def _head_piece(head: Head, width: int, norm: Norm, activation: str) -> _Piece:
    return _Piece(Body(head_layers(head, width, norm, activation)), width)


def _sections(arch: Arch) -> Iterable[tuple[str, int, list[_Piece]]]:
    style = (arch.norm, arch.activation)
    stem = _stem_piece(arch.stem, arch.in_channels, *style, arch.padding)
    yield "stem", arch.stem.channels, [stem]
    for index, stage in enumerate(arch.stages):
        runs = arch.runs(index)
        pieces = [_block_piece(block) for block, repeats in runs for _ in range(repeats)]
        yield f"stage {index + 1}", stage.channels, pieces
    last = arch.stages[-1].channels
    yield "head", arch.head.channels or last, [_head_piece(arch.head, last, *style)]


def _tallies(arch: Arch, height: int, width: int) -> list[Tally]:
    """Return what the stem, each stage and the head cost; what was counted before is remembered."""
    counted = _counter(arch.norm, arch.squeeze, arch.activation, arch.padding)
    tally, height, width = counted.stem(arch.stem, arch.in_channels, height, width)
    found, inputs = [tally], arch.stem.channels
    for stage in arch.stages:
        tally, height, width = counted.stage(stage, inputs, height, width)
        found.append(tally)
        inputs = stage.channels
    found.append(counted.head(arch.head, inputs, height, width)[0])
    return found


Counted = tuple[Tally, int, int]  # a part's cost, and the height and width of what it puts out


class _Counter(NamedTuple):
    """Count the parts of archs that share norm, squeeze rule, activation and padding.

    A part costs what its own fields, its input channels and the input's height and width say: these
    are the keys under which it is remembered. Few archs differ in what they share, so hashing that
    once an arch saves the time of hashing it with each part.
    """

    stem: Callable[[Stem, int, int, int], Counted]
    stage: Callable[[Stage, int, int, int], Counted]
    head: Callable[[Head, int, int, int], Counted]


@lru_cache(maxsize=1 << 8)
def _counter(norm: Norm, squeeze: Squeeze, activation: str, padding: str) -> _Counter:
    @lru_cache(maxsize=1 << 10)
    def stem(part: Stem, inputs: int, height: int, width: int) -> Counted:
        return _walk(_stem_piece(part, inputs, norm, activation, padding), height, width)

    @lru_cache(maxsize=1 << 16)
    def stage(part: Stage, inputs: int, height: int, width: int) -> Counted:
        tallies = []
        for block, repeats in part.runs(inputs, norm, squeeze, activation, padding):
            tally, height, width = _walk(_block_piece(block), height, width)
            tallies.append(_times(tally, repeats))
        return _add(tallies), height, width

    @lru_cache(maxsize=1 << 10)
    def head(part: Head, inputs: int, height: int, width: int) -> Counted:
        return _walk(_head_piece(part, inputs, norm, activation), height, width)

    return _Counter(stem, stage, head)


def _walk(piece: _Piece, height: int, width: int) -> Counted:
    """Add up the layers of a piece and its shortcut; return the tally and the output size."""
    held = piece.inputs * height * width * piece.held
    rows, columns = height, width
    tallies: list[Tally] = []
    for index, layer in enumerate(piece.body.main):
        tally = layer.tally(rows, columns)
        saved = tally.saved + _kept_beside_copy(piece, index) * rows * columns
        tallies.append(tally._replace(saved=saved, peak=tally.peak + (held if index else 0)))
        rows, columns = layer.size(rows, columns)
    if piece.side:
        side = piece.side.tally(height, width)
        first = piece.body.main[0]
        if not (isinstance(first, Conv) and first.copies) or _kept_beside_copy(piece, 0):
            # both paths read the same input, which backward keeps once
            side = side._replace(saved=side.saved - piece.inputs * height * width)
        tallies.append(side)
    if _keeps_sum(piece):
        tallies.append(Tally(saved=piece.outputs * rows * columns))
    return _add(tallies), rows, columns


def _kept_beside_copy(piece: _Piece, index: int) -> int:
    """Return the channels of a layer's input where backward keeps that beside the padded copy.

    It does where a relu made the map. What precedes a block is taken to be made as the block makes
    its own output.
    """
    layer, before = piece.body.main[index], piece.body.main[index - 1]
    if not (isinstance(layer, Conv) and layer.copies):
        return 0
    relu = isinstance(before, Conv) and before.activation == "relu"
    first = bool(piece.outputs) and (relu or piece.body.after == "relu")
    return layer.inputs * (relu if index else first)


def _keeps_sum(piece: _Piece) -> bool:
    """Say whether the addition makes backward keep one map more than the next layer's input.

    It does where the activation after it reads the sum, and where a relu before it keeps its
    result, which otherwise is the next layer's input.
    """
    last = piece.body.main[-1]
    relu = isinstance(last, Conv) and last.activation == "relu"
    return piece.body.after in KEEPS_INPUT or (piece.held and relu)


def _add(tallies: list[Tally]) -> Tally:
    sums = [sum(column) for column in zip(*tallies, strict=True)]
    return Tally(*sums)._replace(peak=max(tally.peak for tally in tallies))


def _times(tally: Tally, repeats: int) -> Tally:
    return Tally(*(value * repeats for value in tally))._replace(peak=tally.peak)
