"""Preemption: SIGTERM makes a checkpoint at once, and what goes on from it was never stopped."""

import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Cli
from digits import TINY, digits, equal, files, job, last, numbers, same, train_alone
from torch import Tensor

import nas
from nas.core import run_folder
from nas.core.errors import RunError
from nas.data.batches import Batch
from nas.data.dataset import open_dataset
from nas.data.loader import Data, Loader, open_data
from nas.data.splits import fraction, make_splits
from nas.evaluation import workers
from nas.evaluation.workers import Processes
from nas.interfaces import EvaluatorSpec, Task
from nas.training import checkpoint, loop
from nas.training.checkpoint import read_weights
from nas.training.loop import fit
from nas.training.preemption import CODE, Preempted, noticed
from nas.training.state import CHECKPOINTS, Job, Row

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")
STEPS = 3  # of an epoch of 115 images by 32


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """As in a worker process on a busy machine; sums come out the same everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data() -> Data:
    return digits()


def tell(times: int = 1) -> None:
    """Send this process SIGTERM."""
    for _ in range(times):
        os.kill(os.getpid(), signal.SIGTERM)


@dataclasses.dataclass
class Steps:
    """Counts optimiser steps; in the middle of step n come `told[n]` SIGTERM, or `each`."""

    taken: int = 0
    each: int = 0
    told: dict[int, int] = dataclasses.field(default_factory=dict)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    step, seen = loop._step, Steps()

    def watched(*given: Any) -> Tensor:
        seen.taken += 1
        tell(seen.told.get(seen.taken, seen.each))
        return step(*given)

    monkeypatch.setattr(loop, "_step", watched)
    return seen


@dataclasses.dataclass
class Telling:
    """A loader that sends SIGTERM before it hands out its nth batches, whichever epoch."""

    loader: Loader
    at: set[int]
    given: int = 0

    def __len__(self) -> int:
        return len(self.loader)

    def train(self, *epoch: Any) -> Iterator[Batch]:
        return self._telling(self.loader.train(*epoch))

    def ordered(self, *part: Any) -> Iterator[Batch]:
        return self._telling(self.loader.ordered(*part))

    def _telling(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        for batch in batches:
            self.given += 1
            if self.given in self.at:
                tell()
            yield batch


def preempted(this: Job, data: Data, folder: Path, **more: Any) -> str:
    """Train until SIGTERM; return what is said of it."""
    with pytest.raises(Preempted) as stop:
        fit(this, data, folder, **more)
    assert stop.value.code == CODE == 143
    return str(stop.value)


def middles(folder: Path) -> list[str]:
    """Return the checkpoints of a training."""
    return sorted(path.name for path in (folder / CHECKPOINTS).iterdir())


def finish(this: Job, data: Data, folder: Path) -> tuple[list[Row], int]:
    """Train to the end however often SIGTERM comes; return the rows and how often it came."""
    for stopped in range(100):
        try:
            return fit(this, data, folder), stopped
        except Preempted:
            continue
    raise AssertionError("no end")


# ------------------------------------------------------------------------------- in any one place


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "sgd", "ema": 0.9, "accumulate": 2},
        {"optimizer": "adamw", "lr": 0.004, "schedule": "cosine", "dropout": 0.3},
        {"recipe": "efficientnet", "optimizer": "rmsprop_tf", "ema": 0.99, "policy": "none"},
        {"stochastic_depth": 0.3, "dropout": 0.3, "ema": 0.9, "crop": "resized", "cutout": 0.3},
        {"amp": True, "dropout": 0.3},
    ],
    ids=["parts", "adamw", "rmsprop", "all that is random", "bfloat16"],
)
def test_stopped_in_every_step_a_training_is_as_if_it_never_was(
    data: Data, tmp_path: Path, steps: Steps, options: dict[str, Any]
) -> None:
    this = job(3, **options)
    calm = fit(this, data, tmp_path / "calm")
    assert steps.taken == 3 * STEPS
    steps.taken, steps.each = 0, 1
    rows, stopped = finish(this, data, tmp_path / "broken")
    assert stopped == steps.taken == 3 * STEPS  # none is taken twice
    assert numbers(rows) == numbers(calm)
    assert same(tmp_path / "calm", tmp_path / "broken")
    assert files(tmp_path / "calm") == files(tmp_path / "broken")


def test_without_the_generators_states_it_would_not_be(
    data: Data, tmp_path: Path, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    this = job(1, dropout=0.5)
    fit(this, data, tmp_path / "calm")
    monkeypatch.setattr(loop.preemption, "set_random_states", lambda *_: None)
    steps.taken, steps.each = 0, 1
    finish(this, data, tmp_path / "broken")
    assert not equal(last(tmp_path / "calm")[0], last(tmp_path / "broken")[0])


def test_it_says_where_it_stopped_and_keeps_the_epoch_before(
    data: Data, tmp_path: Path, steps: Steps
) -> None:
    steps.told = {2: 1, 5: 1}
    said = preempted(job(3), data, tmp_path)
    where = "in the middle of epoch 1 of 3, after 2 of 3 steps"
    assert said == f"stopped by SIGTERM {where}; saved in {tmp_path}"
    assert middles(tmp_path) == ["middle-0-2"] and not (tmp_path / "results.csv").exists()
    assert "epoch 2 of 3, after 2 of 3" in preempted(job(3), data, tmp_path)
    assert middles(tmp_path) == ["epoch-1", "middle-1-2"]
    assert len(run_folder.read_csv(tmp_path / "results.csv")) == 1
    fit(job(3), data, tmp_path)
    assert middles(tmp_path) == ["epoch-2", "epoch-3"] and steps.taken == 3 * STEPS


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_validation_stops_too(data: Data, tmp_path: Path, steps: Steps, at: int) -> None:
    this = job(2, 16, ema=0.9)  # two batches of the weights, then two of their averages
    fit(this, data, tmp_path / "calm")
    taken, steps.taken = steps.taken, 0
    told = dataclasses.replace(data, val=Telling(data.val, {at}))
    assert "epoch 1 of 2, after 7 of 7 steps" in preempted(this, told, tmp_path / "broken")
    fit(this, data, tmp_path / "broken")
    assert same(tmp_path / "calm", tmp_path / "broken") and steps.taken == taken


def test_while_a_batch_is_made_it_is_the_one_before_that_counts(
    data: Data, tmp_path: Path, steps: Steps
) -> None:
    fit(job(2), data, tmp_path / "calm")
    steps.taken = 0
    told = dataclasses.replace(data, train=Telling(data.train, {1, 3, 5}))
    assert "after epoch 0 of 2" in preempted(job(2), told, tmp_path / "broken")
    assert not (tmp_path / "broken").exists()
    assert "epoch 1 of 2, after 1 of 3 steps" in preempted(job(2), told, tmp_path / "broken")
    assert "epoch 1 of 2, after 2 of 3 steps" in preempted(job(2), told, tmp_path / "broken")
    fit(job(2), told, tmp_path / "broken")
    assert same(tmp_path / "calm", tmp_path / "broken") and steps.taken == 2 * STEPS


@pytest.mark.parametrize("at", [1, 2])
def test_between_epochs_the_epochs_checkpoint_is_enough(
    data: Data, tmp_path: Path, at: int
) -> None:
    fit(job(2), data, tmp_path / "calm")
    watched = lambda row: tell(row["epoch"] == at)  # noqa: E731
    said = preempted(job(2), data, tmp_path / "broken", watch=watched)
    assert said.startswith(f"stopped by SIGTERM after epoch {at} of 2; saved in")
    assert middles(tmp_path / "broken") == [f"epoch-{epoch}" for epoch in range(1, at + 1)]
    assert len(fit(job(2), data, tmp_path / "broken")) == 2
    assert same(tmp_path / "calm", tmp_path / "broken")


def test_more_of_them_change_nothing(
    data: Data, tmp_path: Path, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(job(2), data, tmp_path / "calm")
    steps.taken, steps.told = 0, {4: 3}
    save = checkpoint._write_state

    def told(path: Path, state: Any) -> str:
        tell(2)
        return save(path, state)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_write_state", told)
        # each epoch's checkpoint is told of, too
        assert "after epoch 1 of 2" in preempted(job(2), data, tmp_path / "broken")
        assert "epoch 2 of 2, after 1 of 3" in preempted(job(2), data, tmp_path / "broken")
    fit(job(2), data, tmp_path / "broken")
    assert same(tmp_path / "calm", tmp_path / "broken") and steps.taken == 2 * STEPS


def test_up_to_a_rung_and_on_from_it(data: Data, tmp_path: Path, steps: Steps) -> None:
    fit(job(4), data, tmp_path / "calm", until=2, validate_at=(2, 4))
    fit(job(4), data, tmp_path / "calm", validate_at=(2, 4))
    steps.taken, steps.told = 0, {5: 1, 8: 1}
    preempted(job(4), data, tmp_path / "broken", until=2, validate_at=(2, 4))
    rows = fit(job(4), data, tmp_path / "broken", until=2, validate_at=(2, 4))
    assert len(rows) == 2 and "val_top1" in rows[1]
    preempted(job(4), data, tmp_path / "broken", validate_at=(2, 4))
    # asked again for the rung that is behind, as after a kill of the search
    again = fit(job(4), data, tmp_path / "broken", until=2, validate_at=(2, 4))
    assert again == rows
    fit(job(4), data, tmp_path / "broken", validate_at=(2, 4))
    assert same(tmp_path / "calm", tmp_path / "broken") and steps.taken == 4 * STEPS


@pytest.mark.parametrize("readers", [0, 1])
def test_images_that_are_streamed(tmp_path: Path, steps: Steps, readers: int) -> None:
    pytest.importorskip("torchvision")
    streamed = few(tmp_path / "cache", readers)
    this = job(2, 16, dropout=0.3, policy="randaugment")
    fit(this, streamed, tmp_path / "calm")
    taken, steps.taken, steps.told = steps.taken, 0, {2: 1, 5: 1}
    _, stopped = finish(this, streamed, tmp_path / "broken")
    assert stopped == 2 and steps.taken == taken
    assert same(tmp_path / "calm", tmp_path / "broken")


# streams its images by a process of its own, and has its whole group told to end in step 3
GROUP = """
import os, signal, sys, torch
from pathlib import Path
from digits import job
from nas.training import loop
from test_preemption import few

