"""Build every member of a family and train it a step at its own resolution; compare its memory.

A step is forward, backward and AdamW, in float32; the peak is that of the second step, when the
moments exist. On a CPU each member has a process of its own and the peak is what that grew by, on
CUDA it is torch.cuda.max_memory_allocated, and more steps tell the images a second. Beside it
stands the estimate of `cost.count`. With --amp the forward pass is in bfloat16, which the estimate
does not know; with --halve a batch that does not fit is halved until it does. The exit code is 1 if
a member fails or, without --amp, its estimate is off by more than 15 %.

    python scripts/verify_family.py
    python scripts/verify_family.py --device cuda --batch 64 --amp --halve
    python scripts/verify_family.py runs/search/search --phi 1..3 --rule formula
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lib import flags, tables
from lib.processes import alone
from torch import Tensor, nn

from nas.core import run_folder
from nas.core.errors import NasError, OptionError
from nas.core.units import format_bytes, parse_phis
from nas.hardware import facts, measurement
from nas.hardware.torch_device import torch_device
from nas.models import compound, cost
from nas.models.arch import Arch
from nas.models.build import Model
from nas.models.load import load_arch
from nas.training.memory import is_out_of_memory

TOLERANCE = 0.15
STEPS = 2  # the moments of AdamW exist from the second on
# glibc keeps what is freed below this size for later, which is no need of the net's
FREED_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
COLUMNS = (
    *("member", "pixels", "batch", "params", "flops", "estimate", "measured", "difference"),
    *("seconds", "images_per_second", "reason"),
)
Row = dict[str, Any]


@flags.in_one_line
def main(words: Sequence[str] | None) -> int:
    given = parse(words)
    given.device = torch_device(given.device)
    if given.device == "mps":
        raise OptionError("--device takes cpu or cuda: an Apple GPU tells no peak; name cpu")
    if given.one:
        print(json.dumps(measure(Arch.from_dict(json.loads(sys.stdin.read())), given)))
        return 0
    members = compound.family(load_arch(given.base), parse_phis(given.phi), rule=given.rule)
    rows = [verified(member, given) for member in members]
    if given.out:
        table = [[row[name] for name in COLUMNS] for row in rows]
        run_folder.write_csv(given.out, COLUMNS, table)
    if not given.json:
        bad = [row["member"] for row in rows if not good(row, given)]
        within = "all ran" if given.amp else f"all within {TOLERANCE:.0%}"
        print(f"off by more than {TOLERANCE:.0%} or not run: {', '.join(bad)}" if bad else within)
    return 0 if all(good(row, given) for row in rows) else 1


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = flags.parser(__doc__)
    parser.add_argument("base", nargs="?", default="efficientnet_b0", help="default %(default)s")
    parser.add_argument("--phi", default="0..7", help="members, default %(default)s")
    parser.add_argument("--rule", default="released", help=", ".join(compound.RULES))
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    parser.add_argument("--batch", type=flags.positive, default=1, help="images of a step")
    parser.add_argument("--amp", action="store_true", help="bfloat16 in the forward pass")
    parser.add_argument("--halve", action="store_true", help="the batch, until it fits")
    parser.add_argument("--steps", type=flags.positive, default=10, help="timed ones on a GPU")
    parser.add_argument("--out", type=Path, metavar="CSV")
    parser.add_argument("--json", action="store_true", help="print JSON, a line for each member")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    if not given.json and not given.one:
        heads = ("pixels", "batch", "params", "FLOPs", "estimate, MiB", "measured, MiB")
        print(tables.markdown(["member", *heads, "difference", "seconds", "images a second"]))
    return given


def verified(member: compound.ScaledArch, given: argparse.Namespace) -> Row:
    """Return what a member costs, its estimate, and what was measured; show it."""
    found, batch = cost.count(member.arch), given.batch
    while True:
        estimate = found.training_bytes + batch * found.training_bytes_per_image
        row: Row = dict.fromkeys(COLUMNS) | {
            "member": member.name,
            "pixels": member.arch.resolution,
            "batch": batch,
            "params": found.params,
            "flops": found.flops,
            "estimate": estimate,
            "reason": refusal(found, batch, given),
        }
        if not row["reason"]:
            row |= tried(member.arch, batch, given)
        if not (row["reason"] and given.halve and batch > 1):
            break
        batch //= 2
    if row["measured"]:
        row["difference"] = estimate / row["measured"] - 1
    print(json.dumps(row) if given.json else line(row), flush=True)
    return row


def refusal(found: cost.Cost, batch: int, given: argparse.Namespace) -> str:
    """Return why a float32 step is not tried on this device, or ""."""
    cuda = given.device.startswith("cuda")
    free = torch.cuda.mem_get_info(given.device)[0] if cuda else measurement.free_memory()
    needed = found.training_bytes + batch * found.training_bytes_per_image
    if free is None or needed <= free or given.amp:
        return ""
    fits = max(0, (free - found.training_bytes) // found.training_bytes_per_image)
    would = f"a batch of {fits} would fit" if fits else "not even one image fits"
    return f"needs about {format_bytes(needed)}, {format_bytes(free)} are free: {would}"


def tried(arch: Arch, batch: int, given: argparse.Namespace) -> Row:
    """Return what `measure` returns, or the reason why it returned nothing."""
    asked = argparse.Namespace(**{**vars(given), "batch": batch})
    if given.device == "cpu":
        return apart(arch, asked)
    try:
        return measure(arch, asked)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    torch.cuda.empty_cache()
    return {"reason": "out of memory"}


def apart(arch: Arch, given: argparse.Namespace) -> Row:
    """Return what `measure` returns in a fresh process, or the reason why it returned nothing."""
    words = ["--one", "--batch", str(given.batch), *(["--amp"] if given.amp else [])]
    return alone(__file__, words, json.dumps(arch.to_dict()), FREED_AT_ONCE)


def measure(arch: Arch, given: argparse.Namespace) -> Row:
    """Train an arch some steps in this process; return its peak in bytes, seconds and speed.

    Raises:
        NasError: a parameter got no gradient, or one that is not finite.
    """
    cpu = given.device == "cpu"
    torch.set_num_threads(1 if cpu else torch.get_num_threads())
    begin, peak = cpu_peak() if cpu else cuda_peak(given.device)
    base = load_arch("efficientnet_b0")
    warm_up = dataclasses.replace(base, stages=base.stages[:1], resolution=32)
    trained(warm_up, 2, given)  # what libraries take once is not the net's
    before = begin()
    start = time.perf_counter()
    step = trained(arch, given.batch, given)
    grown, seconds = peak() - before, time.perf_counter() - start
    speed = None if cpu else given.steps * given.batch / timed(step, given)
    return {"measured": grown, "seconds": round(seconds, 2), "images_per_second": speed}


def trained(arch: Arch, batch: int, given: argparse.Namespace) -> Callable[[], None]:
    """Build an arch, train it some steps, check the gradients; return what takes another step."""
    device, kind = given.device, given.device.partition(":")[0]
    # on a CPU it takes copies that the estimate does not know
    order = torch.contiguous_format if device == "cpu" else torch.channels_last
    model = Model(arch).to(device, memory_format=order).train()  # type: ignore[call-overload]
    side = (arch.in_channels, arch.resolution, arch.resolution)
    x = torch.randn(batch, *side, device=device).to(memory_format=order)
    labels = torch.zeros(batch, dtype=torch.long, device=device)
    # the other implementations hold copies of all weights during the step
    way = {"fused": True} if device != "cpu" else {"foreach": False}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, **way)  # type: ignore[arg-type]

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(kind, torch.bfloat16, enabled=given.amp):
            loss = nn.functional.cross_entropy(model(x), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    for _ in range(STEPS):
        step()
    check(model, x)
    return step


def check(model: Model, x: Tensor) -> None:
    """Check that what is built is what was counted, and that it learns.

    Raises:
        NasError: the parameters are not as many as counted, or one has no finite gradient.
    """
    counted, built = cost.count(model.arch).params, sum(p.numel() for p in model.parameters())
    if built != counted:
        raise NasError(f"{model.arch.name} has {built:,} parameters, {counted:,} were counted")
    for name, parameter in model.named_parameters():
        if parameter.grad is None or not torch.isfinite(parameter.grad).all():
            raise NasError(f"{model.arch.name}: no finite gradient for {name}")


def cpu_peak() -> tuple[Callable[[], int], Callable[[], int]]:
    """Return what begins to watch this process's memory, and what tells its peak."""

    def begin() -> int:
        gc.collect()
        held = facts.memory_from_here()
        if not held:
            raise NasError("the peak of a process is read from /proc/self, which Linux has")
        return held

    return begin, facts.peak_memory


