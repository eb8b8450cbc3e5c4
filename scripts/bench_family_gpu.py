"""Peak training memory and throughput of B0 to B7 on a GPU, the memory estimate beside.

    python scripts/bench_family_gpu.py --batch 64 --amp

Each net trains at its own resolution on random images: some steps of AdamW (fused), of which the
first two are not timed. Where a batch does not fit it is halved, and the table says which fitted.
The estimate is in float32, without what the convolution library takes. `--device cpu --archs ...
--batch 2` rehearses it: the bytes are then what torch allocates on the way.
`gpu_suite.py --parts family` runs it too.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import bench_memory
import torch
from torch import nn

from nas.cost import count
from nas.load import load_arch
from nas.model import Model
from nas.training.memory import is_out_of_memory

NETS = ",".join(f"efficientnet_b{number}" for number in range(8))
WARM_UP = 2


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--archs", default=NETS)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--amp", action="store_true", help="bfloat16 in the forward pass")
    parser.add_argument("--json", action="store_true", help="print JSON, a line for each arch")
    given = parser.parse_args(arguments)
    if not given.json:
        print(
            "| arch | pixels | batch | peak, MiB | estimate | images/s |\n|---|---|---|---|---|---|"
        )
    for name in given.archs.split(","):
        found = row(name, given.batch, given.steps, given.device, given.amp)
        print(json.dumps(found) if given.json else shown(found), flush=True)


def row(name: str, batch: int, steps: int, device: str, amp: bool) -> dict[str, Any]:
    """Return what a net takes at the largest of batch, batch / 2, ... that fits."""
    arch, cost = load_arch(name), count(load_arch(name))
    found: dict[str, Any] = {"arch": name, "pixels": arch.resolution, "device": device, "amp": amp}
    while batch:
        try:
            peak, seconds = trained(Model(arch), arch.resolution, batch, steps, device, amp)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            estimate = cost.training_bytes + batch * cost.training_bytes_per_image
            speed = batch * steps / seconds
            return found | {
                "batch": batch,
                "peak_bytes": peak,
                "estimate_bytes": estimate,
                "images_per_second": speed,
            }
        batch //= 2
        if device != "cpu":
            torch.cuda.empty_cache()
    return found | {"batch": 0, "reason": "not one image fits"}


def trained(
    model: Model, side: int, batch: int, steps: int, device: str, amp: bool
) -> tuple[int, float]:
    """Return the peak bytes of some training steps, and the seconds of all but the first two."""
    kind = device.partition(":")[0]
    net = model.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    x = torch.randn(batch, 3, side, side, device=device).to(memory_format=torch.channels_last)
    y = torch.zeros(batch, dtype=torch.long, device=device)
    optimizer = torch.optim.AdamW(net.parameters(), fused=kind == "cuda")

    def step() -> None:
        with torch.autocast(kind, torch.bfloat16, enabled=amp):
            loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    if kind == "cpu":
        return on_cpu(net, step, steps)
    torch.backends.cudnn.benchmark = True
    torch.cuda.reset_peak_memory_stats(device)
    seconds = timed(step, steps, lambda: torch.cuda.synchronize(device))
    return torch.cuda.max_memory_allocated(device), seconds


def on_cpu(net: nn.Module, step: Callable[[], None], steps: int) -> tuple[int, float]:
    """Return the same from torch's own allocations, with the weights that were there before."""
    before = sum(t.nbytes for t in (*net.parameters(), *net.buffers()))
    seconds = timed(step, steps, lambda: None)
    moments = 2 * sum(p.nbytes for p in net.parameters())
    with bench_memory.Peak() as peak:
        step()
    return before + moments + peak.most, seconds


def timed(step: Callable[[], None], steps: int, settle: Callable[[], None]) -> float:
    for _ in range(WARM_UP):
        step()
    settle()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    settle()
    return time.perf_counter() - start


def shown(found: Mapping[str, Any]) -> str:
    """Return one line of the table: measured, and the estimate's error."""
    start = f"| {found['arch']} | {found['pixels']} | {found['batch']}"
    if not found["batch"]:
        return f"{start} | {found['reason']} | | |"
    peak, guess = found["peak_bytes"], found["estimate_bytes"]
    speed = found["images_per_second"]
    return f"{start} | {peak / 2**20:,.1f} | {guess / peak - 1:+.1%} | {speed:,.1f} |"


if __name__ == "__main__":
    main()
