"""A process that another has started ends with it, however that one ends."""

from __future__ import annotations

import multiprocessing
import os
import threading


def follow_parent() -> None:
    """End this process when the one that started it ends, killed or not."""
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)
