"""The contract of a device: ordered times of one batch, and a process that is left as it was."""

from __future__ import annotations

import dataclasses
import gc
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from nas.core import registry
from nas.hardware import measurement
from nas.interfaces import Device
from nas.testing.contract import SMALL, Contract

LARGE = dataclasses.replace(
    SMALL, name="large", resolution=64, stages=tuple(s for s in SMALL.stages for _ in range(2))
)


def process_state() -> dict[str, Any]:
    """Return all that a measurement must leave as it was."""
    return {
        "threads": torch.get_num_threads(),
        "cores": measurement.allowed_cores(),
        "collecting": gc.isenabled(),
        "random": torch.get_rng_state().tolist(),
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "benchmark": torch.backends.cudnn.benchmark,
    }


class DeviceContract(Contract):
    """Tests of a file whose `make(**options)` gives a device."""

    room = "devices"

    @pytest.fixture
    def device(self) -> Device:
        device: Device = self.make()
        return device

    @pytest.fixture
    def same_process(self, device: Device) -> Iterator[None]:
        before = process_state()
        yield
        assert process_state() == before

    def test_a_timing_is_ordered_finite_and_of_one_batch(
        self, device: Device, same_process: None
    ) -> None:
        timing = device.measure(SMALL)
        assert 0 < timing.p10_ms <= timing.median_ms <= timing.p90_ms < math.inf
        assert timing.throughput == pytest.approx(1000 * timing.batch / timing.median_ms)
        assert timing.batch >= 1 and timing.steady == (timing.unrest <= 0.1)
        assert timing.n >= 4 or (timing.n == 0 and "computed" in timing.notes[0])
        assert all(note and "\n" not in note for note in timing.notes)

    def test_the_title_and_the_fingerprint_are_one_line_and_repeat(self, device: Device) -> None:
        assert device.title and "\n" not in device.title + device.fingerprint
        assert device.fingerprint and device.fingerprint == self.make().fingerprint

    def test_another_batch_is_another_fingerprint_and_takes_longer(self, device: Device) -> None:
        if "batch" not in registry.option_defaults(self.room, self.named()):
            pytest.skip("no option batch")
        many: Device = self.make(batch=64)
        assert many.fingerprint != device.fingerprint
        one, large = device.measure(SMALL), many.measure(LARGE)
        assert large.median_ms > one.median_ms
        assert large.throughput == pytest.approx(64_000 / large.median_ms)
