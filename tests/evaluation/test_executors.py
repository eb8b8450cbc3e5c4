"""Executors: the contract that every file of the folder keeps; killed workers; no leftovers."""

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from conftest import Nodes, wait_until

from nas.core import registry
from nas.core.errors import OptionError
from nas.core.system import processors
from nas.evaluation.workers import Processes
from nas.interfaces import EvaluatorSpec, Executor, Task
from nas.models.arch import Arch
from nas.searching.samplers import random_choices
from nas.testing import ExecutorContract, ProcessContract, each
from nas.testing.executors import work

MBCONV = registry.export("spaces", "mbconv", "SPACE")
RNG = random.Random(0)
TASKS = [
    Task(number, MBCONV.decode(random_choices(MBCONV, RNG)).to_dict(), 0) for number in range(12)
]
NAMES = registry.names("executors")
globals().update(each(ExecutorContract, [name for name in NAMES if name != "ray"]))
# those with processes of this machine that can die, hang and be left over; a virtual cluster has
# none, and those of a real one are dealt with in test_ray.py
VIRTUAL = [name for name in NAMES if getattr(registry.load("executors", name), "VIRTUAL", False)]
REAL = [name for name in NAMES if name not in (*VIRTUAL, "ray")]
each_with_processes = pytest.mark.parametrize("name", REAL)


globals().update(each(ProcessContract, REAL, local={"pytestmark": pytest.mark.slow}))


class TestRay(ExecutorContract):
    part = "ray"

    @pytest.fixture(autouse=True)
    def on_the_cluster(self, cluster: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)


@pytest.fixture
def executors() -> Iterator[list[Executor]]:
    """Where a test puts its executors to have them closed."""
    opened: list[Executor] = []
    yield opened
    for executor in opened:
        executor.close()


def made(name: str, evaluator: str, workers: int, **options: object) -> Executor:
    executor: Executor = registry.make(
        "executors", name, EvaluatorSpec(evaluator, options), options={}, workers=workers
    )
    return executor


@pytest.mark.slow
@each_with_processes
def test_who_kills_its_worker_is_tried_three_times_and_fails_alone(
    executors: list[Executor], name: str, folder: Path
) -> None:
    executors.append(made(name, str(folder / "ledger.py"), 2, fail="kill", sleep=0.05))
    ids = {task.number: Arch.from_dict(task.arch).id for task in TASKS}
    killers = {number for number, id_ in ids.items() if int(id_, 16) % 8 == 0}
    assert 0 < len(killers) < 4
    found = work(executors[0], TASKS)
    assert {n for n, outcome in found.items() if outcome.error} == killers
    reason = (
        "its worker process died 3 times: SIGKILL, which the system sends where memory runs out"
    )
    assert {found[n].error for n in killers} == {reason}
    ledger = (folder / "ledger.txt").read_text().split()
    assert all(ledger.count(ids[n]) == 3 for n in killers)


# writes each epoch down, and kills its process in the second so many times
TRAINER = """
import os
from pathlib import Path

TRAINS = True

def make(*, kills: int = 0):
    return Trainer(kills)

class Trainer:
    title = "trainer"
    rungs = (1, 2, 3)

    def __init__(self, kills):
        self.kills = kills

    def check(self, arch):
        pass

    def train(self, arch, *, seed, epochs, folder):
        epoch, tries = Path(folder, "epochs.txt"), Path(folder, "tries.txt")
        epoch.parent.mkdir(parents=True, exist_ok=True)
        with tries.open("a") as file:
            file.write("try\\n")
        while (done := len(epoch.read_text().split()) if epoch.exists() else 0) < epochs:
            if seed == 1 and done == 1 and len(tries.read_text().split()) <= self.kills:
                os.kill(os.getpid(), 9)
            with epoch.open("a") as file:
                file.write(f"{done + 1}\\n")
        return {"accuracy": 10.0 * epochs}
"""


def training(folder: Path, number: int, limit: float = 0.0) -> Task:
    """Return a training whose seed is its number."""
    return Task(number, TASKS[0].arch, number, 3, str(folder / "trials" / str(number)), limit)


