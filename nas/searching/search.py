"""Search: settings in, a run folder and its result out."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import shutil
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage

from nas.core import registry, run_folder
from nas.core.errors import NasError
from nas.core.resume import opening
from nas.core.settings import takes
from nas.evaluation.packing import trainings_at_once
from nas.interfaces import SPENT, EvaluatorSpec, Executor, Metrics, Trial
from nas.searching import final_teacher, inheritance
from nas.searching.constraints import constraint_violation
from nas.searching.engine import Engine
from nas.searching.evaluator_spec import with_init
from nas.searching.feasibility import check_space
from nas.searching.final_round import FinalRound, Workers
from nas.searching.outcome import finalists, finals, selection
from nas.searching.outcome.conclude import conclude, spent, training_flops
from nas.searching.outcome.trial_table import FILES, TrialTable
from nas.searching.plan import announced
from nas.searching.progress import SearchProgress
from nas.searching.result import SearchResult
from nas.searching.samplers import distributions, guarded, trial_seed
from nas.searching.settings import SearchSettings
from nas.searching.setup import Setup, prepare
from nas.searching.start import priors, resumption, warm_start
from nas.searching.start.old_settings import search_args
from nas.searching.start.provenance import check_sources
from nas.searching.studies.study import RANDOM, SEARCH, Journal, Log
from nas.searching.time_budget import TimeBudget

if TYPE_CHECKING:
    from nas.searching.studies.shared import Shared

INTERRUPTED, EQUAL_COST = "interrupted", "random search has cost what the search has"
# random search may take this many times the trials, where most of its trainings are stopped early
MANY = 10
PACKING, LAST = "packing.json", "finals"


@takes(SearchSettings)
def search(
    *,
    project: str | Path = "runs",
    name: str | None = None,
    resume: bool = False,
    screen: SearchProgress | None = None,
    interrupted: Callable[[], bool] = lambda: False,
    **settings: Any,
) -> SearchResult:
    """Search a space; return what it found (`best`, `leaderboard`, `run`, ...).

    `to_dict()` of it is what `nas search --json` prints.

    `settings` are the command's flags with underscores, as text or numbers:
    `nas.search(space="mbconv", target_flops="400M", trials=200)`. The run folder is
    project/search/name. `resume` goes on with the run of that name, or with the latest one, of
    these settings if any are given; where there is none it starts.

    Raises:
        OptionError: a setting is wrong, or no arch reaches the target.
        RunError: the run folder is in use, damaged or cannot be written.
    """
    settings, password = _without_password(settings, name)
    settings = warm_start.with_source_path(settings, Path(project))
    settings = inheritance.with_weights_paths(settings, Path(project))
    folder = resumption.found(Path(project), name, settings) if resume else None
    if folder and not settings.keys() - resumption.FREE:
        settings = {
            **resumption.kept(search_args(run_folder.read_args(folder)), settings),
            **settings,
        }
    if folder and not settings.get("init"):
        settings["init"] = search_args(run_folder.read_args(folder))["init"]
    setup = prepare(SearchSettings.model_validate(settings), parent=inheritance.kept(folder))
    final_teacher.check(setup, folder)
    said = opening(folder, resume)
    fresh = folder is None
    start_data = warm_start.read_source(setup) if fresh else {}
    with _opened(setup.settings.storage, password) as database:
        if folder is None:
            folder = run_folder.create("search", name, Path(project), setup.settings.model_dump())
        with run_folder.lease(folder):
            check_sources(folder, setup)
            screen = screen or SearchProgress()
            place = priors.Place(folder, screen.say, interrupted)
            setup = _with_parent(warm_start.with_start(setup, place, start_data), folder)
            journal = _journal(setup, folder, database)
            run_folder.write_environment(folder)
            run_folder.write_args(folder, setup.settings.model_dump())
            for line in (
                said,
                *setup.evaluator.notes,
                *setup.notes,
                setup.start.line,
                *announced(setup),
            ):
                screen.say(line)
            executor = _executor(setup, folder, journal, screen, fresh=fresh)
            return _search(setup, folder, journal, executor, screen, interrupted)


def _with_parent(setup: Setup, folder: Path) -> Setup:
    """Return the setup whose workers read the weights to inherit from the run's folder."""
    if not setup.parent:
        return setup
    place = inheritance.keep_parent(setup.parent, folder)
    return dataclasses.replace(setup, spec=with_init(setup.spec, str(place)))


def _without_password(
    settings: Mapping[str, Any], name: str | None
) -> tuple[dict[str, Any], str | None]:
    """Return settings that may be kept and shown, with the study's name, and the password."""
    chosen, url = dict(settings), settings.get("storage")
    if not isinstance(url, str):
        return chosen, None  # none, or refused with the other settings
    from nas.searching.studies.database import split  # SQLAlchemy: only where it is needed

    chosen["storage"], password = split(url)
    if not chosen.get("study"):
        chosen["study"] = name or "search"
    return chosen, password


