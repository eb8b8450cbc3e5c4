"""Executors: the contract that every file of nas/executors keeps; killed workers; no leftovers."""

import dataclasses
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from nas import catalog
from nas.arch import Arch
from nas.data.pixels import processors
from nas.interfaces import Executor, Outcome, Task, Work
from nas.samplers import random_choices

MBCONV = catalog.export("spaces", "mbconv", "SPACE")
RNG = random.Random(0)
TASKS = [
    Task(number, MBCONV.decode(random_choices(MBCONV, RNG)).to_dict(), 0) for number in range(12)
]
each_executor = pytest.mark.parametrize("name", catalog.names("executors"))


@pytest.fixture
def executors() -> Iterator[list[Executor]]:
    """Where a test puts its executors to have them closed."""
    opened: list[Executor] = []
    yield opened
    for executor in opened:
        executor.close()


def work(executor: Executor, tasks: list[Task]) -> dict[int, Outcome]:
    """Keep every slot busy until all tasks have come back."""
    waiting, outcomes, running = list(tasks), {}, 0
    while waiting or running:
        while waiting and running < executor.slots:
            executor.submit(waiting.pop(0))
            running += 1
        for outcome in executor.wait():
            assert outcome.number not in outcomes
            outcomes[outcome.number] = outcome
            running -= 1
    return outcomes


def made(name: str, evaluator: str, workers: int, **options: object) -> Executor:
    executor: Executor = catalog.make(
        "executors", name, Work(evaluator, options), options={}, workers=workers
    )
    return executor


@each_executor
@pytest.mark.parametrize("workers", [1, 2])
def test_the_outcomes_are_those_of_this_process(
    executors: list[Executor], name: str, workers: int
) -> None:
    executors.append(made(name, "synthetic", workers, noise=0.5))
    evaluator = catalog.make("evaluators", "synthetic", options={"noise": 0.5})
    found = work(executors[0], TASKS)
    assert sorted(found) == [task.number for task in TASKS]
    for task in TASKS:
        arch = Arch.from_dict(task.arch)
        assert found[task.number].metrics == evaluator.evaluate(arch, seed=0)


@each_executor
def test_a_users_file_works_in_worker_processes(
    executors: list[Executor], name: str, folder: Path
) -> None:
    executors.append(made(name, str(folder / "ledger.py"), 2, fail="some"))
    found = work(executors[0], TASKS)
    assert len((folder / "ledger.txt").read_text().split()) == len(TASKS)
    failed = {outcome.error for outcome in found.values() if outcome.error}
    assert failed == {"ValueError: no luck today"}
    assert 0 < sum(not outcome.error for outcome in found.values()) < len(TASKS)


@each_executor
def test_who_kills_its_worker_is_tried_three_times_and_fails_alone(
    executors: list[Executor], name: str, folder: Path
) -> None:
    executors.append(made(name, str(folder / "ledger.py"), 2, fail="kill", sleep=0.05))
    ids = {task.number: Arch.from_dict(task.arch).id for task in TASKS}
    killers = {number for number, id_ in ids.items() if int(id_, 16) % 8 == 0}
    assert 0 < len(killers) < 4
    found = work(executors[0], TASKS)
    assert {n for n, outcome in found.items() if outcome.error} == killers
    assert {found[n].error for n in killers} == {"its worker process died 3 times"}
    ledger = (folder / "ledger.txt").read_text().split()
    assert all(ledger.count(ids[n]) == 3 for n in killers)


# trains in epochs, each a line in its folder; the options say who fails, by the seed of a task
TRAINER = """
import os, time
from pathlib import Path

TRAINS = True

def make(*, hang: int = -1, kill: int = -1, times: int = 99, epoch: float = 0.0):
    return Trainer(hang, kill, times, epoch)

class Trainer:
    title = "trainer"
    rungs = (1, 2, 3)

    def __init__(self, hang, kill, times, epoch):
        self.hang, self.kill, self.times, self.epoch = hang, kill, times, epoch

    def check(self, arch):
        pass

    def train(self, arch, *, seed, epochs, folder):
        file = Path(folder, "epochs.txt")
        file.parent.mkdir(parents=True, exist_ok=True)
        tries = Path(folder, "tries.txt")
        with tries.open("a") as lines:
            lines.write(f"{os.getpid()} {os.environ.get('OMP_NUM_THREADS')}\\n")
        while (done := len(file.read_text().split()) if file.exists() else 0) < epochs:
            if seed == self.hang and done == 1:
                time.sleep(600)
            if seed == self.kill and done == 1 and len(tries.read_text().splitlines()) <= self.times:
                os.kill(os.getpid(), 9)
            time.sleep(self.epoch)
            with file.open("a") as lines:
                lines.write(f"{done + 1}\\n")
        return {"accuracy": 10.0 * epochs}
"""


