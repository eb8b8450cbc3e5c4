"""The GPUs of a family's members: what each gets, what waits for them, what fits into them."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Nodes
from digits import TINY

from nas.core import registry, run_folder
from nas.core.errors import OptionError
from nas.evaluation.executors.local import _share
from nas.evaluation.workers import VISIBLE, Processes
from nas.interfaces import EvaluatorSpec, Executor, Outcome, Task
from nas.scaling.member_setup import advice, plan_of
from nas.scaling.settings import ScaleSettings
from nas.scaling.setup import ScaleSetup

# says which GPUs it sees, and writes down when it begins and ends
SEEN = """
import os, time

TRAINS = True

def make():
    return Seen()

class Seen:
    title, rungs = "seen", (1,)

    def check(self, arch):
        pass

    def train(self, arch, *, seed, epochs, folder):
        ids = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        with open(os.path.join(os.path.dirname(__file__), "seen.txt"), "a") as file:
            file.write(f"{seed} begins {ids}\\n")
            file.flush()
            time.sleep(0.3)
            file.write(f"{seed} ends\\n")
        return {"accuracy": 50.0, "gpus": float(len([i for i in ids.split(",") if i]))}
"""
# a task of seed 1 cannot be done, and no other could either
FATALLY = """
from nas.core.errors import OptionError

def make():
    return Fatally()

class Fatally:
    title = "fatally"

    def check(self, arch):
        pass

    def evaluate(self, arch, *, seed=0):
        if seed:
            raise OptionError("nothing can be done")
        return {"accuracy": 50.0}
