"""Trackio: a local database, no account; TRACKIO_DIR and TRACKIO_SPACE_ID move it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas.interfaces import Tracker
from nas.training.tracking import need, remember, remembered


def make(folder: Path, name: str, config: dict[str, Any]) -> Tracker:
    """Return a tracker of project $TRACKIO_PROJECT (default: nas).

    Raises:
        MissingError: trackio is not installed.
    """
    need("trackio")
    known = remembered(folder, "trackio")
    made = Trackio(known or name, config, resume="must" if known else "never")
    remember(folder, "trackio", made.name)
    return made


class Trackio:
    """One run of trackio; what it prints goes to stderr, stdout is the result's."""

    def __init__(self, name: str, config: dict[str, Any], resume: str) -> None:
        project = os.environ.get("TRACKIO_PROJECT", "nas")
        self._trackio = need("trackio")
        with contextlib.redirect_stdout(sys.stderr):
            self._run = self._trackio.init(project, name, config=config, resume=resume)
        self.name: str = self._run.name
        self.title = f"trackio show --project {project}"

    def row(self, step: int, numbers: Mapping[str, float]) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            self._run.log(dict(numbers), step)

    def close(self) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            self._trackio.finish()  # not the run's: that would finish, and print, again at exit
