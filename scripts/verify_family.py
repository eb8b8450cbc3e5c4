"""Build every member of a family and train it a step at its own resolution; compare its memory.

Each member has a process of its own. A step is forward, backward and AdamW, in float32; the peak is
that of the second step, when the moments exist. On a CPU it is what the process grew by, on CUDA
torch.cuda.max_memory_allocated; beside it stands the estimate of `cost.count`. The exit code is 1
if a member fails or its estimate is off by more than 15 %.

    python scripts/verify_family.py
    python scripts/verify_family.py --device cuda --batch 32
    python scripts/verify_family.py runs/search/search --phi 1..3 --rule formula
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paper_table
import torch
from torch import Tensor, nn

from nas import compound, cost
from nas.arch import Arch
from nas.errors import NasError, OptionError
from nas.load import load_arch
from nas.machines import rig
from nas.machines.hardware import torch_device
from nas.model import Model
from nas.units import format_bytes, parse_phis

TOLERANCE = 0.15
STEPS = 2  # the moments of AdamW exist from the second on
TIMED = 10  # more steps on a GPU, for the images a second
# glibc keeps what is freed below this size for later, which is no need of the net's
FREED_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
COLUMNS = (
    *("member", "pixels", "batch", "params", "flops", "estimate", "measured", "difference"),
    *("seconds", "images_per_second", "reason"),
)


def main(arguments: list[str] | None = None) -> int:
    given = parse(arguments)
    try:
        given.device = torch_device(given.device)
        if given.device == "mps":
            raise OptionError("--device takes cpu or cuda: an Apple GPU tells no peak; name cpu")
        if given.one:
            print(json.dumps(measure(json.loads(sys.stdin.read()), given.batch, given.device)))
            return 0
        rows = verify(given)
    except NasError as error:
        raise SystemExit(f"verify_family: {error}") from None
    try:
        if given.out:
            paper_table.write(given.out, COLUMNS, [[row[name] for name in COLUMNS] for row in rows])
    finally:  # if it cannot be written, too
        print(json.dumps(rows) if given.json else table(rows, given))
    return 0 if all(good(row) for row in rows) else 1


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = paper_table.parser(__doc__)
    parser.add_argument("base", nargs="?", default="efficientnet_b0", help="default %(default)s")
    parser.add_argument("--phi", default="0..7", help="members, default %(default)s")
    parser.add_argument("--rule", default="released", help=", ".join(compound.RULES))
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    parser.add_argument("--batch", type=int, default=1, help="images of a step")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def verify(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Return one row for each member.

    Raises:
        OptionError: no such base, rule, phi or device, or a batch below 1.
    """
    if given.batch < 1:
        raise OptionError(f"--batch takes a whole number of at least 1, not {given.batch}")
    phis = parse_phis(given.phi)
    rows = []
    for member in compound.family(load_arch(given.base), phis, rule=given.rule):
        row = verified(member, given.batch, given.device)
        rows.append(row)
        if not given.json:
            print(line(row), file=sys.stderr, flush=True)
    return rows


