"""How many trainings at once: numbers, auto, what fails, what is refused."""

import itertools
from typing import Any

import pytest

from nas.core import registry
from nas.core.errors import NasError, OptionError
from nas.evaluation import packing
from nas.evaluation.packing import trainings_at_once
from nas.interfaces import TRAINING_FLOPS, EvaluatorSpec, Outcome, Task
from nas.searching.feasibility import check_space

ARCH = check_space(registry.export("spaces", "mbconv", "SPACE"))
WORK = EvaluatorSpec("synthetic", {"epochs": 2})


def silent(text: str) -> None:
    """Say nothing."""


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_gpus", lambda: 0)


def cores(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr("nas.core.system.processors", lambda: number)


@pytest.mark.parametrize("number", ["1", "3", "12"])
def test_a_number_is_taken_as_it_is(no_gpu: None, number: str) -> None:
    assert trainings_at_once(number, WORK, ARCH, silent) == int(number)


def test_a_number_counts_for_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_gpus", lambda: 4)
    assert trainings_at_once("2", WORK, ARCH, silent) == 8


@pytest.mark.parametrize("asked", ["0", "-1", "1.5", "many", "", " 2", "Auto", "²"])
def test_what_is_no_number_is_refused(no_gpu: None, asked: str) -> None:
    with pytest.raises(OptionError, match="--trials-per-device takes a number from 1 or auto"):
        trainings_at_once(asked, WORK, ARCH, silent)


def test_auto_trains_for_real_and_keeps_to_the_cores(
    no_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    cores(monkeypatch, 2)
    heard: list[str] = []
    assert trainings_at_once("auto", WORK, ARCH, heard.append) in (1, 2)
    assert [line.split()[0] for line in heard] == ["1", "2"]
    cores(monkeypatch, 1)
    heard.clear()
    assert trainings_at_once("auto", WORK, ARCH, heard.append) == 1
    assert len(heard) == 1 and "multiply-adds a second" in heard[0]


class Device:
    """Executors on a device on which `workers` trainings at once take a known time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, speeds: dict[int, float]) -> None:
        self.speeds, self.now, self.closed = speeds, 0.0, 0
        self.made: list[int] = []
        monkeypatch.setattr(packing.registry, "make", self.make)
        monkeypatch.setattr(packing.time, "perf_counter", lambda: self.now)

    def make(self, kind: str, name: str, *given: Any, workers: int, **options: Any) -> "Device":
        self.slots, self._queue = workers, list[Task]()
        self.made.append(workers)
        return self

    def submit(self, task: Task) -> None:
        self._queue.append(task)

    def wait(self) -> list[Outcome]:
        tasks, self._queue = self._queue, []
        if self.slots not in self.speeds:
            return [Outcome(task.number, {}, "CUDA out of memory") for task in tasks]
        self.now += len(tasks) / self.speeds[self.slots]
        assert len({task.folder for task in tasks}) == len(tasks) == self.slots
        return [Outcome(task.number, {TRAINING_FLOPS: 1.0}) for task in tasks]

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize(
    ("speeds", "wanted"),
    [
        ({1: 10.0, 2: 10.5, 4: 40.0}, 1),
        ({1: 10.0, 2: 19.0, 4: 20.0, 8: 80.0}, 2),
        ({1: 10.0, 2: 19.0, 4: 30.0}, 4),  # eight do not fit
        ({1: 10.0}, 1),
        (dict(zip((1, 2, 4, 8, 16, 32), itertools.count(10.0, 10.0), strict=False)), 16),
    ],
)
def test_auto_stops_where_more_bring_little_or_fail(
    monkeypatch: pytest.MonkeyPatch, speeds: dict[int, float], wanted: int
) -> None:
    monkeypatch.setattr(packing, "_gpus", lambda: 1)
    device = Device(monkeypatch, speeds)
    heard: list[str] = []
    assert trainings_at_once("auto", WORK, ARCH, heard.append) == wanted
    assert device.closed == len(device.made) == len(heard)
    if 2 * wanted not in speeds:
        assert "CUDA out of memory" in heard[-1]


def test_auto_counts_for_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_gpus", lambda: 2)
    device = Device(monkeypatch, {2: 10.0, 4: 19.0, 8: 20.0})
    assert trainings_at_once("auto", WORK, ARCH, silent) == 4
    assert device.made == [2, 4, 8]


def test_where_not_one_training_works_its_reason_is_passed_on(
    no_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(monkeypatch, {})
    with pytest.raises(NasError, match="CUDA out of memory"):
        trainings_at_once("auto", WORK, ARCH, silent)
    assert device.closed == 1