@contextlib.contextmanager
def _opened(url: str | None, password: str | None) -> Iterator[RDBStorage | None]:
    """Open the database of --storage; none without one."""
    if not url:
        yield None
        return
    from nas.searching.studies.database import opened
    from nas.searching.studies.shared import requeue

    with opened(url, password, requeue) as database:
        yield database


def _journal(setup: Setup, folder: Path, database: RDBStorage | None) -> Journal | Shared:
    """Return where the studies are kept: in the run folder, or in a database."""
    choices = distributions(setup.space)
    if database is None:
        return Journal(folder / "journal.log", choices)
    from nas.searching.studies.shared import Shared

    study = setup.settings.study or folder.name
    return Shared(database, study, choices, folder, _common(setup))


def _common(setup: Setup) -> dict[str, Any]:
    """Return what must be equal for all drivers of a study: settings, and files by content.

    The images may lie at another path on another machine.
    """
    digests = setup.sources
    apart = {"storage", "study", "download", "data", "image_column", "label_column"}
    fixed = {k: v for k, v in resumption.fixed(setup.settings).items() if k not in apart}
    same = {k: digests.get(v, v) if isinstance(v, str) else v for k, v in fixed.items()}
    return {**same, "the data": setup.evaluator.fingerprint}


@dataclass(frozen=True)
class _Active:
    """A run that is open: what both its studies share."""

    setup: Setup
    folder: Path
    journal: Journal | Shared
    executor: Executor
    screen: SearchProgress
    known: dict[str, Metrics]


def _executor(
    setup: Setup, folder: Path, journal: Journal | Shared, screen: SearchProgress, *, fresh: bool
) -> Executor:
    """Return who does the work; a fresh run for which there is nobody leaves no folder."""
    try:
        executor = setup.executor.make(
            setup.spec,
            workers=_workers(setup, folder, screen),
            isolate=bool(setup.settings.trial_time_limit),
            folder=folder.resolve(),
            seconds=_duration(journal),
        )
    except NasError:
        if fresh:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return executor


def _search(
    setup: Setup,
    folder: Path,
    journal: Journal | Shared,
    executor: Executor,
    screen: SearchProgress,
    interrupted: Callable[[], bool],
) -> SearchResult:
    chosen = setup.settings
    workers = Workers(
        executor, functools.partial(_with_spec, setup, folder, journal, screen), setup.spec
    )
    try:
        final_teacher.keep(setup, folder, screen.say)
        if setup.start.trials and isinstance(journal, Journal):
            journal.take_over(SEARCH, setup.goal.directions, setup.start.trials)
        active = _Active(setup, folder, journal, executor, screen, journal.known())
        has_final_round = bool(setup.finalists)
        shares = TimeBudget(chosen.time_limit, 1 + chosen.random_search + has_final_round)
        stop = _stopper(interrupted)
        ends = dict[str, str]()  # why each stage ended early, "" where it did not
        log, ends[SEARCH] = _pursue(active, SEARCH, setup.trials, stop, shares.late(1), at_least=1)
        baseline = None
        if chosen.random_search and not stop():
            baseline, ends[RANDOM] = _baseline(active, log, stop, shares.late(2))
        scores, alone = list[finals.FinalScore](), list[finals.FinalScore]()
        studies, length, late = None, None, shares.late(shares.stages)
        if has_final_round and not stop():
            ends[LAST] = late()
        if has_final_round and not stop() and not late():
            left, slots = shares.left(shares.stages), executor.slots
            studies = selection.studies(setup, log, baseline)
            entrants = finalists.select_finalists(setup, studies, left, slots)
            length = finalists.length(setup, folder, log, len(entrants), left, slots)
            # none is begun that would end too late: a candidate's weights are the fallback
            late = shares.late(shares.stages, finalists.seconds(setup, log, length))
            last = FinalRound(setup, folder, workers, length, lambda: stop() or late(), screen.say)
            scores, end = last.train(entrants)
            ends[LAST] = end.replace(INTERRUPTED, "")
            alone = last.train_alone(scores, studies)
        reason = stop() or next((end for end in reversed(ends.values()) if end), "")
        fleet = workers.executor.status()
        screen.say(fleet.message)
    finally:
        workers.executor.close()
    return conclude(
        folder, setup, log, baseline, scores, length, reason, fleet, ends, studies, alone
    )


def _with_spec(
    setup: Setup,
    folder: Path,
    journal: Journal | Shared,
    screen: SearchProgress,
    spec: EvaluatorSpec,
) -> Executor:
    """Return workers that hold another specification: other images, or a teacher."""
    other = dataclasses.replace(setup, spec=spec)
    return _executor(other, folder, journal, screen, fresh=False)


