"""Going on with a search: which run that is, and what may differ from how it was started."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from nas.core import run_folder
from nas.core.errors import NasError, RunError
from nas.core.quoting import command
from nas.core.settings import flag_name
from nas.searching.settings import Settings, settings_from
from nas.searching.start.old_settings import search_args

# what is told to one executor, and means nothing to another
EXECUTOR = {
    *("executor", "executor_options", "workers", "trials_per_device"),
    *("address", "cpus_per_trial", "gpus_per_trial"),
}
# may differ between a run and its resumption; everything else must not
FREE = {
    "trials",
    "time_limit",
    "random_search",
    "finalists",
    "final_seeds",
    "final_epochs",
    "final_fraction",
    *EXECUTOR,
}
# what is looked for and how; it changes no evaluation, so what was evaluated can be used again
AIM = {
    *("target_flops", "target_params", "target_latency", "max_flops", "max_params"),
    *("objective", "reward", "w", "controller", "controller_options", "seed"),
    *("pruner", "pruner_options", "trial_time_limit"),
}


def kept(stored: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a run that hold still; with another executor not those of its own."""
    if given.get("executor", stored.get("executor")) == stored.get("executor"):
        return stored
    return {key: value for key, value in stored.items() if key not in EXECUTOR}


def opening(folder: Path | None, resume: bool) -> str:
    """Return what a search says at its start about the run it goes on with, if anything."""
    if folder:
        return f"going on with {folder}"
    return "no run of these settings to go on with: starting a new one" if resume else ""


def found(project: Path, name: str | None, given: Mapping[str, Any]) -> Path | None:
    """Return the run to go on with: of that name, or the latest; with the given settings if any.

    Settings that may change between a run and its resumption do not tell runs apart.

    Raises:
        RunError: the run of that name was started with other settings.
    """
    mine = fixed(settings_from(given)) if given.keys() - FREE else None
    for folder in reversed(run_folder.runs("search", project)):
        if name not in (None, folder.name):
            continue
        try:
            theirs = fixed(settings_from(search_args(run_folder.read_args(folder))))
        except NasError:
            if name:
                raise
            continue  # another run's damage
        if mine in (None, theirs):
            return folder
        if name and mine:
            raise _other(folder, given, theirs, mine)
    return None


def _other(
    folder: Path, given: Mapping[str, Any], theirs: dict[str, Any], mine: dict[str, Any]
) -> RunError:
    """Return the refusal of other settings, with the way out that their kind has."""
    asked = [key for key in mine if key in given and theirs[key] != mine[key]]
    changed = asked[0] if asked else next(key for key in mine if theirs[key] != mine[key])
    way = "resume it with its own settings, or name another run"
    if asked and AIM.issuperset(asked) and not theirs["storage"] and not _stranded(asked, theirs):
        flags = [word for key in asked for word in _typed(key, given[key])]
        config = ("--config", folder / run_folder.ARGS)
        again = command("nas", "search", *config, *flags, "--warm-start", folder)
        way = f"`{again}` begins a new search with all that this one has evaluated"
    return RunError(
        f"{folder} was started with {changed} {theirs[changed]!r}, not {mine[changed]!r}: {way}"
    )


def _stranded(asked: Collection[str], theirs: Mapping[str, Any]) -> bool:
    """Tell whether options of the run would be given to another part than they were written for."""
    parts = {"controller", "pruner"}.intersection(asked)
    return any(theirs[f"{part}_options"] and f"{part}_options" not in asked for part in parts)


def _typed(key: str, value: Any) -> list[str]:
    """Return the words of a setting as it is typed."""
    if isinstance(value, dict):
        pairs = ([flag_name(key), f"{name}={option}"] for name, option in value.items())
        return [word for pair in pairs for word in pair]
    return [flag_name(key), str(value)]


def fixed(settings: Settings) -> dict[str, Any]:
    """Return the settings that a resumption must not change."""
    return {key: v for key, v in dataclasses.asdict(settings).items() if key not in FREE}
