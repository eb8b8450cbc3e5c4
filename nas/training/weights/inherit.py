"""Weights of a network for another of the same skeleton: smaller, larger, or both."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from nas.core.errors import OptionError
from nas.models import cost
from nas.models.arch import Arch
from nas.models.build import Model
from nas.models.layers import Conv, Linear, SqueezeExcite, is_mixing
from nas.models.skeleton import check_skeleton
from nas.training.weights.channels import (
    Channels,
    Part,
    channels_of,
    chosen,
    importance,
    shares,
    weight_name,
)

OPEN_GATE = {"sigmoid": 4.0, "hardsigmoid": 2.5}  # biases of new gates: they let .98 and .92 pass
NORM = ("weight", "bias", "running_mean", "running_var")


def inherit(parent: Arch, weights: Mapping[str, Tensor], arch: Arch) -> dict[str, Tensor]:
    """Return weights for `arch` from those of `parent`, a network of the same skeleton.

    The same skeleton: as many stages, each of the same op, stride, skip and activation, the same
    stem stride and kind of norm. Of fewer channels the most important are kept, one choice for all
    blocks of a residual stream; kernels are cropped at their centre; of fewer layers the first
    stay. More channels are copies that share what reads them, larger kernels have zeros around
    them, further blocks begin as the identity: so the network keeps the logits of its parent in
    eval mode, if its norm is batch norm and its further blocks have a skip. A classifier of other
    classes is fresh. Padding and eps of the norm are of the parent: give `arch` them first
    (`sources.built_as`).

    Raises:
        OptionError: the skeletons differ, or the weights are not the parent's.
    """
    check_skeleton(parent, arch)
    inheritance = _inheritance(parent, weights)
    found = _fresh_weights(arch)
    for part in channels_of(arch).parts.values():
        inheritance.fill(found, part)
    for name in _ends_of_new_blocks(parent, arch):
        for kind in ("weight", "bias"):
            found[f"{name}.norm.{kind}"] = torch.zeros_like(found[f"{name}.norm.{kind}"])
    return found


def _fresh_weights(arch: Arch) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Model(arch).state_dict()


@dataclass
class _Inheritance:
    """A parent and its weights, with the channels that were chosen of it so far."""

    channels: Channels
    weights: Mapping[str, Tensor]
    parent: Arch
    taken: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def fill(self, found: dict[str, Tensor], part: Part) -> None:
        """Put the weights of a part of the child network into `found`, which has fresh ones.

        Raises:
            OptionError: the weights are not the parent's, or this part cannot be inherited.
        """
        section, stage, block, *rest = part.place
        last = self.parent.stages[stage].layers - 1 if section == "stages" else 0
        theirs = self.channels.parts.get((section, stage, min(block, last), *rest))  # type: ignore[arg-type]
        if block > last and not _can_repeat(self.parent, stage):
            return  # the parent's only block changes the channels: there is none to copy
        if theirs is None:
            if isinstance(part.layer, SqueezeExcite):
                found |= _open_gate(part, part.layer)
            return
        if isinstance(part.layer, SqueezeExcite):
            found |= self._squeeze(theirs, part)
        elif isinstance(part.layer, Conv | Linear):
            if not self._has_other_classes(theirs, part.layer):
                found |= self._joined(theirs, part)
        else:
            found |= self._own(theirs, part)

    def _take(self, number: int, wanted: int) -> Tensor:
        """Return which of the parent's channels of a set are taken where there are `wanted`."""
        key = (number, wanted)
        if key not in self.taken:
            size = self.channels.sizes[number]
            same = torch.arange(size)
            important = None if wanted == size else importance(self.channels, self.weights, number)
            self.taken[key] = same if important is None else chosen(important, wanted)
        return self.taken[key]

    def _tensor(self, name: str) -> Tensor:
        if name not in self.weights:
            raise OptionError(
                f"these weights are not of {self.parent.name}: {name} is missing; give the arch "
                "that they belong to as the parent"
            )
        return self.weights[name].detach()

    def _joined(self, theirs: Part, part: Part) -> dict[str, Tensor]:
        """Return the weights of a convolution or a linear layer, with its norm."""
        layer, own = part.layer, theirs.layer
        assert isinstance(layer, Conv | Linear) and isinstance(own, Conv | Linear)
        name, source = weight_name(part), weight_name(theirs)
        weight = self._tensor(source).float()
        self._check_shape(source, weight, own)
        rows = self._take(theirs.makes, layer.outputs)
        if isinstance(layer, Conv) and isinstance(own, Conv):
            weight = resized_kernel(weight, layer.kernel)
            if own.groups > 1 and is_mixing(own):
                _check_grouped(own, layer, part.name)
                return self._with_norm(theirs, part, {name: weight}, rows)
        if is_mixing(own):
            columns = self._take(theirs.reads, layer.inputs)
            weight = weight[rows][:, columns]
            part_of = shares(columns, len(rows))
            weight = weight * part_of.view(*part_of.shape, *[1] * (weight.ndim - 2))
        else:
            weight = weight[rows]
        return self._with_norm(theirs, part, {name: weight.contiguous()}, rows)

    def _with_norm(
        self, theirs: Part, part: Part, found: dict[str, Tensor], rows: Tensor
    ) -> dict[str, Tensor]:
        """Return `found` with the bias or the norm of a convolution or linear layer."""
        layer = part.layer
        if not isinstance(layer, Conv) or not layer.norm:
            bias, source = (
                weight_name(each).replace(".weight", ".bias") for each in (part, theirs)
            )
            return {**found, bias: self._tensor(source).float()[rows]}
        batch = layer.norm.kind == "batch"
        for kind in NORM if batch else NORM[:2]:
            values = self._tensor(f"{theirs.name}.norm.{kind}").float()
            found[f"{part.name}.norm.{kind}"] = values[rows]
        if batch:
            counted = self.weights.get(f"{theirs.name}.norm.num_batches_tracked")
            if counted is not None:
                found[f"{part.name}.norm.num_batches_tracked"] = counted.detach().clone()
        return found

    def _squeeze(self, theirs: Part, part: Part) -> dict[str, Tensor]:
        """Return the weights of squeeze-and-excitation, whose middle is chosen by what it does."""
        layer = part.layer
        assert isinstance(layer, SqueezeExcite)
        channels = self._take(theirs.makes, layer.channels)
        keys = ("reduce.weight", "reduce.bias", "expand.weight", "expand.bias")
        reduce, reduce_bias, expand, expand_bias = (
            self._tensor(f"{theirs.name}.{key}").float() for key in keys
        )
        middle = chosen(expand.abs().flatten(2).sum((0, 2)), layer.squeezed)
        reduce = reduce[middle][:, channels] * shares(channels, len(middle))[..., None, None]
        expand = expand[channels][:, middle] * shares(middle, len(channels))[..., None, None]
        values = (reduce, reduce_bias[middle], expand, expand_bias[channels])
        return {f"{part.name}.{key}": value for key, value in zip(keys, values, strict=True)}

    def _own(self, theirs: Part, part: Part) -> dict[str, Tensor]:
        """Return the weights of a user's layer as they are.

        Raises:
            OptionError: it is not the parent's in all its fields.
        """
        if part.layer != theirs.layer:
            raise OptionError(
                f"{part.name} is {part.layer!r} and the parent's {theirs.layer!r}: of a layer of "
                f"this kind channels cannot be chosen; leave the stage as the parent has it"
            )
        start = f"{theirs.name}."
        return {
            f"{part.name}.{name.removeprefix(start)}": tensor.detach().clone()
            for name, tensor in self.weights.items()
            if name.startswith(start)
        }

    def _has_other_classes(self, theirs: Part, layer: Conv | Linear) -> bool:
        classifier = theirs.makes == len(self.channels.sizes) - 1
        return classifier and layer.outputs != self.channels.sizes[-1]

    def _check_shape(self, name: str, weight: Tensor, layer: Conv | Linear) -> None:
        shape: tuple[int, ...] = (layer.outputs, layer.inputs)
        if isinstance(layer, Conv):
            shape = (layer.outputs, layer.inputs // layer.groups, layer.kernel, layer.kernel)
        if tuple(weight.shape) != shape:
            raise OptionError(
                f"these weights are not of {self.parent.name}: {name} has the shape "
                f"{tuple(weight.shape)}, not {shape}; give the arch that "
                "they belong to as the parent"
            )


def _inheritance(parent: Arch, weights: Mapping[str, Tensor]) -> _Inheritance:
    """Return what to inherit from: the parent with the classes that the weights have.

    Raises:
        OptionError: the weights have no classifier of this parent.
    """
    last = list(channels_of(parent).parts.values())[-1]
    found = weights.get(weight_name(last))
    if found is None or found.ndim != 2:
        raise OptionError(
            f"these weights are not of {parent.name}: {weight_name(last)} is missing; give the "
            "arch that they belong to as the parent"
        )
    head = dataclasses.replace(parent.head, classes=len(found))
    parent = dataclasses.replace(parent, head=head)
    return _Inheritance(channels_of(parent), weights, parent)


def _can_repeat(arch: Arch, stage: int) -> bool:
    """Tell whether the last block of a stage may be followed by a copy of itself."""
    block, _ = arch.runs(stage)[-1]
    return block.inputs == block.outputs and block.stride == 1


def _ends_of_new_blocks(parent: Arch, arch: Arch) -> list[str]:
    """Return the last normed layers of the blocks with an identity skip that the parent lacks.

    With a gain and a bias of 0 there the block is the identity.
    """
    found = []
    for index, (theirs, ours) in enumerate(zip(parent.stages, arch.stages, strict=True)):
        block, _ = arch.runs(index)[-1]
        layers = list(enumerate(cost.body(block).main))
        normed = [i for i, layer in layers if isinstance(layer, Conv) and layer.norm]
        if block.skip == "identity" and normed:
            numbers = range(theirs.layers, ours.layers)
            found += [f"stages.{index}.{number}.main.conv{normed[-1]}" for number in numbers]
    return found


def _open_gate(part: Part, layer: SqueezeExcite) -> dict[str, Tensor]:
    """Return what makes new squeeze-and-excitation nearly the identity."""
    bias = torch.full((layer.channels,), OPEN_GATE[layer.gate])
    weight = torch.zeros(layer.channels, layer.squeezed, 1, 1)
    return {f"{part.name}.expand.weight": weight, f"{part.name}.expand.bias": bias}


def resized_kernel(weight: Tensor, side: int) -> Tensor:
    """Return weights (out, in, k, k) of another odd side: the centre, or zeros around it."""
    extra = (side - weight.shape[-1]) // 2
    return functional.pad(weight, (extra,) * 4)  # negative: cropped


def _check_grouped(theirs: Conv, ours: Conv, name: str) -> None:
    """Refuse to choose channels of a grouped convolution, which belong to its groups.

    Raises:
        OptionError: inputs, outputs or groups differ.
    """
    if (theirs.inputs, theirs.outputs, theirs.groups) != (ours.inputs, ours.outputs, ours.groups):
        raise OptionError(
            f"{name} is a convolution of {ours.groups} groups with {ours.inputs} channels, the "
            f"parent's of {theirs.groups} with {theirs.inputs}: channels of groups cannot be "
            "chosen; keep the channels of that stage as the parent has them"
        )
