"""What a device needs around a measurement: a network worth timing, and a quiet place for it."""

from __future__ import annotations

import contextlib
import gc
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas.core.errors import NasError, OptionError
from nas.core.system import free_memory
from nas.core.units import format_bytes
from nas.hardware.timing import LEAST_RUNS, Once
from nas.models import cost
from nas.models.arch import Arch
from nas.models.build import Model

# how long the cores are watched before the quietest is taken, in seconds
_WATCH = 0.05


# what a run's time is read from: `cpu` stands still while the core works for somebody else
CLOCKS = {"wall": time.perf_counter, "cpu": time.thread_time}


def check(*, batch: int, threads: int = 1, runs: int, seconds: float, clock: str = "wall") -> None:
    """Check the options that devices share.

    Raises:
        OptionError: one is out of its range.
    """
    if batch < 1:
        raise OptionError(f"batch must be at least 1 image, not {batch}")
    cores = len(allowed_cores())
    if not 1 <= threads <= cores:
        raise OptionError(
            f"threads must lie in 1..{cores}, the cores that this process may use, not {threads}: "
            "threads that share a core wait for each other"
        )
    if runs < LEAST_RUNS:
        raise OptionError(f"runs must be at least {LEAST_RUNS}, not {runs}")
    if not 0 < seconds < math.inf:
        raise OptionError(f"seconds must be positive and finite, not {seconds}")
    if clock not in CLOCKS:
        raise OptionError(f"clock must be {' or '.join(CLOCKS)}, not {clock!r}")
    if clock == "cpu" and threads > 1:
        raise OptionError("the clock cpu is that of one thread: use threads 1, or the clock wall")


def subject(arch: Arch, batch: int) -> tuple[Model, Tensor]:
    """Return the network in eval mode and a batch for it, the same for equal archs.

    The weights are fresh, but each batch norm has the mean and variance of what reaches it: without
    them the activations of a deep network shrink to denormal numbers, which a CPU computes many
    times slower. Both are float32 in channels_last order. torch's random numbers go on as if
    nothing was drawn.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = Model(arch).eval()
        x = torch.randn(batch, arch.in_channels, arch.resolution, arch.resolution)
    _settle(model, x[:1])
    order = torch.channels_last
    move: Any = model.to  # the stubs of some releases of torch do not know its memory_format
    return move(memory_format=order), x.to(memory_format=order)


def _settle(model: Model, image: Tensor) -> None:
    """Give each batch norm one mean and variance for all its channels, which one image can tell."""

    def settle(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        norm.get_buffer("running_mean").fill_(inputs[0].mean())
        norm.get_buffer("running_var").fill_(inputs[0].var(correction=0))

    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(settle) for norm in norms]
    with torch.no_grad():
        model(image)
    for hook in hooks:
        hook.remove()


def check_memory(arch: Arch, batch: int) -> None:
    """Refuse a batch that would fill the main memory, before the system kills the process.

    Raises:
        NasError: the estimate exceeds what is free.
    """
    found = cost.count(arch)
    weights = cost.FLOAT_BYTES * (found.params + found.buffers)
    needed = weights + batch * (found.inference_bytes - weights)
    free = free_memory()
    if needed > free:
        raise NasError(
            f"a batch of {batch} at {arch.resolution} pixels needs about {format_bytes(needed)} of "
            f"memory and {format_bytes(free)} are free: use a smaller batch"
        )


def stopwatch(call: Callable[[], Any], clock: str = "wall") -> Once:
    """Return a function that runs the call and returns its time in ms, by one of CLOCKS."""
    now = CLOCKS[clock]

    def once() -> float:
        start = now()
        call()
        return 1000 * (now() - start)

    return once


@contextlib.contextmanager
def quiet(threads: int) -> Iterator[tuple[str, ...]]:
    """Pin this thread to the quietest cores, with as many torch threads and no garbage collection.

    Everything is as before afterwards, whatever happens. Gives notes: what could not be done.
    """
    before, collecting = torch.get_num_threads(), gc.isenabled()
    torch.set_num_threads(threads)
    gc.disable()
    try:
        with _pinned(threads) as notes:
            yield notes
    finally:
        if collecting:
            gc.enable()
        torch.set_num_threads(before)


@contextlib.contextmanager
def _pinned(count: int) -> Iterator[tuple[str, ...]]:
    """Keep this thread on `count` cores; threads that it starts meanwhile are let go in the end."""
    cores, others = allowed_cores(), _threads()
    if problem := _pin(_quietest(cores, count)):
        yield (f"not pinned to a core: {problem}",)
        return
    try:
        yield ()
    finally:
        os.sched_setaffinity(0, cores)
        for thread in _threads() - others:
            with contextlib.suppress(OSError):  # it has ended
                os.sched_setaffinity(thread, cores)


def _pin(cores: set[int]) -> str:
    """Keep this thread on these cores; return why it cannot be, or nothing."""
    if not hasattr(os, "sched_setaffinity"):
        return "this system cannot"
    try:
        os.sched_setaffinity(0, cores)
    except OSError as error:
        return error.strerror or "refused"
    return ""


def allowed_cores() -> set[int]:
    """Return the cores that this thread may run on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _threads() -> set[int]:
    """Return the threads of this process, as the system numbers them."""
    try:
        return {int(name) for name in os.listdir("/proc/self/task")}
    except OSError:
        return set()


def _quietest(cores: set[int], count: int) -> set[int]:
    """Return the `count` cores that idle most in the next twentieth of a second."""
    if len(cores) <= count:
        return cores
    before = _busy_ticks()
    time.sleep(_WATCH)
    after = _busy_ticks()
    # core 0 comes last among equals: most systems take their interrupts there
    order = sorted(cores, key=lambda core: (after.get(core, 0) - before.get(core, 0), -core))
    return set(order[:count])


def _busy_ticks() -> dict[int, int]:
    """Return how long each core has worked since the start of the system."""
    found: dict[int, int] = {}
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/stat").read_text().splitlines():
            name, *fields = line.split()
            if name.startswith("cpu") and name != "cpu":
                ticks = [int(field) for field in fields]
                found[int(name[3:])] = sum(ticks[:8]) - sum(ticks[3:5])  # without idle and iowait
    return found


def processor() -> str:
    """Return the name of the processor and the number of its cores, for titles and fingerprints."""
    fields: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    name = fields.get("model name") or platform.processor() or platform.machine()
    # virtual machines shorten the name; these three tell the generations apart
    numbers = [fields[key] for key in ("cpu family", "model", "stepping") if key in fields]
    model = f" ({'/'.join(numbers)})" if numbers else ""
    return f"{name}{model}, {os.cpu_count()} cores"
