"""Which layers of a network share their channels, and which of these channels matter most.

A layer that mixes channels (a convolution of one group, a linear layer) reads one set of channels
and makes another. A depthwise convolution, squeeze-and-excitation and pooling keep the set. So do
blocks with an identity skip: all blocks of a residual stream read and make one set of channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from nas.core.errors import OptionError
from nas.models import cost
from nas.models.arch import Arch
from nas.models.layers import (
    Conv,
    Dropout,
    GlobalPool,
    Layer,
    Linear,
    Pool,
    SqueezeExcite,
    is_mixing,
)

# section, stage, block, path; among the layers of the path without squeeze-and-excitation the how
# many-eth; whether it is squeeze-and-excitation
Place = tuple[str, int, int, str, int, bool]


class Part(NamedTuple):
    """A layer that has weights.

    `name`: where they lie in a state dict. `reads` and `makes`: numbers of its sets of channels.
    `scaled_by`: the part of its block whose norm scales what it reads, "" for none.
    """

    name: str
    place: Place
    layer: Layer
    reads: int
    makes: int
    scaled_by: str = ""


@dataclass
class Channels:
    """The parts of a network in order, and the size of each set of channels."""

    parts: dict[Place, Part] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)

    def new(self, size: int) -> int:
        """Return the number of a new set of channels."""
        self.sizes.append(size)
        return len(self.sizes) - 1


def channels_of(arch: Arch) -> Channels:
    """Return the parts of a network and their sets of channels."""
    found = Channels()
    style = (arch.norm, arch.activation)
    stem = cost.stem_layers(arch.stem, arch.in_channels, *style)
    stream = _walk(found, ("stem", 0, 0), "", stem, found.new(arch.in_channels))
    for index in range(len(arch.stages)):
        number = 0
        for block, repeats in arch.runs(index):
            body, side = cost.body(block).main, cost.shortcut(block)
            for _ in range(repeats):
                where = ("stages", index, number)
                kept = block.skip in ("identity", "pool")
                before, stream = (
                    stream,
                    _walk(found, where, "main", body, stream, stream if kept else None),
                )
                if isinstance(side, Conv):
                    place = (*where, "shortcut", 0, False)
                    name = f"stages.{index}.{number}.shortcut"
                    found.parts[place] = Part(name, place, side, before, stream)
                number += 1
    _walk(
        found, ("head", 0, 0), "", cost.head_layers(arch.head, found.sizes[stream], *style), stream
    )
    return found


def _walk(
    found: Channels,
    where: tuple[str, int, int],
    path: str,
    layers: Sequence[Layer],
    stream: int,
    end: int | None = None,
) -> int:
    """Add the parts of a path to `found`; return the set that it makes: `end` where that is given.

    Raises:
        OptionError: a layer of the user's own does not tell its channels.
    """
    section, stage, block = where
    prefix = f"stages.{stage}.{block}.main." if section == "stages" else f"{section}."
    last = max((i for i, layer in enumerate(layers) if is_mixing(layer)), default=-1)
    counted, scaled_by, current = 0, "", stream
    for index, layer in enumerate(layers):
        excites = isinstance(layer, SqueezeExcite)
        name = f"{prefix}{type(layer).__name__.lower()}{index}"
        place = (section, stage, block, path, counted, excites)
        makes = current
        if is_mixing(layer):
            outputs = getattr(layer, "outputs", None)
            if not isinstance(outputs, int):
                raise OptionError(
                    f"{name} is a {type(layer).__name__}, which tells no `outputs`: what it makes "
                    "cannot be inherited; give the layer that field"
                )
            makes = end if index == last and end is not None else found.new(outputs)
        if not isinstance(layer, Pool | GlobalPool | Dropout):
            found.parts[place] = Part(name, place, layer, current, makes, scaled_by)
        if isinstance(layer, Conv) and layer.norm:
            scaled_by = name
        elif is_mixing(layer):
            scaled_by = ""
        counted, current = counted + (not excites), makes
    return current


def importance(channels: Channels, weights: Mapping[str, Tensor], number: int) -> Tensor:
    """Return how much each channel of a set matters: what its readers make of it.

    For each reader the sum of the absolute weights that it reads a channel with, times the gain of
    the norm before it: of its own block, or at the start of a block of all that make the set. Each
    reader counts alike.
    """
    parts = channels.parts.values()
    made = [norm_gain(weights, p) for p in parts if p.makes == number and is_mixing(p.layer)]
    gains = [gain for gain in made if gain is not None]
    scale = torch.stack(gains).square().sum(0).sqrt() if gains else None
    named = {part.name: part for part in parts}
    total = torch.zeros(channels.sizes[number])
    for part in parts:
        if part.reads != number or not is_mixing(part.layer):
            continue
        read = _read_with(weights, part)
        own = norm_gain(weights, named[part.scaled_by]) if part.scaled_by else scale
        found = read if own is None or len(own) != len(read) else read * own
        total += found / found.mean().clamp_min(1e-12)
    if not total.any() and scale is not None:
        return scale
    return total


def norm_gain(weights: Mapping[str, Tensor], part: Part) -> Tensor | None:
    """Return the absolute gains of the norm of a part, None where it has none."""
    gain = weights.get(f"{part.name}.norm.weight")
    return None if gain is None else gain.float().abs()


def weight_name(part: Part) -> str:
    """Return the name of the weights that a part reads its channels with."""
    if isinstance(part.layer, Linear):
        return f"{part.name}.0.weight" if part.layer.activation else f"{part.name}.weight"
    return f"{part.name}.conv.weight"


def _read_with(weights: Mapping[str, Tensor], part: Part) -> Tensor:
    weight = weights.get(weight_name(part))
    if weight is None or weight.ndim < 2:
        return torch.ones(getattr(part.layer, "inputs", 1))
    read = weight.float().abs().transpose(0, 1).flatten(1).sum(1)
    groups = part.layer.groups if isinstance(part.layer, Conv) else 1
    return read.repeat(groups)


def chosen(important: Tensor, wanted: int) -> Tensor:
    """Return which channels to take, `wanted` of them.

    All in order where there are as many; of more the most important, in order; of fewer all, and
    copies of the most important.
    """
    size = len(important)
    if wanted == size:
        return torch.arange(size)
    order = torch.argsort(important, descending=True, stable=True)
    if wanted < size:
        return order[:wanted].sort().values
    copies = order.repeat(-(-wanted // size))[: wanted - size]
    return torch.cat([torch.arange(size), copies])


def shares(taken: Tensor, rows: int) -> Tensor:
    """Return what each of `rows` readers has of each channel taken: 1, of copies about equal parts.

    The parts of a channel's copies add up to 1, so that the readers get what they got. They are not
    quite equal, or the copies would have equal gradients and stay copies for ever.

    Source: Chen et al. 2016 (Net2Net), with unequal parts in the place of their noise.
    """
    counts = torch.bincount(taken)
    if int(counts.max()) == 1:
        return torch.ones(1, len(taken))
    generator = torch.Generator().manual_seed(0)
    uneven = 1 + 0.5 * (torch.rand(rows, len(taken), generator=generator) - 0.5)
    sums = torch.zeros(rows, len(counts)).index_add_(1, taken, uneven)
    return uneven / sums[:, taken]