@pytest.fixture
def trainer(folder: Path) -> Path:
    """The working directory with trainer.py in it."""
    (folder / "trainer.py").write_text(TRAINER)
    return folder


def training(folder: Path, number: int, epochs: int = 3, limit: float = 0.0) -> Task:
    place = str(folder / "trials" / str(number))
    return Task(number, TASKS[0].arch, number, epochs, place, limit)


def lines(folder: Path, number: int, name: str) -> list[str]:
    return (folder / "trials" / str(number) / f"{name}.txt").read_text().splitlines()


@each_executor
def test_one_that_hangs_is_given_up_at_its_limit_and_its_neighbour_goes_on(
    executors: list[Executor], name: str, trainer: Path
) -> None:
    executors.append(made(name, str(trainer / "trainer.py"), 2, hang=0, epoch=0.1))
    tasks = [training(trainer, number, limit=6.0) for number in range(4)]
    started = time.monotonic()
    found = work(executors[0], tasks)
    assert time.monotonic() - started < 60
    assert (found[0].error, found[0].metrics) == ("stopped at its time limit", {})
    assert found[0].seconds == 6.0
    assert len(lines(trainer, 0, "tries")) == 1  # it is not tried again
    for number in (1, 2, 3):
        assert (found[number].error, found[number].metrics) == ("", {"accuracy": 30.0})
        assert len(lines(trainer, number, "tries")) == 1
    neighbour = lines(trainer, 1, "tries")[0].split()[0]
    assert all(lines(trainer, number, "tries")[0].split()[0] == neighbour for number in (2, 3))


@each_executor
def test_one_whose_worker_is_killed_once_goes_on_from_its_checkpoint(
    executors: list[Executor], name: str, trainer: Path
) -> None:
    executors.append(made(name, str(trainer / "trainer.py"), 2, kill=1, times=1))
    found = work(executors[0], [training(trainer, number) for number in range(3)])
    assert all(outcome.error == "" for outcome in found.values())
    assert len(lines(trainer, 1, "tries")) == 2
    for number in range(3):  # no epoch is repeated
        assert lines(trainer, number, "epochs") == ["1", "2", "3"]


@each_executor
def test_one_that_is_killed_each_time_fails_alone(
    executors: list[Executor], name: str, trainer: Path
) -> None:
    executors.append(made(name, str(trainer / "trainer.py"), 2, kill=0, epoch=0.05))
    found = work(executors[0], [training(trainer, number) for number in range(3)])
    assert found[0].error.startswith("its worker process died 3 times")
    assert "memory" in found[0].error  # the likely reason: the system's killer
    assert [found[number].error for number in (1, 2)] == ["", ""]
    assert len(lines(trainer, 0, "tries")) == 3
    assert [len(lines(trainer, number, "tries")) for number in (1, 2)] == [1, 1]


