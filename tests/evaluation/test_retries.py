"""Retries of what crashes its process: counted over resumptions, on file before each begins."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nas.core import run_folder
from nas.evaluation.retries import FILE, Retries
from nas.interfaces import Task

TASK = Task(0, {"name": "one"}, 0)
OTHER = Task(1, {"name": "other"}, 0)
# evaluates by a formula, but ends its process on one arch
CRASHING = """
import os
import signal
from pathlib import Path
from nas.models.cost import count

class Evaluator:
    title = "crashes"
    def check(self, arch): pass
    def evaluate(self, arch, *, seed=0):
        with open(Path(__file__).with_suffix(".txt"), "a") as file:
            file.write(arch.id + "\\n")
        if sum(stage.layers for stage in arch.stages) % 3 == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"accuracy": 50 + count(arch).flops / 1e9}

def make():
    return Evaluator()
"""


def crash(folder: Path, *tasks: Task) -> list[str]:
    """Begin tasks in a process that ends over them; return why each was not begun, if it was not"""
    tries = Retries(folder=folder)
    failures = [tries.begin(task) for task in tasks]
    return [failure.error if failure else "" for failure in failures]


def test_three_processes_may_end_over_an_arch(tmp_path: Path) -> None:
    assert [crash(tmp_path, TASK)[0] for _ in range(3)] == [""] * 3
    (reason,) = crash(tmp_path, TASK)
    assert "died 3 times" in reason
    later = Task(5, TASK.arch, 1, folder=str(tmp_path / "finals"))
    assert "died 3 times" in crash(tmp_path, later)[0]  # nor with another seed
    assert crash(tmp_path, OTHER) == [""]


def test_tries_within_a_process_and_over_resumptions_add_up(tmp_path: Path) -> None:
    tries = Retries(folder=tmp_path)
    assert tries.begin(TASK) is None
    assert tries.again(TASK.number, "SIGSEGV")
    assert crash(tmp_path, TASK) == [""]
    second = Retries(folder=tmp_path)
    failure = second.begin(TASK)
    assert failure and "died 3 times" in failure.error


def test_what_ends_in_order_is_no_crash(tmp_path: Path) -> None:
    for _ in range(5):
        tries = Retries(folder=tmp_path)
        assert tries.begin(TASK) is None and tries.begin(OTHER) is None
        tries.done(OTHER.number)
        tries.leave()
    assert run_folder.read_json(tmp_path / FILE) == {"begun": [], "crashes": {}}


def test_one_that_is_done_is_not_blamed_for_the_next(tmp_path: Path) -> None:
    for _ in range(3):
        tries = Retries(folder=tmp_path)
        assert tries.begin(OTHER) is None
        tries.done(OTHER.number)
        assert tries.begin(TASK) is None
    assert crash(tmp_path, OTHER, TASK)[1] and not crash(tmp_path, OTHER)[0]


def test_a_training_that_gets_further_each_time_is_not_given_up(tmp_path: Path) -> None:
    folder = tmp_path / "trials" / "search-0"
    task = Task(0, TASK.arch, 0, epochs=8, folder=str(folder))
    for epoch in range(6):
        assert crash(tmp_path, task) == [""]
        (folder / "checkpoints" / f"epoch-{epoch:06}").mkdir(parents=True)
    assert [crash(tmp_path, task)[0] == "" for _ in range(4)] == [True, True, False, False]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"begun": 3}', '{"begun": [], "crashes": {"a": 1}}']
)
def test_a_damaged_file_counts_from_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    assert crash(tmp_path, TASK) == [""]


@pytest.mark.slow
def test_a_search_with_one_worker_outlives_an_arch_that_ends_its_process(tmp_path: Path) -> None:
    (tmp_path / "crashing.py").write_text(CRASHING)
    given = "--space mbconv_small --evaluator crashing.py --trials 4 --no-random-search --json"
    command = [sys.executable, "-m", "nas", "search", *given.split(), "--name", "a", "--resume"]
    codes = []
    while not codes or codes[-1] == -9:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        codes.append(done.returncode)
        assert len(codes) < 20
    result = json.loads(done.stdout)
    evaluated = (tmp_path / "crashing.txt").read_text().split()
    assert codes[-1] == 0 and codes.count(-9) == 3 * result["states"]["failed"] > 0
    assert max(evaluated.count(arch) for arch in evaluated) == 3
