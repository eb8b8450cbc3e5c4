"""Search: settings in, a run folder and its result out."""

from __future__ import annotations

import dataclasses
import hashlib
import multiprocessing
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas import catalog, report, results, run
from nas.engine import Engine, excess
from nas.errors import NasError, OptionError, RunError
from nas.interfaces import Executor, Metrics, Trial
from nas.prepare import Setup, prepare
from nas.samplers import distributions, trial_seed
from nas.screen import Progressing, silent
from nas.settings import Settings, settings_from
from nas.study import RANDOM, SEARCH, Journal, Log

# may differ between a run and its resumption; everything else must not
FREE = {"trials", "time_limit", "workers", "executor", "executor_options", "random_search"}
INTERRUPTED = "interrupted"
SOURCES = "sources.json"


def search(
    *,
    project: str | Path = "runs",
    name: str | None = None,
    resume: bool = False,
    screen: Progressing | None = None,
    interrupted: Callable[[], bool] = lambda: False,
    **settings: Any,
) -> dict[str, Any]:
    """Search a space; return what `nas search --json` prints (`best`, `trials`, `run`, ...).

    `settings` are the command's flags with underscores, as text or numbers:
    `nas.search(space="mbconv", target_flops="400M", trials=200)`. The run folder is
    project/search/name. `resume` goes on with the run of that name, or with the latest one, of
    these settings if any are given; where there is none it starts.

    Raises:
        OptionError: a setting is wrong, or no arch reaches the target.
        RunError: the run folder is in use, damaged or cannot be written.
    """
    # set while a spawned process imports the script it came from
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise OptionError(
            "a worker process imported the script that called nas.search: put the call under "
            "`if __name__ == '__main__':`"
        )
    folder = _found(Path(project), name, settings) if resume else None
    if folder and not settings.keys() - FREE:
        settings = {**run.read_args(folder), **settings}
    setup = prepare(settings_from(settings))
    opening = _opening(folder, resume)
    if folder is None:
        folder = run.create("search", name, Path(project), dataclasses.asdict(setup.settings))
    with run.lease(folder):
        _check_sources(folder, setup.settings)
        journal = Journal(folder / "journal.log", distributions(setup.space))
        run.write_environment(folder)
        run.write_args(folder, dataclasses.asdict(setup.settings))
        screen = screen or silent()
        screen.say(opening)
        return _search(setup, folder, journal, screen, interrupted)


def _opening(folder: Path | None, resume: bool) -> str:
    if folder:
        return f"going on with {folder}"
    return "no run of these settings to go on with: starting a new one" if resume else ""


def _found(project: Path, name: str | None, given: Mapping[str, Any]) -> Path | None:
    """Return the run to go on with: of that name, or the latest; with the given settings if any.

    Settings that may change between a run and its resumption do not tell runs apart.

    Raises:
        RunError: the run of that name was started with other settings.
    """
    mine = _fixed(settings_from(given)) if given.keys() - FREE else None
    for folder in reversed(run.runs("search", project)):
        if name not in (None, folder.name):
            continue
        try:
            theirs = _fixed(settings_from(run.read_args(folder)))
        except NasError:
            if name:
                raise
            continue  # another run's damage
        if mine in (None, theirs):
            return folder
        if name and mine:
            changed = next(key for key in mine if theirs[key] != mine[key])
            raise RunError(
                f"{folder} was started with {changed} {theirs[changed]!r}, not "
                f"{mine[changed]!r}: resume it with its own settings, or name another run"
            )
    return None


def _fixed(settings: Settings) -> dict[str, Any]:
    return {key: v for key, v in dataclasses.asdict(settings).items() if key not in FREE}


def _sources(settings: Settings) -> dict[str, str]:
    """Return a hash of each part that is a file of the user's."""
    names = (settings.space, settings.evaluator, settings.controller, settings.executor)
    paths = {name: Path(name) for name in names if name and name.endswith(".py")}
    return {n: hashlib.blake2b(p.read_bytes(), digest_size=8).hexdigest() for n, p in paths.items()}


def _check_sources(folder: Path, settings: Settings) -> None:
    """Check that the user's files are what they were when the run was started.

    Raises:
        RunError: one was changed, so that old and new results would be mixed.
    """
    path, now = folder / SOURCES, _sources(settings)
    if not path.exists():
        run.write_json(path, now)
    before = run.read_json(path)
    for name, digest in now.items():
        if before.get(name, digest) != digest:
            raise RunError(
                f"{name} has changed since {folder} was started: results would be mixed; "
                "start a new run, or put the file back"
            )


@dataclass(frozen=True)
class _Session:
    """A run that is open: what both its studies share."""

    setup: Setup
    folder: Path
    journal: Journal
    executor: Executor
    screen: Progressing
    known: dict[str, Metrics]
    references: list[dict[str, Any]]


def _search(
    setup: Setup,
    folder: Path,
    journal: Journal,
    screen: Progressing,
    interrupted: Callable[[], bool],
) -> dict[str, Any]:
    chosen = setup.settings
    executor: Executor = catalog.make(
        "executors",
        chosen.executor,
        chosen.evaluator,
        setup.evaluator_options,
        options=chosen.executor_options,
        workers=chosen.workers,
    )
    try:
        references = results.reference_rows(folder, setup)
        known = {row["arch_id"]: row["metrics"] for row in references} | journal.known()
        session = _Session(setup, folder, journal, executor, screen, known, references)
        share = 2 if chosen.random_search else 1
        limit = chosen.time_limit / share if chosen.time_limit else None
        log, reason = _pursue(session, SEARCH, chosen.trials, _stopper(limit, interrupted))
        chance = None
        if chosen.random_search and reason != INTERRUPTED:
            budget, stop = results.spent(log.trials()), _stopper(limit, interrupted)
            chance, late = _pursue(session, RANDOM, budget, stop)
            reason = late or reason
    finally:
        executor.close()
    result = results.conclude(folder, setup, log, chance, references, reason)
    report.write(folder)
    return result


def _pursue(session: _Session, name: str, budget: int, stop: Callable[[], str]) -> tuple[Log, str]:
    """Run one study of the journal to its budget; return it and why it ended early, or ""."""
    setup, seed = session.setup, session.setup.settings.seed
    controller, options = setup.controller, setup.settings.controller_options
    if name == RANDOM:
        controller, options, seed = "random", {}, trial_seed(seed, -1)
    sampler = catalog.make(
        "controllers",
        controller,
        setup.space,
        options=options,
        seed=seed,
        excess=excess(setup.space, setup.goal.objective),
    )
    log = session.journal.log(name, setup.goal.directions, sampler)
    earlier = log.trials()
    table = results.Table(session.folder / results.TRIALS[name], earlier, setup.goal)

    def watch(trial: Trial) -> None:
        table.append(trial)
        session.screen.trial(trial)

    engine = Engine(
        log,
        setup.space,
        setup.goal,
        session.executor,
        seed=seed,
        known=session.known,
        stop=stop,
        watch=watch,
    )
    session.screen.begin(name, budget, setup.goal.objective, session.references, earlier)
    try:
        return log, engine.run(budget)
    finally:
        table.close()
        session.screen.end()


def _stopper(limit: float | None, interrupted: Callable[[], bool]) -> Callable[[], str]:
    deadline = time.monotonic() + limit if limit else float("inf")

    def stop() -> str:
        if interrupted():
            return INTERRUPTED
        return "time limit" if time.monotonic() > deadline else ""

    return stop
