"""Several processes, one GPU each, as torchrun starts them: the little that is needed of it."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


def rank() -> int:
    """Return the number of this process among those that torchrun started, or 0."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """Return how many processes torchrun started, or 1."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_device(device: str) -> str:
    """Return this process's own GPU where there are several processes and `device` is cuda."""
    return (
        f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if world() > 1 and device == "cuda" else device
    )


@contextlib.contextmanager
def joined(device: str) -> Iterator[None]:
    """Join the other processes for the time of a training; nothing happens for one process."""
    if world() == 1 or distributed.is_initialized():
        yield
        return
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def summed(values: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes."""
    if distributed.is_initialized():
        distributed.all_reduce(values)
    return values


def gathered(values: Tensor) -> Tensor:
    """Return vectors (N,) of all processes, of any lengths, in one."""
    if not distributed.is_initialized():
        return values
    lengths = torch.zeros(world(), dtype=torch.int64, device=values.device)
    lengths[rank()] = len(values)
    lengths = summed(lengths)
    first = int(lengths[: rank()].sum())
    whole = torch.zeros(int(lengths.sum()), dtype=values.dtype, device=values.device)
    whole[first : first + len(values)] = values
    return summed(whole)


def average_buffers(model: nn.Module) -> None:
    """Replace batch norm's running statistics by their mean over all processes."""
    if not distributed.is_initialized():
        return
    for buffer in model.buffers():
        if buffer.is_floating_point():
            distributed.all_reduce(buffer)
            buffer /= world()


def wrapped(model: nn.Module, device: str) -> nn.Module:
    """Return a model whose backward pass averages the gradients over all processes."""
    if world() == 1:
        return model
    devices: Any = [device] if device.startswith("cuda") else None
    with warnings.catch_warnings():  # newer releases of torch rename this argument
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)


def barrier() -> None:
    """Wait for the other processes."""
    if distributed.is_initialized():
        distributed.barrier()
