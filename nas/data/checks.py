"""What doctor says of the facts it has: each finding with what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nas.core.units import format_bytes
from nas.data.dataset import some
from nas.data.pixels import MOST_BROKEN

LEVELS = ("error", "warning", "note")
# an image is elongated when it is over so many times as long as wide
ELONGATED = 3
# an image shows next to nothing where it has so few gray levels from the darkest to the lightest
FLAT_LEVELS = 16
_FEW_IMAGES = 10
_IMBALANCE = 10
_LOUD_POINTS = 1.0
_LOW_DISK = 2 << 30

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """`level`: error (nas will stop), warning (results suffer) or note. `advice`: what to do."""

    level: str
    finding: str
    advice: str


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings, the worst first."""
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def of_data(report: Facts, machine: Facts) -> Iterator[Finding]:
    """Yield what is remarkable in the report of doctor on a data set."""
    yield from _layout(report)
    yield from _broken(report)
    yield from _classes(report)
    yield from _noise(report)
    yield from _duplicates(report["duplicates"])
    yield from _kinds(report)
    yield from _depth(report)
    yield from _shapes(report)
    if report["suggestion"] is not None:
        yield from _room(report["suggestion"]["decoded_bytes"], machine)


def of_machine(machine: Facts) -> Iterator[Finding]:
    """Yield what is remarkable in the facts of `nas.hardware.facts`."""
    yield from _devices(machine)
    yield from _processors(machine)
    yield from _disks(machine)


def _broken(report: Facts) -> Iterator[Finding]:
    broken, total = report["broken"], report["images"]
    if not broken:
        return
    stops = len(broken) > MOST_BROKEN * total
    yield Finding(
        "error" if stops else "warning",
        f"{len(broken):,} of {total:,} images cannot be read: "
        + some([f"{found['name']}: {found['reason']}" for found in broken]),
        "repair or delete them: "
        + (f"above {MOST_BROKEN:.0%} nothing is trained" if stops else "they are left out"),
    )


def _layout(report: Facts) -> Iterator[Finding]:
    for warning in report["warnings"]:
        yield Finding("warning", warning, "see that the classes above are the ones you mean")


def _classes(report: Facts) -> Iterator[Finding]:
    few = [row["name"] for row in report["classes"] if row["train"] < _FEW_IMAGES]
    if few:
        yield Finding(
            "warning",
            f"fewer than {_FEW_IMAGES} training images: {some(few)}",
            "collect more, or merge or drop these classes: they are hardly learnt or measured",
        )
    if report["imbalance"] > _IMBALANCE:
        yield Finding(
            "warning",
            f"the largest class has {report['imbalance']:g} times the images of the smallest",
            "accuracy speaks for the large classes: read the accuracy per class of nas val as well",
        )


def _noise(report: Facts) -> Iterator[Finding]:
    for name in ("val", "test"):
        images = report["splits"].get(name)
        # of an accuracy of 50 %, where it is largest
        if images and (points := 50 / images**0.5) > _LOUD_POINTS:
            yield Finding(
                "note",
                f"an accuracy on the {images:,} {name} images has a standard error of up to "
                f"{points:.1f} points",
                "take differences below two of these for noise, or add images",
            )


def _duplicates(found: Facts) -> Iterator[Finding]:
    if found["across"]:
        yield Finding(
            "warning",
            f"{found['across']:,} images are in more than one split: {_example(found, 'split')}",
            "keep each in one split, or the accuracy on val and test flatters",
        )
    if found["contradicting"]:
        yield Finding(
            "warning",
            f"{found['contradicting']:,} pictures lie in more than one class: "
            + _example(found, "class"),
            "keep the right one: the others teach and measure a mistake",
        )
    if found["inside"]:
        yield Finding(
            "note",
            f"{found['inside']:,} images repeat another one of their split",
            "delete the copies, or they count twice",
        )


def _example(found: Facts, key: str) -> str:
    """Return the names of a pair that differs in this."""
    for first, *others in found["groups"]:
        for other in others:
            if other[key] != first[key]:
                return f"{first['name']} ({first[key]}) = {other['name']} ({other[key]})"
    return ""


def _kinds(report: Facts) -> Iterator[Finding]:
    other = [f"{n:,} {mode}" for mode, n in report["modes"].items() if mode != "RGB"]
    if other and len(report["modes"]) > 1:
        yield Finding(
            "note",
            f"images of several kinds: {some(other)} beside RGB",
            "nothing to do: they are converted to RGB; but where the kind "
            "goes with the class, a network learns that",
        )
    if report["turned"]:
        yield Finding(
            "note",
            f"{report['turned']:,} images are turned by their EXIF",
            "nothing to do here; see that other programs turn them as well",
        )
    if report["misnamed"]:
        yield Finding(
            "note",
            f"{report['misnamed']:,} images are of another format than their suffix says",
            "nothing to do: what is inside decides",
        )


