"""The nets of timm and torchvision that baselines are, and how far their logits lie from ours."""

from __future__ import annotations

import math
import random
import warnings
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nas.models.arch import Arch
from nas.models.build import Model
from nas.models.load import baselines
from nas.models.published import published_as
from nas.training.weights.libraries import TIMM, TIMM_MORE, TORCHVISION
from nas.training.weights.matching import under_our_names
from nas.training.weights.naming import named_as

SIZES = ((64, 64), (65, 97))  # SAME padding depends on whether a side is even
# timm has these with TensorFlow's padding too; EfficientNetV2-B0 to B3 with that alone
_BOTH = ("efficientnet", "mobilenetv3")


class LibraryNet(NamedTuple):
    """A net of a library, by its name there, and the baseline that it is."""

    library: str
    name: str
    baseline: str


class Parity(NamedTuple):
    """How a library builds a net, and the largest difference of logits, as shares of the largest.

    `there`: with random weights of theirs, in ours; `back`: with random weights of ours, in theirs.
    """

    arch: Arch
    there: float
    back: float


def library_nets() -> list[LibraryNet]:
    """Return every net of timm and torchvision that is a baseline."""
    found = [LibraryNet("torchvision", name, own) for own, name in TORCHVISION.items()]
    for own, name in (TIMM | TIMM_MORE).items():
        if not name.startswith("efficientnetv2_b"):
            found.append(LibraryNet("timm", name, own))
        if name.startswith(_BOTH):
            found.append(LibraryNet("timm", f"tf_{name}", own))
    return found


def built(library: str, name: str) -> nn.Module:
    """Return a library's net without weights."""
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        if library == "timm":
            import timm

            net: nn.Module = timm.create_model(name)
            return net
        from torchvision import models  # noqa: TID251

        return models.get_model(name)  # type: ignore[no-any-return]


def drawn(model: nn.Module, seed: int) -> nn.Module:
    """Return a net whose weights and running statistics are all drawn at random.

    Fresh statistics are 0 and 1, behind which a wrong order or epsilon would hide.
    """
    generator = torch.Generator().manual_seed(seed)
    model = model.to_empty(device="cpu").eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                spread = (2 / module.weight[0].numel()) ** 0.5
                module.weight.normal_(0, spread, generator=generator)
                if module.bias is not None:
                    module.bias.normal_(0, 0.1, generator=generator)
            elif isinstance(module, nn.BatchNorm2d):
                for value in (module.weight, module.running_var):
                    value.uniform_(0.5, 1.5, generator=generator)
                for value in (module.bias, module.running_mean):
                    value.normal_(0, 0.1, generator=generator)
                module.num_batches_tracked.zero_()
    return model


def parity(net: LibraryNet) -> Parity:
    """Return how far our logits are from a library's, with weights of theirs and of ours."""
    arch = published_as(baselines()[net.baseline], net.library, net.name)
    theirs = drawn(built(net.library, net.name), seed=0)
    with torch.device("meta"):
        empty = Model(arch)
    ours = empty.to_empty(device="cpu").eval()
    ours.load_state_dict(under_our_names(shuffled(theirs.state_dict()), arch, net.name)[0])
    there = apart(ours, theirs)
    drawn(ours, seed=1)
    state = theirs.state_dict()
    state.update(named_as(ours.state_dict(), state))  # torchvision's MnasNet looks at its version
    theirs.load_state_dict(state)
    return Parity(arch, there, apart(theirs, ours))


def shuffled(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights as a file keeps them: in no order."""
    names = sorted(weights)
    random.Random(0).shuffle(names)
    return {name: weights[name] for name in names}


@torch.inference_mode()
def apart(one: nn.Module, other: nn.Module) -> float:
    """Return the largest difference of two nets' logits, as a share of the largest logit."""
    generator = torch.Generator().manual_seed(2)
    worst = 0.0
    for size in SIZES:
        images = torch.randn(1, 3, *size, generator=generator)
        found, wanted = one(images), other(images)
        ratio = float((found - wanted).abs().max() / wanted.abs().max())
        worst = max(worst, ratio if math.isfinite(ratio) else math.inf)
    return worst
