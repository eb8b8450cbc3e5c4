"""Checkpoints and weights: safetensors for weights, the rest loaded with weights_only.

A checkpoint is a folder that appears in one step. A kill or a full disk leaves the one before.
One of the middle of an epoch lies beside that of the epoch before, until the next is there.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from nas.errors import RunError

WEIGHTS, STATE = "weights.safetensors", "state.pt"
Weights = Mapping[str, Tensor]


def save_weights(path: Path, weights: Weights) -> None:
    """Write weights as one safetensors file, in one step.

    Raises:
        RunError: the disk is full or the folder cannot be written; what was there is kept.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_weights(beside, weights)
        beside.replace(path)
    except (OSError, SafetensorError) as error:
        raise _unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def load_weights(path: Path) -> dict[str, Tensor]:
    """Return the weights of a safetensors file, on the CPU.

    Raises:
        RunError: there is none, or it is damaged.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise RunError(f"cannot read the weights {path}: {_first_line(error)}") from error


def save(
    folder: Path, epoch: int, weights: Weights, state: Mapping[str, Any], *, steps: int = 0
) -> None:
    """Write the checkpoint after `epoch` epochs and `steps` steps of the next; remove older ones.

    In the middle of an epoch, that of the last whole one is kept.

    Raises:
        RunError: it cannot be written, as on a full disk; the checkpoint before it is kept.
    """
    fresh, path = Path(), _path(folder, epoch, steps)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
        _write_weights(fresh / WEIGHTS, weights)
        _write_state(fresh / STATE, state)
        shutil.rmtree(path, ignore_errors=True)
        fresh.rename(path)
    except (OSError, SafetensorError) as error:
        raise _unwritable(path, error) from error
    finally:
        if fresh.name.startswith(".new-"):
            shutil.rmtree(fresh, ignore_errors=True)
    for old in _saved(folder):
        if old not in ((epoch, steps), (epoch, 0)):
            shutil.rmtree(_path(folder, *old), ignore_errors=True)
    _sweep(folder)


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return weights and state of the newest checkpoint that can be read; None if there is none.

    One of the middle of the first epoch that cannot be read counts as none: there is little to
    lose, and no other to go back to.

    Raises:
        RunError: there are checkpoints of whole epochs, and none can be read.
    """
    problem = ""
    for epoch, steps in sorted(_saved(folder), reverse=True):
        path = _path(folder, epoch, steps)
        try:
            state: dict[str, Any] = torch.load(path / STATE, map_location="cpu", weights_only=True)
            return load_weights(path / WEIGHTS), state
        except Exception as error:  # torch raises what the damage leads it to
            if epoch:
                problem = problem or f"cannot read the checkpoint {path}: {_first_line(error)}"
    if problem:
        raise RunError(f"{problem}; delete the folder {folder} to start again")
    return None


def clear(folder: Path) -> None:
    """Remove all checkpoints of a folder."""
    shutil.rmtree(folder, ignore_errors=True)


def _write_weights(path: Path, weights: Weights) -> None:
    save_file(_plain(weights), path)
    with path.open("rb") as file:
        os.fsync(file.fileno())  # before the older file goes: a power cut leaves one of both


def _write_state(path: Path, state: Mapping[str, Any]) -> None:
    # through memory: writing to a full disk itself, torch says "unexpected pos 704 vs 598"
    whole = io.BytesIO()
    torch.save(dict(state), whole)
    with path.open("wb") as file:
        file.write(whole.getbuffer())
        file.flush()
        os.fsync(file.fileno())


def _path(folder: Path, epoch: int, steps: int = 0) -> Path:
    return folder / (f"middle-{epoch}-{steps}" if steps else f"epoch-{epoch}")


def _saved(folder: Path) -> list[tuple[int, int]]:
    """Return the epochs and steps of the checkpoints in a folder."""
    names = (path.name for path in folder.glob("*-*"))
    found = (re.fullmatch(r"epoch-(\d+)|middle-(\d+)-(\d+)", name) for name in names)
    return [(int(m[1] or m[2]), int(m[3] or 0)) for m in found if m]


def _sweep(folder: Path) -> None:
    """Remove what a killed process left half written."""
    for half in folder.glob(".new-*"):
        with contextlib.suppress(OSError):
            shutil.rmtree(half)


def _plain(weights: Weights) -> dict[str, Tensor]:
    """Return copies as safetensors wants them: contiguous, and no two in one memory."""
    return {
        name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in weights.items()
    }


def _unwritable(path: Path, error: Exception) -> RunError:
    return RunError(
        f"cannot write {path}: {_first_line(error)}; the checkpoint before it is kept: "
        "free some space and go on with --resume"
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