def cuda_peak(device: str) -> tuple[Callable[[], int], Callable[[], int]]:
    """Return what begins to watch a GPU's memory, and what tells its peak."""

    def begin() -> int:
        gc.collect()
        torch.backends.cudnn.benchmark = True
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)

    return begin, lambda: torch.cuda.max_memory_allocated(device)


def timed(step: Callable[[], None], given: argparse.Namespace) -> float:
    """Return the seconds of some more steps."""
    torch.cuda.synchronize(given.device)
    start = time.perf_counter()
    for _ in range(given.steps):
        step()
    torch.cuda.synchronize(given.device)
    return time.perf_counter() - start


def good(row: Row, given: argparse.Namespace) -> bool:
    """Tell whether a member ran and its estimate is near enough."""
    gap = row["difference"]
    return gap is not None and math.isfinite(gap) and (given.amp or abs(gap) <= TOLERANCE)


def line(row: Row) -> str:
    """Return a row of the table."""
    cells = [row["member"], row["pixels"], row["batch"], f"{row['params']:,}"]
    cells += [f"{row['flops'] / 1e9:.3f}G", f"{row['estimate'] / 2**20:,.1f}"]
    if row["reason"]:
        return tables.line([*cells, row["reason"], "", "", ""])
    speed = "" if row["images_per_second"] is None else f"{row['images_per_second']:,.1f}"
    cells += [f"{row['measured'] / 2**20:,.1f}", f"{row['difference']:+.1%}"]
    return tables.line([*cells, f"{row['seconds']:.1f}", speed])


if __name__ == "__main__":
    sys.exit(main())
