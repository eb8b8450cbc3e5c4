"""Compare the memory estimate of `cost.count` with what a built model really allocates, in float32.

On a CPU every storage that torch allocates is followed until it is freed: the peak of inference on
one image, and by how much twice the batch raises the peak of training. On a GPU it is the peak of
the batch in inference and in a step of AdamW, which has the workspace of the convolution library in
it, that the estimate leaves out.

    python scripts/bench_memory.py
    python scripts/bench_memory.py --device cuda --batch 32
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lib import flags, tables
from torch.utils._python_dispatch import TorchDispatchMode

from nas.core.errors import NasError, first_line
from nas.hardware.bench import bench
from nas.models.build import Model
from nas.models.cost import FLOAT_BYTES, count
from nas.models.load import load_arch

NETS = (
    "efficientnet_b0,efficientnet_b2,efficientnet_v2_b0,mnasnet_a1,mobilenet_v2,"
    "mobilenet_v3_large,resnet18,resnet50"
)
Peaks = dict[str, dict[str, int]]  # inference, training -> measured, estimate: bytes


class Peak(TorchDispatchMode):
    """Follows the bytes of every storage made inside; `most` is the most alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self._alive: dict[int, int] = {}
        self._now = self.most = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = op(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, list | tuple) else (out,):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage.data_ptr(), storage.nbytes()
        if size and key not in self._alive:
            self._alive[key] = size
            self._now += size
            self.most = max(self.most, self._now)
            weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self._now -= self._alive.pop(key, 0)


@flags.in_one_line
def main(words: Sequence[str] | None) -> None:
    parser = flags.parser(__doc__)
    parser.add_argument("--archs", default=NETS)
    parser.add_argument("--batch", type=flags.positive, default=4, help="of training (4)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    parser.add_argument("--json", action="store_true", help="print JSON, a line for each arch")
    given = parser.parse_args(words)
    if not given.json:
        each = " an image" if given.device == "cpu" else ""
        heads = ("inference, MiB", "estimate", f"training, MiB{each}", "estimate")
        print(tables.markdown(["arch", *heads]))
    for name in given.archs.split(","):
        found = row(name, given.batch, given.device)
        print(json.dumps(found) if given.json else shown(found), flush=True)


def row(name: str, batch: int, device: str) -> dict[str, Any]:
    """Return the peaks of an arch; one that fails has none, and a reason."""
    peaks, reason = {}, ""
    try:
        peaks = peaks_on_cpu(name, batch) if device == "cpu" else peaks_on_gpu(name, batch, device)
    except (NasError, RuntimeError, MemoryError) as error:
        reason = first_line(error)
    return {"arch": name, "batch": batch, "device": device, "peaks": peaks, "reason": reason}


def peaks_on_gpu(name: str, batch: int, device: str) -> Peaks:
    options = {"seconds": 1.0}  # of the latency, which is not what is asked
    found: Peaks = bench(name, device=device, batch=batch, memory=True, options=options)["memory"]
    return found


def peaks_on_cpu(name: str, batch: int) -> Peaks:
    """Return the peak of inference on one image, and how much more training takes for the batch."""
    arch = load_arch(name)
    shape, found = (arch.in_channels, arch.resolution, arch.resolution), count(arch)
    weights = FLOAT_BYTES * (found.params + found.buffers)
    once, twice = (training_peak(Model(arch), b, shape) for b in (batch, 2 * batch))
    each = found.training_bytes_per_image
    return {
        "inference": {
            "measured": weights + inference_peak(Model(arch), shape),
            "estimate": found.inference_bytes,
        },
        "training": {"measured": twice - once, "estimate": batch * each},
    }


def inference_peak(model: Model, shape: tuple[int, ...]) -> int:
    image = torch.randn(1, *shape)
    with torch.inference_mode(), Peak() as peak:
        model.eval()(image)
    return peak.most + image.nbytes


def training_peak(model: Model, batch: int, shape: tuple[int, ...]) -> int:
    images = torch.randn(batch, *shape)
    with Peak() as peak:
        model.train()(images).sum().backward()
    return peak.most + images.nbytes


def shown(row: Mapping[str, Any]) -> str:
    """Return one line of the table: measured, and the estimate's error."""
    if row["reason"]:
        return tables.line([row["arch"], row["reason"], "", "", ""])
    cells = [row["arch"]]
    for what, peak in row["peaks"].items():
        images = row["batch"] if (what, row["device"]) == ("training", "cpu") else 1
        gap = peak["estimate"] / peak["measured"] - 1
        cells += [f"{peak['measured'] / images / 2**20:,.1f}", f"{gap:+.1%}"]
    return tables.line(cells)


if __name__ == "__main__":
    main()
