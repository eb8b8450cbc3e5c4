"""Provenance of a run: the user's own files and images, by their content."""

from __future__ import annotations

from pathlib import Path

from nas.core import run_folder
from nas.core.errors import RunError
from nas.data.identity import unchanged, way_back
from nas.searching.setup import Setup

SOURCES, DATA = "sources.json", "the data"


def check_sources(folder: Path, setup: Setup) -> None:
    """Check that the user's files and images are what they were when the run was started.

    Images that an earlier version noted by their times are noted by their content from now on.

    Raises:
        RunError: one was changed, so that old and new results would be mixed.
    """
    path, now = folder / SOURCES, dict(setup.sources)
    if fingerprint := setup.evaluator.fingerprint:
        now[DATA] = fingerprint
    if not path.exists():
        run_folder.write_json(path, now)
    before = run_folder.read_json(path)
    if fingerprint and not unchanged(before.get(DATA), setup.evaluator):
        raise RunError(
            f"the data has changed since {folder} was started: results would be mixed; "
            f"{way_back(before[DATA], setup.evaluator, path, DATA)}"
        )
    if fingerprint and before.get(DATA, fingerprint) != fingerprint:
        before[DATA] = fingerprint
        run_folder.write_json(path, before)
    for name, digest in now.items():
        if before.get(name, digest) != digest:
            raise RunError(
                f"{name} has changed since {folder} was started: results would be mixed; "
                "start a new run, or put the file back"
            )
