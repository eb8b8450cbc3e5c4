"""Our count beside other people's: torch's FlopCounterMode and thop, on the built model."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nas.core.errors import MissingError
from nas.models.arch import Arch
from nas.models.build import build_model, check_memory
from nas.models.cost import count


def crosscheck(arch: Arch) -> dict[str, dict[str, int]]:
    """Return params and FLOPs by our formula, by torch's FlopCounterMode, and by thop.

    Torch counts two operations per multiply-add: its figure is halved. thop also counts four
    operations per element of a norm, and pooling; its figure for convolutions and linear layers
    is given apart from those.

    Raises:
        MissingError: thop is not installed.
    """
    own = count(arch)
    check_memory(arch, images=1)
    model = build_model(arch).eval()
    image = torch.zeros(1, arch.in_channels, *own.resolution)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(image)
    kernels, everything = _thop(model, image, silent=True), _thop(model, image, silent=False)
    params = sum(p.numel() for p in model.parameters())
    return {
        "nas": {"params": own.params, "flops": own.flops},
        "torch": {"params": params, "flops": counter.get_total_flops() // 2},
        "thop": {"flops": kernels, "norms_and_pools": everything - kernels},
    }


def _thop(model: nn.Module, image: Tensor, silent: bool) -> int:
    """Return thop's count, on a copy: it leaves hooks and buffers in what it profiles."""
    try:
        with warnings.catch_warnings():
            # thop asks setuptools for distutils, which warns that it is old
            warnings.simplefilter("ignore", DeprecationWarning)
            import thop
    except ImportError:
        raise MissingError("thop is not installed: pip install thop") from None
    extras = (nn.BatchNorm2d, nn.GroupNorm, nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.MaxPool2d)
    ignore = {kind: lambda *_: None for kind in extras} if silent else {}
    with torch.inference_mode():
        flops, _ = thop.profile(copy.deepcopy(model), (image,), custom_ops=ignore, verbose=False)
    return int(flops)
