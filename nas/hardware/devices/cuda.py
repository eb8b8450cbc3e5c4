"""A CUDA device with torch as it is: eager, channels_last, timed by events on the device."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nas.core.errors import NasError
from nas.hardware import measurement
from nas.hardware.timing import Once, steady_measure
from nas.hardware.torch_device import torch_device
from nas.interfaces import Timing
from nas.models.arch import Arch

# the first step makes the optimiser's moments, so that the second is like all later ones
_STEPS = 2


def make(
    *, index: int = 0, batch: int = 1, bf16: bool = False, runs: int = 100, seconds: float = 3.0
) -> Cuda:
    """Return a CUDA device.

    Options:
        index: of the device, as in cuda:1.
        batch: images at once; the time is the whole batch's. At small batches it is the time the
            CPU takes to start the layers one by one.
        bf16: weights and images in bfloat16 instead of float32 (TF32 where torch allows it).
        runs: timed runs of a round at least; there are two to four rounds.
        seconds: for the warm-up and all rounds together, at most.

    Raises:
        OptionError: there is no such device here, or an option is out of its range.
    """
    measurement.check(batch=batch, runs=runs, seconds=seconds)
    card = _card(index)
    precision = "bfloat16" if bf16 else "float32"
    name = f"{card}, torch {torch.__version__}, {precision}, batch {batch}"
    tf32 = torch.backends.cudnn.allow_tf32
    fingerprint = f"cuda: {name}, CUDA {torch.version.cuda}, TF32 {tf32}, eager channels_last"
    device = torch.device("cuda", index)
    dtype = torch.bfloat16 if bf16 else torch.float32
    return Cuda(f"CUDA {name}", fingerprint, device, batch, dtype, runs, seconds)


@dataclass(frozen=True)
class Cuda:
    """A CUDA device, with torch in eager mode."""

    title: str
    fingerprint: str
    device: torch.device
    batch: int
    dtype: torch.dtype
    runs: int
    seconds: float

    def measure(self, arch: Arch) -> Timing:
        with measurement.quiet(1) as notes, self._borrowed(), torch.inference_mode():
            model, x = self._subject(arch)
            return steady_measure(
                _event_clock(lambda: model(x)),
                batch=self.batch,
                runs=self.runs,
                seconds=self.seconds,
                notes=notes,
            )

    def memory(self, arch: Arch) -> dict[str, int]:
        """Return the peak bytes of `inference` and of one step of `training`, at this batch.

        Only what this call allocates counts: weights, images, activations, gradients, the two
        moments of AdamW, and the workspace of the convolution library. Training under `bf16` is
        autocast, with weights in float32.

        Raises:
            NasError: the device runs out of memory.
        """
        with self._borrowed():
            inference = self._peak(lambda: self._infer(arch))
        with self._borrowed():
            return {"inference": inference, "training": self._peak(lambda: self._train(arch))}

    def _subject(self, arch: Arch, dtype: torch.dtype | None = None) -> tuple[nn.Module, Tensor]:
        model, x = measurement.subject(arch, self.batch)
        kind = dtype or self.dtype
        return model.to(self.device, kind), x.to(self.device, kind)

    def _infer(self, arch: Arch) -> None:
        model, x = self._subject(arch)
        with torch.inference_mode():
            for _ in range(_STEPS):
                model(x)

    def _train(self, arch: Arch) -> None:
        model, x = self._subject(arch, torch.float32)
        model.train()
        labels = torch.zeros(self.batch, dtype=torch.long, device=self.device)
        # the other implementations hold copies of all weights during the step
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        for _ in range(_STEPS):
            with torch.autocast("cuda", torch.bfloat16, enabled=self.dtype == torch.bfloat16):
                loss = nn.functional.cross_entropy(model(x), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()

    def _peak(self, call: Callable[[], None]) -> int:
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        call()
        return torch.cuda.max_memory_allocated(self.device) - before

    @contextlib.contextmanager
    def _borrowed(self) -> Iterator[None]:
        """Use the device with the fastest kernels for each shape; give its memory back.

        Raises:
            NasError: it runs out of memory.
        """
        chosen = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = True
        # dropout and stochastic depth of a training step draw on the device
        state = torch.cuda.get_rng_state(self.device)
        try:
            with torch.cuda.device(self.device):
                yield
        except torch.OutOfMemoryError as error:
            raise NasError(
                f"{self.title} runs out of memory at batch {self.batch}: use a smaller batch"
            ) from error
        finally:
            torch.cuda.set_rng_state(state, self.device)
            torch.backends.cudnn.benchmark = chosen
            torch.cuda.empty_cache()


def _event_clock(call: Callable[[], object]) -> Once:
    """Return a function that runs the call and returns its time on the device in ms."""
    first: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    last: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]

    def once() -> float:
        first.record()
        call()
        last.record()
        last.synchronize()
        return float(first.elapsed_time(last))

    return once


def _card(index: int) -> str:
    """Return the name and memory of a CUDA device.

    Raises:
        OptionError: there is none of that number.
    """
    torch_device(f"cuda:{index}")
    found = torch.cuda.get_device_properties(index)
    return f"{found.name} {round(found.total_memory / 2**30)} GiB"
