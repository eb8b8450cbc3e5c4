"""This machine's CPU with torch as it is: eager, float32, channels_last, one pinned thread."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from nas.hardware import measurement
from nas.hardware.timing import steady_measure
from nas.interfaces import Timing
from nas.models.arch import Arch


def make(
    *,
    batch: int = 1,
    threads: int = 1,
    runs: int = 100,
    seconds: float = 3.0,
    clock: str = "wall",
) -> Cpu:
    """Return the CPU as a device.

    Options:
        batch: images at once; the time is the whole batch's.
        threads: of torch. More than one make the number depend on what else runs: where a core is
            taken, the others spin and wait for it (measured: up to 20 times slower).
        runs: timed runs of a round at least; there are two to four rounds.
        seconds: for the warm-up and all rounds together, at most.
        clock: wall, or cpu: the processor time of the thread, for a machine that others use too.

    Raises:
        OptionError: an option is out of its range.
    """
    measurement.check(batch=batch, threads=threads, runs=runs, seconds=seconds, clock=clock)
    name = f"{measurement.processor()}, torch {torch.__version__}, threads {threads}, batch {batch}"
    name += ", processor time" if clock == "cpu" else ""
    fingerprint = f"cpu: {name}, eager float32 channels_last"
    return Cpu(f"CPU {name}", fingerprint, batch, threads, runs, seconds, clock)


@dataclass(frozen=True)
class Cpu:
    """The CPU of this machine, with torch in eager mode."""

    title: str
    fingerprint: str
    batch: int
    threads: int
    runs: int
    seconds: float
    clock: str = "wall"

    def measure(self, arch: Arch) -> Timing:
        measurement.check_memory(arch, self.batch)
        with measurement.quiet(self.threads) as notes, torch.inference_mode():
            model, x = measurement.subject(arch, self.batch)
            return steady_measure(
                measurement.stopwatch(lambda: model(x), self.clock),
                batch=self.batch,
                runs=self.runs,
                seconds=self.seconds,
                # several threads may well wait for each other
                busy=time.thread_time if self.threads == 1 else None,
                notes=notes,
            )
