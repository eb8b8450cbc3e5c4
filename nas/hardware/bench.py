"""Bench: how fast an arch is on a device of this machine, and on CUDA how much memory it takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.core import registry
from nas.core.errors import NasError, OptionError, first_line
from nas.core.records import Record
from nas.interfaces import Device, Timing
from nas.models import cost
from nas.models.arch import Arch
from nas.models.load import load_arch

SCHEMA = 1
# a single number that a person waits for may take longer than one of a search
SECONDS = 10.0


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class PeakMemory(Record):
    """Peak bytes, as measured and by our estimate."""

    measured: int
    estimate: int


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class BenchResult(Record):
    """How fast an arch is on a device: a `Timing`, with what it is of.

    `memory`: of inference and of training, None where it was not asked for. `advice`: what to do
    about a number that should not be trusted.
    """

    schema: int = 1
    name: str
    id: str
    resolution: int
    params: int
    flops: int
    device: str
    fingerprint: str
    median_ms: float
    p10_ms: float
    p90_ms: float
    n: int
    load: float | None
    unrest: float
    steady: bool
    batch: int
    throughput: float
    notes: tuple[str, ...] = ()
    flops_per_second: int
    memory: dict[str, PeakMemory] | None
    advice: tuple[str, ...]

    def _summary(self) -> dict[str, object]:
        told: dict[str, object] = {"name": self.name, "median_ms": self.median_ms}
        return {**told, "throughput": self.throughput, "batch": self.batch, "device": self.device}


def bench(
    arch: str | Path | Arch | Mapping[str, Any],
    *,
    device: str = "cpu",
    batch: int = 1,
    threads: int = 1,
    resolution: int | None = None,
    memory: bool = False,
    options: Mapping[str, Any] | None = None,
) -> BenchResult:
    """Return the latency and throughput of an arch; `nas bench --json` prints `to_dict()` of it.

    `arch`: what `load_arch` takes. `device`: a file of nas/hardware/devices, or your own .py;
    cuda:1 is the second CUDA device. `batch`: images at once; latency is the batch's. `resolution`
    in pixels replaces the arch's own. `memory`: also the peak memory, beside our estimate.
    `options` are the device's. The number is always measured anew.

    Raises:
        OptionError: no such arch or device, or an option it does not have.
        MissingError: a package that the device needs is not installed.
        NasError: the device cannot run the arch.
    """
    subject = load_arch(arch)
    if resolution is not None:
        subject = dataclasses.replace(subject, resolution=resolution)
    machine = _device(device, batch, threads, options or {})
    if memory and not hasattr(machine, "memory"):
        raise OptionError(f"device {device} does not tell its memory; --memory needs cuda")
    try:
        timing = machine.measure(subject)
        peaks = _memory(machine, subject, batch) if memory else None
    except (MemoryError, RuntimeError) as error:  # torch's, whose first line says what
        raise NasError(
            f"{subject.name} cannot be measured at batch {batch} and {subject.resolution} pixels: "
            f"{first_line(error)}"
        ) from error
    found = cost.count(subject)
    return BenchResult(
        schema=SCHEMA,
        name=subject.name,
        id=subject.id,
        resolution=subject.resolution,
        params=found.params,
        flops=found.flops,
        device=machine.title,
        fingerprint=machine.fingerprint,
        **vars(timing),
        flops_per_second=round(found.flops * timing.throughput),
        memory=peaks,
        advice=tuple(advice(timing)),
    )


def advice(timing: Timing) -> list[str]:
    """Return what to do about a number that should not be trusted."""
    if timing.steady:
        return []
    load = "" if timing.load is None else f" (load {timing.load:.2f} per core)"
    return [
        f"unsteady by {timing.unrest:.0%}, where 10% is the most{load}: stop what else runs, or "
        "measure longer with the device's option seconds, and repeat"
    ]


def _device(name: str, batch: int, threads: int, options: Mapping[str, Any]) -> Device:
    """Return the device of a name such as cpu or cuda:1, with the options it has."""
    given = {"batch": batch, **options}
    if not name.endswith(".py") and ":" in name:
        name, _, index = name.partition(":")
        if not index.isdecimal():
            raise OptionError(f"--device takes a name such as cpu or cuda:1, not {name}:{index}")
        given["index"] = int(index)
    known = registry.option_defaults("devices", name)
    if threads != 1 or "threads" in known:
        given.setdefault("threads", threads)
    if "seconds" in known:
        given.setdefault("seconds", SECONDS)
    return registry.make("devices", name, options=given)


def _memory(machine: Any, arch: Arch, batch: int) -> dict[str, PeakMemory]:
    """Return measured and estimated peak bytes of inference and training at a batch."""
    measured = machine.memory(arch)
    estimates = {"inference": _inference(arch, batch), "training": _training(arch, batch)}
    return {
        use: PeakMemory(measured=measured[use], estimate=estimate)
        for use, estimate in estimates.items()
    }


def _inference(arch: Arch, batch: int) -> int:
    found = cost.count(arch)
    weights = cost.FLOAT_BYTES * (found.params + found.buffers)
    return weights + batch * (found.inference_bytes - weights)


def _training(arch: Arch, batch: int) -> int:
    found = cost.count(arch)
    return found.training_bytes + batch * found.training_bytes_per_image
