"""A process that another has started ends with it, however that one ends."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time

LOOK_SECONDS = 0.2


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
