"""Weights under the names of timm, torchvision or efficientnet_pytorch, for the nets that are ours.

All name the same tensors in the order of the network; a file does not keep that order, so it is
told from the names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from torch import Tensor

_FIRST, _SECOND = ("conv_stem", "conv1", "_conv_stem"), ("bn1", "_bn0")
_LAST = ("conv_head", "_conv_head", "bn2", "_bn1", "classifier", "fc", "_fc")
COUNTER = "num_batches_tracked"
_TENSORS = ("weight", "bias", "running_mean", "running_var", COUNTER)
# the layers of timm's blocks, by those that tell the kinds apart
_BLOCKS = {
    ("conv_pw", "conv_pwl"): ("conv_pw", "bn1", "conv_dw", "bn2", "se", "conv_pwl", "bn3"),
    ("conv_pw",): ("conv_dw", "bn1", "se", "conv_pw", "bn2"),
    ("conv_exp",): ("conv_exp", "bn1", "se", "conv_pwl", "bn2"),
    ("conv",): ("conv", "bn1", "se"),
}
# those of efficientnet_pytorch, by Luke Melas-Kyriazi
_LUKEMELAS = (
    "_expand_conv",
    "_bn0",
    "_depthwise_conv",
    "_bn1",
    "_se_reduce",
    "_se_expand",
    "_project_conv",
    "_bn2",
)
_SQUEEZE = ("conv_reduce", "conv_expand", "fc1", "fc2")
_MARKS = {
    "timm": re.compile(r"conv_stem\.weight|blocks\.\d+\.\d+\.conv.*"),
    "torchvision": re.compile(r"features\.0\.0\.weight|layers\.8\.0\.layers\..*"),
    "efficientnet_pytorch": re.compile(r"_conv_stem\.weight|_blocks\.\d+\..*"),
    "timm or torchvision": re.compile(r"layer1\.0\.conv1\.weight"),
}


def origin(names: Sequence[str]) -> str:
    """Return the library whose names these are: timm, torchvision, efficientnet_pytorch, or ""."""
    return next((who for who, mark in _MARKS.items() if any(map(mark.fullmatch, names))), "")


def renamed(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], str]:
    """Return weights of a library under our names, and which does not fit first: "" if all do.

    `own`: tensors of the net in its order, of which the shapes count. The classifier may be of
    other classes, or missing.
    """
    counted = [name for name in own if not name.endswith(COUNTER)]
    ordered = [name for name in in_order(list(weights)) if not name.endswith(COUNTER)]
    head = counted[-2:]

    def fit(their: str, name: str) -> bool:
        kind = their.rpartition(".")[2]
        return name.endswith(kind) and _fits(weights[their], own[name], name in head)

    pairs = list(zip(counted, ordered, strict=False))
    if len(ordered) in (len(counted), len(counted) - 2) and all(fit(t, n) for n, t in pairs):
        # a hidden linear layer is a 1x1 convolution there
        return {
            name: weights[t] if name in head else weights[t].reshape(own[name].shape)
            for name, t in pairs
        }, ""
    return {}, _difference(weights, ordered, own, counted) or next(
        f"{their} is {_shape(weights[their])}, where {name} is {_shape(own[name])}"
        for name, their in pairs
        if not fit(their, name)
    )


def _difference(
    weights: Mapping[str, Tensor],
    ordered: Sequence[str],
    own: Mapping[str, Tensor],
    counted: Sequence[str],
) -> str:
    """Return what is missing or too many where the rest has the shapes of the net, else ""."""
    theirs = {name: _kind(name, weights[name]) for name in ordered[:-2]}
    ours = {name: _kind(name, own[name]) for name in counted[:-2]}
    lacking = Counter(ours.values()) - Counter(theirs.values())
    surplus = Counter(theirs.values()) - Counter(ours.values())
    if lacking and not surplus:
        name = next(name for name, kind in ours.items() if kind in lacking)
        return _lacks(lacking.total(), len(counted), f"{name} of {_shape(own[name])}")
    if surplus and not lacking:
        return _too_many(surplus.total(), next(n for n, kind in theirs.items() if kind in surplus))
    return ""


def _lacks(count: int, total: int, name: str) -> str:
    return f"it lacks {count} of {total} tensors, such as {name}"


def _too_many(count: int, name: str) -> str:
    return f"it has {count} tensor{'s' if count > 1 else ''} too many, such as {name}"


def _kind(name: str, tensor: Tensor) -> tuple[str, tuple[int, ...]]:
    return name.rpartition(".")[2], tuple(side for side in tensor.shape if side != 1)


def named_as(weights: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of ours under the names of a library's net: the inverse of `renamed`.

    `weights`: all of a net, in its order, as its state dict is. `theirs`: tensors of the library's
    net, of which names and shapes count.
    """
    pairs = zip(in_order(list(theirs)), weights.values(), strict=True)
    # a hidden linear layer is a 1x1 convolution there
    found = {name: value.reshape(theirs[name].shape) for name, value in pairs}
    return {name: found[name] for name in theirs}


