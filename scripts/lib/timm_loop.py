"""What of timm and of plain PyTorch `bench_training.py` sets our training loop against.

It is what timm's train.py does with --amp --channels-last --model-ema, without its prefetcher:
uint8 images in main memory, a DataLoader whose workers make torchvision's views of them one by one,
pinned memory, normalisation on the device, timm's net, optimizer and averaged weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler

from nas.data import policies
from nas.models.arch import Arch
from nas.training.recipe import Recipe

NAMES = {
    "efficientnet_v2_b0": "tf_efficientnetv2_b0",
    "mnasnet_a1": "semnasnet_100",
    "mnasnet_b1": "mnasnet_100",
    "mobilenet_v2": "mobilenetv2_100",
    "mobilenet_v3_large": "mobilenetv3_large_100",
    "mobilenet_v3_small": "mobilenetv3_small_100",
}
OPTIMIZERS = {"rmsprop_tf": "rmsproptf", "sgd": "sgd", "adamw": "adamw"}


def known(name: str) -> bool:
    """Return whether timm has a net of this name.

    Raises:
        ImportError: timm cannot be imported.
    """
    import timm

    return bool(timm.is_model(name))


def net(name: str, arch: Arch) -> nn.Module:
    """Return timm's net with the classes and the regularisation of ours."""
    import timm

    shared = {"drop_rate": arch.head.dropout, "drop_path_rate": arch.stochastic_depth}
    shared = {key: value for key, value in shared.items() if value}  # not all nets have them
    made: nn.Module = timm.create_model(name, num_classes=arch.head.classes, **shared)
    return made


def make_optimizer(model: nn.Module, recipe: Recipe, lr: float) -> torch.optim.Optimizer:
    """Return timm's optimizer of the recipe's kind; like ours, it spares norms and biases."""
    from timm.optim import create_optimizer_v2

    made: torch.optim.Optimizer = create_optimizer_v2(
        model,
        opt=OPTIMIZERS[recipe.optimizer],
        lr=lr,
        weight_decay=recipe.weight_decay,
        momentum=recipe.momentum,
    )
    return made


def follower(model: nn.Module, recipe: Recipe) -> Callable[[], None]:
    """Return what moves timm's averaged weights towards the model; nothing without `ema`."""
    if not recipe.ema:
        return lambda: None
    from timm.utils import ModelEmaV3

    average = ModelEmaV3(model, decay=recipe.ema)
    return lambda: average.update(model)


@dataclass(frozen=True)
class Pictures:
    """Labelled images (N, H, W, 3) as a DataLoader reads them: a view uint8 (3, S, S) of each."""

    images: Tensor
    labels: Tensor
    view: Callable[[Tensor], Tensor]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.view(self.images[i].permute(2, 0, 1)), self.labels[i]


def make_loader(
    images: Tensor, labels: Tensor, recipe: Recipe, size: int, **settings: Any
) -> DataLoader[Any]:
    """Return a DataLoader of views; `settings` are its own, with `batches` those of an epoch.

    Raises:
        MissingError: torchvision, which makes the views, does not work.
    """
    view = policies.sample_transform(recipe.augment, size, 1.0)
    pictures: Any = Pictures(images, labels, view)
    count = settings["batch_size"] * settings.pop("batches")
    workers = settings["num_workers"] > 0
    order = RandomSampler(pictures, num_samples=count)
    return DataLoader(pictures, sampler=order, persistent_workers=workers, **settings)


def normalised(images: Tensor, device: str) -> Tensor:
    """Return uint8 images (B, 3, S, S) as float32 on the device, channels last."""
    values = images.to(device, non_blocking=True).float().sub_(127.5).div_(73.9)
    return values.contiguous(memory_format=torch.channels_last)