"""
DIGITS = {"data": "digits", "recipe": "proxy", "epochs": 1, "accelerator": "auto"}


@pytest.fixture
def place(folder: Path) -> Path:
    """A working directory with seen.py."""
    (folder / "seen.py").write_text(SEEN)
    return folder


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_a_member_that_does_not_fit_says_what_would() -> None:
    member: Any = SimpleNamespace(name="b7", training_bytes=10, training_bytes_per_image=100)
    assert advice(member, 4, 410) == ""
    assert "2 fit; --accumulate 2 or --grad-checkpointing" in advice(member, 4, 210)
    assert "1 fit; --accumulate 8 or" in advice(member, 4, 110, parts=2)
    assert "not one image fits" in advice(member, 4, 100)
    assert "pipeline stages (GPipe) are not built" in advice(member, 4, 5)


@pytest.mark.parametrize(
    ("more", "batch", "b1", "b2"),
    [
        ({"batch_size": 64}, 64, 64, 64),
        ({"batch_size": 9000}, 1151, 1151, 1151),
        ({"batch_size": 64, "accumulate": 3}, 64, 22, 22),
        ({"batch_size": 64, "accumulate": 2, "member_gpus": {"b2": 4}}, 64, 32, 8),
        (
            {"executor": "ray", "batch_size": 64, "gpus_per_trial": 2, "member_gpus": {"b2": 4}},
            64,
            32,
            16,
        ),
    ],
)
def test_the_images_that_a_device_has_at_a_time(
    more: dict[str, Any], batch: int, b1: int, b2: int
) -> None:
    given = {**DIGITS, "train": True, **more}
    setup = ScaleSetup(ScaleSettings.model_validate(given), TINY, "tiny.json", Path())
    plan = plan_of(setup, Path(), ())
    assert (plan.batch, plan.per_step("b1"), plan.per_step("b2")) == (batch, b1, b2)


def done(executor: Executor, tasks: list[Task]) -> dict[int, Outcome]:
    for task in tasks:
        executor.submit(task)
    found: dict[int, Outcome] = {}
    while len(found) < len(tasks):
        found |= {outcome.number: outcome for outcome in executor.wait()}
    return found


def seen_tasks(*gpus: int) -> list[Task]:
    return [Task(n, TINY.to_dict(), n, 1, gpus=count) for n, count in enumerate(gpus)]


def test_a_task_gets_its_own_gpus_and_waits_for_them(place: Path) -> None:
    shares = [{VISIBLE: gpu} for gpu in "01"]
    executor = Processes(EvaluatorSpec(str(place / "seen.py")), shares, ["0", "1", "2"])
    try:
        found = done(executor, seen_tasks(2, 3, 1, 0))
    finally:
        executor.close()
    assert [found[n].metrics["gpus"] for n in range(4)] == [2, 3, 1, 1]
    begun = [line for line in lines((place / "seen.txt").read_text()) if line[1] == "begins"]
    assert [line[2] for line in begun][:2] == ["0,1", "0,1,2"]
    events = [line[:2] for line in lines((place / "seen.txt").read_text())]
    assert events.index(["0", "ends"]) < events.index(["1", "begins"])
    assert events.index(["1", "ends"]) < events.index(["2", "begins"])


def test_a_free_gpu_is_not_kept_waiting_by_one_that_is_taken(place: Path) -> None:
    shares = [{VISIBLE: gpu} for gpu in "012"]
    executor = Processes(EvaluatorSpec(str(place / "seen.py")), shares, ["0", "1", "2"])
    try:
        for task in seen_tasks(2, 0, 0):
            executor.submit(task)
        assert executor.status().busy == 2
        assert [worker and worker.gpus for worker in executor._workers] == [
            ("0", "1"),
            None,
            ("2",),
        ]
    finally:
        executor.close()


def test_what_is_ready_comes_before_a_fatal_error(place: Path) -> None:
    (place / "fatally.py").write_text(FATALLY)
    executor = Processes(EvaluatorSpec(str(place / "fatally.py")), [{}, {}])
    try:
        for number in (0, 1):
            executor.submit(Task(number, TINY.to_dict(), number))
        assert all(worker and worker.pipe.poll(60) for worker in executor._workers)
        assert [outcome.metrics for outcome in executor.wait()] == [{"accuracy": 50.0}]
        with pytest.raises(OptionError, match="nothing can be done"):
            executor.wait()
    finally:
        executor.close()


def test_gpus_that_are_not_there_are_no_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "0,1")
    assert _share(0, 1, [])[VISIBLE] == ""
    assert _share(1, 2, ["4", "5"])[VISIBLE] == "5"
    monkeypatch.delenv(VISIBLE)
    assert VISIBLE not in _share(0, 1, [])


@pytest.mark.slow
def test_a_task_gets_its_own_gpus_on_a_cluster(place: Path, cluster: Nodes) -> None:
    node = cluster.add(num_gpus=2)
    try:
        for through, gpus in (("tasks", (2, 0)), ("tune", (2,))):
            options = {"address": cluster.address, "patience": 1.0, "through": through}
            work = EvaluatorSpec(str(place / "seen.py"))
            executor = registry.make("executors", "ray", work, options=options, folder=place)
            try:
                found = done(executor, seen_tasks(*gpus))
                if through == "tasks":
                    with pytest.raises(OptionError, match=r"no node can hold .* 9 GPUs.*--member"):
                        executor.submit(Task(9, TINY.to_dict(), 0, 1, gpus=9))
            finally:
                executor.close()
            assert [found[n].metrics["gpus"] for n in range(len(gpus))] == list(gpus)
            assert ["gpu 0,1" in found[n].node for n in range(len(gpus))] == [n == 2 for n in gpus]
    finally:
        cluster.remove(node)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="gloo by torchrun")
def test_several_gpus_train_together(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "0,1")  # pretended: the two processes meet by gloo
    options = {**DIGITS, "latency_on": "fake", "batch_size": 64}
    evaluator = registry.make("evaluators", "member", options=options)
    found = evaluator.train(TINY, seed=0, epochs=1, folder=str(place / "two"))
    assert found["accuracy"] > 0 and found["epochs"] == 1
    log = (place / "two" / "log.txt").read_text()
    assert log.count("epoch 1/1") == 1  # one of the two tells
    assert run_folder.read_json(place / "two" / "result.json")["splits"]["test"] == 359
