"""Resumption of a search: finding its run, and the settings that may differ."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.core import run_folder
from nas.core.quoting import command
from nas.core.resume import OWN, Stored, find_run
from nas.core.settings import flag_name
from nas.searching.settings import SearchSettings
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
    """Return the settings of a run that are fixed; with another executor not those of its own."""
    if given.get("executor", stored.get("executor")) == stored.get("executor"):
        return stored
    return {key: value for key, value in stored.items() if key not in EXECUTOR}


def found(project: Path, name: str | None, given: Mapping[str, Any]) -> Path | None:
    """Return the run to go on with: of that name, or the latest; with the given settings if any.

    Settings that may change between a run and its resumption do not tell runs apart.

    Raises:
        RunError: the run of that name was started with other settings.
    """
    mine = fixed(SearchSettings.model_validate(given)) if given.keys() - FREE else {}
    if not given.get("init"):
        mine.pop("init", None)  # a run notes what it chose itself
    # of several that differ, one that was typed is told
    asked = {key: mine[key] for key in sorted(mine, key=lambda key: key not in given)}

    def way_out(folder: Path, stored: Stored, changed: Sequence[str]) -> str:
        return _way_out(folder, stored, {key: given[key] for key in changed if key in given})

    return find_run("search", project, name, asked, read=_fixed_of, way_out=way_out)


def _fixed_of(folder: Path) -> dict[str, Any]:
    """Return the settings of a run that are fixed."""
    return fixed(SearchSettings.model_validate(search_args(run_folder.read_args(folder))))


def _way_out(folder: Path, stored: Stored, typed: Mapping[str, Any]) -> str:
    """Return how to go on with other settings; evaluations stay valid under another objective."""
    if not typed or not AIM.issuperset(typed) or stored["storage"] or _stranded(typed, stored):
        return OWN
    flags = [word for key, value in typed.items() for word in _typed(key, value)]
    config = ("--config", folder / run_folder.ARGS)
    again = command("nas", "search", *config, *flags, "--warm-start", folder)
    return f"`{again}` begins a new search with all that this one has evaluated"


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


def fixed(settings: SearchSettings) -> dict[str, Any]:
    """Return the settings that a resumption must not change."""
    return {key: v for key, v in settings.model_dump().items() if key not in FREE}
