"""Kills: what is killed at any moment and resumed equals what was not: searches and trainings."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import inherited
import psutil
import pytest
import torch
from conftest import START, wait_until
from digits import digits, equal, job, train_alone

from nas.core import run_folder
from nas.core.errors import RunError
from nas.searching.search import search
from nas.training import checkpoint
from nas.training.checkpoint import read_weights
from nas.training.loop import RESULTS, fit
from nas.training.mending import BEST
from nas.training.state import CHECKPOINTS

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import chaos

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


@pytest.mark.slow
def test_three_kills_change_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    flags = "search --kills 3 --trials 40 --controller tpe --objective pareto"
    code = chaos.main(flags.split())
    shown = capsys.readouterr().out
    assert code == 0, shown
    rows = dict(line.rsplit(None, 1) for line in shown.splitlines())
    assert rows["results lost or changed"] == rows["evaluated again after its result"] == "0"


def epochs(folder: Path) -> int:
    """Return how many epochs the checkpoints below a folder have seen."""
    numbers = (path.name.removeprefix("epoch-") for path in folder.glob("**/epoch-*"))
    return sum(int(number) for number in numbers)


def written(folder: Path) -> set[tuple[str, int]]:
    """Return the checkpoints below a folder, each time they are written."""
    found = set()
    for path in folder.glob("**/epoch-*/state.pt"):
        try:
            found.add((str(path), path.stat().st_mtime_ns))
        except FileNotFoundError:
            continue  # removed meanwhile
    return found


def unclocked(data: Any) -> Any:
    """Return JSON data without what a clock decides."""
    if isinstance(data, dict):
        clock = ("run", "seconds", "probe_seconds", "images_per_second")
        return {k: unclocked(v) for k, v in data.items() if k not in clock}
    return [unclocked(each) for each in data] if isinstance(data, list) else data


@pytest.mark.slow
def test_a_training_killed_at_random_moments_ends_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    options = {"epochs": 12, "ema": 0.9}
    calm, broken = tmp_path / "calm", tmp_path / "broken"
    fit(job(**options), digits(), calm)
    # the fork server imports once for all that are killed
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["digits", "sklearn.datasets", "torch._dynamo"])
    rng = random.Random(0)
    for reached in (1, 4, 7):
        process = context.Process(target=train_alone, args=(str(broken),), kwargs=options)
        process.start()
        while process.is_alive() and epochs(broken) < reached:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.2))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    fit(job(**options), digits(), broken)
    torch.set_num_threads(threads)
    first, second = (checkpoint.load(folder / CHECKPOINTS) for folder in (calm, broken))
    assert first and second and equal(first[0], second[0])
    assert equal(read_weights(calm / BEST), read_weights(broken / BEST))
    tables = [unclocked(run_folder.read_csv(folder / RESULTS)) for folder in (calm, broken)]
    assert tables[0] == tables[1] and len(tables[0]) == 12


# reads images by processes of its own, and never ends
READER = """
from pathlib import Path
import numpy as np
from nas.data import pixels
from nas.data.batches import Input, Streaming
from nas.data.dataset import Split

