"""The run to go on with: the one of a name, or the latest, with the settings that are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.core import run_folder
from nas.core.errors import NasError, RunError

OWN = "resume it with its own settings, or name another run"
Stored = Mapping[str, Any]  # the settings that a run was started with


def _own(folder: Path, stored: Stored, changed: Sequence[str]) -> str:
    return OWN


def find_run(
    verb: str,
    project: Path,
    name: str | None,
    asked: Mapping[str, Any],
    *,
    read: Callable[[Path], Stored] = run_folder.read_args,
    foreign: Callable[[Path], str] = lambda folder: "",
    way_out: Callable[[Path, Stored, Sequence[str]], str] = _own,
) -> Path | None:
    """Return the latest run of a verb, or that of a name, whose settings are those asked for.

    `asked`: the settings that must be equal. `read` gives those of a run; `foreign` says why a run
    of equal settings is another's still, "" where it is none; `way_out` is told which settings
    differ. Without a name a damaged run is passed over.

    Raises:
        RunError: the run of that name is damaged, or was started with other settings.
    """
    for folder in reversed(run_folder.runs(verb, project)):
        if name not in (None, folder.name):
            continue
        try:
            stored = read(folder)
        except NasError:
            if name:
                raise
            continue
        changed = [key for key, value in asked.items() if stored.get(key) != value]
        if not changed and not (refusal := foreign(folder)):
            return folder
        if name and changed:
            first = changed[0]
            refusal = (
                f"{folder} was started with {first} {stored.get(first)!r}, not {asked[first]!r}: "
                f"{way_out(folder, stored, changed)}"
            )
        if name:
            raise RunError(refusal)
    return None


def opening(folder: Path | None, resume: bool) -> str:
    """Return what a verb says at its start about the run that it goes on with, "" for nothing."""
    if folder:
        return f"going on with {folder}"
    return "no run of these settings to go on with: starting a new one" if resume else ""