def same_names(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Return which of the weights under our names does not fit first, "" if all do.

    The classifier may be of other classes, or missing; counters of batches may be missing.
    """
    counted = [name for name in own if not name.endswith(COUNTER)]
    head = counted[-2:]
    for name in counted:
        exact = name in head or weights.get(name, own[name]).shape == own[name].shape
        if name in weights and not (exact and _fits(weights[name], own[name], name in head)):
            return f"{name} is {_shape(weights[name])}, not {_shape(own[name])}"
    absent = [name for name in counted if name not in weights]
    if absent and absent != head:
        return _lacks(len(absent), len(counted), absent[0])
    surplus = [name for name in weights if name not in own]
    return _too_many(len(surplus), surplus[0]) if surplus else ""


def _fits(value: Tensor, wanted: Tensor, classifier: bool) -> bool:
    if classifier:
        return value.shape[1:] == wanted.shape[1:] and value.ndim == wanted.ndim
    sides, asked = ([side for side in tensor.shape if side != 1] for tensor in (value, wanted))
    return sides == asked


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "one number"


def in_order(names: Sequence[str]) -> list[str]:
    """Return names of a library in the order of the network."""
    children: dict[str, set[str]] = {}
    for name in names:
        parts = name.split(".")
        if parts[0] == "blocks" and len(parts) > 3:
            children.setdefault(".".join(parts[:3]), set()).add(parts[3])

    def key(name: str) -> list[tuple[int, int, str]]:
        parts = name.split(".")
        rank = [_top(parts[0])]
        block = children.get(".".join(parts[:3]))
        for depth, part in enumerate(parts[:-1]):
            rank.append(_inner(part, block if depth == 3 else None))
        return [*rank, (_TENSORS.index(parts[-1]) if parts[-1] in _TENSORS else 9, 0, parts[-1])]

    return sorted(names, key=key)


def _top(part: str) -> tuple[int, int, str]:
    if part in _FIRST:
        return (0, 0, "")
    if part in _SECOND:
        return (1, 0, "")
    return (3, _LAST.index(part), "") if part in _LAST else (2, 0, "")


def _inner(part: str, block: set[str] | None) -> tuple[int, int, str]:
    """Return the place of a part of a name among its equals."""
    if block is not None:
        for marks, layers in _BLOCKS.items():
            if block.issuperset(marks) and part in layers:
                return (0, layers.index(part), "")
    if part.isdigit():
        return (0, int(part), "")
    if part in _LUKEMELAS:
        return (0, _LUKEMELAS.index(part), "")
    if part in _SQUEEZE:
        return (0, _SQUEEZE.index(part), "")
    numbered = re.fullmatch(r"(conv|bn)(\d+)", part)
    if numbered:
        return (1, 2 * int(numbered[2]) + (numbered[1] == "bn"), "")
    return (2, 0, part)
