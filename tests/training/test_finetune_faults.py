"""A fine-tuning that is killed, goes through several processes or parts, or has odd images."""

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from digits import digits, job, same
from test_distributed import in_two, told

from nas.data.dataset import Split, open_dataset, subset
from nas.data.loader import Data, open_data
from nas.data.splits import fraction, make_splits
from nas.training.auto import Situation, resolve_recipe
from nas.training.loop import fit
from nas.training.probe import read_probe
from nas.training.state import Job, restored

# a fine-tuning in a process of its own
FINE = """
import dataclasses, json, os, signal, sys, torch
from pathlib import Path
from digits import digits
from test_finetune_faults import fine
from nas.training import distributed, loop

torch.set_num_threads(1)
folder, source = Path(sys.argv[1]), Path(sys.argv[1]).parent / "source"
"""
# it is killed before step `sys.argv[2]`, 0 is the first
KILLED = """
true, taken = loop._step, []

def step(*given):
    if len(taken) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    taken.append(1)
    return true(*given)

loop._step = step
loop.fit(fine(source, lr=float(sys.argv[3])), digits(), folder)
"""
PAIR = """
rows = loop.fit(fine(source, statistics="frozen"), digits(), folder)
told = {"rank": distributed.rank(), "rows": rows}
Path(folder, f"{distributed.rank()}.json").write_text(json.dumps(told))
"""


def fine(source: Path, epochs: int = 2, **more: Any) -> Job:
    """Return a fine-tuning of the weights of a training, by the rule."""
    given = Situation(1_000, 10, 32, start="weights", gray=True, epochs=epochs)
    own = {k: v for k, v in more.items() if k in Job.__dataclass_fields__}
    options = {k: v for k, v in more.items() if k not in own}
    recipe = resolve_recipe("auto", {"interval": 1, **options}, given).recipe
    return dataclasses.replace(job(epochs), recipe=recipe, init=source, **own)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a training whose weights are started from."""
    folder = tmp_path_factory.mktemp("fine")
    fit(job(3, optimizer="adamw", lr=0.2), digits(), folder / "source")
    return folder


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(
    ("lr", "step", "kept"),
    [(0.05, 0, 0), (0.05, 2, 0), (0.05, 4, 1), (4.0, 4, 0)],
    ids=["after the probe", "in epoch 1", "in epoch 2", "in epoch 1 at a third of the rate"],
)
def test_killed_after_the_probe_or_in_an_epoch_it_resumes_to_the_same(
    place: Path, lr: float, step: int, kept: int
) -> None:
    """An epoch is three steps. At the high rate the first blows up, and is done again."""
    this, calm = fine(place / "source", lr=lr), place / f"calm {lr}"
    if not calm.exists():
        fit(this, digits(), calm)
    folder = place / f"killed {lr} {step}"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [str(folder), str(step), str(lr)]
    done = subprocess.run(
        [sys.executable, "-c", FINE + KILLED, *words],
        **{"env": env, "capture_output": True, "text": True, "timeout": 600},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    probed, found = read_probe(folder), restored(this, folder)
    assert probed and found.epoch == kept and found.start
    assert (found.start.rate < 1) == (lr > 1)
    fit(this, digits(), folder)
    assert same(calm, folder)
    assert read_probe(folder) == probed


@pytest.mark.slow
def test_two_processes_probe_and_fine_tune_as_one(place: Path) -> None:
    (place / "pair").mkdir()
    pair = in_two(FINE + PAIR, place / "pair")
    one = fit(fine(place / "source", statistics="frozen"), digits(), place / "one")
    first, second = (each["rows"] for each in told(pair))
    for mine, its, alone in zip(first, second, one, strict=True):
        assert mine["val_top1"] == its["val_top1"] and mine["train_loss"] == its["train_loss"]
        assert mine["train_loss"] == pytest.approx(alone["train_loss"], rel=0.02)
    both, single = read_probe(pair), read_probe(place / "one")
    assert both and single and both.strength == single.strength and both.n == single.n
    assert both.loss == pytest.approx(single.loss, rel=1e-2)


def test_steps_in_parts_are_steps_in_one_where_statistics_are_frozen(
    place: Path, tmp_path: Path
) -> None:
    options = {"statistics": "frozen", "epochs": 1}
    whole = fit(fine(place / "source", **options), digits(), tmp_path / "whole")
    parts = fit(fine(place / "source", accumulate=3, **options), digits(), tmp_path / "parts")
    assert parts[0]["train_loss"] == pytest.approx(whole[0]["train_loss"], rel=1e-4)
    states = [
        restored(fine(place / "source", **options), tmp_path / name).model.state_dict()
        for name in ("whole", "parts")
    ]
    apart = {k: float((v - states[1][k]).abs().max()) for k, v in states[0].items()}
    *body, weight, bias = apart.values()
    assert max(body) < 1e-4, apart
    # a solver on features of other roundings: the loss has flat directions
    assert max(weight, bias) < 0.1, apart


def some(keep: dict[str, set[int]], classes: int) -> Data:
    """Return a tenth of the digits, of each split those of some labels."""
    whole = make_splits(open_dataset("digits"))

    def part(name: str, split: Split) -> Split:
        chosen = np.flatnonzero(np.isin(split.labels, list(keep[name])))
        return fraction(subset(split, chosen), 0.1, 0)

    splits = {name: part(name, split) for name, split in whole.splits.items()}
    names = whole.classes[:classes]
    changed = dataclasses.replace(whole, splits=splits, classes=names)
    return open_data(changed, imgsz=32, cache=False)


@pytest.mark.parametrize(
    ("classes", "missing"), [(2, set()), (10, {9}), (3, {0, 1})], ids=["two", "nine", "one of 3"]
)
def test_two_classes_and_classes_that_training_never_sees(
    place: Path, tmp_path: Path, classes: int, missing: set[int]
) -> None:
    labels = set(range(classes))
    data = some({"train": labels - missing, "val": labels, "test": labels}, classes)
    this = fine(place / "source", epochs=1, batch_size=8)
    arch = dataclasses.replace(this.arch, head=dataclasses.replace(this.arch.head, classes=classes))
    rows = fit(dataclasses.replace(this, arch=arch), data, tmp_path)
    found = read_probe(tmp_path)
    assert found and found.n == len(data.val) and np.isfinite(found.loss)
    held_out = np.concatenate([y.numpy() for _, y in data.val.ordered(64)])
    seen = 100 * np.isin(held_out, list(labels - missing)).mean()
    assert found.top1 <= seen + 1e-6 and found.top1 > 0.6 * seen
    assert np.isfinite(rows[-1]["val_loss"])


def test_gray_images_are_not_mirrored() -> None:
    recipes = [
        resolve_recipe("auto", {}, Situation(500, 2, 64, start="weights", gray=gray)).recipe
        for gray in (True, False)
    ]
    assert [recipe.augment.flip for recipe in recipes] == [False, True]
    assert all(recipe.augment.crop == "shift" for recipe in recipes)
