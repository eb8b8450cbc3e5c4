"""How many trainings a device should do at once: measured, as small networks do not fill one."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from nas.core import registry
from nas.core.errors import NasError, OptionError
from nas.interfaces import TRAINING_FLOPS, EvaluatorSpec, Executor, Task
from nas.models.arch import Arch

GAIN = 1.1  # what one more doubling must bring, to be worth its memory
MOST = 16


def trainings_at_once(
    asked: str, spec: EvaluatorSpec, arch: Arch, say: Callable[[str], None]
) -> int:
    """Return the number of worker processes for a `--trials-per-device` of N or auto.

    auto trains `arch` for one epoch in 1, 2, 4, ... processes, and stops where twice as many
    bring less than a tenth more, or fail. N counts for each GPU; without one, for the CPU.

    Raises:
        OptionError: it is neither a positive number nor auto.
        NasError: not even one training works; the message gives the reason.
    """
    from nas.core.system import processors

    check_asked(asked)
    devices = _devices()
    if asked != "auto":
        return int(asked) * devices
    most = MOST if _gpus() else processors()
    best, speed = 1, _speed(spec, arch, devices)
    say(f"1 training a device: {_shown(speed)}")
    while 2 * best <= most:
        try:
            faster = _speed(spec, arch, 2 * best * devices)
        except NasError as error:
            say(f"{2 * best} trainings a device: {error}")
            break
        say(f"{2 * best} trainings a device: {_shown(faster)}")
        if faster < GAIN * speed:
            break
        best, speed = 2 * best, faster
    return best * devices


def check_asked(asked: str) -> None:
    """Do nothing if this can be asked for.

    Raises:
        OptionError: it is neither a positive number nor auto.
    """
    if asked != "auto" and (not asked.isdecimal() or int(asked) < 1):
        raise OptionError(f"--trials-per-device takes a number from 1 or auto, not {asked!r}")


def _speed(spec: EvaluatorSpec, arch: Arch, workers: int) -> float:
    """Return the multiply-adds a second of `workers` trainings at once, after one to warm up."""
    executor = registry.make("executors", "local", spec, options={}, workers=workers)
    with tempfile.TemporaryDirectory() as folder:
        try:
            _round(executor, arch, Path(folder), 0)
            start = time.perf_counter()
            done = _round(executor, arch, Path(folder), workers)
            return done / (time.perf_counter() - start)
        finally:
            executor.close()


def _round(executor: Executor, arch: Arch, folder: Path, first: int) -> float:
    """Train one epoch in every worker; return the multiply-adds of all."""
    for number in range(first, first + executor.slots):
        place = str(folder / str(number))
        executor.submit(Task(number, arch.to_dict(), seed=number, epochs=1, folder=place))
    total, left = 0.0, executor.slots
    while left:
        for outcome in executor.wait():
            if outcome.error:
                raise NasError(outcome.error)
            total += outcome.metrics[TRAINING_FLOPS]
            left -= 1
    return total


def _devices() -> int:
    return max(1, _gpus())


def _gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _shown(speed: float) -> str:
    return f"{speed / 1e9:.3g} G multiply-adds a second"
