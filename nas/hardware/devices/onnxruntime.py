"""This machine's CPU with onnxruntime: the arch exported to ONNX, one pinned thread.

The export is torch's own (`dynamo=True`) and takes most of the time: some 2 to 10 seconds an arch.
Its answer is compared with torch's before anything is timed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nas.core.errors import NasError
from nas.hardware import measurement
from nas.hardware.timing import steady_measure
from nas.interfaces import Timing
from nas.models.arch import Arch
from nas.models.build import Model
from nas.models.onnx_graph import OPSET, graph, need, session

# of the largest logit, or of 1
MOST_DIFFERENCE = 1e-3


def make(
    *,
    batch: int = 1,
    threads: int = 1,
    runs: int = 100,
    seconds: float = 3.0,
    clock: str = "wall",
) -> OnnxRuntime:
    """Return onnxruntime on the CPU as a device.

    Options:
        batch: images at once; the time is the whole batch's.
        threads: of onnxruntime inside one layer.
        runs: timed runs of a round at least; there are two to four rounds.
        seconds: for the warm-up and all rounds together, at most; the export comes on top.
        clock: wall, or cpu: the processor time of the thread, for a machine that others use too.

    Raises:
        OptionError: an option is out of its range.
        MissingError: onnxruntime, onnx or onnxscript is not installed.
    """
    measurement.check(batch=batch, threads=threads, runs=runs, seconds=seconds, clock=clock)
    need("device onnxruntime")
    import onnxruntime

    version = onnxruntime.__version__
    name = f"{measurement.processor()}, onnxruntime {version}, threads {threads}, batch {batch}"
    name += ", processor time" if clock == "cpu" else ""
    fingerprint = f"onnxruntime: {name}, torch {torch.__version__}, opset {OPSET} float32"
    return OnnxRuntime(f"CPU {name}", fingerprint, batch, threads, runs, seconds, clock)


@dataclass(frozen=True)
class OnnxRuntime:
    """The CPU of this machine, with onnxruntime."""

    title: str
    fingerprint: str
    batch: int
    threads: int
    runs: int
    seconds: float
    clock: str = "wall"

    def measure(self, arch: Arch) -> Timing:
        measurement.check_memory(arch, self.batch)
        with measurement.quiet(1):
            model, x = measurement.subject(arch, self.batch)
        data = graph(model, x)
        with measurement.quiet(self.threads) as notes:
            ready = session(data, self.threads)
            feed = {ready.get_inputs()[0].name: x.numpy()}
            note = _compared(model, x, ready.run(None, feed)[0])
            return steady_measure(
                measurement.stopwatch(lambda: ready.run(None, feed), self.clock),
                batch=self.batch,
                runs=self.runs,
                seconds=self.seconds,
                # several threads may well wait for each other
                busy=time.thread_time if self.threads == 1 else None,
                notes=(*notes, note),
            )


def _compared(model: Model, x: Tensor, found: Any) -> str:
    """Return a note of how far onnxruntime's logits are from torch's.

    Raises:
        NasError: so far that it is another network.
    """
    with torch.inference_mode():
        expected = model(x)
    difference = float((torch.from_numpy(found) - expected).abs().max())
    largest = float(expected.abs().max())
    if not difference <= MOST_DIFFERENCE * max(1.0, largest):
        raise NasError(
            f"{model.arch.name} ({model.arch.id}) answers otherwise in onnxruntime than in torch: "
            f"logits up to {largest:.3g} differ by up to {difference:.3g}"
        )
    return f"exported; logits differ from torch's by at most {difference:.1e} of {largest:.3g}"
