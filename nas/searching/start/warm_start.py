"""Warm start of a search: trials of an earlier run are taken over, or give a prior.

Where an earlier run was evaluated as this one will be (same networks, evaluator, data, budget and
device), its evaluated trials are taken over: the new study begins with them, their rewards counted
anew, so that every controller learns from them, and the winner may be one of them. Otherwise they
are a prior of the accuracy (nas/searching/start/priors.py).

All that is needed lies in the run folder before the first proposal, so that a resumed search asks
nothing of the earlier run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.core import registry, run_folder
from nas.core.errors import NasError, OptionError, RunError, did_you_mean
from nas.data.identity import unchanged
from nas.interfaces import SCORED, Metrics, Rung, Space, Trial
from nas.models.points import decode
from nas.searching.evaluator_spec import spec_of
from nas.searching.objective import Goal, broken_limit, reward
from nas.searching.settings import SearchSettings
from nas.searching.setup import Setup, Start
from nas.searching.start.old_settings import search_args
from nas.searching.start.priors import MAKERS, Place, common, prior_of_run
from nas.searching.start.provenance import DATA, SOURCES
from nas.searching.studies.study import RANDOM, SEARCH, Kept, read_journal

FILE, SCHEMA = "warm_start.json", 1
RUNS = ("trials", "prior")  # kinds of what an earlier run tells
# what reading a file raises that parses, and holds something else than was written
DAMAGE = (LookupError, TypeError, AttributeError, ValueError)
JOURNAL = "journal.log"
# of an evaluator's options: where its images lie, which are compared by content instead
PLACES = {"data", "image_column", "label_column", "download"}


def with_source_path(given: Mapping[str, Any], project: Path) -> dict[str, Any]:
    """Return settings in which an earlier run is a path that is the same from any directory."""
    source = given.get("warm_start")
    if not isinstance(source, str) or source in MAKERS:
        return dict(given)
    named, path = project / "search" / source, Path(source).expanduser()
    plain = path.name == source and (named.is_dir() or not path.is_dir())
    return {**given, "warm_start": str((named if plain else path).resolve())}


def read_source(setup: Setup) -> dict[str, Any]:
    """Return the warm start of a new search as JSON data, {} without one.

    Raises:
        OptionError: there is no such run, or it tells nothing about this space or to this
            controller; the message names the way out.
        RunError: it is damaged.
    """
    source = setup.settings.warm_start
    if source is None:
        return {}
    if source in MAKERS:
        MAKERS[source].check(setup)
        _check_controller(setup, f"--warm-start {source} is a prior")
        return {"schema": SCHEMA, "kind": source, "source": source}
    folder = Path(source)
    try:
        return _of_run(folder, setup)
    except DAMAGE as error:
        raise RunError(
            f"{folder} is damaged ({type(error).__name__}: {error}): name another run"
        ) from error


def _of_run(folder: Path, setup: Setup) -> dict[str, Any]:
    """Return the warm start from an earlier run as JSON data."""
    kept, theirs = _earlier_run(folder, setup)
    scored = _evaluated(kept)
    if not scored:
        raise OptionError(f"{folder} has no evaluated trial to begin with: name another run")
    reason = _difference(folder, kept, theirs, scored, setup)
    data: dict[str, Any] = {"schema": SCHEMA, "source": str(folder), "kind": "trials"}
    data["trials"] = [_stored(*each) for each in scored]
    if reason:
        common(setup.space, kept.choices)
        _check_controller(setup, f"{folder} was evaluated otherwise ({reason}): it is but a prior")
        data |= {"kind": "prior", "reason": reason, "choices": kept.choices}
    start(setup, data)  # what it refuses is refused before anything is written
    return data


def with_start(setup: Setup, place: Place, data: Mapping[str, Any]) -> Setup:
    """Return the setup with its warm start, which is kept in the run folder from now on.

    `data`: from `learnt`, {} for a run that is gone on with.

    Raises:
        RunError: what is kept there is damaged.
        OptionError: nothing is kept, as after a kill at the start, and it cannot be had again.
    """
    if setup.settings.warm_start is None:
        return setup
    path = place.folder / FILE
    if not path.exists():
        run_folder.write_json(path, data or read_source(setup))
    return dataclasses.replace(setup, start=_ready(setup, place, path))


def start_line(setup: Setup, data: Mapping[str, Any]) -> str:
    """Return the line on a warm start, from the data of `read_source`; "" without one."""
    source = MAKERS.get(data.get("kind", ""))
    if source:
        return f"warm start: {source.check(setup)}"
    return start(setup, data).line if data else ""


def _ready(setup: Setup, place: Place, path: Path) -> Start:
    """Return the warm start from the data of `read_source`, ready to use.

    Raises:
        RunError: the file is damaged, or of another version.
    """
    data = run_folder.read_json(path)
    try:
        schema, source, kind = data["schema"], data["source"], data["kind"]
        if schema != SCHEMA or kind not in {*RUNS, *MAKERS}:
            raise ValueError(f"schema {schema!r}, kind {kind!r}")
        if kind in RUNS:
            return start(setup, data)
    except DAMAGE as error:
        raise RunError(
            f"{path} is damaged ({type(error).__name__}: {error}): start a new run"
        ) from error
    prior, line = MAKERS[kind].make(setup, place)
    return Start(source, f"warm start: {line}", prior=prior)


def start(setup: Setup, data: Mapping[str, Any]) -> Start:
    """Return the warm start from an earlier run, from the data of `read_source`."""
    source, kind = data["source"], data["kind"]
    if kind == "trials":
        return _taken_over(source, data["trials"], setup.goal)
    points = [(each["choices"], each["metrics"]["accuracy"]) for each in data["trials"]]
    prior, line = prior_of_run(setup.space, data["choices"], points)
    about = f"from {len(points)} trials of {source}, evaluated otherwise ({data['reason']})"
    return Start(source, f"warm start: {line}, {about}", prior=prior)


def _check_controller(setup: Setup, what: str) -> None:
    """Check that the controller takes a prior.

    Raises:
        OptionError: it does not; the message names those that do.
    """
    if "prior" in setup.controller.keywords:
        return
    shipped = registry.names("controllers")
    others = [name for name in shipped if "prior" in registry.keywords("controllers", name)]
    raise OptionError(
        f"{what}, which controller {setup.settings.controller} does not take: "
        f"give --controller {' or '.join(others)}"
    )


def _earlier_run(folder: Path, setup: Setup) -> tuple[Kept, SearchSettings]:
    """Return the studies of an earlier run, and its settings.

    Raises:
        OptionError: it is no search run, or cannot be used with --storage.
        RunError: it is damaged.
    """
    if not (folder / run_folder.ARGS).is_file():
        raise OptionError(
            f"--warm-start takes a search run or {', '.join(MAKERS)}; there is no run {folder}"
            f"{did_you_mean(folder.name, MAKERS)}: `nas ls runs` lists the runs"
        )
    if setup.settings.storage:
        raise OptionError(
            "--warm-start with a run belongs to searches with a journal of their own, not to a "
            "study in --storage: leave one of them out"
        )
    if not (folder / JOURNAL).is_file():
        raise OptionError(
            f"--warm-start takes a search run with a {JOURNAL}, which {folder} lacks (its study is "
            "in a database, or it is no search): name another run"
        )
    try:
        theirs = SearchSettings.model_validate(search_args(run_folder.read_args(folder)))
    except OptionError as error:
        raise OptionError(f"{folder / run_folder.ARGS}: {error}") from error
    return read_journal(folder / JOURNAL), theirs


def _evaluated(kept: Kept) -> list[tuple[str, Trial]]:
    """Return the evaluated trials with their labels, one of each network."""
    found = {
        trial.arch_id: (f"trial {trial.number} of the {name}", trial)
        for name in (RANDOM, SEARCH)
        for trial in kept.studies.get(name, [])
        if trial.state in SCORED
    }
    return list(found.values())


def _stored(name: str, trial: Trial) -> dict[str, Any]:
    return {
        "from": trial.reason if trial.state == "earlier" else name,
        "choices": trial.choices,
        "arch_id": trial.arch_id,
        "metrics": trial.metrics,
        "rungs": [dataclasses.asdict(rung) for rung in trial.rungs],
    }


def _taken_over(source: str, rows: Sequence[Mapping[str, Any]], goal: Goal) -> Start:
    """Return the trials with their rewards under a new goal, but for those above its limits.

    The best come last: aging evolution begins with the latest, and forgets the oldest.
    """
    objective = goal.objective
    within = [row for row in rows if not broken_limit(row["metrics"], objective)]
    within.sort(key=lambda row: reward(row["metrics"], objective))
    above = f", {len(rows) - len(within)} are above the limits" if len(within) < len(rows) else ""
    line = (
        f"taken over: {len(within)} of {len(rows)} evaluated trials of {source}{above}; they are "
        "learnt from, may win, and are not counted as trials"
    )
    trials = tuple(_earlier_trial(number, row, goal) for number, row in enumerate(within))
    return Start(source, f"warm start: {line}", trials)


def _earlier_trial(number: int, row: Mapping[str, Any], goal: Goal) -> Trial:
    metrics, rungs = row["metrics"], tuple(_rung(rung, goal) for rung in row["rungs"])
    told = row["choices"], row["arch_id"], metrics, goal.values(metrics), row["from"]
    return Trial(number, "earlier", *told, rungs=rungs)


def _rung(row: Mapping[str, Any], goal: Goal) -> Rung:
    metrics: Metrics = row["metrics"]
    return Rung(row["epochs"], reward(metrics, goal.objective), metrics, row["seconds"])


def _difference(
    folder: Path,
    kept: Kept,
    theirs: SearchSettings,
    scored: Sequence[tuple[str, Trial]],
    setup: Setup,
) -> str:
    """Return how an earlier run evaluates otherwise, "" where its trials can be taken over."""
    if not _same_choices(kept, setup.space):
        return "other choices"
    if any(_arch_id(setup.space, trial) != trial.arch_id for _, trial in scored):
        return "the same choices make other networks"
    return _other_work(folder, theirs, setup)


def _same_choices(kept: Kept, space: Space) -> bool:
    return kept.choices == {name: tuple(options) for name, options in space.choices.items()}


def _arch_id(space: Space, trial: Trial) -> str:
    try:
        return decode(space, trial.choices).id
    except NasError:
        return ""


def _other_work(folder: Path, theirs: SearchSettings, setup: Setup) -> str:
    """Return what differs in the evaluator, its options, its images or its device."""
    try:
        spec = spec_of(theirs)
        options = _options(spec.evaluator, spec.options)
    except NasError:
        return "its evaluator is not here any more"
    before = run_folder.read_object(folder / SOURCES) if (folder / SOURCES).exists() else {}
    now, mine = setup.sources, setup.spec
    if _content(spec.evaluator, before) != _content(mine.evaluator, now):
        return f"evaluator {spec.evaluator}, not {mine.evaluator}"
    own = _options(mine.evaluator, mine.options)
    fingerprint = setup.evaluator.fingerprint
    # of a table `path` is such a place too
    for name in sorted({*options, *own} - PLACES - ({"path"} if fingerprint else set())):
        old, new = options.get(name), own.get(name)
        if _content(old, before) != _content(new, now):
            return f"{name} {old!r}, not {new!r}"
    noted = before.get(DATA, "")
    if noted != fingerprint and not (fingerprint and unchanged(noted, setup.evaluator)):
        return "another table" if "path" in own else "other images"
    if (spec.device, spec.device_options) != (mine.device, mine.device_options):
        return f"device {spec.device}, not {mine.device}"
    return _other_machine(folder, setup) if mine.device else ""


def _content(value: object, digests: Mapping[str, str]) -> object:
    """Return what is compared of an option: the digest of a file of the user's, else itself."""
    return digests.get(str(value), value)


def _other_machine(folder: Path, setup: Setup) -> str:
    """Tell whether latencies were measured elsewhere; the evaluator's title names the machine."""
    path = folder / "result.json"
    title = run_folder.read_json(path)["evaluator"]["title"] if path.exists() else ""
    return "" if title == setup.evaluator.title else "its latencies were measured on another device"


def _options(evaluator: str, options: Mapping[str, Any]) -> dict[str, Any]:
    return {**registry.option_defaults("evaluators", evaluator), **options}