@each_executor
def test_trainings_share_the_cores_and_one_has_a_process_of_its_own(
    executors: list[Executor], name: str, trainer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    executors.append(made(name, str(trainer / "trainer.py"), 1))
    work(executors[0], [training(trainer, 0, epochs=1)])
    pid, threads = lines(trainer, 0, "tries")[0].split()
    assert int(pid) != os.getpid() and int(threads) == cores
    assert local._share(0, 10 * (cores or 1)) == {"OMP_NUM_THREADS": "1"}
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert local._share(0, 1)["OMP_NUM_THREADS"] == "3"  # the user's own word


def test_one_that_dies_as_its_time_runs_out_ends_as_one_of_both(trainer: Path) -> None:
    """The executor may look again only when a worker has died and its deadline is over."""
    executor = made("local", str(trainer / "trainer.py"), 1, kill=0)
    assert isinstance(executor, local.Processes)
    try:
        executor.submit(training(trainer, 0, limit=30.0))
        (worker,) = executor._workers
        assert worker
        worker.process.join(60)
        worker.deadline = time.monotonic() - 1
        outcomes = executor.wait()
        assert [outcome.number for outcome in outcomes] == [0]
        assert "died" in outcomes[0].error or "time limit" in outcomes[0].error
        executor.submit(training(trainer, 1))
        assert executor.wait()[0].metrics == {"accuracy": 30.0}
    finally:
        executor.close()


@each_executor
def test_real_trainings_in_worker_processes_are_those_of_this_process(
    executors: list[Executor], name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_CACHE", str(folder / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    options = {"data": "digits", "epochs": 2, "fraction": 0.1, "batch_size": 32}
    executors.append(made(name, "training", 2, **options))
    space = catalog.export("spaces", "space.py", "SPACE")
    archs = [space.decode(random_choices(space, RNG)) for _ in range(3)]
    tasks = [
        Task(n, arch.to_dict(), 5, 2, str(folder / "trials" / str(n)))
        for n, arch in enumerate(archs)
    ]
    found = work(executors[0], tasks)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        own = catalog.make("evaluators", "training", options=options).evaluate(archs[0], seed=5)
    finally:
        torch.set_num_threads(threads)
    assert all(outcome.error == "" for outcome in found.values())
    assert {k: v for k, v in found[0].metrics.items() if k != "images_per_second"} == {
        k: v for k, v in own.items() if k != "images_per_second"
    }


@each_executor
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
    outcome = work(executors[0], TASKS[:1])[0]
    assert "RuntimeError: not here" in outcome.error


@each_executor
def test_close_stops_what_runs_and_leaves_no_process(name: str, folder: Path) -> None:
    executor = made(name, str(folder / "ledger.py"), 2, sleep=60.0)
    for task in TASKS[:2]:
        executor.submit(task)
    deadline = time.monotonic() + 30
    while not (folder / "ledger.txt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    started = time.monotonic()
    executor.close()
    assert time.monotonic() - started < 10
    assert multiprocessing.active_children() == []


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


@each_executor
def test_a_task_that_hangs_is_stopped_at_its_limit_and_harms_no_other(
    executors: list[Executor], name: str, folder: Path
) -> None:
    limit = 4.0
    executors.append(made(name, sleepy(folder), 2, hang=IDS[0]))
    tasks = [
        dataclasses.replace(task, limit=limit if i < 1 else 60.0) for i, task in enumerate(TASKS)
    ]
    started = time.monotonic()
    found = work(executors[0], tasks)
    assert time.monotonic() - started < 60
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


@each_executor
def test_one_worker_too_goes_on_after_a_limit(
    executors: list[Executor], name: str, folder: Path
) -> None:
    options = {"hang": IDS[0]}
    executor: Executor = catalog.make(
        "executors", name, Work(sleepy(folder), options), options={}, workers=1, isolate=True
    )
    executors.append(executor)
    found = work(executor, [dataclasses.replace(TASKS[0], limit=3.0), *TASKS[1:3]])
    assert found[0].error == "stopped at its time limit"
    assert not found[1].error and not found[2].error


@each_executor
def test_an_evaluator_that_trains_has_a_process_of_its_own(
    executors: list[Executor], name: str, folder: Path
) -> None:
    executors.append(made(name, sleepy(folder, trains=True), 1))
    found = work(executors[0], TASKS[:3])
    (process,) = {outcome.metrics["process"] for outcome in found.values()}
    assert process != os.getpid() and executors[0].slots == 1


@each_executor
def test_a_training_that_kills_its_process_three_times_fails_alone(
    executors: list[Executor], name: str, folder: Path
) -> None:
    executors.append(made(name, sleepy(folder, trains=True), 1, kill=IDS[1]))
    found = work(executors[0], TASKS[:3])
    assert found[1].error == "its worker process died 3 times" and found[1].metrics == {}
    assert not found[0].error and not found[2].error
    assert Counter((folder / "tries.txt").read_text().split()) == Counter(
        {IDS[0]: 1, IDS[1]: 3, IDS[2]: 1}
    )


@each_executor
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


def _workers(parent: int) -> list[int]:
    shown = subprocess.run(
        ["ps", "-ww", "-eo", "pid,ppid,args"], capture_output=True, text=True
    ).stdout
    rows = [line.split(None, 2) for line in shown.splitlines()[1:]]
    return [int(pid) for pid, above, args in rows if int(above) == parent and "spawn_main" in args]


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent(folder: Path, how: signal.Signals) -> None:
    command = [sys.executable, "-c", "from nas.cli import main; main()", "search", "--workers", "2"]
    command += ["--space", "space.py", "--evaluator", "ledger.py", "-q", "--trials", "24"]
    command += ["--evaluator-option", "sleep=0.5"]
    log = (folder / "log.txt").open("wb")
    with subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True) as process:
        while process.poll() is None and not (folder / "ledger.txt").exists():
            time.sleep(0.05)
        time.sleep(0.3)
        workers = _workers(process.pid)
        assert len(workers) == 2
        # to the whole group, as a terminal does
        os.killpg(process.pid, how) if how is signal.SIGINT else process.kill()
        process.wait()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and any(Path(f"/proc/{pid}").exists() for pid in workers):
            time.sleep(0.05)
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    log.close()
    shown = (folder / "log.txt").read_text()
    assert "Traceback" not in shown
    if how is signal.SIGINT:
        assert process.returncode == 130 and "--resume" in shown
