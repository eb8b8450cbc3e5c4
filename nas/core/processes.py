"""A process that another has started: it ends with it, and tells it in a file why it failed."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import threading
import time
from pathlib import Path

from nas.core import errors, run_folder
from nas.core.errors import NasError

LOOK_SECONDS = 0.2
ROOM, MOST = 8192, 1000  # bytes of the file in which an error is told; characters of its message


def follow_parent() -> None:
    """End this process when the one that started it ends, killed or not."""
    threading.Thread(target=_follow, daemon=True).start()


def follow(parent: int) -> None:
    """End this process when it is no longer a child of `parent`, a process that is no Python's.

    As `follow_parent` for what `multiprocessing` has not started.
    """
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _follow() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os._exit(1)


def expect_error(path: Path) -> None:
    """Make the file in which a process will tell an error: of one length, for the disk may fill.

    Raises:
        RunError: it cannot be written.
    """
    run_folder.write_text(path, " " * ROOM)


def tell_error(path: Path, error: NasError) -> None:
    """Write the kind and the message of an error where one is expected and none is told yet.

    Of several processes that fail together the first is the cause.
    """
    told = {"kind": type(error).__name__, "message": " ".join(str(error).split())[:MOST]}
    with contextlib.suppress(OSError), path.open("r+b") as file:
        if not file.read().strip():
            file.seek(0)
            file.write(json.dumps(told).encode().ljust(ROOM))


def told_error(path: Path) -> NasError | None:
    """Return the error that was told, None for none."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        told = json.loads(path.read_bytes())
        kind: type[NasError] = vars(errors)[told["kind"]]
        if issubclass(kind, NasError):
            return kind(told["message"])
    return None
