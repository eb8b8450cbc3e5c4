"""Files of weights, of any program that keeps a state dict: read as tensors, never as code."""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nas.core.errors import OptionError, RunError, first_line
from nas.training.checkpoint import read_weights

PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".tar")
# where checkpoints of other programs keep the state dict, the averaged weights first
_WRAPPERS = (
    "state_dict_ema",
    "model_ema",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",
    "net",
    "weights",
)
_PREFIXES = ("module.", "_orig_mod.", "model.")
_DEPTH = 3  # of wrappers and of prefixes


def read_file(path: Path) -> dict[str, Tensor]:
    """Return the state dict that a file holds: safetensors, or a pickle of tensors of torch.

    Raises:
        OptionError: a pickle holds anything but tensors and plain data, or no state dict.
        RunError: the file is damaged.
    """
    if path.suffix not in PICKLES:
        return plain(_safe(path))
    return state_dict(_unpickled(path), str(path))


def state_dict(held: Any, told: str) -> dict[str, Tensor]:
    """Return the state dict in what a checkpoint holds, without wrappers and prefixes.

    Raises:
        OptionError: there is none.
    """
    for _ in range(_DEPTH):
        if not isinstance(held, Mapping) or _tensors(held):
            break
        key = next((k for k in _WRAPPERS if isinstance(held.get(k), Mapping)), None)
        if key is None:
            break
        held = held[key]
    if not isinstance(held, Mapping) or not (found := _tensors(held)):
        raise OptionError(
            f"{told} holds no state dict but {type(held).__name__}: save one with "
            "torch.save(model.state_dict(), FILE)"
        )
    return plain(found)


def plain(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights as ours are kept: float32, contiguous, names without what wraps a model."""
    found = {
        name: (value.detach().float() if value.is_floating_point() else value.detach()).contiguous()
        for name, value in weights.items()
    }
    for _ in range(_DEPTH):
        prefix = next((p for p in _PREFIXES if all(n.startswith(p) for n in found)), None)
        if prefix is None:
            break
        found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def _tensors(held: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Return the tensors of a mapping if it is a state dict: most of its values are some."""
    found = {str(k): v for k, v in held.items() if isinstance(v, Tensor)}
    return found if 2 * len(found) > len(held) else {}


def _safe(path: Path) -> dict[str, Tensor]:
    try:
        return read_weights(path)
    except RunError as error:
        raise RunError(f"{error}; get the file again") from error


def _unpickled(path: Path) -> Any:
    try:
        held = io.BytesIO(path.read_bytes())
    except OSError as error:
        raise RunError(f"cannot read the weights {path}: {error.strerror or error}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the protocol, and of TorchScript
            return torch.load(held, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises what the content leads it to
        half = held.getvalue()[:2] == b"PK" and not zipfile.is_zipfile(held)
        damaged = half or isinstance(error, RuntimeError | EOFError | OSError)
        if not damaged or "TorchScript" in str(error):
            raise _refused(path, str(error)) from error
        raise RunError(
            f"{path} is damaged, or half of a file ({first_line(error, 80)}): get the file again"
        ) from error


def _refused(path: Path, said: str) -> OptionError:
    """Return why a pickle is not read: it holds more than tensors, or is none."""
    found = re.search(r"GLOBAL ([\w.]+)|TorchScript", said)
    if not found:
        return OptionError(
            f"{path} is no file of weights: give a .safetensors, or a .pth that "
            "torch.save(model.state_dict(), FILE) wrote"
        )
    return OptionError(
        f"{path} holds code ({found[1] or found[0]}), which is not run: weights are tensors alone; "
        "where you trust it, load it with its own program and save model.state_dict()"
    )
