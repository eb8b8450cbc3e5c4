"""Fit alpha, beta and gamma to a base: train the candidates of a grid, the best of them again.

Source: Tan and Le 2019, section 3.3, step 1. They trained a grid once and took the best. Here the
worse half stops at each rung (Jamieson and Talwalkar 2016, successive halving), and the winner is
named by held-out seeds, as in a search's finals.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from nas.core import run_folder
from nas.core.errors import NasError, RunError
from nas.core.units import format_count
from nas.data.identity import unchanged
from nas.evaluation.run_all import run_all
from nas.interfaces import TRAINING_FLOPS, Executor, Task
from nas.scaling.fit import coefficients
from nas.scaling.fit.coefficients import FILE, FIT, Coefficients
from nas.scaling.fit.conclude import conclude, label
from nas.scaling.fit.grid import MISS, GridPoint
from nas.scaling.fit.result import FitResult
from nas.scaling.fit.setup import FitPlan
from nas.scaling.fit.table import FitTable
from nas.scaling.progress import ScalingProgress
from nas.scaling.settings import COEFFICIENTS, SHAPED
from nas.scaling.setup import ScaleSetup, Stop, open_executor
from nas.searching.outcome import finals
from nas.searching.outcome.finals import Finalist, FinalScore

TRAININGS = "trainings"


def settle(
    setup: ScaleSetup, plan: FitPlan | None, folder: Path, screen: ScalingProgress, stop: Stop
) -> tuple[Coefficients | None, str]:
    """Return the coefficients of a run, or None and why there are none yet.

    Those that are on file in the run, else fitted if that is planned, else those of the latest fit
    of this base, else the paper's. A flag goes before all but the first.

    Raises:
        NasError: every candidate failed.
        RunError: the run's files are damaged or cannot be written.
    """
    kept = folder / FILE  # those of this run, whatever is fitted later
    if kept.is_file():
        return _pinned(kept), ""
    if plan:
        fresh, reason = fit(plan, folder, screen, stop)
        if fresh is None:
            return None, reason
        found = fresh
    elif setup.settings.rule in SHAPED:
        stored = _stored(setup, screen)
        found = given(setup, stored or coefficients.PAPER)
        screen.say(f"{label(found[:3])}, {found.origin}" if stored else "")
    else:
        found = given(setup, coefficients.PAPER)
    run_folder.write_json(kept, found._asdict())
    return found, ""


def _pinned(path: Path) -> Coefficients:
    """Return the coefficients that a run began with.

    Raises:
        RunError: the file is damaged.
    """
    data = run_folder.read_json(path)
    try:
        return coefficients.parsed(data)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{path} holds no coefficients ({type(error).__name__}: {error}): delete it to have "
            "them found again"
        ) from error


def _stored(setup: ScaleSetup, screen: ScalingProgress) -> Coefficients | None:
    """Return what was fitted to this base last, in the project or by an earlier version."""
    found, note = coefficients.fitted(setup.project, setup.arch)
    screen.say(note)
    if found:
        return found
    # a path is absolute; what is not is a name, whatever folder is called so
    path = Path(setup.source) if Path(setup.source).is_absolute() else None
    before = coefficients.former_place(path, setup.project, setup.arch.name)
    found, note = coefficients.find(before, setup.arch)
    screen.say(note)
    return found


def given(setup: ScaleSetup, others: Coefficients) -> Coefficients:
    """Return the coefficients of the flags, the others where a flag is missing."""
    flags = {name: getattr(setup.settings, name) for name in COEFFICIENTS}
    # 0 is given too, and refused where the family is made
    typed = {name: value for name, value in flags.items() if value is not None}
    if not typed:
        return others
    words = ", ".join(f"--{name}" for name in typed) + " as given"
    rest = "" if len(typed) == len(COEFFICIENTS) else f", the rest {others.origin}"
    return others._replace(**typed, origin=words + rest)


def read(folder: Path) -> FitResult | None:
    """Return the finished fit of a run, None if there is none."""
    path = folder / FIT
    found = _noted(path) if path.is_file() else {}
    return FitResult.from_dict(found) if found.get("chosen") else None


def _noted(path: Path) -> dict[str, Any]:
    """Return what fit.json holds: of a finished fit all, of another its images.

    Raises:
        RunError: it is damaged.
    """
    found = run_folder.read_json(path)
    try:
        if found["chosen"]:
            FitResult.from_dict(found)
        return {**found, "fingerprint": found["fingerprint"]}
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"{path} holds no fit: delete it, and it is made again from the tables"
        ) from error


def fit(
    plan: FitPlan, folder: Path, screen: ScalingProgress, stop: Stop
) -> tuple[Coefficients | None, str]:
    """Train the candidates and return the best coefficients.

    Each finished training is a row of fit.csv or finals.csv in the folder at once, and is never
    repeated. `stop` gives the reason to end early; then None and the reason are returned, and a
    later call goes on.

    Raises:
        NasError: every candidate failed; the message gives the reason.
        RunError: a file cannot be written, or the images are others than those it began with.
    """
    _begin(plan, folder)
    for line in (*plan.evaluator.notes, *_opening(plan)):
        screen.say(line)
    table = FitTable(plan, folder, screen)
    executor = open_executor(plan.setup, plan.spec, folder)
    table.slots = lambda: executor.slots
    try:
        last, reason = _halve(plan, table, executor, stop)
        final_scores = list[FinalScore]()
        if not reason:
            final_scores, reason = _run_finals(plan, table, last, executor, stop)
        screen.say(executor.status().message)
    finally:
        executor.close()
    if reason:
        return None, reason
    found = conclude(plan, table.seen, final_scores, _spent(table))
    run_folder.write_json(folder / FIT, found.to_dict())
    return _coefficients(plan, found, folder), ""


def _coefficients(plan: FitPlan, found: FitResult, folder: Path) -> Coefficients:
    origin = f"fitted to this base on {plan.setup.settings.data} by {folder}"
    if found.within_noise:
        origin += f", within the noise of {len(found.alike)} other candidates"
    elif found.within_noise is None:
        origin += ", noise unknown"
    return Coefficients(*found.chosen.point, origin)


def _begin(plan: FitPlan, folder: Path) -> None:
    """Note what the fit is of, or check that it is still that.

    Raises:
        RunError: the images have changed.
    """
    path = folder / FIT
    data = plan.evaluator.fingerprint
    if not path.exists():
        run_folder.write_json(path, {"fingerprint": data, "chosen": None})
        return
    before = _noted(path)["fingerprint"]
    if before != data and not (data and unchanged(before, plan.evaluator)):
        raise RunError(
            f"the images of {plan.setup.settings.data} are not those that {folder} began with: "
            "bring them back, or fit anew under another --name"
        )


def _opening(plan: FitPlan) -> list[str]:
    """Return what is going to be trained, and what it costs."""
    grid, wanted = plan.grid, plan.setup.settings.candidates
    passing = sum(each.passes for each in grid.candidates)
    lines = [
        f"grid of step {grid.step:g}: {len(grid.candidates)} networks with α·β²·γ² = 2 ± "
        f"{grid.tolerance:.0%}, {passing} of them cost twice the FLOPs ± {MISS:.0%}; "
        f"{len(grid.trained)} are trained"
    ]
    if wanted and len(grid.trained) < wanted:
        lines.append(f"no more than {len(grid.trained)} differ enough from each other")
    flops = plan.training_flops
    cost = f", {format_count(flops)} multiply-adds" if flops == flops else ""
    lines.append(f"up to {plan.epochs} epochs of training in all{cost}: {plan.evaluator.title}")
    return lines


def _halve(
    plan: FitPlan, table: FitTable, executor: Executor, stop: Stop
) -> tuple[list[GridPoint], str]:
    """Train up to each rung, and go on with the better half; return those at the last, best first.

    If stopped early, an empty list and the reason.
    """
    alive = plan.grid.trained
    for epochs in plan.rungs:
        if reason := run_all(_tasks(plan, table, alive, epochs), executor, table, stop):
            return [], reason
        seen = table.seen
        done = [each for each in alive if epochs in seen.get(each.arch.id, {})]
        if not done:
            why = table.failed(alive[0].arch.id)
            raise NasError(f"every candidate failed: {why}; mend that, and go on with --resume")
        ranked = sorted(done, key=lambda each: -plan.score(seen[each.arch.id][epochs]))
        alive = ranked if epochs == plan.rungs[-1] else ranked[: plan.survivors(len(ranked))]
        for each in set(plan.grid.trained) - set(alive):
            shutil.rmtree(_place(table.folder, each), ignore_errors=True)
    shutil.rmtree(table.folder / TRAININGS, ignore_errors=True)
    return alive, ""


def _place(folder: Path, candidate: GridPoint) -> Path:
    return folder / TRAININGS / candidate.arch.id


def _tasks(
    plan: FitPlan, table: FitTable, alive: list[GridPoint], epochs: int
) -> list[tuple[GridPoint, Task]]:
    """Return the trainings up to a rung; each has what is left of its time limit."""
    chosen, tasks = plan.setup.settings, []
    for number, each in enumerate(alive):
        limit = chosen.trial_time_limit or 0.0
        limit = max(1.0, limit - table.seconds(each.arch.id)) if limit else 0.0
        place = str(_place(table.folder, each))
        tasks.append((each, Task(number, each.arch.to_dict(), chosen.seed, epochs, place, limit)))
    return tasks


def _run_finals(
    plan: FitPlan, table: FitTable, last: list[GridPoint], executor: Executor, stop: Stop
) -> tuple[list[FinalScore], str]:
    """Train the best few with new seeds, and beside them the one nearest the paper's."""
    names = [each.arch.id for each in last[: plan.finalists]]
    papers = [each.arch.id for each in plan.grid.trained if each.near_papers]
    seen = table.seen
    entrants = [
        Finalist(label(each.coefficients), each.arch, list(seen[each.arch.id].values())[-1])
        for each in sorted(plan.grid.trained, key=lambda e: e.coefficients)
        if each.arch.id in {*names, *papers} and seen.get(each.arch.id)
    ]
    chosen = plan.setup.settings
    return finals.run_finals(
        table.folder,
        entrants,
        executor,
        epochs=plan.rungs[-1],
        seeds=plan.final_seeds,
        seed=chosen.seed,
        timeout_s=chosen.trial_time_limit or 0.0,
        retry=True,
        stop=stop,
        say=table.screen.say,
    )


def _spent(table: FitTable) -> dict[str, float]:
    """Return the multiply-adds and the seconds that all trainings took."""
    # a training comes back at each rung, with all that it has cost so far
    first: dict[str, float] = {}
    for row in table.rows:
        first[row.arch_id] = max(first.get(row.arch_id, 0.0), row.training_flops or 0.0)
    again = finals.trainings(table.folder).rows
    later = sum(row.training_flops or 0.0 for row in again)
    seconds = sum(row.seconds for row in table.rows) + sum(row.seconds for row in again)
    return {TRAINING_FLOPS: sum(first.values()) + later, "seconds": seconds}
