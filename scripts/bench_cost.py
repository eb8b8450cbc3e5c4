"""Time `cost.count` against torch's FlopCounterMode and thop on the same archs, as ratios.

python scripts/bench_cost.py
"""

from __future__ import annotations

import copy
import statistics
import time
import warnings
from collections.abc import Callable, Sequence

import torch
from lib import flags
from lib.tables import line, markdown
from torch.utils.flop_counter import FlopCounterMode

from nas.models import cost
from nas.models.build import build_model
from nas.models.load import load_arch

with warnings.catch_warnings():
    # thop asks setuptools for distutils, which warns that it is old
    warnings.simplefilter("ignore", DeprecationWarning)
    import thop


@flags.in_one_line
def main(words: Sequence[str] | None) -> None:
    parser = flags.parser(__doc__)
    parser.add_argument("--archs", default="efficientnet_b0,efficientnet_b4,resnet50")
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args(words)
    torch.set_num_threads(1)
    heads = ("count µs, seen blocks", "count µs, new blocks", "torch's counter", "thop")
    print(markdown(["arch", *heads]))
    for name in given.archs.split(","):
        print(row(name, given.repeats))


def row(name: str, repeats: int) -> str:
    """Return one line: our time, and the others' as multiples of it, median of `repeats`."""
    arch = load_arch(name)
    model = build_model(arch).eval()
    image = torch.zeros(1, 3, arch.resolution, arch.resolution)

    def torch_count() -> None:
        with torch.inference_mode(), FlopCounterMode(display=False):
            model(image)

    def thop_count() -> None:
        with torch.inference_mode():
            thop.profile(copy.deepcopy(model), (image,), verbose=False)

    warm = seconds(lambda: cost.count(arch), repeats, inner=200)
    cold = seconds(lambda: cold_count(arch), repeats, inner=20)
    others = [seconds(call, repeats) for call in (torch_count, thop_count)]
    ratios = [f"{other / warm:,.0f}×" for other in others]
    return line([name, f"{warm * 1e6:.0f}", f"{cold * 1e6:.0f}", *ratios])


def cold_count(arch: cost.Arch) -> None:
    cost._counter.cache_clear()
    cost.count(arch)


def seconds(call: Callable[[], object], repeats: int, inner: int = 1) -> float:
    """Return the median time of one call."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(inner):
            call()
        times.append((time.perf_counter() - start) / inner)
    return statistics.median(times)


if __name__ == "__main__":
    main()
