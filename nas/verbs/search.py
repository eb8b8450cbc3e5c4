"""Search: settings in, a run folder and its result out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from nas import catalog, report, results, run
from nas.engine import Engine
from nas.errors import RunError
from nas.interfaces import Executor, Metrics, Trial
from nas.objective import Objective
from nas.prepare import Setup, prepare
from nas.samplers import distributions
from nas.settings import Settings, settings_from
from nas.study import BASELINE, SEARCH, Journal, Log

# may differ between a run and its resumption; everything else must not
FREE = ("trials", "time_limit", "workers", "baseline")
INTERRUPTED = "interrupted"


class Screen(Protocol):
    """Who shows the progress of a search."""

    def begin(
        self,
        name: str,
        total: int,
        objective: Objective,
        references: list[dict[str, Any]],
        earlier: Sequence[Trial],
    ) -> None:
        """Start showing one study of `total` evaluations, of which some are `earlier` ones."""

    def trial(self, trial: Trial) -> None:
        """Show a finished trial."""

    def end(self) -> None:
        """Stop showing it."""


class Silent:
    """A screen that shows nothing."""

    def begin(
        self,
        name: str,
        total: int,
        objective: Objective,
        references: list[dict[str, Any]],
        earlier: Sequence[Trial],
    ) -> None: ...

    def trial(self, trial: Trial) -> None: ...

    def end(self) -> None: ...


def search(
    *,
    project: str | Path = "runs",
    name: str | None = None,
    resume: bool = False,
    screen: Screen | None = None,
    interrupted: Callable[[], bool] = lambda: False,
    **settings: Any,
) -> dict[str, Any]:
    """Search a space; return what `nas search --json` prints (`best`, `trials`, `run`, ...).

    `settings` are the command's flags with underscores, as text or numbers:
    `nas.search(space="mbconv", target_flops="400M", trials=200)`. The run folder is
    project/search/name. `resume` goes on with the run of that name, or with the latest of these
    settings.

    Raises:
        OptionError: a setting is wrong, or no arch reaches the target.
        RunError: the run folder is in use, damaged or cannot be written.
    """
    setup = prepare(settings_from(settings))
    folder = _folder(setup.settings, Path(project), name, resume)
    with run.lease(folder):
        journal = Journal(folder / "journal.log", distributions(setup.space))
        run.write_environment(folder)
        run.write_args(folder, dataclasses.asdict(setup.settings))
        return _search(setup, folder, journal, screen or Silent(), interrupted)


def _folder(settings: Settings, project: Path, name: str | None, resume: bool) -> Path:
    """Return the folder of a new run, or the one to go on with."""
    arguments = dataclasses.asdict(settings)
    mine = _fixed(arguments)
    same = []
    for folder in run.runs("search", project) if resume else ():
        try:
            theirs = _fixed(run.read_args(folder))
        except RunError:
            if folder.name == name:
                raise
            continue  # another run's damage
        if folder.name == name and theirs != mine:
            changed = next(key for key in {**mine, **theirs} if theirs.get(key) != mine.get(key))
            raise RunError(
                f"{folder} was started with {changed} {theirs.get(changed)!r}, not "
                f"{mine.get(changed)!r}: resume it with its own settings, or name another run"
            )
        if theirs == mine and name in (None, folder.name):
            same.append(folder)
    return same[-1] if same else run.create("search", name, project, arguments)


def _fixed(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in arguments.items() if key not in FREE}


@dataclass(frozen=True)
class _Session:
    """A run that is open: what both its studies share."""

    setup: Setup
    folder: Path
    journal: Journal
    executor: Executor
    screen: Screen
    known: dict[str, Metrics]
    references: list[dict[str, Any]]


def _search(
    setup: Setup,
    folder: Path,
    journal: Journal,
    screen: Screen,
    interrupted: Callable[[], bool],
) -> dict[str, Any]:
    chosen = setup.settings
    executor: Executor = catalog.make(
        "executors",
        chosen.executor,
        chosen.evaluator,
        setup.evaluator_options,
        options={},
        workers=chosen.workers,
    )
    try:
        references = results.reference_rows(folder, setup)
        known = {row["arch_id"]: row["metrics"] for row in references} | journal.known()
        session = _Session(setup, folder, journal, executor, screen, known, references)
        stop = _stopper(chosen.time_limit, interrupted)
        log, reason = _pursue(session, SEARCH, chosen.trials, stop)
        rival = None
        if chosen.baseline and reason != INTERRUPTED:
            done = sum(trial.state in ("done", "failed") for trial in log.trials())
            rival, late = _pursue(session, BASELINE, done, _stopper(None, interrupted))
            reason = late or reason
    finally:
        executor.close()
    result = results.conclude(folder, setup, log, rival, references, reason)
    report.write(folder)
    return result


def _pursue(session: _Session, name: str, budget: int, stop: Callable[[], str]) -> tuple[Log, str]:
    """Run one study of the journal to its budget; return it and why it ended early, or ""."""
    setup, seed = session.setup, session.setup.settings.seed
    controller, options = setup.controller, setup.settings.controller_options
    if name == BASELINE:
        controller, options, seed = "random", {}, seed + 1
    sampler = catalog.make("controllers", controller, setup.space, options=options, seed=seed)
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
