"""All images of a split decoded once: one array of uint8 RGB, in memory or mapped from a cache."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import json
import logging
import os
import shutil
import tempfile
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt

from nas.core.errors import NasError, OptionError, RunError
from nas.core.locks import await_lock
from nas.core.system import processors
from nas.data.dataset import Split, some
from nas.data.identity import fingerprint
from nas.data.images import Array, decode, quiet, shrink

SCHEMA = 1
# a cache larger than this stays on disk and is mapped
RESIDENT = 1 << 30
MOST_BROKEN = 0.01
# images a thread decodes before it hands them over
_CHUNK = 16
_FACTS, _VALUES, _SIZES, _CHECKS = "pixels.json", "values.npy", "sizes.npy", "checksums.npy"
_STALE_SECONDS = 24 * 3600

_log = logging.getLogger("nas")
_Found = TypeVar("_Found")


@dataclass(frozen=True, eq=False)
class Pixels:
    """The images of a split, one after the other; a broken one is in no array.

    `values` (P, 3) uint8, each image row by row; image i begins at row `starts[i]` (N,) int64 and
    has `heights[i]` × `widths[i]` (N,) int32 pixels. `labels` (N,) int64. `broken`: "name: reason".
    `values` may be mapped from a file: copy on write. `checks` (N,) uint32 are then the checksums
    of the images; None: they are known to be right, or were stored without any.
    """

    values: Array
    starts: npt.NDArray[np.int64]
    heights: npt.NDArray[np.int32]
    widths: npt.NDArray[np.int32]
    labels: npt.NDArray[np.int64]
    names: tuple[str, ...]
    broken: tuple[str, ...]
    checks: npt.NDArray[np.uint32] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def uniform(self) -> bool:
        """Return whether all images are of one size."""
        return len(np.unique(self.heights)) <= 1 and len(np.unique(self.widths)) <= 1

    def image(self, i: int) -> Array:
        """Return image i (H, W, 3), a view."""
        start, height, width = int(self.starts[i]), int(self.heights[i]), int(self.widths[i])
        return self.values[start : start + height * width].reshape(height, width, 3)

    def check(self, positions: Iterable[int]) -> None:
        """Compare images that are mapped from a file with their checksums, as they are used.

        Raises:
            RunError: one differs; what is in the file is decoded anew when it is opened again.
        """
        if self.checks is None:
            return
        for i in positions:
            if zlib.crc32(np.ascontiguousarray(self.image(i)).data) == self.checks[i]:
                continue
            folder = Path(str(getattr(self.values, "filename", ""))).parent
            with contextlib.suppress(OSError):
                (folder / _FACTS).unlink()
            raise RunError(
                f"the decoded images in {folder} are damaged, the checksum of one differs: repeat "
                "the command with --resume, and they are decoded anew"
            )


def decode_split(
    split: Split, side: int | None, *, cache: Path | None = None, workers: int | None = None
) -> Pixels:
    """Return a split decoded, with the short side of each image reduced to `side`.

    `cache` is a folder for what was decoded, shared by all data sets, splits and sides; a split
    without a fingerprint is not cached. Where the disk is full or read-only it goes on without,
    and warns. Of several processes one decodes, and the others wait for it. `workers`: threads;
    default the processors this process may use.
    """
    threads = workers or processors()
    if cache is None or not split.fingerprint:
        return _in_memory(split, side, threads)
    key = {"schema": SCHEMA, "split": split.fingerprint, "side": side, "images": len(split)}
    folder = cache / fingerprint(sorted(key.items()))

    def ready() -> Pixels | None:
        found = _load(folder, key, split)
        return found[0] if found is not None and not _mended(found[1], split, side) else None

    if (here := ready()) is not None:
        return here
    with _alone(folder):
        if (here := ready()) is not None:  # by another process, meanwhile
            return here
        try:
            _store(folder, key, split, side, threads)
        except OSError as error:
            _log.warning("no cache in %s: %s; going on without", cache, error.strerror or error)
    # another process may have put a foreign one there meanwhile
    found = _load(folder, key, split)
    return found[0] if found is not None else _in_memory(split, side, threads)


def check_broken(pixels: Pixels) -> str:
    """Return a note on the broken images that were left out, or "".

    Raises:
        OptionError: more than 1 % are broken; the message has the count and the first names.
    """
    bad, total = len(pixels.broken), len(pixels.broken) + len(pixels)
    if not bad:
        return ""
    what = f"{bad:,} of {total:,} images {'is' if bad == 1 else 'are'} broken"
    if bad > MOST_BROKEN * total:
        raise OptionError(
            f"{what}, more than {MOST_BROKEN:.0%}: {some(pixels.broken)}; repair or delete them "
            "(nas doctor --data lists all)"
        )
    return f"{what} and left out: {some(pixels.broken)}"


def typical_side(split: Split, sample: int = 64) -> int:
    """Return the median of the shorter sides, in pixels, of some images spread over a split.

    Raises:
        OptionError: none of them can be decoded.
    """
    step = max(1, len(split) // sample)
    found = (_one(split, i, None) for i in range(0, len(split), step))
    sides = [min(image.shape[:2]) for image in found if not isinstance(image, str)]
    if not sides:
        raise OptionError("no image can be decoded: `nas doctor --data` tells why")
    return int(np.median(sides))


def in_order(
    function: Callable[[range], list[_Found]], count: int, threads: int
) -> Iterator[_Found]:
    """Yield what `function` returns for range after range of 0..count, computed in threads.

    Only a few ranges are under way at any time, so that little is held and an interrupt is quick.
    """
    ranges = (range(i, min(i + _CHUNK, count)) for i in range(0, count, _CHUNK))
    with ThreadPoolExecutor(threads) as pool, quiet():
        waiting = deque(pool.submit(function, r) for r in itertools.islice(ranges, 2 * threads))
        while waiting:
            yield from waiting.popleft().result()
            waiting.extend(pool.submit(function, r) for r in itertools.islice(ranges, 1))


def reason_of(error: Exception) -> str:
    """Return why an image could not be read, in short."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{type(error).__name__}: {error}".splitlines()[0][:100]