if __name__ == "__main__":
    images = [np.full((32, 32, 3), i, np.uint8) for i in range(8)]
    names = [f"{i}.png" for i in range(8)]
    split = Split(np.arange(8) % 2, names, lambda i: images[i], fingerprint="eight")
    pixels.RESIDENT = 0
    found = pixels.decode_split(split, 32, cache=Path("cache"))
    seen = Input(32, 1.0, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    while True:
        for x, _ in Streaming(found, seen, "cpu", 2).ordered(2):
            print(len(x), flush=True)
            input()
"""


@pytest.mark.slow
def test_processes_that_read_images_end_with_the_one_they_read_for(folder: Path) -> None:
    (folder / "reader.py").write_text(READER)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "reader.py"], **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == b"2\n"
        started = psutil.Process(process.pid).children(recursive=True)
        assert len(started) >= 3  # two readers, and what has forked them
        process.kill()
    wait_until(lambda: not any(each.is_running() for each in started))


# says that the disk is full while a file `full` is there
FULL = """
import os
from pathlib import Path
from nas.core.errors import RunError
from nas.evaluation.evaluators.synthetic import make as make_synthetic

def make(*, epochs: int = 3):
    return Full(make_synthetic(epochs=epochs))

class Full:
    title = "full"

    def __init__(self, inner):
        self.inner, self.rungs = inner, inner.rungs

    def check(self, arch):
        pass

    def train(self, arch, *, seed, epochs, folder):
        if Path("full").exists() and epochs == 2:
            raise RunError("cannot write weights: No space left on device")
        return self.inner.train(arch, seed=seed, epochs=epochs, folder=folder)
"""


def test_a_full_disk_ends_a_search_and_blames_no_arch(folder: Path) -> None:
    (folder / "full.py").write_text(FULL)
    settings = {"space": "space.py", "evaluator": "full.py", "trials": 8, "finalists": 0}
    calm = search(**settings, name="calm")
    (folder / "full").touch()
    for _ in range(2):
        with pytest.raises(RunError, match=r"^cannot write weights: No space left on device$"):
            search(**settings, name="broken", resume=True)
    (folder / "full").unlink()
    found = search(**settings, name="broken", resume=True)
    assert unclocked(found) == unclocked(calm) and found["states"]["failed"] == 0


SETTINGS: dict[str, Any] = {
    "space": "space.py",
    "data": "digits",
    "epochs": 3,
    "fraction": 0.1,
    "batch_size": 32,
    "trials": 6,
    "pruner": "halving",
    "random_search": False,
    "finalists": 1,
    "final_seeds": 2,
}


@pytest.mark.slow
def test_a_search_that_trains_killed_at_random_moments_ends_as_one_that_was_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_CACHE", str(folder / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    calm = search(**SETTINGS, name="calm")
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in SETTINGS.items() if v is not False]
    flags += ["--no-random-search", "--name=broken", "--resume", "-q"]
    broken, rng = folder / "runs" / "search" / "broken", random.Random(0)
    kills = 0
    for _ in range(3):  # on a quick machine it may be through before the last
        with subprocess.Popen([*START, "search", *flags], stdout=subprocess.DEVNULL) as process:
            before = written(broken)
            while process.poll() is None and written(broken) == before:
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.6))
            process.kill()
        kills += process.returncode == -signal.SIGKILL
        assert process.returncode in (0, -signal.SIGKILL)
    assert kills
    found = search(**SETTINGS, name="broken", resume=True)
    assert unclocked(found) == unclocked(calm)
    assert found["trials"] == 6 and found["finals"]
    for name in ("trials.csv", "rungs.csv", "finals.csv"):
        tables = [
            unclocked(run_folder.read_csv(Path(each["run"]) / name)) for each in (calm, found)
        ]
        assert tables[0] == tables[1]
    weights = [read_weights(Path(f["run"]) / "best" / "model.safetensors") for f in (calm, found)]
    assert equal(*weights)
    assert not list(broken.glob("trials/*/checkpoints"))


@pytest.mark.slow
def test_a_search_from_weights_killed_in_each_of_its_stages_ends_as_one_that_was_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    place = inherited.make_place(folder / "inherit")
    chosen = inherited.settings(place, teacher=inherited.make_teacher(place))
    calm = search(**chosen, name="calm")
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in chosen.items()]
    broken, kills = place / "runs" / "search" / "broken", 0
    for begun in ("trials/search-1", "trials/random-search-0", "finals/*", "finals/*"):
        known = set(broken.glob(begun))
        command = [*START, "search", *flags, "--name=broken", "--resume", "-q"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            while process.poll() is None and set(broken.glob(begun)) == known:
                time.sleep(0.005)
            process.kill()
        kills += process.returncode == -signal.SIGKILL
        assert process.returncode in (0, -signal.SIGKILL)
    assert kills
    found = search(**chosen, name="broken", resume=True)
    for name in ("trials.csv", "random.csv", "finals.csv"):
        tables = [
            unclocked(run_folder.read_csv(Path(each["run"]) / name)) for each in (calm, found)
        ]
        assert tables[0] == tables[1] and tables[0]
    weights = [read_weights(Path(f["run"]) / "best" / "model.safetensors") for f in (calm, found)]
    assert equal(*weights)
    for each in ("teacher", "architecture"):
        assert found["teacher"][each] == calm["teacher"][each]
