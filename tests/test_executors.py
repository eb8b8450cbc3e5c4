"""Executors: the contract that every file of nas/executors keeps; killed workers; no leftovers."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nas import catalog
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
        arch = MBCONV.decode(random_choices(MBCONV, random.Random(0))).from_dict(task.arch)
        assert found[task.number].metrics == evaluator.evaluate(arch, seed=0)
        assert json.loads(json.dumps(task.__dict__)) == json.loads(json.dumps(task.__dict__))


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
    from nas.arch import Arch

    ids = {task.number: Arch.from_dict(task.arch).id for task in TASKS}
    killers = {number for number, id_ in ids.items() if int(id_, 16) % 8 == 0}
    assert 0 < len(killers) < 4
    found = work(executors[0], TASKS)
    assert {n for n, outcome in found.items() if outcome.error} == killers
    assert {found[n].error for n in killers} == {"its worker process died 3 times"}
    ledger = (folder / "ledger.txt").read_text().split()
    assert all(ledger.count(ids[n]) == 3 for n in killers)


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
