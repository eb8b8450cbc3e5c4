"""Results of a search: its best network, front, importances, references and gains, as files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.core import run_folder
from nas.core.quoting import command
from nas.interfaces import SCORED, SPENT, TRAINING_FLOPS, ExecutorStatus, Metrics, Trial
from nas.searching import final_teacher
from nas.searching.engine import training_folder
from nas.searching.final_length import Length
from nas.searching.objective import Goal, Objective, describe, hypervolume, pareto_front, reward
from nas.searching.outcome import selection
from nas.searching.outcome.curves import write_rungs
from nas.searching.outcome.explanation import inherited, why
from nas.searching.outcome.finals import FinalScore, copy_weights, trained
from nas.searching.outcome.parent_result import parent_result
from nas.searching.outcome.selection import StudyPosterior
from nas.searching.outcome.teacher_gain import teacher_gain
from nas.searching.result import (
    BestArch,
    Candidate,
    CountedReference,
    EvaluatorInfo,
    FinalResult,
    Gain,
    Leader,
    RandomSearch,
    SearchResult,
    SpaceInfo,
    TeacherGain,
)
from nas.searching.setup import Setup
from nas.searching.studies.study import RANDOM, SEARCH, Log

SCHEMA = 1
RESULT, PARETO, IMPORTANCE = "result.json", "pareto.csv", "importance.csv"
LEADERS = 5


def conclude(
    folder: Path,
    setup: Setup,
    log: Log,
    baseline: Log | None,
    scores: list[FinalScore],
    length: Length | None,
    reason: str,
    fleet: ExecutorStatus,
    ends: Mapping[str, str],
    before: selection.Studies | None = None,
    alone: Sequence[FinalScore] = (),
) -> SearchResult:
    """Write the best network, the Pareto front and the importances; return the result.

    `baseline` is the random search, `scores` those of the finals of a search that trains, and
    `length` that of their trainings; `reason` says why the search ended early, or is empty;
    `fleet`: status of the executor; `ends` gives the reason of each stage; `before`: the studies as
    the finals saw them; `alone`: scores of finals without the teacher of the others.
    """
    found, random_study = selection.studies(setup, log, baseline, before)
    final = {score.finalist.arch.id: score for score in scores}
    best, verdict = selection.select_best(setup, found, random_study, final) or (None, "")
    front = _front(selection.leaders(found, setup.goal), setup.goal)
    studies = {log.study.study_name: found.trials}
    if baseline:
        studies[baseline.study.study_name] = random_study.trials
    result = SearchResult(
        schema=SCHEMA,
        run=folder,
        **_description(setup),
        **_effort(found.trials, random_study.trials),
        fleet=fleet,
        stopped=reason,
        ends=dict(ends),
        met=best is not None and selection.within(best.metrics, setup.goal),
        data=setup.settings.data,
        winner=best,
        verdict=verdict,
        weights=_weights(folder, setup, studies, best, final),
        observed_best=selection.observed_best(setup, found, best),
        **_compared(setup, found, random_study, final, best),
        finals=tuple(final_result(each, setup.goal.objective) for each in scores),
        finals_length=length if scores else None,
        front=len(front),
        hypervolume=_volumes(found.trials, random_study.trials, setup.goal),
        parent=parent_result(folder, setup, found, final),
        teacher=_teacher(folder, setup, final, alone, best),
    )
    write_rungs(folder, {SEARCH: found.trials, RANDOM: random_study.trials}, setup.goal)
    _write(folder, setup.goal, front, log, result)
    if best:
        run_folder.write_text(folder / "best" / "arch.json", best.arch.to_json() + "\n")
        run_folder.write_text(folder / "best" / "README.md", _card(setup, result, best))
    return result


def _weights(
    folder: Path,
    setup: Setup,
    studies: Mapping[str, Sequence[Trial]],
    best: Candidate | None,
    final: Mapping[str, FinalScore],
) -> str | None:
    """Copy the weights of the best network to its folder; return of which training they are.

    None: it was not trained here, or its weights were not among the best that were kept.
    """
    if not best:
        return None
    score, epochs = final.get(best.arch_id), best.metrics.get("epochs")
    finalist = folder / "finals" / score.weights if score else None
    length = f", {epochs:.0f} epoch{'' if epochs == 1 else 's'}" if epochs else ""
    trainings = [
        ("its best training in the finals", finalist),
        ("a training for the finals", trained(folder, best.arch_id)),
    ]
    # what both studies proposed was trained in one of them
    trainings += [
        (f"its training as a candidate{length}", training_folder(folder / "trials", name, t.number))
        for name, trials in studies.items()
        for t in trials
        if t.arch_id == best.arch_id and t.state == "done"
    ]
    facts, to = _images(setup), folder / "best"
    return next((text for text, place in trainings if copy_weights(place, to, facts)), None)


def _teacher(
    folder: Path,
    setup: Setup,
    final: Mapping[str, FinalScore],
    alone: Sequence[FinalScore],
    best: Candidate | None,
) -> TeacherGain | None:
    """Return what the teacher of the finals and what the architecture added; None without one."""
    if not setup.settings.teacher or not best or not final:
        return None
    from nas.training.teacher import FACTS, Facts

    facts = run_folder.read_record(folder / final_teacher.FOLDER / FACTS, Facts)
    without = {score.finalist.arch.id: score for score in alone}
    reference = final_teacher.compared_with(setup)
    return teacher_gain(facts.score(), final, without, best.arch_id, reference)


def _images(setup: Setup) -> dict[str, str]:
    """Return which images candidates are trained on, as the config of a training has it."""
    chosen, own = setup.settings, setup.evaluator.fingerprint
    named = {key: getattr(chosen, key) for key in ("data", "image_column", "label_column")}
    return {key: value for key, value in {**named, "fingerprint": own}.items() if value}


def _compared(
    setup: Setup,
    found: StudyPosterior,
    random_study: StudyPosterior,
    final: Mapping[str, FinalScore],
    best: BestArch | None,
) -> dict[str, Any]:
    """Return the references, the random baseline and the gains over each."""
    leaders = selection.leaders(found, setup.goal)
    shown = _shown(leaders, _front(leaders, setup.goal), best, setup.goal)
    rows, counted = _references(setup, found, final)
    named = {each.arch.id: each.name for each in setup.references}
    own = selection.best_of_study(setup, SEARCH, selection.without(found, named), final)
    random = selection.best_of_study(setup, RANDOM, random_study, final)
    others = [*rows, *(row for row in (own, random) if row)]
    others = [row for row in others if best and row.arch_id != best.arch_id]
    if final:  # of the others the accuracy is that of a candidate's training
        others = [row for row in others if row.arch_id in final]
    cost, trained = spent(random_study.trials), training_flops(random_study.trials)
    entries = [selection.candidate_from(setup, f"#{t.number}", t, found.posteriors) for t in shown]
    return {
        "leaders": tuple(Leader(**vars(e), reference=named.get(e.arch_id)) for e in entries),
        "search": own,
        "references": tuple(rows),
        "references_counted": tuple(counted),
        "random": RandomSearch(**vars(random), trials=cost, training_flops=trained)
        if random
        else None,
        "gains": tuple(_gain(best, other) for other in others) if best else (),
    }


def _effort(trials: list[Trial], random_trials: list[Trial]) -> dict[str, Any]:
    """Return the number of trials by state, and their cost."""
    return {
        "trials": spent(trials),
        "proposals": sum(trial.state != "earlier" for trial in trials),
        "states": _states(trials),
        "seconds": sum(trial.seconds for trial in trials),
        "retries": sum(trial.retries for trial in (*trials, *random_trials)),
        "training_flops": training_flops(trials),
    }


def final_result(score: FinalScore, objective: Objective) -> FinalResult:
    """Return the result of a finalist: its figures in the finals, and as a candidate."""
    finalist = score.finalist
    before, now = finalist.metrics, selection.final_metrics(finalist.metrics, score)
    return FinalResult(
        name=finalist.name,
        origin=finalist.origin,
        arch_id=finalist.arch.id,
        accuracies=score.accuracies,
        accuracy=score.mean,
        accuracy_std=score.error or None,
        seed_deviation=score.deviation or None,
        searched=before.get("accuracy"),
        searched_std=before.get("accuracy_std"),
        reward=reward(now, objective),
        searched_reward=reward(before, objective) if "accuracy" in before else None,
    )


def training_flops(trials: Sequence[Trial]) -> float:
    """Return the multiply-adds that trainings took, 0 where nothing was trained."""
    return sum(t.metrics.get(TRAINING_FLOPS, 0.0) for t in trials if t.state in SPENT)


def spent(trials: Sequence[Trial]) -> int:
    """Return how many evaluations the trials took from the budget."""
    return sum(trial.state in SPENT for trial in trials)


def _description(setup: Setup) -> dict[str, Any]:
    objective = setup.goal.objective
    return {
        "space": SpaceInfo(name=setup.space.name, size=setup.space.size),
        "controller": setup.settings.controller,
        "warm_start": setup.start.told(),
        "evaluator": EvaluatorInfo(name=setup.spec.evaluator, title=setup.evaluator.title),
        "objective": describe(objective),
        "reward": objective.kind,
        "pareto": setup.goal.pareto,
        "targets": {bound.metric: bound.value for bound in objective.targets},
        "limits": {bound.metric: bound.value for bound in objective.limits},
    }


def compare(mine: Metrics, other: Metrics) -> dict[str, Any]:
    """Return the gain in accuracy, its standard deviation, and whether it is within the noise.

    Within: smaller than two standard deviations of the difference, the errors of the two
    predictions taken as independent. Both are None where the evaluator tells no deviation.
    """
    gain = mine["accuracy"] - other["accuracy"]
    sd = math.hypot(mine.get("accuracy_std", 0.0), other.get("accuracy_std", 0.0)) or None
    within_noise = None if sd is None else abs(gain) < 2 * sd
    return {"accuracy": gain, "accuracy_std": sd, "within_noise": within_noise}


def _gain(best: Candidate, other: Candidate) -> Gain:
    ahead = best.reward - other.reward
    return Gain(over=other.name, reward=ahead, **compare(best.metrics, other.metrics))


def _references(
    setup: Setup, found: StudyPosterior, final: Mapping[str, FinalScore]
) -> tuple[list[Candidate], list[CountedReference]]:
    """Return the references that were trials or in the finals, and those that were counted only."""
    trials = {t.arch_id: t for t in found.trials if t.state in SCORED}
    others = {t.arch_id: t.reason or t.state for t in found.trials if t.state not in SCORED}
    rows, counted = list[Candidate](), list[CountedReference]()
    for each in setup.references:
        trial = trials.get(each.arch.id)
        if trial or each.arch.id in final:
            known = trial or selection.unevaluated_trial(each.arch, each.cost)
            told = selection.with_final_accuracy(known, final) if each.arch.id in final else known
            rows.append(
                selection.candidate_from(setup, each.name, told, found.posteriors, each.arch)
            )
            continue
        reason = "not trained" if each.fits else "above the target or a limit"
        reason = others.get(each.arch.id, reason)
        arch = each.arch
        counted.append(
            CountedReference(
                name=each.name, reason=reason, metrics=each.cost, arch=arch, arch_id=arch.id
            )
        )
    return rows, counted


def _states(trials: list[Trial]) -> dict[str, int]:
    names = ("done", "duplicate", "stopped", "rejected", "failed")
    found = {name: sum(trial.state == name for trial in trials) for name in names}
    # of shared studies only, and of those that took over an earlier search
    rare = {name: sum(t.state == name for t in trials) for name in ("dropped", "earlier")}
    return found | {name: count for name, count in rare.items() if count}


def _points(trials: list[Trial], goal: Goal) -> list[tuple[float, float]]:
    cost = goal.cost
    return [(trial.metrics["accuracy"], -trial.metrics[cost]) for trial in trials]


def _front(trials: list[Trial], goal: Goal) -> list[Trial]:
    """Return the non-dominated trials (Pareto front), most accurate first."""
    return [trials[index] for index in pareto_front(_points(trials, goal))]


def _shown(
    leaders: list[Trial], front: list[Trial], best: Candidate | None, goal: Goal
) -> list[Trial]:
    """Return the trials of the leaderboard: the best, or some of the front and the result.

    Of a front as many are spread over it, most accurate first.
    """
    if not goal.pareto:
        return leaders[:LEADERS]
    step = max(1.0, (len(front) - 1) / (LEADERS - 1))
    spread = {front[round(i * step)].number for i in range(min(LEADERS, len(front)))}
    taken = best.arch_id if best else ""
    chosen = [t for t in leaders if t.number in spread or t.arch_id == taken]
    return sorted(chosen, key=lambda trial: -trial.metrics["accuracy"])


def _volumes(found: list[Trial], rivals: list[Trial], goal: Goal) -> dict[str, float] | None:
    """Return the hypervolumes of the search and of random search, with a common reference point.

    As shares of the box between that corner and the best of each coordinate. None for a search of
    one reward.
    """
    scored = [[t for t in trials if t.state in SCORED] for trials in (found, rivals)]
    points = [_points(trials, goal) for trials in scored]
    everything = [*points[0], *points[1]]
    if not goal.pareto or not everything:
        return None
    worst, best = map(min, zip(*everything, strict=True)), map(max, zip(*everything, strict=True))
    (low, dear), (high, cheap) = worst, best
    box = (high - low) * (cheap - dear) or 1.0
    names = ("search", "random")
    both = zip(names, points, strict=True)
    return {name: hypervolume(p, (low, dear)) / box for name, p in both if p}


def _write(folder: Path, goal: Goal, front: list[Trial], log: Log, result: SearchResult) -> None:
    cost = goal.cost
    rows = [[t.number, t.metrics["accuracy"], t.metrics[cost], t.arch_id] for t in front]
    run_folder.write_csv(folder / PARETO, ["number", "accuracy", cost, "arch_id"], rows)
    importances = list(log.importances().items())
    run_folder.write_csv(folder / IMPORTANCE, ["choice", "importance"], importances)
    run_folder.write_json(folder / RESULT, result.to_dict())


def _card(setup: Setup, result: SearchResult, best: BestArch) -> str:
    """Return the card of the best network: what it is, how it was found, how to use it."""
    settings = setup.settings
    # beside the accuracy of the finals these would be of another training
    left = ("epochs", "images_per_second", TRAINING_FLOPS) if result.finals else ()
    shown = {name: value for name, value in best.metrics.items() if name not in left}
    metrics = "\n".join(f"- {name}: {value:,.6g}" for name, value in shown.items())
    taken = ", taken over from an earlier search" if best.state == "earlier" else ""
    return f"""# What a search of {setup.space.name} hands over

Arch {best.arch_id}: {best.label}{taken}; {result.proposals} proposals,
{result.trials} evaluated by controller {settings.controller} with seed {settings.seed}.

- objective: {result.objective}
- reward: {best.reward:.4f}
{metrics}

{chr(10).join((why(result), *inherited(result)))}

FLOPs are multiply-adds. Accuracy comes from this evaluator: {setup.evaluator.title}.

    {command("nas", "show", str(result.run))}
    {command("nas", "scale", str(result.run), "--phi", "1..7")}

    import nas
    model = nas.build_model(nas.load_arch("best/arch.json"))
"""