def verified(member: compound.Member, batch: int, device: str) -> dict[str, Any]:
    """Return one row: what a member costs, its estimate, and what a process of its own measured."""
    found = cost.count(member.arch)
    estimate = found.training_bytes + batch * found.training_bytes_per_image
    row: dict[str, Any] = dict.fromkeys(COLUMNS) | {
        "member": member.name,
        "pixels": member.arch.resolution,
        "batch": batch,
        "params": found.params,
        "flops": found.flops,
        "estimate": estimate,
        "reason": "",
    }
    free = free_memory(device)
    if free is not None and estimate > free:
        fits = max(0, (free - found.training_bytes) // found.training_bytes_per_image)
        needs = f"needs about {format_bytes(estimate)}, {format_bytes(free)} are free"
        would = f"a batch of {fits} would fit" if fits else "not even one image fits"
        return row | {"reason": f"{needs}: {would}"}
    row |= apart(member.arch, batch, device)
    if row["measured"]:
        row["difference"] = estimate / row["measured"] - 1
    return row


def free_memory(device: str) -> int | None:
    """Return the free bytes of a device; None where the system does not tell."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    return rig.free_memory()


def apart(arch: Arch, batch: int, device: str) -> dict[str, Any]:
    """Return what `measure` returns in a fresh process, or the reason why it returned nothing."""
    command = [sys.executable, __file__, "--one", "--batch", str(batch), "--device", device]
    root = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        command,
        input=json.dumps(arch.to_dict()),
        capture_output=True,
        text=True,
        env=os.environ | FREED_AT_ONCE | {"PYTHONPATH": path},
    )
    if done.returncode == 0:
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result
    said = done.stderr.strip().splitlines() or [f"its process ended with {done.returncode}"]
    return {"reason": said[-1].removeprefix("verify_family: ")}


def measure(data: dict[str, Any], batch: int, device: str) -> dict[str, Any]:
    """Train an arch some steps in this process; return its peak in bytes, seconds and speed.

    Raises:
        NasError: a parameter got no gradient, or one that is not finite.
    """
    torch.set_num_threads(1 if device == "cpu" else torch.get_num_threads())
    arch = Arch.from_dict(data)
    begin, peak = cpu_peak() if device == "cpu" else cuda_peak(device)
    trained(_warm_up_arch(), 2, device)  # what libraries take once is not the net's
    before = begin()
    start = time.perf_counter()
    step = trained(arch, batch, device)
    grown, seconds = peak() - before, time.perf_counter() - start
    speed = None if device == "cpu" else timed(step, batch, device)
    return {"measured": grown, "seconds": round(seconds, 2), "images_per_second": speed}


def trained(arch: Arch, batch: int, device: str) -> Callable[[], None]:
    """Build an arch, train it some steps, check the gradients; return what takes another step."""
    model = Model(arch).to(device).train()
    side = (arch.in_channels, arch.resolution, arch.resolution)
    x = torch.randn(batch, *side, device=device)
    labels = torch.zeros(batch, dtype=torch.long, device=device)
    # the other implementations hold copies of all weights during the step
    kind = {"fused": True} if device != "cpu" else {"foreach": False}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, **kind)  # type: ignore[arg-type]

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()  # type: ignore[no-untyped-call]
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


def _warm_up_arch() -> Arch:
    base = load_arch("efficientnet_b0")
    return dataclasses.replace(base, stages=base.stages[:1], resolution=32)


def cpu_peak() -> tuple[Callable[[], int], Callable[[], int]]:
    """Return what begins to watch this process's memory, and what tells its peak."""

    def begin() -> int:
        gc.collect()
        try:
            Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
        except OSError as error:
            raise NasError(f"cannot watch the memory of a process: {error}") from error
        return _status("VmRSS")

    return begin, lambda: _status("VmHWM")


def _status(key: str) -> int:
    """Return a size in bytes from what Linux tells of this process.

    Raises:
        NasError: the system does not tell.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    raise NasError("the memory of a process is read from /proc/self/status, which Linux has")


def cuda_peak(device: str) -> tuple[Callable[[], int], Callable[[], int]]:
    """Return what begins to watch a GPU's memory, and what tells its peak."""

    def begin() -> int:
        torch.backends.cudnn.benchmark = True
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)

    return begin, lambda: torch.cuda.max_memory_allocated(device)


def timed(step: Callable[[], None], batch: int, device: str) -> float:
    """Return the images a second of some more steps."""
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(TIMED):
        step()
    torch.cuda.synchronize(device)
    return TIMED * batch / (time.perf_counter() - start)


def good(row: dict[str, Any]) -> bool:
    """Tell whether a member ran and its estimate is near enough."""
    gap = row["difference"]
    return gap is not None and math.isfinite(gap) and abs(gap) <= TOLERANCE


def line(row: dict[str, Any]) -> str:
    """Return one line of progress."""
    if row["reason"]:
        return f"{row['member']}: {row['reason']}"
    return f"{row['member']}: {row['difference']:+.1%} in {row['seconds']:.1f} s"


def table(rows: list[dict[str, Any]], given: argparse.Namespace) -> str:
    """Return the rows as a table in Markdown, and what the exit code says."""
    head = "| member | pixels | params | FLOPs | estimate, MiB | measured, MiB | difference |"
    speed = " seconds |" if given.device == "cpu" else " images a second |"
    lines = [head + speed, "|---" * 8 + "|"]
    lines += [_cells(row, given.device == "cpu") for row in rows]
    bad = [row["member"] for row in rows if not good(row)]
    verdict = f"off by more than {TOLERANCE:.0%} or not run: {', '.join(bad)}"
    lines.append("" if bad else f"\nall within {TOLERANCE:.0%}")
    return "\n".join([*lines, *([verdict] if bad else [])])


def _cells(row: dict[str, Any], seconds: bool) -> str:
    estimate = f"{row['estimate'] / 2**20:,.1f}"
    start = f"| {row['member']} | {row['pixels']} | {row['params']:,} | {row['flops'] / 1e9:.3f}G "
    if row["reason"]:
        return f"{start}| {estimate} | {row['reason']} | | |"
    speed = f"{row['seconds']:.1f}" if seconds else f"{row['images_per_second']:.1f}"
    measured = f"{row['measured'] / 2**20:,.1f}"
    return f"{start}| {estimate} | {measured} | {row['difference']:+.1%} | {speed} |"


if __name__ == "__main__":
    sys.exit(main())