if __name__ == "__main__":
    torch.set_num_threads(1)
    step, steps = loop._step, []

    def watched(*given):
        steps.append(1)
        if len(steps) == 3:
            os.killpg(0, signal.SIGTERM)
        return step(*given)

    loop._step = watched
    loop.fit(job(2, 8, dropout=0.3), few(Path("cache"), 1), Path("broken"))
"""


def few(cache: Path, readers: int) -> Data:
    """Return some of the digits, read by so many processes."""
    whole = make_splits(open_dataset("digits"))
    splits = {name: fraction(split, 0.05, 0) for name, split in whole.splits.items()}
    chosen = dataclasses.replace(whole, splits=splits, fingerprint="few")
    return open_data(chosen, imgsz=32, cache=cache, resident=False, workers=readers)


def test_who_reads_the_images_may_be_told_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torchvision")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[1]), *sys.path]))
    (tmp_path / "group.py").write_text(GROUP)
    command = [sys.executable, "group.py"]
    done = subprocess.run(command, cwd=tmp_path, start_new_session=True, timeout=600)
    assert done.returncode == 143 and middles(tmp_path / "broken") == ["middle-0-3"]
    this = job(2, 8, dropout=0.3)
    for name in ("calm", "broken"):
        fit(this, few(tmp_path / "cache", 0), tmp_path / name)
    assert same(tmp_path / "calm", tmp_path / "broken")


# ---------------------------------------------------------------------------------- what may fail


DAMAGE: dict[str, Callable[[Path], object]] = {
    "no weights": lambda path: (path / checkpoint.WEIGHTS).unlink(),
    "cut weights": lambda path: os.truncate(path / checkpoint.WEIGHTS, 900),
    "cut state": lambda path: os.truncate(path / checkpoint.STATE, 900),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("at", [2, 5])
def test_a_damaged_one_falls_back_to_the_epochs(
    data: Data, tmp_path: Path, steps: Steps, at: int, damage: str
) -> None:
    fit(job(2, ema=0.9), data, tmp_path / "calm")
    steps.taken, steps.told = 0, {at: 1}
    preempted(job(2, ema=0.9), data, tmp_path / "broken")
    (middle,) = (tmp_path / "broken" / CHECKPOINTS).glob("middle-*")
    DAMAGE[damage](middle)
    fit(job(2, ema=0.9), data, tmp_path / "broken")
    assert same(tmp_path / "calm", tmp_path / "broken")
    assert steps.taken == 2 * STEPS + 2  # those that it had
    assert middles(tmp_path / "broken") == ["epoch-1", "epoch-2"]


def test_a_full_disk_is_said_and_the_notice_obeyed(
    data: Data, tmp_path: Path, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(job(2), data, tmp_path / "calm")
    steps.taken, steps.told, said = 0, {5: 1}, list[str]()
    save = checkpoint._write_weights

    def full(path: Path, *rest: Any) -> None:
        if steps.taken == 5:
            raise OSError("No space left on device")
        save(path, *rest)

    monkeypatch.setattr(checkpoint, "_write_weights", full)
    where = preempted(job(2), data, tmp_path / "broken", say=said.append)
    assert "after epoch 1 of 2" in where and middles(tmp_path / "broken") == ["epoch-1"]
    (line,) = said
    assert "No space left on device; the checkpoint before it is kept" in line
    fit(job(2), data, tmp_path / "broken")
    assert same(tmp_path / "calm", tmp_path / "broken")


def test_of_another_training_it_is_refused(data: Data, tmp_path: Path, steps: Steps) -> None:
    steps.told = {2: 1}
    preempted(job(2), data, tmp_path)
    with pytest.raises(RunError, match="another training"):
        fit(job(2, seed=1), data, tmp_path)


def test_a_memory_that_runs_out_goes_on_from_the_middle(
    data: Data, tmp_path: Path, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps.told, said = {2: 1}, list[str]()
    preempted(job(2), data, tmp_path)
    step, tries = loop._step, list[int]()

    def small(*given: Any) -> Tensor:
        tries.append(given[2].accumulate)
        if tries[-1] == 1:
            raise torch.OutOfMemoryError("tried to allocate 32 images")
        return step(*given)

    monkeypatch.setattr(loop, "_step", small)
    assert len(fit(job(2), data, tmp_path, say=said.append)) == 2
    assert tries == [1, 2, 2, 2, 2] and steps.taken == 2 * STEPS
    assert said == ["out of memory: 16 images at a time now, 2 times for a step"]


# ------------------------------------------------------------------------------ whose SIGTERM it is


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """What a handler of this process's own has heard."""
    found = list[int]()
    before = signal.signal(signal.SIGTERM, lambda number, _: found.append(number))
    yield found
    signal.signal(signal.SIGTERM, before)


