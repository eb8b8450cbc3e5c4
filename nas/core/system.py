"""This machine as every room needs it: its free memory, its processors, the cache folder."""

from __future__ import annotations

import functools
import logging
import math
import os
import tempfile
from pathlib import Path

_log = logging.getLogger("nas")
CONTROL = Path("/sys/fs/cgroup")


def cache_folder() -> Path:
    """Return where what can be made again is kept.

    $NAS_CACHE, else $XDG_CACHE_HOME/nas, else ~/.cache/nas; without a home directory, as of a user
    in a container that has no entry of its own, a temporary folder.
    """
    if own := os.environ.get("NAS_CACHE"):
        return Path(own)
    if home := os.environ.get("XDG_CACHE_HOME"):
        return Path(home) / "nas"
    try:
        return Path.home() / ".cache" / "nas"
    except RuntimeError:
        return _homeless()


@functools.cache
def _homeless() -> Path:
    """Return a folder for temporary files that is this user's own."""
    user = os.getuid() if hasattr(os, "getuid") else os.getpid()
    path = Path(tempfile.gettempdir()) / f"nas-{user}"
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        if path.is_symlink() or path.stat().st_uid != user:
            raise FileExistsError(path)  # laid there by another user
    except OSError:
        path = Path(tempfile.mkdtemp(prefix="nas-"))
    _log.warning("no home directory: the cache is %s; NAS_CACHE names another", path)
    return path


def free_memory() -> float:
    """Return the bytes of main memory that are free to take; infinite where nothing tells."""
    return min(_free_of_machine(), _free_of_container())


def _free_of_machine() -> float:
    import psutil  # 16 ms, which a start that asks for no memory need not wait

    try:
        return psutil.virtual_memory().available
    except (OSError, RuntimeError):  # a container without /proc
        return math.inf


def _free_of_container() -> float:
    """Return what a control group (version 2) leaves; file pages that it can drop count as free."""
    try:
        limit = int((CONTROL / "memory.max").read_text(encoding="ascii"))
        used = int((CONTROL / "memory.current").read_text(encoding="ascii"))
        lines = (CONTROL / "memory.stat").read_text(encoding="ascii").splitlines()
        cached = int(dict(line.split() for line in lines)["inactive_file"])
        return max(0, limit - used + cached)
    except (OSError, LookupError, ValueError):
        return math.inf


def processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
