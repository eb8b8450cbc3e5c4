"""Weights under the names of timm or torchvision, for the nets of theirs that ours reproduce.

Both name the same tensors in the order of the network; a file does not keep that order, so it is
told from the names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

_FIRST, _LAST = ("conv_stem", "conv1"), ("conv_head", "bn2", "classifier", "fc")
_TENSORS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
# the layers of timm's blocks, by those that tell the kinds apart
_BLOCKS = {
    ("conv_pw", "conv_pwl"): ("conv_pw", "bn1", "conv_dw", "bn2", "se", "conv_pwl", "bn3"),
    ("conv_pw",): ("conv_dw", "bn1", "se", "conv_pw", "bn2"),
    ("conv_exp",): ("conv_exp", "bn1", "se", "conv_pwl", "bn2"),
    ("conv",): ("conv", "bn1", "se"),
}
_SQUEEZE = ("conv_reduce", "conv_expand", "fc1", "fc2")
_MARKS = {
    "timm": re.compile(r"conv_stem\.weight|blocks\.\d+\.\d+\.conv.*"),
    "torchvision": re.compile(r"features\.0\.0\.weight|layers\.8\.0\.layers\..*"),
    "timm or torchvision": re.compile(r"layer1\.0\.conv1\.weight"),
}


def origin(names: Sequence[str]) -> str:
    """Return the library whose names these are: timm, torchvision, or ""."""
    found = [_plain(name) for name in names]
    marks = _MARKS.items()
    return next((who for who, mark in marks if any(mark.fullmatch(n) for n in found)), "")


def renamed(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Return weights of timm or torchvision under our names; None if they are of another net.

    `own`: fresh weights of the net, in its order. A classifier of other classes is left out.
    """
    counted = [name for name in own if not name.endswith("num_batches_tracked")]
    theirs = {_plain(name): value for name, value in weights.items()}
    ordered = [n for n in in_order(list(theirs)) if not n.endswith("num_batches_tracked")]
    if len(ordered) != len(counted):
        return None
    found = {}
    for name, their in zip(counted, ordered, strict=True):
        value, shape = theirs[their], own[name].shape
        if value.numel() == shape.numel() and name.endswith(their.rpartition(".")[2]):
            found[name] = value.reshape(shape)  # a hidden linear layer is a 1x1 convolution there
        elif name not in counted[-2:]:
            return None
    return found


def in_order(names: Sequence[str]) -> list[str]:
    """Return names of timm or torchvision in the order of the network."""
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


def _plain(name: str) -> str:
    return re.sub(r"^(module|_orig_mod|model)\.", "", name)


def _top(part: str) -> tuple[int, int, str]:
    if part in _FIRST:
        return (0, 0, "")
    if part == "bn1":
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
    if part in _SQUEEZE:
        return (0, _SQUEEZE.index(part), "")
    numbered = re.fullmatch(r"(conv|bn)(\d+)", part)
    if numbered:
        return (1, 2 * int(numbered[2]) + (numbered[1] == "bn"), "")
    return (2, 0, part)