def test_afterwards_sigterm_is_what_it_was(data: Data, tmp_path: Path, heard: list[int]) -> None:
    fit(job(1), data, tmp_path)
    tell()
    assert heard == [signal.SIGTERM]


def test_one_that_comes_too_late_is_passed_on(heard: list[int]) -> None:
    with noticed():
        tell()
        assert heard == []
    assert heard == [signal.SIGTERM]
    with pytest.raises(Preempted), noticed() as notice:
        tell()
        notice.check()
    assert heard == [signal.SIGTERM]  # that one was obeyed


def test_a_training_in_a_thread_or_of_several_processes_leaves_it_alone(
    heard: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def body() -> None:
        with noticed() as notice:
            tell()
            time.sleep(0.01)
            assert not notice.asked

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    monkeypatch.setenv("WORLD_SIZE", "2")
    body()
    assert heard == [signal.SIGTERM] * 2


def test_where_it_is_ignored_it_stays_so(data: Data, tmp_path: Path, steps: Steps) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        steps.told = {2: 1}
        assert len(fit(job(1), data, tmp_path)) == 1
    finally:
        signal.signal(signal.SIGTERM, before)


# ---------------------------------------------------------------------- in processes of their own


def wait_for(true: Callable[[], object]) -> None:
    """Wait for something that comes soon."""
    end = time.monotonic() + 600
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.slow
def test_a_process_that_trains_ends_with_143_and_the_next_goes_on(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"epochs": 30, "ema": 0.9, "dropout": 0.3, "stochastic_depth": 0.2}
    calm, broken = tmp_path / "calm", tmp_path / "broken"
    fit(job(**options), data, calm)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    for reached in (1, 8):
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=train_alone, args=(str(broken),), kwargs=options)
        process.start()
        wait_for(
            lambda reached=reached: len(run_folder.read_csv(broken / "results.csv")) >= reached
        )
        process.terminate()
        process.join()
        assert process.exitcode == 143
    fit(job(**options), data, broken)
    assert same(calm, broken)
    table = [numbers(run_folder.read_csv(folder / "results.csv")) for folder in (calm, broken)]  # type: ignore[arg-type]
    assert table[0] == table[1] and len(table[0]) == 30


