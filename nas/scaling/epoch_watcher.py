"""Show how trainings in other processes go: read from their results.csv, which all can see."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from nas.core import run_folder
from nas.core.errors import NasError

RESULTS = "results.csv"
LOOK_SECONDS = 1.0
# between two lines on one training
QUIET_SECONDS = 20.0


class EpochWatcher:
    """Says a line on each training now and then, in a thread, as long as the body runs."""

    def __init__(self, folders: Sequence[Path], epochs: int, say: Callable[[str], None]) -> None:
        self._folders, self._epochs, self._say = folders, epochs, say
        self._told = {folder: (_epoch(folder), 0.0) for folder in folders}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> EpochWatcher:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            for folder in self._folders:
                self._look(folder)

    def _look(self, folder: Path) -> None:
        epoch, when = self._told[folder]
        now = time.monotonic()
        if now < when + QUIET_SECONDS or (found := _epoch(folder)) == epoch:
            return
        self._told[folder] = (found, now)
        self._say(f"{folder.name} epoch {found}/{self._epochs}{_shown(folder)}")


def _epoch(folder: Path) -> int:
    return len(_rows(folder))


def _shown(folder: Path) -> str:
    last = _rows(folder)[-1:]
    if not last or not last[0].get("val_top1"):
        return ""
    row = last[0]
    return (
        f" val top-1 {float(row['val_top1']):.2f} % {float(row['images_per_second']):.0f} images/s"
    )


def _rows(folder: Path) -> list[dict[str, str]]:
    try:
        return run_folder.read_csv(folder / RESULTS)
    except (OSError, NasError, ValueError):  # it is just being replaced, or lies on a slow disk
        return []
