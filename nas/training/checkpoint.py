"""Checkpoints and weights: safetensors for weights, the rest loaded with weights_only.

A checkpoint is a folder that appears in one step. A kill or a full disk leaves the one before. The
last two of whole epochs are kept, so that damage to one costs an epoch; one of the middle of an
epoch lies beside them until the next is there. Weights carry a checksum of themselves, and those of
a checkpoint one of its state too: what a disk has changed is not gone on from.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nas.core.errors import RunError, first_line

WEIGHTS, STATE = "weights.safetensors", "state.pt"
KEPT = 2  # checkpoints of whole epochs
# keys of the metadata of a safetensors file: the digest of its tensors, and of a state beside it
_DIGEST, _OF_STATE = "blake2b", "state"
Weights = Mapping[str, Tensor]

_log = logging.getLogger("nas")


def write_weights(path: Path, weights: Weights) -> None:
    """Write weights as one safetensors file, in one step.

    Raises:
        RunError: the disk is full or the folder cannot be written; what was there is kept.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_weights(beside, weights)
        beside.chmod(0o666 & ~_umask())  # safetensors writes for this user alone
        beside.replace(path)
    except (OSError, SafetensorError) as error:
        raise _unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


@functools.cache
def _umask() -> int:
    """Return what new files of this process lack; it can be read by setting it only."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the weights of a safetensors file, on the CPU.

    Raises:
        RunError: there is none, or it is damaged; files of other programs carry no checksum.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the weights of a file, compared with their checksum if any, and its metadata."""
    try:
        with safe_open(path, "pt") as file:
            facts = dict(file.metadata() or {})
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise RunError(f"cannot read the weights {path}: {first_line(error)}") from error
    if facts.get(_DIGEST, found := digest(weights)) != found:
        raise RunError(f"the weights {path} are damaged: their checksum differs")
    return weights, facts


def save(
    folder: Path, epoch: int, weights: Weights, state: Mapping[str, Any], *, steps: int = 0
) -> None:
    """Write the checkpoint after `epoch` epochs and `steps` steps of the next; remove older ones.

    Those of the last two whole epochs are kept.

    Raises:
        RunError: it cannot be written, as on a full disk; the checkpoint before it is kept.
    """
    fresh, path = Path(), _path(folder, epoch, steps)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
        of_state = _write_state(fresh / STATE, state)
        _write_weights(fresh / WEIGHTS, weights, {_OF_STATE: of_state})
        shutil.rmtree(path, ignore_errors=True)
        fresh.rename(path)
    except (OSError, SafetensorError) as error:
        raise _unwritable(path, error) from error
    finally:
        if fresh.name.startswith(".new-"):
            shutil.rmtree(fresh, ignore_errors=True)
    saved = _saved(folder)
    whole = sorted((each for each in saved if not each[1] and each[0] <= epoch), reverse=True)
    for old in set(saved) - {(epoch, steps), *whole[:KEPT]}:
        shutil.rmtree(_path(folder, *old), ignore_errors=True)
    _sweep(folder)


def load(folder: Path, *, whole: bool = False) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return weights and state of the newest checkpoint that can be read; None if there is none.

    `whole`: of whole epochs only.

    One of the middle of the first epoch that cannot be read counts as none: there is little to
    lose, and no other to go back to.

    Raises:
        RunError: there are checkpoints of whole epochs, and none can be read.
    """
    problem = ""
    for epoch, steps in sorted(_saved(folder), reverse=True):
        if whole and steps:
            continue
        path = _path(folder, epoch, steps)
        try:
            found = _load(path)
        except Exception as error:  # torch raises what the damage leads it to
            if epoch:
                problem = problem or f"cannot read the checkpoint {path}: {first_line(error)}"
            continue
        if problem:
            _log.warning("%s; going on from the one of epoch %d", problem, epoch)
        return found
    if problem:
        raise RunError(f"{problem}; delete the folder {folder} to start again")
    return None


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    weights, facts = _read(path / WEIGHTS)
    data = (path / STATE).read_bytes()
    if facts.get(_OF_STATE, of_state := _hash(data)) != of_state:
        raise RunError(f"{path / STATE} is damaged: its checksum differs")
    state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return weights, state


def clear(folder: Path) -> None:
    """Remove all checkpoints of a folder."""
    shutil.rmtree(folder, ignore_errors=True)


def _write_weights(path: Path, weights: Weights, facts: Mapping[str, str] | None = None) -> None:
    plain = _plain(weights)
    save_file(plain, path, {"format": "pt", _DIGEST: digest(plain), **(facts or {})})
    with path.open("rb") as file:
        os.fsync(file.fileno())  # before the older file goes: a power cut leaves one of both


def _write_state(path: Path, state: Mapping[str, Any]) -> str:
    """Write what a checkpoint has beside the weights; return its digest."""
    # through memory: writing to a full disk itself, torch says "unexpected pos 704 vs 598"
    whole = io.BytesIO()
    torch.save(dict(state), whole)
    with path.open("wb") as file:
        file.write(whole.getbuffer())
        file.flush()
        os.fsync(file.fileno())
    return _hash(whole.getbuffer())


def _hash(data: bytes | memoryview) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def digest(weights: Weights) -> str:
    """Return a hash of the names, types, shapes and numbers of tensors on the CPU."""
    whole = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(weights.items()):
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        whole.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()


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
        f"cannot write {path}: {first_line(error)}; the checkpoint before it is kept: "
        "free some space and go on with --resume"
    )
