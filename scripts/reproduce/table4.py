"""Reproduce the ratios of Table 4 of Tan and Le 2019: latency of an image on one CPU core.

Published: arXiv 1905.11946v5, Table 4: batch 1, one core of an Intel Xeon E5-2690, mean of 20 runs;
framework and resolutions are not told, the released ones (ResNet 224, B1 240, B7 600) are taken.
Seconds depend on the machine; the ratio is what can be compared. The nets take turns, round by
round, and each round has its ratio. GPipe's AmoebaNet-B stays open until cells can be built.

    python scripts/reproduce/table4.py --rounds 7
    python scripts/reproduce/table4.py --devices onnxruntime --rounds 5 --no-b7
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence

import paper_table
from paper_table import Figure

from nas.core import registry
from nas.core.errors import NasError
from nas.hardware.timing import load, quantile
from nas.interfaces import Device, Timing
from nas.models.arch import Arch
from nas.models.load import load_arch

PAIR = ("resnet152", "efficientnet_b1")
PUBLISHED = {"resnet152": "0.554", "efficientnet_b1": "0.098", "efficientnet_b7": "3.1"}
RATIO = "5.7x"
GPIPE = "GPipe AmoebaNet-B(18,512)"
OPEN = "open: cells that read the two maps before are not built yet"
NOTE = (
    "The paper's core is another one; its accuracies beside these are version 1's (B1 78.8, B7 "
    "84.4; version 5 has 79.1, 84.3). On many cores or a GPU the ratio is smaller."
)
Series = dict[str, list[Timing]]


def main(arguments: list[str] | None = None) -> None:
    given = parse(arguments)
    rows: list[Figure] = []
    try:
        names = given.devices.split(",")
        made = [registry.make("devices", name, options=options(name, given)) for name in names]
        for name, device in zip(names, made, strict=True):
            print(device.title, file=sys.stderr, flush=True)
            measure(name, device, given, rows)
    except NasError as error:
        raise SystemExit(f"table4: {error}") from None
    finally:
        if rows:  # of the devices before one that failed, too
            title = f"Table 4: one image on one core, seconds ({given.clock} clock); "
            paper_table.present(f"{title}load a core {load()}", rows, given.out, NOTE)


def measure(name: str, device: Device, given: argparse.Namespace, rows: list[Figure]) -> None:
    """Add the rows of a device; where B7 fails, those of the others."""
    series = race(device, [load_arch(net) for net in PAIR], given.rounds)
    try:
        if not given.no_b7:
            series |= race(device, [load_arch("efficientnet_b7")], 1)
    finally:
        rows += figures(name, series)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = paper_table.parser(__doc__)
    parser.add_argument("--devices", default="cpu,onnxruntime", help="default %(default)s")
    parser.add_argument("--rounds", type=positive, default=5, help="default %(default)s")
    seconds = "of one measurement at most, default %(default)s; an export comes on top"
    parser.add_argument("--seconds", type=float, default=10.0, help=seconds)
    clock = "cpu: the thread's processor time, for a machine that others use too"
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help=clock)
    parser.add_argument("--no-b7", action="store_true", help="leave out B7, the slowest")
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"takes a whole number from 1, not {text}")
    return int(text)


def options(name: str, given: argparse.Namespace) -> dict[str, object]:
    """Return the options of a device, of those that it has."""
    known = registry.option_defaults("devices", name)
    return {key: getattr(given, key) for key in ("seconds", "clock") if key in known}


def race(device: Device, archs: Sequence[Arch], rounds: int) -> Series:
    """Return a timing of each arch for each round; in every other round the order is reversed."""
    found: Series = {arch.name: [] for arch in archs}
    for number in range(rounds):
        for arch in reversed(archs) if number % 2 else archs:
            timing = device.measure(arch)
            found[arch.name].append(timing)
            unrest = f"unrest {timing.unrest:.0%}"
            told = (
                f"round {number + 1} of {rounds}: {arch.name} {timing.median_ms:.1f} ms, {unrest}"
            )
            print(told, file=sys.stderr, flush=True)
    return found


def figures(device: str, series: Mapping[str, Sequence[Timing]]) -> list[Figure]:
    """Return the rows of a device: latencies, the ratio of ResNet-152 to B1, and what is open."""
    rows = [latency(device, net, timings) for net, timings in series.items()]
    rows.insert(2, ratio(device, series))
    rows.append(Figure(GPIPE, device, "latency", "19.0", None, OPEN))
    rows.append(Figure(f"{GPIPE} / efficientnet_b7", device, "speed-up", "6.1x", None, OPEN))
    return rows


def latency(device: str, net: str, timings: Sequence[Timing]) -> Figure:
    """Return the median over the rounds, in seconds; the note has the spread."""
    medians = [timing.median_ms / 1000 for timing in timings]
    low = statistics.median(timing.p10_ms for timing in timings) / 1000
    high = statistics.median(timing.p90_ms for timing in timings) / 1000
    runs, restless = sum(timing.n for timing in timings), sum(not each.steady for each in timings)
    note = f"p10–p90 {low:.3f}–{high:.3f}; rounds {min(medians):.3f}–{max(medians):.3f}"
    note += f"; {len(timings)} round{'s' * (len(timings) > 1)}, {runs} runs"
    if restless:
        note += f"; {restless} of them unsteady by more than 10 %"
    return Figure(net, device, "latency", PUBLISHED[net], statistics.median(medians), note)


def ratio(device: str, series: Mapping[str, Sequence[Timing]]) -> Figure:
    """Return the median of the rounds' ratios; the note has their spread."""
    slow, fast = (series[net] for net in PAIR)
    pairs = zip(slow, fast, strict=True)
    found = sorted(one.median_ms / other.median_ms for one, other in pairs)
    note = f"by round {found[0]:.2f}–{found[-1]:.2f}, p10–p90 "
    note += f"{quantile(found, 0.1):.2f}–{quantile(found, 0.9):.2f}; printed 0.554 / 0.098 is 5.65"
    middle = statistics.median(found)
    return Figure(" / ".join(PAIR), device, "speed-up", RATIO, middle, note)


if __name__ == "__main__":
    main()