def _workers(setup: Setup, folder: Path, screen: SearchProgress) -> int:
    """Return the number of worker processes, measured once in a run where that is asked for."""
    asked, path = setup.settings.trials_per_device, folder / PACKING
    if not asked:
        return setup.settings.workers or 0
    if not path.exists() or run_folder.read_object(path).get("asked") != asked:
        arch = check_space(setup.space)
        workers = trainings_at_once(asked, setup.spec, arch, screen.say)
        run_folder.write_json(path, {"asked": asked, "workers": workers})
    found = int(run_folder.read_object(path, "workers")["workers"])
    screen.say(f"{found} trainings at once")
    return found


def _duration(journal: Journal | Shared) -> float:
    """Return the median seconds of what the run has evaluated so far, 0 if nothing."""
    found = journal.seconds()
    return statistics.median(found) if found else 0.0


def _baseline(
    active: _Active, log: Log, stop: Callable[[], str], late: Callable[[], str]
) -> tuple[Log, str]:
    """Search at random for what the search has cost: in trials, or in cost of training."""
    trials = log.trials()
    allowed = _cost(active.setup, trials)
    if not allowed:
        return _pursue(active, RANDOM, spent(trials), stop, late)
    return _pursue(active, RANDOM, MANY * len(trials), stop, late, allowed=allowed)


def _cost(setup: Setup, trials: Sequence[Trial]) -> float:
    """Return what trainings have cost: multiply-adds, of those of a set time seconds; else 0."""
    if setup.settings.trial_time:
        return sum(trial.seconds for trial in trials if trial.state in SPENT)
    return training_flops(trials)


def _sampler(setup: Setup, name: str) -> tuple[BaseSampler, int]:
    """Return what proposes in one study, and its seed."""
    seed, controller = setup.settings.seed, setup.controller
    if name == RANDOM:
        seed, controller = trial_seed(seed, -1), registry.part("controllers", "random", {})
    violation = constraint_violation(setup.space, setup.goal.objective)
    # by name; controllers of users may have the keyword of before
    given: dict[str, Any] = {"constraint_violation": violation, "excess": violation}
    given |= {"seed": seed, "goal": setup.goal}
    given |= {"draw": setup.draw, "prior": setup.start.prior}
    sampler = controller.make(setup.space, **given)
    own = controller.name.endswith(".py")
    return guarded(sampler, controller.name) if own else sampler, seed


def _study(active: _Active, name: str) -> tuple[Log, int]:
    """Open a study with its controller and its pruner; return it and the controller's seed."""
    setup = active.setup
    sampler, seed = _sampler(setup, name)
    pruner = setup.pruner.make(rungs=setup.rungs or (1,))
    return active.journal.log(name, setup.goal.directions, sampler, pruner), seed


def _pursue(
    active: _Active,
    name: str,
    trials: int,
    stop: Callable[[], str],
    late: Callable[[], str],
    *,
    at_least: int = 0,
    allowed: float = math.inf,
) -> tuple[Log, str]:
    """Run one study of the journal; return it and why it ended early, or "".

    It ends after so many trials, or when they have cost what is allowed, or late, but not before
    `at_least` archs have an accuracy.
    """
    setup = active.setup
    log, seed = _study(active, name)
    earlier = log.trials()
    if name == SEARCH and spent(earlier) < trials:
        log.enqueue(setup.first_points)
    cost = [_cost(setup, earlier)]
    table = TrialTable(active.folder / FILES[name], earlier, setup.goal)

    def watch(trial: Trial) -> None:
        cost.append(_cost(setup, [trial]))
        table.append(trial)
        active.screen.trial(trial)

    engine = Engine(
        log,
        setup.space,
        setup.goal,
        active.executor,
        finished=earlier,
        seed=seed,
        known=active.known,
        stop=stop,
        late=lambda: late() or (EQUAL_COST if sum(cost) >= allowed else ""),
        at_least=at_least,
        watch=watch,
        budget=setup.budget(active.folder / "trials"),
    )
    named = {each.arch.id: each.name for each in setup.references}
    active.screen.begin(name, trials, setup.goal, named, earlier, active.executor.status)
    try:
        reason = engine.run(trials)
        if log.shared:  # in order, and the same for every driver
            table.close()
            table = TrialTable(active.folder / FILES[name], log.trials(), setup.goal)
        return log, "" if reason == EQUAL_COST else reason
    finally:
        log.close()
        table.close()
        active.screen.end()


def _stopper(interrupted: Callable[[], bool]) -> Callable[[], str]:
    return lambda: INTERRUPTED if interrupted() else ""