@dataclass
class _Index:
    """What was decoded: position in the split, height and width of each; what was not, and why."""

    sizes: list[tuple[int, int, int]] = field(default_factory=list)
    broken: list[tuple[int, str]] = field(default_factory=list)
    pixels: int = 0
    checksum: int = 0
    checks: list[int] = field(default_factory=list)  # of each image, where `checksum` is of all


def _in_memory(split: Split, side: int | None, threads: int) -> Pixels:
    file = io.BytesIO()
    index = _decode_into(file, split, side, threads)
    values = np.frombuffer(file.getbuffer(), np.uint8).reshape(-1, 3)
    return _pixels(values, np.array(index.sizes, np.int64).reshape(-1, 3), index.broken, split)


def _decode_into(file: BinaryIO, split: Split, side: int | None, threads: int) -> _Index:
    """Write the pixels of all images to a file.

    Raises:
        OSError: the file's; those of images become entries of `broken`.
    """
    index = _Index()

    def several(positions: range) -> list[Array | str]:
        return [_one(split, i, side) for i in positions]

    for i, image in enumerate(in_order(several, len(split), threads)):
        if isinstance(image, str):
            index.broken.append((i, image))
            continue
        file.write(image.data)
        index.sizes.append((i, image.shape[0], image.shape[1]))
        index.pixels += image.shape[0] * image.shape[1]
        index.checksum = zlib.crc32(image.data, index.checksum)
        index.checks.append(zlib.crc32(image.data))
    return index


def _one(split: Split, i: int, side: int | None) -> Array | str:
    """Return an image of the split, or the reason why there is none."""
    try:
        image = decode(split.read(i), at_least=side, decoding=split.decoding)
        return shrink(image, side) if side else image
    except (NasError, MemoryError):
        raise
    except Exception as error:  # a reader may be the user's
        return reason_of(error)


def _pixels(
    values: Array, sizes: npt.NDArray[np.int64], broken: list[tuple[int, str]], split: Split
) -> Pixels:
    kept, heights, widths = sizes.T
    areas = heights * widths
    return Pixels(
        values,
        np.cumsum(areas) - areas,
        heights.astype(np.int32),
        widths.astype(np.int32),
        split.labels[kept],
        tuple(split.names[i] for i in kept),
        tuple(f"{split.names[i]}: {reason}" for i, reason in broken),
    )


