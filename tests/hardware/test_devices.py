"""Devices: the contract for every file of nas/hardware/devices, what each does; and the rig."""

import dataclasses
import gc
import importlib.util
import math
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import torch

from nas.core import registry
from nas.core.errors import MissingError, NasError, OptionError, install
from nas.core.system import free_memory
from nas.hardware import measurement
from nas.interfaces import Device
from nas.models.arch import Stage
from nas.models.cost import count
from nas.models.load import baselines
from nas.testing import DeviceContract, each
from nas.testing.contract import SMALL
from nas.testing.devices import process_state

QUICK = {"seconds": 0.2, "runs": 5}
SETTINGS = {
    name: {k: v for k, v in QUICK.items() if k in registry.option_defaults("devices", name)}
    for name in registry.names("devices")
}
pinning = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system pins no threads"
)


def made(name: str, **options: Any) -> Device:
    """Return a device that measures quickly; skip where its hardware or package is not here."""
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if name == "onnxruntime" and not importlib.util.find_spec("onnxruntime"):
        pytest.skip("onnxruntime is not installed")
    device: Device = registry.make("devices", name, options=SETTINGS[name] | options)
    return device


class QuickContract(DeviceContract):
    """The contract, where the hardware and the packages are here."""

    def make(self, *given: Any, **options: Any) -> Device:
        return made(self.part, **options)

    def test_its_name_begins_the_fingerprint(self, device: Device) -> None:
        assert device.fingerprint.startswith(self.part)


globals().update(each(QuickContract, registry.names("devices")))


@pytest.fixture
def same_process() -> Iterator[None]:
    before = process_state()
    yield
    assert process_state() == before


@pytest.mark.parametrize(
    ("name", "option", "default"),
    [
        (name, option, default)
        for name in registry.names("devices")
        for option, default in registry.option_defaults("devices", name).items()
        if not isinstance(default, bool)
    ],
)
def test_options_out_of_range_are_refused_in_one_line(
    name: str, option: str, default: float
) -> None:
    made(name)
    with pytest.raises(OptionError) as caught:
        registry.make("devices", name, options={option: type(default)(-1)})
    assert "-1" in str(caught.value) and "\n" not in str(caught.value)


def test_the_steady_flag_rises_when_the_cores_are_taken() -> None:
    device, cores = made("cpu", seconds=1.0), measurement.allowed_cores()
    spin = [sys.executable, "-c", "while True: pass"]
    hogs = [subprocess.Popen(spin) for _ in range(3 * len(cores))]
    try:
        timing = device.measure(SMALL)
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    assert not timing.steady


@pytest.mark.parametrize("missing", ["onnxruntime", "onnx", "onnxscript"])
def test_a_missing_package_is_told_with_its_pip_line(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingError, match=re.escape(install("onnx"))) as caught:
        registry.make("devices", "onnxruntime", options={})
    assert missing in str(caught.value) and caught.value.exit_code == 4


def test_onnxruntime_says_how_far_it_is_from_torch() -> None:
    (note,) = [n for n in made("onnxruntime").measure(SMALL).notes if "differ" in n]
    assert float(note.split("at most ")[1].split()[0]) < 1e-4


def test_another_answer_than_torchs_is_an_error() -> None:
    made("onnxruntime")
    module = registry.load("devices", "onnxruntime")
    with measurement.quiet(1), torch.inference_mode():
        model, x = measurement.subject(SMALL, 2)
        right = model(x)
        assert "differ from torch's by at most 0.0" in module._compared(model, x, right.numpy())
    for wrong in (right + 0.01, right * float("nan")):
        with pytest.raises(NasError, match="answers otherwise in onnxruntime"):
            module._compared(model, x, wrong.numpy())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_cuda_is_refused_in_one_line() -> None:
    with pytest.raises(OptionError, match="no CUDA device") as caught:
        registry.make("devices", "cuda", options={})
    assert "\n" not in str(caught.value)


@pytest.mark.gpu
def test_cuda_memory_is_near_the_estimate() -> None:
    device: Any = made("cuda", batch=32)
    arch = baselines()["efficientnet_b0"]
    found, peaks = count(arch), device.memory(arch)
    estimate = found.training_bytes + 32 * found.training_bytes_per_image
    assert peaks["training"] == pytest.approx(estimate, rel=0.25)
    assert peaks["inference"] < peaks["training"]


