"""A tiny network with weights and a few colour images, for searches that start from weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import nas
from nas.data.augment_settings import Augment
from nas.data.dataset import open_dataset
from nas.data.loader import open_data
from nas.data.splits import make_splits
from nas.models.arch import Arch, Head, Stage, Stem
from nas.models.build import Model
from nas.training.weights.sources import Weights, save_weights

CLASSES = ("circle", "gradient", "stripes")
PARENT = Arch(
    "tiny",
    (
        Stage("mbconv", 8, 1, 3, 2, 2),
        Stage("mbconv", 16, 2, 5, 2, 2),
    ),
    Stem(8),
    Head(16, classes=5),
    resolution=64,
)
TARGET = "400k"  # the parent has more at 64 pixels, and fits at 48
# trains in the process of the search: starting one takes longer than all trainings of a test
HERE = """
from nas.evaluation.executors.local import InProcess
from nas.evaluation.retries import Retries

def make(spec, *, folder=None):
    return InProcess(spec, Retries(folder=folder))
"""


def make_place(folder: Path) -> Path:
    """Make a folder with images, the weights of a parent that saw them, and an executor."""
    write_photographs(folder / "images")
    save_weights(folder / "weights", Weights(trained(folder), PARENT, told="a tiny net"))
    (folder / "here.py").write_text(HERE)
    return folder


def write_photographs(folder: Path, count: int = 12, side: int = 72) -> None:
    """Write colour images of three classes that a small net tells apart."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] / side
    for place, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            centre = rng.uniform(0.3, 0.7, 2)
            shape = [
                np.hypot(x - centre[0], y - centre[1]) < 0.25,
                x * centre[0] + y * centre[1],
                np.sin(40 * centre[0] * x) > 0,
            ][place]
            image = 255 * shape[..., None] * rng.uniform(0.3, 1, 3) * rng.uniform(0.5, 1)
            noisy = image + rng.uniform(0, 60, (side, side, 3))
            pixels = noisy.clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def trained(folder: Path) -> dict[str, torch.Tensor]:
    """Return weights of the parent after some epochs on the images of a folder."""
    torch.manual_seed(0)
    model = Model(PARENT)
    data = open_data(make_splits(open_dataset(str(folder / "images"))), imgsz=64, cache=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(10):
        for x, y in data.train.train(epoch, 0, 16, Augment(crop="none")):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    return model.state_dict()


def settings(place: Path, **more: Any) -> dict[str, Any]:
    """Return the settings of a short search from those weights."""
    return {
        "data": str(place / "images"),
        "init": str(place / "weights"),
        "target_flops": TARGET,
        "executor": str(place / "here.py"),
        "trials": 2,
        "epochs": 1,
        "finalists": 1,
        "final_epochs": 1,
        "project": place / "runs",
        **more,
    }


def make_teacher(place: Path) -> str:
    """Return a run on the images, which can teach: two epochs of the parent with its weights."""
    arch = replace(PARENT, head=replace(PARENT.head, classes=len(CLASSES)))
    data, init = str(place / "images"), str(place / "weights")
    chosen = {"data": data, "init": init, "epochs": 2, "project": place / "runs"}
    return str(nas.train(arch, name="teacher", tracker=["none"], **chosen).run)
