"""What a training that is short of memory can know and do."""

from __future__ import annotations

import functools
import math

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint as recompute

from nas.core.errors import NasError, OptionError
from nas.core.system import free_memory
from nas.core.units import format_bytes
from nas.models.arch import Arch
from nas.models.build import Model
from nas.models.cost import count
from nas.training import distributed

SHARE = 0.8  # of the free memory that a training plans to take
OVERHEAD = 1.3  # times the estimate: copies for the convolutions, what an allocator cannot reuse
RECOMPUTED = 0.4  # of the maps that are kept where blocks are computed again


def least_images(arch: Arch) -> int:
    """Return the fewest images that can go through a net at once in training.

    Batch norm takes its statistics over images and places, and of one image on a 1x1 map there is
    one value, whose variance is nothing.
    """
    stride = math.prod([arch.stem.stride * arch.stem.pool, *(s.stride for s in arch.stages)])
    return 2 if arch.norm.kind == "batch" and arch.resolution <= stride else 1


def check_images(arch: Arch, mine: int, images: int) -> None:
    """Check that `mine` images of a step in this process are enough, of `images` there are.

    Raises:
        OptionError: batch norm needs two.
    """
    if min(mine, images) < least_images(arch):
        where = "there is 1 training image" if images < 2 else "--batch-size gives it 1"
        way = "add images" if images < 2 else "take at least 2 for each process"
        raise OptionError(
            f"{arch.name} at {arch.resolution} pixels ends in a map of 1x1, where batch norm needs "
            f"two images at a time, and {where}: {way}, or a larger --imgsz"
        )


def parts_that_fit(
    arch: Arch,
    mine: int,
    parts: int,
    device: str,
    *,
    checkpointing: bool = False,
    beside: tuple[float, float] = (0.0, 0.0),
) -> int:
    """Return into how many parts `mine` images of a step go so as to fit, by estimate.

    `mine` are those of this process. At least `parts`. `beside`: bytes of a net that is asked
    before each part, a teacher: of its weights, and of the maps of an image. On a CPU this is what
    keeps the kernel from killing the training.

    Raises:
        NasError: not even the fewest images fit.
    """
    cost, free = count(arch), _free(device)
    weights, maps = beside
    own = cost.training_bytes_per_image * (RECOMPUTED if checkpointing else 1)
    each = OVERHEAD * max(own, maps)  # the teacher's maps are gone before the training's are there
    fixed, least = cost.training_bytes + weights, least_images(arch)
    room = SHARE * free - fixed
    if not math.isfinite(free):
        return min(parts, max(1, mine // least))
    if room < least * each:
        needed = fixed + least * each
        more = " with its teacher" if weights else ""
        what = f"{arch.name} at {arch.resolution} pixels{more}"
        raise NasError(
            f"{what} needs about {format_bytes(needed)} to train with {least} images at a time, "
            f"and {format_bytes(free)} are free on {device}: a "
            "smaller --imgsz, --grad-checkpointing or a smaller net"
        )
    needed_parts = math.ceil(mine / min(mine, int(room // each)))
    return min(max(parts, needed_parts), max(1, mine // least))


def _free(device: str) -> float:
    """Return the bytes that are free on a device; infinite where nothing tells."""
    if device.startswith("cuda"):
        return float(torch.cuda.mem_get_info(device)[0])
    return math.inf if device.startswith("mps") else free_memory()


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether memory did not suffice: each allocator has an error and words of its own."""
    words = ("out of memory", "allocate memory", "not enough memory", "ALLOC_FAILED")
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(word in str(error) for word in words)


def more_parts(mine: int, parts: int, device: str, arch: Arch) -> int:
    """Return into how many parts this process's `mine` images of a step go, if not into `parts`.

    Raises:
        NasError: a part was one image already, or other processes wait in the middle of a step.
    """
    least = least_images(arch)
    more = min(2 * parts, mine // least)
    if distributed.world() > 1:
        raise NasError(
            f"out of memory on {device} with {math.ceil(mine / parts)} images at a time: go on "
            f"with --resume --accumulate {more}"
        )
    if parts >= mine // least:
        what = "one image" if least == 1 else "two images"
        verb = "does" if least == 1 else "do"
        raise NasError(
            f"{what} of {arch.resolution} pixels {verb} not fit into the memory of {device}: "
            "choose a smaller --imgsz or --grad-checkpointing"
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
