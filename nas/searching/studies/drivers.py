"""The drivers of a shared study: the name of each, and the heartbeats of its running trials."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import time
from pathlib import Path

from optuna.storages import RDBStorage

from nas.core.run_folder import read_object, write_json
from nas.searching.studies.database import BEATS, LOST, grace

IDENTITY = "driver.json"


def identity(folder: Path) -> str:
    """Return the name of a run folder among those of all machines, made if it has none."""
    path = folder / IDENTITY
    if not path.exists():
        write_json(path, {"driver": secrets.token_hex(6)})
    return str(read_object(path, "driver")["driver"])


def host() -> str:
    """Return the name of this machine."""
    return socket.gethostname()


class Heartbeat:
    """Records the heartbeats of this process's running trials, which are told by their ids.

    In a thread of its own, since an evaluation may take hours; Optuna's is part of
    `Study.optimize`.
    """

    def __init__(self, storage: RDBStorage) -> None:
        self._storage, self._trials = storage, set[int]()
        self._pause = grace() / BEATS
        self._beat, self._settled, self._judged = time.time(), 0.0, 0.0
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._live, name="heartbeat", daemon=True)
        self._thread.start()

    def begin(self, trial: int) -> None:
        """Record a trial's first heartbeat, and go on with it up to `end`."""
        self._storage.record_heartbeat(trial)
        self._trials.add(trial)

    def end(self, trial: int) -> None:
        """Record no more of them."""
        self._trials.discard(trial)

    def may_judge(self) -> bool:
        """Tell whether it is time to fail the trials of others that have no heartbeats.

        It is once a pause. Not where this process, or its machine, stood still just before: the
        others may have as well, and get a pause to show that they live.
        """
        now = time.time()
        if (
            now < self._settled
            or not self._judged + self._pause <= now < self._beat + 2 * self._pause
        ):
            return False
        self._judged = now
        return True

    def close(self) -> None:
        """End all of them."""
        self._left.set()
        self._thread.join()

    def _live(self) -> None:
        while not self._left.wait(self._pause):
            with contextlib.suppress(*LOST):  # the main thread tells when it needs the database
                for trial in tuple(self._trials):
                    self._storage.record_heartbeat(trial)
                now = time.time()
                if now > self._beat + 2 * self._pause:
                    self._settled = now + self._pause
                self._beat = now
        self._storage.remove_session()
