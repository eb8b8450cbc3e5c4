"""No device: a latency computed from the FLOPs, for tests and dry runs. Nothing is measured.

Equal archs have equal times on every machine, at once, and without loading torch. What makes real
devices differ from FLOPs (memory, kernel launches, depthwise layers) is not in it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from nas.core.errors import OptionError
from nas.hardware.timing import summarise
from nas.interfaces import Timing
from nas.models.arch import Arch
from nas.models.cost import count


def make(*, batch: int = 1, gflops: float = 10.0, layer_ms: float = 0.05) -> Fake:
    """Return the fake device.

    Options:
        batch: images at once.
        gflops: billions of multiply-adds that it does in a second.
        layer_ms: what every block takes besides, in ms.

    Raises:
        OptionError: an option is out of its range.
    """
    if batch < 1:
        raise OptionError(f"batch must be at least 1 image, not {batch}")
    if not (gflops > 0 and layer_ms >= 0):
        raise OptionError(f"gflops must be positive, layer_ms not negative: {gflops}, {layer_ms}")
    rule = f"{gflops:g} G multiply-adds/s + {layer_ms:g} ms a block, batch {batch}"
    return Fake(f"fake: computed, {rule}", f"fake: {rule}", batch, gflops, layer_ms)


@dataclass(frozen=True)
class Fake:
    """A device whose latencies are computed from the FLOPs."""

    title: str
    fingerprint: str
    batch: int
    gflops: float
    layer_ms: float

    def measure(self, arch: Arch) -> Timing:
        flops = self.batch * count(arch).flops
        time_ms = flops / self.gflops / 1e6 + self.layer_ms * len(arch.blocks())
        computed = summarise([time_ms], self.batch, notes=("computed from the FLOPs: no run",))
        return dataclasses.replace(computed, n=0)
