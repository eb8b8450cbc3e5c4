"""What a training that is short of memory can know and do."""

from __future__ import annotations

import functools
import math

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint as recompute

from nas.errors import NasError
from nas.model import Model
from nas.training import distributed


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether memory did not suffice: each allocator has an error and words of its own."""
    words = ("out of memory", "allocate memory", "not enough memory", "ALLOC_FAILED")
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(word in str(error) for word in words)


def more_parts(mine: int, parts: int, device: str, side: int) -> int:
    """Return into how many parts this process's `mine` images of a step go, if not into `parts`.

    Raises:
        NasError: a part was one image already, or other processes wait in the middle of a step.
    """
    more = min(2 * parts, mine)
    if distributed.world() > 1:
        raise NasError(
            f"out of memory on {device} with {math.ceil(mine / parts)} images at a time: go on "
            f"with --resume --accumulate {more}"
        )
    if parts >= mine:
        raise NasError(
            f"one image of {side} pixels does not fit into the memory of {device}: choose a "
            "smaller --imgsz or --grad-checkpointing"
        )
    return more


def recompute_blocks(model: Model) -> None:
    """Keep only the blocks' inputs for the backward pass, which runs the blocks again.

    Batch norm then sees each batch twice; with momentum 1 - sqrt(1 - m) two updates of its
    statistics are exactly one with m.
    """
    for block in (block for stage in model.stages for block in stage.children()):
        for module in block.modules():
            if isinstance(module, nn.BatchNorm2d) and module.momentum is not None:
                module.momentum = 1 - math.sqrt(1 - module.momentum)
        block.forward = functools.partial(recompute, block.forward, use_reentrant=False)
