"""Weights under timm's or torchvision's names load into the nets of theirs that ours reproduce."""

import dataclasses
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from nas.core.errors import OptionError
from nas.models.build import Model
from nas.models.load import baselines
from nas.training.weights.sources import fitting, initial_weights

TIMM = {
    "mobilenet_v3_small": "mobilenetv3_small_100",
    "mnasnet_small": "mnasnet_small",
    "mobilenet_v2": "mobilenetv2_100",
    "efficientnet_b0": "efficientnet_b0",
    "efficientnet_lite0": "efficientnet_lite0",
    "resnet18": "resnet18",
    "efficientnet_v2_s": "efficientnetv2_s",
}
TORCHVISION = {
    "mobilenet_v2": "mobilenet_v2",
    "mobilenet_v3_small": "mobilenet_v3_small",
    "efficientnet_b0": "efficientnet_b0",
    "mnasnet_b1": "mnasnet1_0",
    "resnet50": "resnet50",
}


def drawn(model: nn.Module) -> nn.Module:
    """Draw all weights and statistics anew: fresh ones are mostly 0 and 1."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                value.uniform_(-0.05, 0.05)
                value += 1.0 if name.endswith("running_var") else 0.0
    return model.eval()


def shuffled(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights as a file keeps them: in no order."""
    names = sorted(weights)
    random.Random(0).shuffle(names)
    return {name: weights[name] for name in names}


def made(library: str, name: str) -> Any:
    if library == "timm":
        return pytest.importorskip("timm").create_model(TIMM[name])
    try:
        from torchvision import models  # noqa: TID251
    except Exception as error:
        pytest.skip(f"torchvision: {error}")
    return getattr(models, TORCHVISION[name])()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "library, name", [*(("timm", n) for n in TIMM), *(("torchvision", n) for n in TORCHVISION)]
)
def test_their_weights_give_their_logits(library: str, name: str) -> None:
    theirs, ours = drawn(made(library, name)), Model(baselines()[name])
    found = fitting(ours, shuffled(theirs.state_dict()), "x")
    ours.load_state_dict(found, strict=False)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        wanted, answer = theirs(images), ours.eval()(images)
    assert (wanted - answer).abs().max() <= 1e-3 * wanted.abs().max()


@pytest.mark.filterwarnings("ignore")
def test_they_start_a_training_of_other_classes_and_other_nets_are_told_apart(
    tmp_path: Path,
) -> None:
    theirs = made("timm", "mobilenet_v3_small").state_dict()
    path = tmp_path / "timm.safetensors"
    save_file({f"module.{name}": value for name, value in theirs.items()}, path)

    arch = baselines()["mobilenet_v3_small"]
    few = Model(dataclasses.replace(arch, head=dataclasses.replace(arch.head, classes=3)))
    found = initial_weights(few, path)
    own = list(few.state_dict())
    assert torch.equal(found[own[0]], theirs["conv_stem.weight"])
    assert not {*own[-2:]} & set(found) and len(found) > 100
    with pytest.raises(
        OptionError, match=r"another arch than mobilenet_v2 under the names of timm, "
    ):
        initial_weights(Model(baselines()["mobilenet_v2"]), path)
