"""Latency measured once: a device whose results are kept in a file, for all runs of this user.

The file has one JSON object per line and may be shared by any number of processes and devices.
Lines that cannot be read are passed over, so it may be cut, edited or deleted at any time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import logging
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nas.core.locks import try_lock
from nas.core.system import cache_folder
from nas.interfaces import Device, Timing
from nas.models.arch import Arch

SCHEMA = 1
# an unsteady result is measured again by later processes until there are so many
TRIES = 3
# how long to wait for another process that measures, in seconds; then both do at once
PATIENCE = 120.0

_log = logging.getLogger("nas")

Key = tuple[str, int]  # arch.id, resolution


def cache_file() -> Path:
    """Return where the latencies of all runs are kept."""
    return cache_folder() / "latency.jsonl"


class Cached:
    """A device that measures an arch only if the file does not hold its time yet.

    Within a process an arch keeps the time it got first. A time that was unsteady is measured
    again by later processes, three times in all; the steadiest stands. Processes that share the
    file measure one after the other: two at once would disturb each other.
    """

    def __init__(self, device: Device, path: Path) -> None:
        self.title, self.fingerprint = device.title, device.fingerprint
        self._device, self._path = device, path
        self._read_up_to = 0
        self._found: dict[Key, list[Timing]] = {}
        self._given: dict[Key, Timing] = {}

    def measure(self, arch: Arch) -> Timing:
        """Return the time of a batch of `arch`, measured or remembered.

        Raises:
            NasError: the device cannot run the arch.
        """
        key = (arch.id, arch.resolution)
        if key not in self._given:
            self._given[key] = self._remembered(key) or self._measured(key, arch)
        return self._given[key]

    def _remembered(self, key: Key) -> Timing | None:
        self._read()
        found = self._found.get(key, [])
        best = min(found, key=lambda timing: timing.unrest, default=None)
        return best if best and (best.steady or len(found) >= TRIES) else None

    def _measured(self, key: Key, arch: Arch) -> Timing:
        with _turn(self._path, PATIENCE):
            # another process may have measured it while this one waited
            if known := self._remembered(key):
                return known
            timing = self._device.measure(arch)
            self._append(key, arch, timing)
        return min([timing, *self._found.get(key, [])], key=lambda each: each.unrest)

    def _append(self, key: Key, arch: Arch, timing: Timing) -> None:
        line = {
            "schema": SCHEMA,
            "device": self.fingerprint,
            "arch": key[0],
            "resolution": key[1],
            "name": arch.name,
            "time": round(time.time()),
            "timing": dataclasses.asdict(timing),
        }
        try:
            _append_line(self._path, json.dumps(line, allow_nan=False))
        except OSError as error:
            _log.warning("cannot write %s: %s; latencies are not kept", self._path, error.strerror)

    def _read(self) -> None:
        """Take in what the file has gained since it was last read."""
        try:
            with self._path.open("rb") as file:
                if self._read_up_to > os.fstat(file.fileno()).st_size:
                    self._read_up_to = 0  # it was cut
                    self._found.clear()
                file.seek(self._read_up_to)
                data = file.read()
        except OSError:
            return
        whole = data.rfind(b"\n") + 1
        self._read_up_to += whole
        for line in data[:whole].splitlines():
            if entry := _entry(line, self.fingerprint):
                self._found.setdefault(entry[0], []).append(entry[1])


def _entry(line: bytes, fingerprint: str) -> tuple[Key, Timing] | None:
    """Return what a line says of this device; None if it is another's, or damaged."""
    try:
        data = json.loads(line)
        if data["schema"] != SCHEMA or data["device"] != fingerprint:
            return None
        timing = _timing(data["timing"])
        return (str(data["arch"]), int(data["resolution"])), timing
    except (ValueError, TypeError, LookupError, RecursionError):
        return None


def _timing(data: dict[str, Any]) -> Timing:
    """Return the Timing that `dataclasses.asdict` made plain.

    Raises:
        ValueError, TypeError, KeyError: it is none, or a number in it is impossible.
    """
    timing = Timing(**{**data, "notes": tuple(data["notes"])})
    numbers = (timing.median_ms, timing.p10_ms, timing.p90_ms, timing.throughput)
    possible = all(0 < number < math.inf for number in numbers) and 0 <= timing.unrest < math.inf
    typed = isinstance(timing.steady, bool) and isinstance(timing.n + timing.batch, int)
    if not (possible and typed):
        raise ValueError("a time must be positive and finite")
    return timing


def _append_line(path: Path, text: str) -> None:
    """Append a line, in one write; what another process was killed in the midst of is closed first.

    Raises:
        OSError: the file cannot be written, or the disk is full; then nothing is added.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        torn = end > 0 and file.read(1) != b"\n"
        data = (b"\n" if torn else b"") + text.encode() + b"\n"
        if file.write(data) != len(data):
            file.truncate(end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextlib.contextmanager
def _turn(path: Path, patience: float) -> Iterator[None]:
    """Wait until no other process measures, `patience` seconds at most; keep others waiting."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(path.with_name(f"{path.name}.lock").open("a+"))
            end = time.monotonic() + patience
            while not try_lock(lock) and time.monotonic() < end:
                time.sleep(0.05)
        yield