@pytest.mark.slow
@each_with_processes
def test_one_whose_worker_is_killed_once_goes_on_from_its_checkpoint(
    executors: list[Executor], name: str, folder: Path
) -> None:
    (folder / "trainer.py").write_text(TRAINER)
    executors.append(made(name, str(folder / "trainer.py"), 2, kills=1))
    found = work(executors[0], [training(folder, number) for number in range(3)])
    for number, tries in enumerate([1, 2, 1]):
        assert (found[number].error, found[number].metrics) == ("", {"accuracy": 30.0})
        place = folder / "trials" / str(number)
        assert len((place / "tries.txt").read_text().split()) == tries
        assert (place / "epochs.txt").read_text().split() == ["1", "2", "3"]  # none is repeated


@pytest.mark.slow
def test_one_that_dies_as_its_time_runs_out_ends_once(folder: Path) -> None:
    """The executor may look again only after a worker has died and its deadline is over."""
    (folder / "trainer.py").write_text(TRAINER)
    executor = made("local", str(folder / "trainer.py"), 1, kills=1)
    assert isinstance(executor, Processes)
    try:
        executor.submit(training(folder, 1, limit=600.0))
        (worker,) = executor._workers
        assert worker
        worker.process.join(600)
        worker.deadline = time.monotonic() - 1
        assert [outcome.metrics for outcome in executor.wait()] == [{"accuracy": 30.0}]
        executor.submit(training(folder, 2))
        assert [outcome.metrics for outcome in executor.wait()] == [{"accuracy": 30.0}]
    finally:
        executor.close()


