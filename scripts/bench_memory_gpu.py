"""Compare the memory estimate of `cost.count` with what a GPU allocates at its peak, in float32.

Training is a step of AdamW. What is measured has the workspace of the convolution library in it,
which the estimate leaves out.

    python scripts/bench_memory_gpu.py --batch 32
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

import bench_memory

from nas.cost import FLOAT_BYTES, count
from nas.errors import NasError
from nas.load import load_arch
from nas.model import Model
from nas.verbs.bench import bench

Peaks = dict[str, dict[str, int]]  # inference, training -> measured, estimate: bytes


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--archs", default=bench_memory.NETS)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1; cpu: activations only")
    parser.add_argument("--json", action="store_true", help="print JSON, a line for each arch")
    given = parser.parse_args(arguments)
    if not given.json:
        print(
            "| arch | inference, MiB | estimate | training, MiB | estimate |\n|---|---|---|---|---|"
        )
    for name in given.archs.split(","):
        found = row(name, given.batch, given.device)
        print(json.dumps(found) if given.json else shown(found), flush=True)


def row(name: str, batch: int, device: str) -> dict[str, Any]:
    """Return the peaks of an arch; one that fails has none, and a reason."""
    peaks, reason = {}, ""
    try:
        peaks = peaks_on_cpu(name, batch) if device == "cpu" else peaks_on_gpu(name, batch, device)
    except (NasError, RuntimeError, MemoryError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
    return {"arch": name, "batch": batch, "device": device, "peaks": peaks, "reason": reason}


def peaks_on_gpu(name: str, batch: int, device: str) -> Peaks:
    options = {"seconds": 1.0}  # of the latency, which is not what is asked
    found: Peaks = bench(name, device=device, batch=batch, memory=True, options=options)["memory"]
    return found


def peaks_on_cpu(name: str, batch: int) -> Peaks:
    """Return what torch allocates on the way: a rehearsal, without the library of a GPU.

    Inference is of one image; training is what twice the batch takes more than the batch.
    """
    arch = load_arch(name)
    shape, found = (arch.in_channels, arch.resolution, arch.resolution), count(arch)
    weights = FLOAT_BYTES * (found.params + found.buffers)
    forward = weights + bench_memory.inference_peak(Model(arch), shape)
    once, twice = (bench_memory.training_peak(Model(arch), b, shape) for b in (batch, 2 * batch))
    return {
        "inference": {"measured": forward, "estimate": found.inference_bytes},
        "training": {
            "measured": twice - once,
            "estimate": batch * found.training_bytes_per_image,
        },
    }


def shown(row: Mapping[str, Any]) -> str:
    """Return one line of the table: measured, and the estimate's error."""
    if row["reason"]:
        return f"| {row['arch']} | {row['reason']} | | | |"
    pairs = [(peak["measured"], peak["estimate"]) for peak in row["peaks"].values()]
    cells = [f"{real / 2**20:,.1f} | {guess / real - 1:+.1%}" for real, guess in pairs]
    return f"| {row['arch']} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
