"""Several processes, as torchrun starts them: they train together as one process would."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from digits import digits, job

from nas.core.errors import OptionError
from nas.training import checkpoint, distributed
from nas.training.loop import check_batch, fit
from nas.training.state import CHECKPOINTS

# a training of two processes; each tells what it saw, and batch norm's means around a reduction
WORKER = """
import json, sys, torch
from pathlib import Path
from digits import digits, job
from nas.training import distributed
from nas.training.loop import fit

torch.set_num_threads(1)
reduce, told = distributed.average_buffers, []

def means(model):
    return model.stem[0].norm.running_mean.tolist()

def watched(model):
    before = means(model)
    reduce(model)
    told.append([before, means(model)])

distributed.average_buffers = watched
rows = []
fit(job(2, ema=0.9, lr=0.2), digits(), Path(sys.argv[1]), watch=rows.append)
told = {"rank": distributed.rank(), "rows": rows, "means": told}
Path(sys.argv[1], f"{distributed.rank()}.json").write_text(json.dumps(told))
"""

# each process makes the teacher, whose probe is that of the first, and trains with it
TAUGHT = """
import dataclasses, json, sys, torch
from pathlib import Path
from digits import TINY, digits, job
from nas.models.build import Model
from nas.training import distributed
from nas.training.find_teacher import make_teacher
from nas.training.loop import fit
from nas.training.teacher import Candidate

torch.set_num_threads(1)
torch.manual_seed(0)
body = Candidate("x", Model(TINY), ((0.5,) * 3, (0.2,) * 3), (), "a tiny net", 32)
with distributed.joined("cpu"):
    how = {"pixels": 32, "device": "cpu", "mixed": False, "say": lambda text: None}
    teacher = make_teacher(body, digits(), digits, **how)
    rows = fit(job(2, lr=0.2, teacher=teacher), digits(), Path(sys.argv[1]))
told = {"rows": rows, **{k: teacher.facts[k] for k in ("digest", "top1", "images")}}
Path(sys.argv[1], f"{distributed.rank()}.json").write_text(json.dumps(told))
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training of two processes."""
    return in_two(WORKER, tmp_path_factory.mktemp("pair"))


def in_two(code: str, folder: Path) -> Path:
    """Run code in two processes, which get the folder; return it."""
    if sys.platform == "win32":
        pytest.skip("gloo by torchrun")
    (folder / "worker.py").write_text(code)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(folder / "worker.py"), str(folder)],
        capture_output=True,
        text=True,
        env=env,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return folder


def told(pair: Path) -> list[dict[str, Any]]:
    """Return what each process told."""
    return [json.loads((pair / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
def test_two_processes_train_as_one_does(pair: Path, tmp_path: Path) -> None:
    # each has a half of every batch, as has each part of an accumulated one
    one = fit(job(2, ema=0.9, lr=0.2, accumulate=2), digits(), tmp_path)
    two = told(pair)[0]["rows"]
    for mine, its in zip(one, two, strict=True):
        assert mine["lr"] == its["lr"]
        assert mine["train_loss"] == pytest.approx(its["train_loss"], rel=1e-3)
    states = [checkpoint.load(folder / CHECKPOINTS) for folder in (tmp_path, pair)]
    assert states[0] and states[1]
    (mine, _), (its, _) = states[0], states[1]
    assert mine.keys() == its.keys()
    for name in (name for name in mine if name.endswith(("weight", "bias"))):
        assert torch.allclose(mine[name], its[name], atol=1e-4), name


@pytest.mark.slow
def test_all_processes_have_the_numbers_of_all_images(pair: Path) -> None:
    first, second = (process["rows"] for process in told(pair))
    clock = ("seconds", "images_per_second")
    for mine, its in zip(first, second, strict=True):
        assert {k: v for k, v in mine.items() if k not in clock} == {
            k: v for k, v in its.items() if k not in clock
        }
        images = round(mine["seconds"] * mine["images_per_second"])
        assert images == 96  # three batches of 32, over both


@pytest.mark.slow
def test_statistics_are_averaged_over_the_processes_before_each_evaluation(pair: Path) -> None:
    first, second = (process["means"] for process in told(pair))
    assert len(first) == len(second) == 4  # two epochs, raw and averaged weights
    for (mine, after), (its, too) in zip(first, second, strict=True):
        assert mine != its  # each has seen other images
        assert after == too
        halves = torch.tensor([mine, its]).mean(0)
        assert torch.allclose(torch.tensor(after), halves, atol=1e-6)


@pytest.mark.slow
def test_all_processes_have_one_teacher(tmp_path: Path) -> None:
    first, second = told(in_two(TAUGHT, tmp_path))
    assert first["digest"] == second["digest"] and first["images"] == len(digits().val)
    assert first["top1"] == second["top1"] > 30  # guessing: 10
    assert first["rows"][-1]["train_loss"] == second["rows"][-1]["train_loss"]


def test_one_process_is_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert (distributed.rank(), distributed.world()) == (0, 1)
    assert distributed.local_device("cuda") == "cuda"
    with distributed.joined("cpu"):
        assert not torch.distributed.is_initialized()
        assert distributed.summed(torch.ones(2)).tolist() == [1, 1]
        distributed.barrier()


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert (distributed.rank(), distributed.world()) == (3, 4)
    assert distributed.local_device("cuda") == "cuda:1"
    assert distributed.local_device("cpu") == "cpu"


@pytest.mark.parametrize(("batch", "world"), [(32, 1), (32, 4), (6, 3)])
def test_a_batch_that_can_be_shared_is_accepted(batch: int, world: int) -> None:
    check_batch(batch, world)


@pytest.mark.parametrize(("batch", "world"), [(0, 1), (-4, 2), (33, 2), (1, 2)])
def test_a_batch_that_cannot_be_shared_is_refused(batch: int, world: int) -> None:
    with pytest.raises(OptionError, match=f"multiple of {world}, not {batch}"):
        check_batch(batch, world)
