"""NASWOT: a score of an arch without training, from one forward pass of fresh weights.

Each image of a batch switches some units on (the input of their activation is positive): a binary
code. K[i, j] counts the units on which the codes of images i and j agree, and the score is the log
of its determinant: high where there are many units and they tell the images apart.

Source: Mellor et al. 2021, "Neural Architecture Search without Training", section 3.2. It counts
every position of a map, which here ranks as the number of activations does, and that is hardly at
all. So a layer counts by its channels instead: the share of its units that agree, times the root of
its number of channels (`by_channels`; docs/results.md has what each ranks with).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from nas.core.errors import NasError, first_line
from nas.models.arch import ACTIVATIONS, Arch
from nas.models.build import build_model
from nas.models.modules import activation

Array = npt.NDArray[np.float64]
Weigh = Callable[[int, int], float]  # of a layer's channels and positions: what it counts

IMAGES, SIDE = 32, 64  # a batch; 224 pixels rank no better and cost 15 times as much
SLICE = 1 << 16  # units at once: their codes fit the cache, and float32 counts them exactly
RIDGE = 1e-6  # keeps the determinant of images with one code finite, and changes no other
_KINDS = tuple(type(activation(name)) for name in ACTIVATIONS)


def by_channels(channels: int, positions: int) -> float:
    """Return the root of the channels: what a layer counts here."""
    return math.sqrt(channels)


def score(arch: Arch, *, seed: int = 0) -> float:
    """Return the score of an arch; only comparisons mean something.

    On a batch of noise as large as the arch's input, but at most SIDE pixels, on the CPU.

    Raises:
        NasError: the network cannot run.
    """
    return log_determinant(kernel(arch, noise(arch, seed=seed), seed=seed))


def noise(arch: Arch, *, images: int = IMAGES, side: int = SIDE, seed: int = 0) -> Tensor:
    """Return normal noise (images, channels, side, side) for an arch."""
    size = (images, arch.in_channels, *[min(side, arch.resolution)] * 2)
    apart = (1 << 32) + seed  # weights drawn from the same numbers would know the images
    return torch.randn(size, generator=torch.Generator().manual_seed(apart))


def kernel(arch: Arch, images: Tensor, *, seed: int = 0, weigh: Weigh = by_channels) -> Array:
    """Return K (n, n) of a fresh network on n images (n, C, H, W).

    Weights are drawn from the seed. Batch norm takes the statistics of the batch, as in training:
    its own say nothing in a fresh network. Nothing is dropped. Torch's random state is left alone.

    Raises:
        NasError: the network cannot run on these images.
    """
    head = dataclasses.replace(arch.head, dropout=0.0)
    plain = dataclasses.replace(arch, head=head, stochastic_depth=0.0)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)
        model = build_model(plain).train()
        total = torch.zeros(len(images), len(images), dtype=torch.float64)
        for module in model.modules():
            if isinstance(module, _KINDS):
                module.register_forward_pre_hook(partial(_add, total, weigh))
        try:
            model(images)
        except (RuntimeError, ValueError) as error:  # no memory; or one value a channel to norm
            reason = first_line(error)
            raise NasError(f"arch {arch.id} cannot be scored by naswot: {reason}") from error
    return np.asarray(total)


def log_determinant(matrix: Array) -> float:
    """Return log |det K| of a positive matrix (n, n)."""
    ridge = RIDGE * np.diag(np.diag(matrix))
    return float(np.linalg.slogdet(matrix + ridge)[1])


def _add(total: Tensor, weigh: Weigh, module: nn.Module, given: tuple[Tensor]) -> None:
    """Add the agreement of a layer to K, a slice of its units at a time."""
    x = given[0]
    channels, positions = x.shape[1], math.prod(x.shape[2:])
    units = x.flatten(1)
    agree = torch.zeros_like(total)
    for begin in range(0, units.shape[1], SLICE):
        on = (units[:, begin : begin + SLICE] > 0).float()
        both, each = (on @ on.T).double(), on.sum(1).double()
        # both on, or both off
        agree += on.shape[1] - each[:, None] - each + 2 * both
    total += agree * (weigh(channels, positions) / units.shape[1])
