"""Selection of the result of a search: the best of the finals, whichever study proposed it.

The best of many noisy observations is biased upwards (the winner's curse). So the finalists are
chosen by the posterior mean of the accuracy given all trials of a study
(nas/searching/gp/posterior.py). Where nothing is trained there are no finals, and the best by
posterior mean is the result. Observed metrics are kept, and both are reported.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nas.core.units import amount
from nas.interfaces import SCORED, Metrics, Trial
from nas.models.arch import Arch
from nas.searching.gp.posterior import posterior
from nas.searching.objective import Goal, meets
from nas.searching.outcome.explanation import (
    RANDOM,
    REFERENCE,
    SEARCH,
    Contender,
    choose,
    explain,
    figures,
)
from nas.searching.outcome.finals import Finalist, FinalScore
from nas.searching.result import BestArch, Candidate, Posterior
from nas.searching.setup import Setup
from nas.searching.studies.study import Log

# by trial number: mean and standard deviation of the accuracy, in percent
Posteriors = Mapping[int, tuple[float, float]]


@dataclass(frozen=True)
class StudyPosterior:
    """The finished trials of a study, and the posterior of their accuracies."""

    trials: list[Trial]
    posteriors: Posteriors = dataclasses.field(default_factory=dict)


class Studies(NamedTuple):
    """The studies of a run: the search, and random search (without trials where there is none)."""

    search: StudyPosterior
    random_study: StudyPosterior


def studies(setup: Setup, log: Log, baseline: Log | None, before: Studies | None = None) -> Studies:
    """Return both studies of a run with their posteriors.

    before: those of earlier, which are kept unless other drivers have added trials since.
    """
    found, random_study = before or (None, None)
    return Studies(
        posterior_of_study(setup, log.trials(), found),
        posterior_of_study(setup, baseline.trials() if baseline else [], random_study),
    )


def posterior_of_study(
    setup: Setup, trials: list[Trial], before: StudyPosterior | None = None
) -> StudyPosterior:
    """Return trials with the posterior of their accuracy; with two objectives there is none."""
    if before and before.trials == trials:
        return before
    if setup.goal.pareto:
        return StudyPosterior(trials)
    return StudyPosterior(trials, posterior(setup.space, trials))


def without(study: StudyPosterior, archs: Collection[str]) -> StudyPosterior:
    """Return a study without the trials of some networks."""
    return StudyPosterior([t for t in study.trials if t.arch_id not in archs], study.posteriors)


def ranked(trials: Sequence[Trial], goal: Goal, posteriors: Posteriors = {}) -> list[Trial]:  # noqa: B006
    """Return the evaluated trials by reward, best first; ties by number.

    With posteriors by the reward at the posterior mean. The hard reward means a limit: what keeps
    to its targets comes first.
    """
    scored = [trial for trial in trials if trial.state in SCORED]
    return sorted(
        scored,
        key=lambda t: (
            not within(t.metrics, goal),
            -goal.reward_of(_at_posterior_mean(t, posteriors)),
            t.number,
        ),
    )


def within(metrics: Metrics, goal: Goal) -> bool:
    """Tell whether a net keeps to the targets of a hard reward; other rewards set no limit."""
    return goal.objective.kind != "hard" or meets(metrics, goal.objective)


def _at_posterior_mean(trial: Trial, posteriors: Posteriors) -> Trial:
    """Return a trial with the posterior mean as its accuracy, and its reward to be computed."""
    if trial.number not in posteriors:
        return trial
    metrics = {**trial.metrics, "accuracy": posteriors[trial.number][0]}
    return dataclasses.replace(trial, metrics=metrics, values=())


def leaders(study: StudyPosterior, goal: Goal) -> list[Trial]:
    """Return the evaluated trials of a study by reward at the posterior mean, best first."""
    return ranked(study.trials, goal, study.posteriors)


def finalists(setup: Setup, found: StudyPosterior, baseline: StudyPosterior) -> list[Finalist]:
    """Return the finalists: the best few of the search and of its random baseline, and references.

    None twice. Of the references that were trials the best one, of those beside the space all that
    fit; of a search from weights the parent itself at the pixels that fit, before all others.
    """
    top, named = setup.finalists, {each.arch.id: each.name for each in setup.references}
    first = leaders(found, setup.goal)
    reference = _best_reference(setup, first, found.trials, named)
    beside = [Finalist(r.name, r.arch, r.cost, REFERENCE) for r in setup.beside_the_space]
    parents = [t for t in found.trials if t.arch_id in setup.parents and t.state in SCORED]
    entrants = [_finalist(setup, SEARCH, trial, named) for trial in parents]
    entrants += [each for each in beside if each.arch.id in setup.parents]
    for trial in (*first[:top], *([reference] if reference else [])):
        entrants.append(_finalist(setup, SEARCH, trial, named))
    entrants += [
        _finalist(setup, RANDOM, trial, named) for trial in leaders(baseline, setup.goal)[:top]
    ]
    entrants += beside
    once: dict[str, Finalist] = {}
    for finalist in entrants:
        once.setdefault(finalist.arch.id, finalist)
    return list(once.values())


def limit_finalists(
    entrants: Sequence[Finalist], most: int, always: Collection[str] = ()
) -> list[Finalist]:
    """Return at most that many finalists, in their order: the first of each origin come first.

    always: networks that stay before all others, by arch id.
    """
    seen: Counter[str] = Counter()
    turns = []
    for index, finalist in enumerate(entrants):
        stays = finalist.arch.id in always
        turns.append((-1 if stays else seen[finalist.origin], index))
        seen[finalist.origin] += not stays
    kept = sorted(index for _, index in sorted(turns)[:most])
    return [entrants[index] for index in kept]


def _best_reference(
    setup: Setup, first: Sequence[Trial], trials: Sequence[Trial], named: Mapping[str, str]
) -> Trial | None:
    """Return the best reference that was a trial: if all were stopped early, by their last rung."""
    if whole := next((trial for trial in first if trial.arch_id in named), None):
        return whole
    stopped = [t for t in trials if t.arch_id in named and t.state == "stopped" and t.rungs]
    return max(stopped, key=lambda trial: trial.rungs[-1].reward, default=None)


def _finalist(setup: Setup, study: str, trial: Trial, named: Mapping[str, str]) -> Finalist:
    arch = setup.space.decode(trial.choices)
    label, origin = _origin(study, trial, named)
    return Finalist(label, arch, trial.metrics, origin)


def _origin(study: str, trial: Trial, named: Mapping[str, str]) -> tuple[str, str]:
    """Return how a trial is called and where it came from; `named`: references by arch id."""
    if trial.arch_id in named:
        return named[trial.arch_id], REFERENCE
    return f"{study} #{trial.number}", study


def best_of_study(
    setup: Setup, name: str, study: StudyPosterior, final: Mapping[str, FinalScore]
) -> Candidate | None:
    """Return the best of one study: by the finals among those that were in them."""
    first = leaders(study, setup.goal)
    in_finals = [with_final_accuracy(trial, final) for trial in first if trial.arch_id in final]
    best = ranked(in_finals, setup.goal) or first
    return candidate_from(setup, name, best[0], study.posteriors) if best else None


def select_best(
    setup: Setup, found: StudyPosterior, baseline: StudyPosterior, final: Mapping[str, FinalScore]
) -> tuple[BestArch, str] | None:
    """Return the result of a search, whichever study proposed it, and the explanation.

    It is the best of the finals, the cheapest of those within one standard error; without finals
    the best by posterior mean of the search with its references and of random search. None: nothing
    was evaluated.
    """
    entries = _in_finals(setup, found, baseline, final) or _by_posterior(setup, found, baseline)
    if not entries:
        return None
    contenders = [_contender(setup, each, bool(final)) for each in entries]
    # the absolute reward sets the cost itself
    cheaper = bool(final) and setup.goal.objective.kind != "absolute"
    if setup.parent:  # where the noise of a fine-tuning is not known nothing is given for it
        cheaper = cheaper and any(score.deviation for score in final.values())
    choice = choose(contenders, cheaper=cheaper)
    chosen = entries[contenders.index(choice.chosen)]
    plain = all(each.reward == each.metrics["accuracy"] for each in entries)
    where = "in the finals" if final else "by posterior mean"
    if not final and not any(each.posterior for each in entries):
        where = "of those observed"
    sentence = explain(choice, where=where, unit="points" if plain else "of reward")
    return dataclasses.replace(chosen, name="best"), sentence


def _in_finals(
    setup: Setup, found: StudyPosterior, baseline: StudyPosterior, final: Mapping[str, FinalScore]
) -> list[BestArch]:
    """Return each finalist with the accuracy that the finals found."""
    trials = {
        trial.arch_id: (trial, study.posteriors)
        for study in (baseline, found)  # what both proposed is the search's
        for trial in study.trials
        if trial.state in SCORED
    }
    entries = []
    for arch_id, score in final.items():
        finalist = score.finalist
        if arch_id in trials:
            trial, posteriors = trials[arch_id]
        else:
            trial, posteriors = unevaluated_trial(finalist.arch, finalist.metrics), {}
        row = candidate_from(
            setup, finalist.name, with_final_accuracy(trial, final), posteriors, finalist.arch
        )
        entries.append(BestArch(**vars(row), origin=finalist.origin, label=finalist.name))
    return entries


def _by_posterior(setup: Setup, found: StudyPosterior, baseline: StudyPosterior) -> list[BestArch]:
    """Return the best of the search, of its references and of random search.

    With two objectives those of the search alone: the result lies on its front.
    """
    named = {each.arch.id: each.name for each in setup.references}
    studies = [(SEARCH, found)] if setup.goal.pareto else [(SEARCH, found), (RANDOM, baseline)]
    entries: dict[str, BestArch] = {}
    for name, study in studies:
        for trial in leaders(study, setup.goal):
            label, origin = _origin(name, trial, named)
            if origin not in entries:
                row = candidate_from(setup, label, trial, study.posteriors)
                entries[origin] = BestArch(**vars(row), origin=origin, label=label)
    return list(entries.values())


def _contender(setup: Setup, row: BestArch, final: bool) -> Contender:
    """Return a network as a contender for the result."""
    goal, metrics = setup.goal, row.metrics
    known = None if final else row.posterior
    accuracy = known.accuracy if known else metrics["accuracy"]
    error = known.accuracy_std if known else metrics.get("accuracy_std") or 0.0
    reward = known.reward if known else row.reward
    scale = 1.0 if goal.objective.kind == "absolute" or not accuracy else reward / accuracy
    spread = f" ±{error:.2f}" if error else ""
    in_finals = f"{accuracy:.2f}{spread} %, {amount(goal.cost, metrics[goal.cost])}"
    return Contender(
        label=row.label,
        origin=row.origin,
        arch_id=row.arch_id,
        reward=reward,
        error=error * scale,
        cost=metrics[goal.cost],
        within=within(metrics, goal),
        shown=in_finals if final else figures(row),
    )


def unevaluated_trial(arch: Arch, cost: Metrics) -> Trial:
    """Return a trial in place of one for a reference beside the space, which was none."""
    return Trial(-1, "done", {}, arch.id, cost)


def observed_best(setup: Setup, study: StudyPosterior, best: Candidate | None) -> Candidate | None:
    """Return the trial of the best observed reward, where another one is the result; else None."""
    first = ranked(study.trials, setup.goal)[:1]
    if not study.posteriors or not best or not first or first[0].number == best.number:
        return None
    return candidate_from(setup, f"#{first[0].number}", first[0], study.posteriors)


def with_final_accuracy(trial: Trial, final: Mapping[str, FinalScore]) -> Trial:
    """Return a trial with the accuracy that the finals found."""
    metrics = final_metrics(trial.metrics, final[trial.arch_id])
    return dataclasses.replace(trial, metrics=metrics, values=())  # their reward is another one


def final_metrics(metrics: Metrics, score: FinalScore) -> Metrics:
    """Return metrics with the accuracy that the finals found."""
    # with one seed each the spread is unknown: the evaluator's own stands
    known = {"accuracy_std": score.error} if score.deviation else {}
    return {**metrics, "accuracy": score.mean, **known}


def candidate_from(
    setup: Setup,
    name: str,
    trial: Trial,
    posteriors: Posteriors = {},  # noqa: B006
    arch: Arch | None = None,
) -> Candidate:
    """Return a trial as a candidate of the result: metrics as observed, posterior if there is one.

    `arch`: its network, where that is no point of the space.
    """
    arch = arch or setup.space.decode(trial.choices)
    return Candidate(
        name=name,
        number=trial.number,
        state=trial.state,
        reward=setup.goal.reward_of(trial),
        metrics=trial.metrics,
        posterior=_posterior(trial, setup.goal, posteriors),
        choices=trial.choices,
        arch=arch,
        arch_id=arch.id,
    )


def _posterior(trial: Trial, goal: Goal, posteriors: Posteriors) -> Posterior | None:
    if trial.number not in posteriors:
        return None
    mean, deviation = posteriors[trial.number]
    reward = goal.reward_of(_at_posterior_mean(trial, posteriors))
    return Posterior(accuracy=mean, accuracy_std=deviation, reward=reward)