def _depth(report: Facts) -> Iterator[Finding]:
    for mode, found in report["depth"]["modes"].items():
        low, high = found["values"]
        whole = mode != "F"
        bits = f" ({max(1, int(high).bit_length())} bits)" if whole and low >= 0 else ""
        yield Finding(
            "note",
            f"{found['images']:,} images of mode {mode} hold values of {low:g} to {high:g}{bits}; "
            f"in the median {found['levels']:g} of 256 gray levels are left of them",
            "nothing to do: they are scaled by the range of the training images, which goes with "
            "the trained model (decoding in config.json); give it images of the same range",
        )
    if (flat := report["flat"])["images"]:
        yield Finding(
            "warning",
            f"{flat['images']:,} of {report['images']:,} images show next to nothing: their values "
            f"lie within {FLAT_LEVELS} of 256 gray levels: {some(flat['names'])}",
            "look at them: masks, empty pictures, or 10 to 12 bits in 16-bit colour, of which only "
            "the upper 8 are read; stretch such images first",
        )


def _shapes(report: Facts) -> Iterator[Finding]:
    chosen = report["suggestion"]
    if chosen is not None and chosen["enlarged"]:
        yield Finding(
            "note",
            f"{chosen['enlarged']:,} of {report['images']:,} images are smaller than "
            f"{chosen['imgsz']} pixels",
            "nothing to do: they are enlarged, which adds no detail",
        )
    if report["elongated"]:
        yield Finding(
            "note",
            f"{report['elongated']:,} images are over {ELONGATED} times as long as wide",
            "cut them to what matters: a network sees the square in their middle",
        )


def _room(needed: int, machine: Facts) -> Iterator[Finding]:
    cache, free = machine["disks"]["cache"], machine["memory_free"]
    if cache["writable"] and cache["free"] < 1.2 * needed:
        yield Finding(
            "warning",
            f"decoded images take {format_bytes(needed)}, and {format_bytes(cache['free'])} are "
            f"free for {cache['folder']}",
            "free some, or set NAS_CACHE to a larger disk: else all is decoded at each start",
        )
    if free is not None and 2 * needed > free:
        yield Finding(
            "note",
            f"decoded images take {format_bytes(needed)}, more than half of the "
            f"{format_bytes(free)} of free memory",
            "they are read from the cache by worker processes, which is slower; a smaller "
            "--imgsz may fit",
        )


def _devices(machine: Facts) -> Iterator[Finding]:
    if machine["complaint"]:
        yield Finding(
            "warning", f"torch says of the GPU: {machine['complaint']}", "repair its driver"
        )
    if machine["devices"]:
        return
    if machine["cuda"]:
        yield Finding(
            "note",
            f"torch is built for CUDA {machine['cuda']}, but sees no GPU: training runs on the CPU",
            "with an NVIDIA GPU in this machine, install or update its driver (nvidia-smi tells)",
        )
    else:
        yield Finding(
            "note",
            "no GPU: training runs on the CPU",
            "keep it small: few pixels (--imgsz), few epochs, a low target; with a GPU in this "
            "machine, install the build of torch for it (pytorch.org)",
        )


def _processors(machine: Facts) -> Iterator[Finding]:
    processors, quota, load = machine["processors"], machine["processor_quota"], machine["load"]
    if quota is not None and quota < processors:
        yield Finding(
            "warning",
            f"this container may use the time of {quota:g} of {processors} processors",
            f"set OMP_NUM_THREADS={max(1, int(quota))}: more threads wait for each other",
        )
    if load is not None and load > processors / 2:
        yield Finding(
            "note",
            f"other programs are busy: load {load:g} on {processors} processors",
            "stop them before nas bench, or its latencies mean little",
        )


def _disks(machine: Facts) -> Iterator[Finding]:
    for use, flag in (("cache", "the variable NAS_CACHE"), ("runs", "--project")):
        disk = machine["disks"][use]
        if not disk["writable"]:
            yield Finding(
                "warning", f"{disk['folder']} cannot be written to", f"name another with {flag}"
            )
        elif disk["free"] < _LOW_DISK:
            yield Finding(
                "warning",
                f"{format_bytes(disk['free'])} are free for {disk['folder']}",
                f"free some, or name another disk with {flag}",
            )