def test_the_fake_computes_its_time_and_says_so() -> None:
    device = made("fake", gflops=2.0, layer_ms=0.5)
    timing = device.measure(SMALL)
    expected = count(SMALL).flops / 2e6 + 0.5 * len(SMALL.blocks())
    assert timing.median_ms == pytest.approx(expected) == timing.p90_ms
    assert (timing.n, timing.steady, timing.unrest) == (0, True, 0.0)
    assert timing == made("fake", gflops=2.0, layer_ms=0.5).measure(SMALL)


@pytest.mark.parametrize(
    "name", ["efficientnet_b3", "resnet50", "mobilenet_v3_large", "mnasnet_a1"]
)
def test_the_network_that_is_timed_computes_with_ordinary_numbers(name: str) -> None:
    seen: list[float] = []
    with measurement.quiet(1):
        model, x = measurement.subject(dataclasses.replace(baselines()[name], resolution=64), 1)
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda m, i, y: seen.append(float(y.abs().mean())))
    with measurement.quiet(1), torch.inference_mode():
        logits = model(x)
    assert min(seen) > 1e-3 and max(seen) < 1e3
    assert 1e-3 < float(logits.abs().max()) < 1e3


def test_equal_archs_are_timed_as_equal_networks(same_process: None) -> None:
    (one, x), (two, y) = measurement.subject(SMALL, 3), measurement.subject(SMALL, 3)
    assert torch.equal(x, y) and not one.training
    assert x.is_contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        assert torch.equal(one(x), two(y))


def test_quiet_sets_everything_and_restores_it_after_an_error(same_process: None) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with pytest.raises(ZeroDivisionError), measurement.quiet(1):
        assert torch.get_num_threads() == 1
        assert not gc.isenabled()
        if hasattr(os, "sched_setaffinity"):
            assert len(measurement.allowed_cores()) == 1
        raise ZeroDivisionError
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


@pinning
def test_threads_started_while_pinned_are_let_go() -> None:
    before, end = measurement.allowed_cores(), threading.Event()
    with measurement.quiet(1):
        thread = threading.Thread(target=end.wait)
        thread.start()
        assert thread.native_id
        assert len(os.sched_getaffinity(thread.native_id)) == 1
    try:
        assert os.sched_getaffinity(thread.native_id) == before
    finally:
        end.set()
        thread.join()


@pinning
def test_a_system_that_refuses_to_pin_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    (note,) = made("cpu").measure(SMALL).notes
    assert note == "not pinned to a core: Operation not permitted"


@pinning
def test_the_quietest_core_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([{0: 10, 1: 10, 2: 10, 3: 10}, {0: 10, 1: 14, 2: 10, 3: 11}])
    monkeypatch.setattr(measurement, "_busy_ticks", lambda: next(ticks))
    assert measurement._quietest({0, 1, 2, 3}, 2) == {0, 2}


def test_a_batch_larger_than_the_memory_is_refused_before_it_is_made(same_process: None) -> None:
    if not math.isfinite(free_memory()):
        pytest.skip("this system does not tell its free memory")
    with pytest.raises(NasError, match=r"GiB of memory and .* free: use a smaller batch"):
        made("cpu", batch=100_000_000).measure(SMALL)


def test_memory_does_not_grow_with_the_archs() -> None:
    device = made("cpu", seconds=0.01)
    wide = [
        dataclasses.replace(SMALL, stages=(Stage("conv", 256 + n), Stage("conv", 256)))
        for n in range(10)
    ]
    sizes = []
    for arch in wide:
        device.measure(arch)
        sizes.append(psutil.Process().memory_info().rss)
    # each network has 2.6 MB of weights
    assert sizes[-1] - sizes[2] < 9e6


def test_several_threads_need_as_many_cores() -> None:
    cores = len(measurement.allowed_cores())
    assert made("cpu", threads=cores).measure(SMALL).median_ms > 0
    with pytest.raises(OptionError, match="the cores that this process may use"):
        made("cpu", threads=cores + 1)
