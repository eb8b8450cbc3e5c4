"""The drivers of a shared study: each gives a sign of life in it, and watches those of the others.

A sign is an attribute of the study that changes: it is compared with what it was, never with a
clock, so no two machines have to agree on the time.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.storages import RDBStorage

from nas.core.errors import OptionError
from nas.core.run_folder import read_object, write_json
from nas.searching.studies.database import LOST

GRACE = "NAS_DRIVER_GRACE"  # seconds without a sign after which a driver is taken for dead
SECONDS, BEATS = 60.0, 6  # the default of it; signs within it
IDENTITY, PREFIX = "driver.json", "driver "


@dataclass
class _Seen:
    """What another driver showed last, and for how many seconds of looking it stayed the same."""

    value: dict[str, Any]
    silent: float = 0.0


def identity(folder: Path) -> str:
    """Return the name of a run folder among those of all machines, made if it has none."""
    path = folder / IDENTITY
    if not path.exists():
        write_json(path, {"driver": secrets.token_hex(6)})
    return str(read_object(path, "driver")["driver"])


def grace() -> float:
    """Return after how many seconds without a sign other drivers take this one for dead.

    Raises:
        OptionError: the variable is no positive number.
    """
    text = os.environ.get(GRACE, str(SECONDS))
    try:
        if 0 < float(text) < float("inf"):
            return float(text)
    except ValueError:
        pass
    raise OptionError(f"the variable {GRACE} takes seconds above 0, not {text!r}")


class Presence:
    """This driver in one study, up to `leave`; and which of the others are dead.

    A thread of its own writes the signs and reads those of the others, since an evaluation may
    take hours. Time in which this process itself stood still is not held against the others.
    """

    def __init__(self, storage: RDBStorage, study: int, folder: Path) -> None:
        self._storage, self._study = storage, study
        self.driver = identity(folder)
        self._record = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "folder": str(folder.resolve()),
            "grace": grace(),
            "beat": "",
        }
        self._pause = grace() / BEATS
        self._others: dict[str, _Seen] = {}
        self._looked = time.monotonic()
        self._left = threading.Event()
        self._write(secrets.token_hex(4))
        self._look()
        self._thread = threading.Thread(target=self._live, name="sign of life", daemon=True)
        self._thread.start()

    @property
    def host(self) -> str:
        """Return the name of this machine."""
        return str(self._record["host"])

    def dead(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """Return the drivers that left or show no life: the attribute of each, and its value."""
        return {
            name.removeprefix(PREFIX): (name, seen.value)
            for name, seen in self._others.items()
            if not seen.value["beat"] or seen.silent > seen.value["grace"]
        }

    def others(self) -> int:
        """Return how many other drivers are at work."""
        return len(self._others) - len(self.dead())

    def leave(self) -> None:
        """Tell the others that what is unfinished is theirs."""
        self._left.set()
        self._thread.join()
        with contextlib.suppress(*LOST):  # they will find out
            self._write("")

    def _live(self) -> None:
        while not self._left.wait(self._pause):
            with contextlib.suppress(*LOST):  # the main thread tells when it needs the database
                self._write(secrets.token_hex(4))
                self._look()
        self._storage.remove_session()

    def _write(self, beat: str) -> None:
        record = {**self._record, "beat": beat}
        self._storage.set_study_user_attr(self._study, PREFIX + self.driver, record)

    def _look(self) -> None:
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, 2 * self._pause), now
        seen = {}
        for name, value in self._storage.get_study_user_attrs(self._study).items():
            if name.startswith(PREFIX) and name != PREFIX + self.driver:
                before = self._others.get(name)
                same = before is not None and before.value == value
                seen[name] = _Seen(value, before.silent + passed if same and before else 0.0)
        self._others = seen
