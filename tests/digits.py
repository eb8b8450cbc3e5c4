"""What tests that train share: a tiny arch, and some of the digits at 32 pixels."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nas.data.dataset import open_dataset
from nas.data.loader import Data, open_data
from nas.data.splits import fraction, make_splits
from nas.models.arch import Arch, Head, Stage, Stem
from nas.training import checkpoint
from nas.training.checkpoint import read_weights
from nas.training.loop import fit
from nas.training.mending import BEST
from nas.training.recipe import load_recipe
from nas.training.state import CHECKPOINTS, Job, Row

TIMES = {"seconds", "images_per_second"}

TINY = Arch(
    "tiny",
    (
        Stage("mbconv", 8, stride=2, expansion=2.0),
        Stage("mbconv", 8, 2, expansion=2.0, se=0.25),
    ),
    Stem(8),
    Head(16, classes=10),
    resolution=32,
)


@functools.cache
def digits(share: float = 0.1, side: int = 32) -> Data:
    """Return this share of the digits: of 0.1, 115 to train on and 29 to validate."""
    whole = make_splits(open_dataset("digits"))
    splits = {name: fraction(split, share, 0) for name, split in whole.splits.items()}
    return open_data(dataclasses.replace(whole, splits=splits), imgsz=side, cache=False)


def job(epochs: int = 3, batch: int = 32, arch: Arch = TINY, **more: Any) -> Job:
    """Return a training; options of the recipe and fields of the job by name."""
    options = {"optimizer": "sgd", "lr": 4.0, "weight_decay": 1e-4, "norm_momentum": 0.2}
    fields = {name: more.pop(name) for name in list(more) if name in Job.__dataclass_fields__}
    recipe = fields.pop("recipe", "proxy")
    return Job(arch, load_recipe(recipe, options | more), epochs, batch, **fields)


def train_alone(folder: str, **more: Any) -> None:
    """Train in a process of its own."""
    torch.set_num_threads(1)
    fit(job(**more), digits(), Path(folder))


def files(folder: Path) -> list[str]:
    """Return what lies in a folder, as paths in it."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Tell whether two sets of weights are the same, bit for bit."""
    return first.keys() == second.keys() and all(
        torch.equal(tensor, second[name]) for name, tensor in first.items()
    )


def numbers(rows: list[Row]) -> list[Row]:
    """Return rows without what a clock decides."""
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def last(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return weights and state of the checkpoint of a training."""
    found = checkpoint.load(folder / CHECKPOINTS)
    assert found
    return found


def same(first: Path, second: Path) -> bool:
    """Tell whether two trainings are where each other is, bit for bit: all but the times."""
    (weights, state), (others, other) = last(first), last(second)
    moments = [flat(s["optimizer"]["state"]) for s in (state, other)]
    rows = [numbers(json.loads(s["rows"])) for s in (state, other)]
    bests = [read_weights(f / BEST) for f in (first, second)]
    return bool(
        equal(weights, others)
        and equal(*moments)
        and equal(*bests)
        and rows[0] == rows[1]
        and state["best"] == other["best"]
    )


def flat(state: dict[int, dict[str, Any]]) -> dict[str, Tensor]:
    """Return an optimizer's tensors by name."""
    return {
        f"{number}.{name}": value
        for number, values in state.items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }
