"""Where what can be made again is kept: decoded images, latencies, downloads."""

from __future__ import annotations

import functools
import logging
import os
import tempfile
from pathlib import Path

_log = logging.getLogger("nas")


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
