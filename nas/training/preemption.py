"""A notice that this process is to end (SIGTERM): a training makes a checkpoint first, at once.

An epoch may take 20 minutes, and a machine that is taken back leaves half a minute; so the notice
is heard between two optimiser steps, or two batches of a validation.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from nas.training import distributed

CODE = 128 + signal.SIGTERM  # what a shell says of a process that SIGTERM has ended
_Batch = TypeVar("_Batch")


class Preempted(SystemExit):
    """A training has stopped for a notice; the text says where.

    No failure, so no `except Exception` takes it for one: uncaught it ends the process.
    """

    def __init__(self, text: str = "stopped by SIGTERM") -> None:
        super().__init__(CODE)
        self.text = text

    def __str__(self) -> str:
        return self.text


@dataclass
class Part:
    """What of an epoch is done. `loss` () float32 is the sum over `images` so far, on the device.

    `kept`: the steps that the checkpoint has. `random`: of it, the states of torch's generators.
    """

    loss: Tensor
    steps: int = 0
    images: int = 0
    seconds: float = 0.0
    kept: int = 0
    random: dict[str, Tensor] = field(default_factory=dict)

    def state(self, device: str) -> dict[str, Any]:
        """Return what a checkpoint holds of it, with torch's generators as they are now."""
        sums = {"steps": self.steps, "images": self.images, "seconds": self.seconds}
        return {**sums, "loss": self.loss.cpu(), "random": random_states(device)}


def start_part(device: str, state: dict[str, Any] | None = None) -> Part:
    """Return an epoch before its first step, or as the checkpoint of its middle has it.

    Of several processes the first alone takes over the sums: all of them are added up later.
    """
    part = Part(torch.zeros((), device=device))
    if state:
        part.steps = part.kept = state["steps"]
        if distributed.rank() == 0:
            part.loss += state["loss"].to(device)
            part.images, part.random = state["images"], state["random"]
        part.seconds = state["seconds"]
    return part


def random_states(device: str) -> dict[str, Tensor]:
    """Return the states of torch's generators that a training on a device draws from."""
    found = {"cpu": torch.get_rng_state()}
    kind = device.partition(":")[0]
    if kind == "cuda":
        found[kind] = torch.cuda.get_rng_state(device)
    elif kind == "mps":
        found[kind] = torch.mps.get_rng_state()
    return found


def set_random_states(states: dict[str, Tensor], device: str) -> None:
    """Have torch's generators go on from these states, as far as they are this device's."""
    kind = device.partition(":")[0]
    if "cpu" in states:
        torch.set_rng_state(states["cpu"])
    if kind == "cuda" and kind in states:
        torch.cuda.set_rng_state(states[kind], device)
    elif kind == "mps" and kind in states:
        torch.mps.set_rng_state(states[kind])


@dataclass
class Notice:
    """Whether this process was told to end."""

    asked: bool = False

    def until(self, batches: Iterable[_Batch]) -> Iterator[_Batch]:
        """Yield batches up to the notice.

        Raises:
            Preempted: it has come, and what was done with the last batch is whole.
        """
        rest = iter(batches)
        while True:
            self.check()
            try:
                batch = next(rest)
            except StopIteration:
                return
            except Exception:
                self.check()  # whoever reads the images may have had the notice, too
                raise
            self.check()
            yield batch

    def check(self) -> None:
        """Do nothing if there was none.

        Raises:
            Preempted: there was one.
        """
        if self.asked:
            raise Preempted


@contextlib.contextmanager
def noticed() -> Iterator[Notice]:
    """Hear SIGTERM instead of what it did before, which it does again afterwards.

    One that comes too late for the body is passed on. Where several processes train together, in
    a thread, and where SIGTERM is ignored, none is heard.
    """
    notice = Notice()
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or distributed.world() > 1 or signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:
        yield notice
        return

    def hear(number: int, frame: Any) -> None:
        notice.asked = True

    before = signal.signal(signal.SIGTERM, hear)
    obeyed = False
    try:
        yield notice
    except Preempted:
        obeyed = True
        raise
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
        if notice.asked and not obeyed:
            signal.raise_signal(signal.SIGTERM)
