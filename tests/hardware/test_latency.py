"""The cache of latencies: one file for all runs, processes and devices of a user."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from nas.core import registry
from nas.core.locks import try_lock
from nas.hardware import latency
from nas.hardware.latency import TRIES, Cached, cache_file
from nas.hardware.timing import summarise
from nas.interfaces import Timing
from nas.models.arch import Arch, Stage

ARCHS = [Arch(f"net{n}", (Stage("conv", 8 * n),), resolution=32) for n in range(1, 6)]
ARCH = ARCHS[0]
# measures two archs on the fake, slowly, and prints how often it was asked
WORKER = """
import sys, time
from pathlib import Path
from nas.core import registry
from nas.models.arch import Arch, Stage
from nas.hardware.latency import Cached

class Slow:
    def __init__(self):
        self.fake, self.asked = registry.make("devices", "fake", options={}), 0
        self.title, self.fingerprint = self.fake.title, self.fake.fingerprint

    def measure(self, arch):
        self.asked += 1
        time.sleep(0.3)
        return self.fake.measure(arch)

device = Slow()
cached = Cached(device, Path(sys.argv[1]))
for width in (8, 16):
    cached.measure(Arch("net", (Stage("conv", width),), resolution=32))
print(device.asked)
"""


class Counting:
    """The shipped fake, which also keeps what it was asked, and may be unsteady."""

    def __init__(self, unrest: float = 0.0, **options: object) -> None:
        self._fake = registry.make("devices", "fake", options=options)
        self.title, self.fingerprint = self._fake.title, self._fake.fingerprint
        self.unrest = unrest
        self.asked: list[str] = []

    def measure(self, arch: Arch) -> Timing:
        self.asked.append(arch.id)
        timing: Timing = self._fake.measure(arch)
        return dataclasses.replace(timing, unrest=self.unrest, steady=self.unrest <= 0.1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "latency.jsonl"


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines()


def test_an_arch_is_measured_once_for_all_processes(file: Path) -> None:
    device = Counting()
    first = [Cached(device, file).measure(arch) for arch in ARCHS]
    cached = Cached(device, file)
    assert [cached.measure(arch) for arch in ARCHS] == first
    assert len(device.asked) == len(ARCHS) == len(lines(file))
    assert (cached.title, cached.fingerprint) == (device.title, device.fingerprint)


def test_a_hit_reads_no_file(file: Path) -> None:
    Cached(Counting(), file).measure(ARCH)
    device = Counting()
    cached = Cached(device, file)
    first = cached.measure(ARCH)
    file.unlink()
    assert cached.measure(ARCH) == first and not device.asked


def test_name_alone_is_no_difference_but_resolution_and_device_are(file: Path) -> None:
    device, slow = Counting(), Counting(gflops=1.0)
    timing = Cached(device, file).measure(ARCH)
    assert Cached(device, file).measure(dataclasses.replace(ARCH, name="other")) == timing
    assert len(device.asked) == 1
    larger = Cached(device, file).measure(dataclasses.replace(ARCH, resolution=64))
    slower = Cached(slow, file).measure(ARCH)
    assert larger.median_ms > timing.median_ms and slower.median_ms > timing.median_ms
    assert Cached(device, file).measure(ARCH) == timing


def test_lines_that_cannot_be_read_are_passed_over(file: Path) -> None:
    timing = Cached(Counting(), file).measure(ARCH)
    good = json.loads(lines(file)[0])
    damaged = [
        good | {"schema": 2},
        good | {"timing": None},
        good | {"timing": {**good["timing"], "median_ms": -1.0}},
        good | {"timing": {**good["timing"], "p90_ms": float("nan")}},
        good | {"timing": {**good["timing"], "median_ms": "12"}},
        good | {"timing": {**good["timing"], "steady": "yes"}},
        good | {"timing": {**good["timing"], "future": 1}},
        good | {"timing": {"median_ms": 1.0}},
        good | {"arch": None},
        [],
        7,
    ]
    text = [json.dumps(entry).encode() for entry in damaged]
    text += [b"", b"\xff\xfe\x00", b"[" * 100_000, b"{", b'{"schema": 1}']
    faster = {**good["timing"], "unrest": -0.1, "median_ms": timing.median_ms / 2}
    text.append(json.dumps(good | {"timing": faster}).encode())
    file.write_bytes(b"\n".join([*text, json.dumps(good).encode(), b""]))
    device = Counting()
    assert Cached(device, file).measure(ARCH) == timing
    assert not device.asked


def test_a_line_that_a_kill_tore_costs_only_itself(file: Path) -> None:
    Cached(Counting(), file).measure(ARCHS[0])
    whole = file.read_bytes()
    file.write_bytes(whole + whole[:40])
    Cached(Counting(), file).measure(ARCHS[1])
    again = Counting()
    cached = Cached(again, file)
    cached.measure(ARCHS[0]), cached.measure(ARCHS[1])
    assert not again.asked


def test_a_file_that_is_cut_or_deleted_meanwhile_is_read_anew(file: Path) -> None:
    device = Counting()
    cached = Cached(device, file)
    for arch in ARCHS[:3]:
        cached.measure(arch)
    file.unlink()
    Cached(Counting(), file).measure(ARCHS[3])
    cached.measure(ARCHS[3]), cached.measure(ARCHS[0])
    assert len(device.asked) == 3


def test_an_unsteady_time_is_measured_by_later_processes_three_times_in_all(file: Path) -> None:
    given = []
    for unrest in (0.3, 0.2, 0.4, 0.5):
        device = Counting(unrest)
        cached = Cached(device, file)
        given += [cached.measure(ARCH).unrest, cached.measure(ARCH).unrest]
        assert len(device.asked) == (len(given) <= 2 * TRIES)
    # within a process the time stays; the steadiest stands
    assert given == [0.3, 0.3, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2]
    assert len(lines(file)) == TRIES


def test_a_steady_time_ends_the_tries(file: Path) -> None:
    Cached(Counting(0.3), file).measure(ARCH)
    assert Cached(Counting(0.05), file).measure(ARCH).steady
    device = Counting(0.3)
    assert Cached(device, file).measure(ARCH).unrest == 0.05
    assert not device.asked


def test_processes_that_share_the_file_measure_each_arch_once(file: Path) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", WORKER, str(file)]
    workers = [
        subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    counts = [int(worker.communicate(timeout=600)[0]) for worker in workers]
    assert sum(counts) == 2 == len(lines(file))


def test_a_process_that_keeps_its_turn_does_not_stop_the_others(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "PATIENCE", 0.1)
    with latency._turn(file, 1.0):
        assert Cached(Counting(), file).measure(ARCH).steady
    assert len(lines(file)) == 1


def test_a_place_that_cannot_be_written_costs_the_cache_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "taken").write_text("a file")
    cached = Cached(Counting(), tmp_path / "taken" / "latency.jsonl")
    assert cached.measure(ARCH) == cached.measure(ARCH)
    assert len(caplog.messages) == 1
    assert "taken" in caplog.messages[0] and "\n" not in caplog.messages[0]


def test_a_disk_that_fills_up_leaves_no_half_line(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    resource = pytest.importorskip("resource")
    Cached(Counting(), file).measure(ARCHS[0])
    before, limits = file.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 50, limits[1]))
    try:
        timing = Cached(Counting(), file).measure(ARCHS[1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert timing.median_ms > 0
    assert file.read_bytes() == before
    assert "cannot write" in caplog.text


def test_what_a_device_raises_is_passed_on_and_frees_the_turn(file: Path) -> None:
    class Broken(Counting):
        def measure(self, arch: Arch) -> Timing:
            raise RuntimeError("no luck")

    with pytest.raises(RuntimeError, match="no luck"):
        Cached(Broken(), file).measure(ARCH)
    with (file.parent / f"{file.name}.lock").open("a+") as lock:
        assert try_lock(lock)


def test_the_file_lies_in_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NAS_CACHE", str(tmp_path))
    assert cache_file() == tmp_path / "latency.jsonl"


def test_a_timing_survives_the_file(file: Path) -> None:
    class Odd(Counting):
        def measure(self, arch: Arch) -> Timing:
            return summarise([1 / 3, 2 / 7], 3, load=None, notes=("é", "two"))

    first = Cached(Odd(), file).measure(ARCH)
    for _ in range(TRIES - 1):
        Cached(Odd(), file).measure(ARCH)
    assert Cached(Counting(), file).measure(ARCH) == first