# writes its steps down, and sends itself SIGTERM in the middle of some
STRUCK = """
import os, signal
from pathlib import Path
from nas.evaluation.evaluators import training
from nas.training import loop

TRAINS = True

def make(*, strikes: str = "", slow: float = 0.0):
    import time
    step, steps = loop._step, Path("steps.txt")

    def watched(*given):
        with steps.open("a") as file:
            file.write(".")
        time.sleep(slow)
        if str(len(steps.read_text())) in strikes.split():
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*given)

    loop._step = watched
    options = {"dropout": 0.3, "ema": 0.9}
    return training.make(
        data="digits", epochs=2, fraction=0.1, batch_size=16, recipe_options=options
    )
"""


@pytest.fixture
def struck(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAS_CACHE", str(folder / "cache"))
    (folder / "struck.py").write_text(STRUCK)
    return folder


SHARE = {"OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_a_worker_that_is_told_to_end_loses_no_step(struck: Path) -> None:
    found = {}
    for name, strikes in (("calm", ""), ("broken", "2 9")):
        (struck / "steps.txt").unlink(missing_ok=True)
        task = Task(0, TINY.to_dict(), 5, 2, str(struck / name))
        executor = Processes(
            EvaluatorSpec(str(struck / "struck.py"), {"strikes": strikes}), [SHARE]
        )
        try:
            executor.submit(task)
            (found[name],) = executor.wait()
        finally:
            executor.close()
        assert len((struck / "steps.txt").read_text()) == 2 * (115 // 16)
    calm, broken = found["calm"], found["broken"]
    assert (calm.error, calm.retries, broken.error, broken.retries) == ("", 0, "", 2)
    timed = "images_per_second"
    assert {k: v for k, v in calm.metrics.items() if k != timed} == {
        k: v for k, v in broken.metrics.items() if k != timed
    }
    assert same(struck / "calm", struck / "broken")


@pytest.mark.slow
def test_what_an_executor_abandons_loses_no_step(struck: Path) -> None:
    task = Task(0, TINY.to_dict(), 5, 2, str(struck / "place"))
    for again in (False, True):
        executor = Processes(EvaluatorSpec(str(struck / "struck.py"), {"slow": 0.05}), [SHARE])
        executor.submit(task)
        if again:
            assert [outcome.error for outcome in executor.wait()] == [""]
        wait_for(lambda: (struck / "steps.txt").exists())
        executor.close()
    assert len((struck / "steps.txt").read_text()) == 2 * (115 // 16)


@pytest.mark.slow
def test_a_worker_is_preempted_with_patience(struck: Path) -> None:
    worker = workers.start_worker(EvaluatorSpec(str(struck / "struck.py"), {"slow": 0.05}), SHARE)
    workers.send_task(worker, Task(0, TINY.to_dict(), 5, 2, str(struck / "place")))
    wait_for(lambda: (struck / "steps.txt").exists())
    workers.preempt([worker], 600)
    assert worker.process.exitcode == 143
    taken = len((struck / "steps.txt").read_text())
    assert middles(struck / "place")[-1] == f"middle-{taken // 7}-{taken % 7}"


def test_a_worker_that_trains_nothing_ends_at_once() -> None:
    worker = workers.start_worker(EvaluatorSpec("synthetic", {}), {})
    workers.send_task(worker, Task(0, TINY.to_dict(), 0))
    assert worker.pipe.poll(600) and not workers.read(workers.receive_result(worker)).error
    workers.preempt([worker], 600)
    assert worker.process.exitcode == -signal.SIGTERM


@pytest.mark.slow
def test_one_that_does_not_listen_is_killed(struck: Path) -> None:
    worker = workers.start_worker(EvaluatorSpec(str(struck / "struck.py"), {"slow": 600.0}), SHARE)
    workers.send_task(worker, Task(0, TINY.to_dict(), 5, 2, str(struck / "place")))
    wait_for(lambda: (struck / "steps.txt").exists())
    workers.preempt([worker], 0.1)
    assert worker.process.exitcode == -signal.SIGKILL


# ---------------------------------------------------------------------------------------- nas train

# a recipe that sends SIGTERM in the middle of step $STRIKE of this process
RECIPE = """
import dataclasses, os, signal
from nas.training.recipes import proxy
from nas.training import loop

step, steps = loop._step, []

def watched(*given):
    steps.append(1)
    if str(len(steps)) == os.environ.get("STRIKE"):
        os.kill(os.getpid(), signal.SIGTERM)
    return step(*given)

loop._step = watched
RECIPE = dataclasses.replace(proxy.RECIPE, name="struck", dropout=0.3, ema=0.9)
"""
TRAIN = (
    "train tiny.json --data digits --recipe recipe.py --epochs 2 --batch-size 32 --no-amp "
    "--tracker none --device cpu -q"
)


@pytest.mark.slow
def test_nas_train_says_where_it_stopped_and_goes_on(
    struck: Path, process: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (struck / "tiny.json").write_text(TINY.to_json())
    (struck / "recipe.py").write_text(RECIPE)
    calm, broken = (struck / "runs" / "train" / name for name in ("calm", "broken"))
    monkeypatch.setattr(loop, "_step", loop._step)  # the recipe puts another in its place
    settings: dict[str, Any] = {"data": "digits", "recipe": "recipe.py", "epochs": 2}
    nas.train(
        "tiny.json",
        **settings,
        batch_size=32,
        amp=False,
        device="cpu",
        tracker=["none"],
        name="calm",
    )
    done = process(*TRAIN.split(), "--name", "broken", STRIKE="10")
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.splitlines() == [
        "stopped by SIGTERM in the middle of epoch 1 of 2, after 10 of 35 steps; saved in "
        "runs/train/broken",
        f"resume with: nas {TRAIN} --name broken --resume",
    ]
    assert middles(broken) == ["middle-0-10"]
    # the recipe is kept in the run, so what the file does when it is imported is not done again
    assert process(*TRAIN.split(), "--name", "broken", "--resume", STRIKE="50").returncode == 0
    assert process("resume", str(broken), "-q").returncode == 0
    results = [run_folder.read_json(folder / "result.json") for folder in (calm, broken)]
    assert results[0]["test"] == results[1]["test"] and results[0]["val"] == results[1]["val"]
    weights = [read_weights(folder / "weights/best.safetensors") for folder in (calm, broken)]
    assert equal(*weights) and same(calm, broken)
    assert middles(broken) == ["epoch-1", "epoch-2"]
