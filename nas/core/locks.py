"""Locks on files: between processes, and freed by the operating system when the holder dies."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

# between two looks at a lock that another holds, and until the wait is told of
LOOK_SECONDS, TELL_SECONDS = 0.1, 5.0


def try_lock(file: IO[str]) -> bool:
    """Lock an open file, unless another holds it or it cannot be; closing it frees it."""
    try:
        lock(file)
    except OSError:
        return False
    return True


def lock(file: IO[str]) -> None:
    """Lock an open file; closing it frees it, and so does any death of the process.

    Raises:
        BlockingIOError: another holds it.
        OSError: nothing can be locked there.
    """
    if sys.platform == "win32":
        import msvcrt

        file.seek(1 << 30)  # beyond the text, which a refused process still reads
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(str(error)) from error
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder, made if absent, after waiting for any other process that holds it so."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as file:
        await_lock(file, lambda: None)
        yield


def await_lock(file: IO[str], tell: Callable[[], None]) -> None:
    """Lock an open file, however long another holds it; do nothing where none can be locked.

    `tell` is called once, when the wait has taken some seconds.
    """
    began, told = time.monotonic(), False
    while True:
        try:
            return lock(file)
        except BlockingIOError:
            time.sleep(LOOK_SECONDS)
        except OSError:
            return
        if not told and time.monotonic() > began + TELL_SECONDS:
            told = True
            tell()