@pytest.mark.slow
@each_with_processes
def test_real_trainings_in_worker_processes_are_those_of_this_process(
    executors: list[Executor], name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_CACHE", str(folder / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    options = {"data": "digits", "epochs": 2, "fraction": 0.1, "batch_size": 32}
    executors.append(made(name, "training", 2, **options))
    space = registry.export("spaces", "space.py", "SPACE")
    archs = [space.decode(random_choices(space, random.Random(n))) for n in range(3)]
    found = work(executors[0], [Task(n, arch.to_dict(), 5) for n, arch in enumerate(archs)])
    assert [outcome.error for outcome in found.values()] == ["", "", ""]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    own = registry.make("evaluators", "training", options=options).evaluate(archs[0], seed=5)
    torch.set_num_threads(threads)
    mine = found[0].metrics
    assert mine.keys() == own.keys()
    assert all(mine[name] == own[name] for name in own if name != "images_per_second")


@each_with_processes
def test_an_evaluator_that_cannot_be_made_in_a_worker_gives_its_reason(
    executors: list[Executor], name: str, folder: Path
) -> None:
    (folder / "main_only.py").write_text(
        "import multiprocessing\n"
        "def make():\n"
        "    if multiprocessing.parent_process():\n"
        "        raise RuntimeError('not here')\n"
    )
    executors.append(made(name, str(folder / "main_only.py"), 2))
    with pytest.raises(OptionError, match="RuntimeError: not here"):
        work(executors[0], TASKS[:1])


# tells the process it ran in, and in how many tries; some hang or kill theirs
SLEEPY = """
import os, time

{trains}

def make(*, hang: str = "", kill: str = ""):
    return Sleepy(hang, kill)

class Sleepy:
    title = "sleepy"

    def __init__(self, hang, kill):
        self.hang, self.kill = hang, kill

    def check(self, arch):
        pass

    def evaluate(self, arch, *, seed=0):
        with open("tries.txt", "a") as file:
            file.write(arch.id + "\\n")
        if arch.id == self.hang:
            time.sleep(600)
        if arch.id == self.kill:
            os.kill(os.getpid(), 9)
        return {{"accuracy": 50.0, "process": float(os.getpid())}}
"""
IDS = [Arch.from_dict(task.arch).id for task in TASKS]


def sleepy(folder: Path, *, trains: bool = False) -> str:
    path = folder / "sleepy.py"
    path.write_text(SLEEPY.format(trains="TRAINS = True" if trains else ""))
    return str(path)


@pytest.mark.slow
@each_with_processes
def test_a_task_that_hangs_is_stopped_at_its_limit_and_harms_no_other(
    executors: list[Executor], name: str, folder: Path
) -> None:
    limit = 4.0
    executors.append(made(name, sleepy(folder), 2, hang=IDS[0]))
    tasks = [
        dataclasses.replace(task, timeout_s=limit if i < 1 else 600.0)
        for i, task in enumerate(TASKS)
    ]
    found = work(executors[0], tasks)
    assert found[0].error == "stopped at its time limit" and found[0].seconds == limit
    assert [number for number, outcome in found.items() if outcome.error] == [0]
    # it is not tried again, and the others were each tried once
    tries = (folder / "tries.txt").read_text().split()
    assert len(tries) == len(set(tries)) and set(tries) | {IDS[0]} == set(IDS)
    # its worker is replaced
    again = work(
        executors[0], [dataclasses.replace(task, number=20 + task.number) for task in TASKS[1:4]]
    )
    assert not [outcome.error for outcome in again.values() if outcome.error]


@pytest.mark.slow
@each_with_processes
def test_one_worker_too_goes_on_after_a_limit(
    executors: list[Executor], name: str, folder: Path
) -> None:
    options = {"hang": IDS[0]}
    executor: Executor = registry.make(
        "executors",
        name,
        EvaluatorSpec(sleepy(folder), options),
        options={},
        workers=1,
        isolate=True,
    )
    executors.append(executor)
    found = work(executor, [dataclasses.replace(TASKS[0], timeout_s=3.0), *TASKS[1:3]])
    assert found[0].error == "stopped at its time limit"
    assert not found[1].error and not found[2].error


@each_with_processes
def test_an_evaluator_that_trains_has_a_process_of_its_own(
    executors: list[Executor], name: str, folder: Path
) -> None:
    executors.append(made(name, sleepy(folder, trains=True), 1))
    found = work(executors[0], TASKS[:3])
    (process,) = {outcome.metrics["process"] for outcome in found.values()}
    assert process != os.getpid() and executors[0].slots == 1


@each_with_processes
def test_trainings_share_the_cores(name: str, folder: Path, executors: list[Executor]) -> None:
    (folder / "threads.py").write_text(
        "import os\n"
        "TRAINS = True\n"
        "def make():\n"
        "    return Threads()\n"
        "class Threads:\n"
        "    title = 'threads'\n"
        "    def check(self, arch): pass\n"
        "    def evaluate(self, arch, *, seed=0):\n"
        "        return {'accuracy': 50.0, 'threads': float(os.environ['OMP_NUM_THREADS'])}\n"
    )
    executors.append(made(name, str(folder / "threads.py"), 2))
    found = work(executors[0], TASKS[:4])
    wanted = os.environ.get("OMP_NUM_THREADS", str(max(1, processors() // 2)))
    assert {outcome.metrics["threads"] for outcome in found.values()} == {float(wanted)}


def _workers(parent: int) -> list[psutil.Process]:
    every = psutil.process_iter(["ppid", "cmdline"])
    started = (each for each in every if each.info["ppid"] == parent)
    return [each for each in started if "spawn_main" in " ".join(each.info["cmdline"] or ())]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent(folder: Path, how: signal.Signals) -> None:
    command = [
        sys.executable,
        "-c",
        "from nas.cli.program import main; main()",
        "search",
        "--workers",
        "2",
    ]
    command += ["--space", "space.py", "--evaluator", "ledger.py", "-q", "--trials", "24"]
    command += ["--evaluator-option", "sleep=0.5"]
    log = (folder / "log.txt").open("wb")
    with subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True) as process:
        wait_until(lambda: (folder / "ledger.txt").exists() and len(_workers(process.pid)) == 2)
        time.sleep(0.3)
        workers = _workers(process.pid)
        assert len(workers) == 2
        # to the whole group, as a terminal does
        os.killpg(process.pid, how) if how is signal.SIGINT else process.kill()
        process.wait()
        wait_until(lambda: not any(worker.is_running() for worker in workers))
    log.close()
    shown = (folder / "log.txt").read_text()
    assert "Traceback" not in shown
    if how is signal.SIGINT:
        assert process.returncode == 130 and "--resume" in shown