def _store(folder: Path, key: dict[str, Any], split: Split, side: int | None, threads: int) -> None:
    """Decode a split into a cache folder, which appears whole or not at all.

    Raises:
        OSError: the disk is full or read-only.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder.parent)
    damaged = folder.exists()
    fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
    try:
        with (fresh / _VALUES).open("wb") as file:
            _write_header(file, 0)
            index = _decode_into(file, split, side, threads)
            file.seek(0)
            _write_header(file, index.pixels)
        sizes = np.array(index.sizes, np.int64).reshape(-1, 3)
        np.save(fresh / _SIZES, sizes)
        checks = np.array(index.checks, np.uint32)
        np.save(fresh / _CHECKS, checks)
        checksums = [index.checksum, zlib.crc32(sizes.data), zlib.crc32(checks.data)]
        facts = {**key, "broken": index.broken, "checksums": checksums}
        (fresh / _FACTS).write_text(json.dumps(facts), encoding="utf-8")
        if damaged:
            shutil.rmtree(folder, ignore_errors=True)
        _move(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process makes a cache folder.

    It spares work and is no more than that: the folder appears whole whoever makes it, and where
    no file can be locked nobody waits. A process that dies is waited for no longer.
    """
    path = folder.with_name(f".new-{folder.name}.lock")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError:
        yield
        return
    with file:
        said = f"waiting for another process that decodes the images into {folder}"
        await_lock(file, lambda: _log.info(said))
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()


def _move(fresh: Path, folder: Path) -> None:
    try:
        os.replace(fresh, folder)
    except OSError:
        # made by another process meanwhile; the caller checks it as any other
        if not folder.is_dir():
            raise


def _sweep(cache: Path) -> None:
    """Delete what killed processes left half-made."""
    for left in cache.glob(".new-*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime <= _STALE_SECONDS:
                continue
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink()  # a lock: who has it open keeps it


def _write_header(file: BinaryIO, pixels: int) -> None:
    """Write the head of a .npy file; numpy pads it so that it is as long for any first axis."""
    head = {"descr": "|u1", "fortran_order": False, "shape": (pixels, 3)}
    np.lib.format.write_array_header_1_0(file, head)


def _load(
    folder: Path, key: dict[str, Any], split: Split
) -> tuple[Pixels, list[tuple[int, str]]] | None:
    """Return the pixels of a cache folder and its broken images; None if damaged or foreign."""
    try:
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        if {name: facts[name] for name in key} != key:
            return None
        sizes = np.load(folder / _SIZES, allow_pickle=False)
        resident = (folder / _VALUES).stat().st_size <= RESIDENT
        values = np.load(folder / _VALUES, None if resident else "c", allow_pickle=False)
        broken = [(int(i), str(reason)) for i, reason in facts["broken"]]
        of_values, of_sizes, *of_checks = facts["checksums"]
        if not _sound(values, sizes, broken, len(split)) or zlib.crc32(sizes.data) != of_sizes:
            return None
        # the mapped ones are not read for it, that would take as long as an epoch: each is
        # compared with its own checksum when it is used, unless an earlier version stored none
        if resident and zlib.crc32(values.data) != of_values:
            return None
        found = _pixels(values, sizes, broken, split)
        if resident or not of_checks:
            return found, broken
        checks = np.load(folder / _CHECKS, allow_pickle=False)
        if checks.shape != (len(sizes),) or zlib.crc32(checks.data) != of_checks[0]:
            return None
        return dataclasses.replace(found, checks=checks), broken
    except (OSError, EOFError, BufferError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _sound(
    values: npt.NDArray[Any], sizes: npt.NDArray[Any], broken: list[tuple[int, str]], images: int
) -> bool:
    """Return whether the arrays of a cache belong together and cover a split."""
    if values.dtype != np.uint8 or sizes.dtype != np.int64 or sizes.shape[1:] != (3,):
        return False
    positions = np.sort([*sizes[:, 0], *(i for i, _ in broken)])
    area = int((sizes[:, 1] * sizes[:, 2]).sum())
    return np.array_equal(positions, np.arange(images)) and values.shape == (area, 3)


def _mended(broken: list[tuple[int, str]], split: Split, side: int | None) -> bool:
    """Return whether an image that was broken can be read now; a few tell for all.

    Permissions, a share that was away: they change no fingerprint.
    """
    return any(not isinstance(_one(split, i, side), str) for i, _ in broken[:50])
