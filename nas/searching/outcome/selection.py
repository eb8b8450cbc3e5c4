"""What a search hands over: what did best in the finals, wherever it came from.

The best of many noisy observations is partly luck (the winner's curse). So a model is fitted to all
trials of a study (nas/searching/gp/posterior.py), and the finalists are chosen by its mean. Where
nothing is trained there are no finals, and the best by posterior mean is handed over. What was
observed stays as it was, and both are told.
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
from nas.searching.outcome.finals import Finalist, Standing
from nas.searching.result import BestArch, Candidate, Posterior
from nas.searching.setup import Setup
from nas.searching.studies.study import Log

# by trial number: mean and standard deviation of the accuracy, in percent
Beliefs = Mapping[int, tuple[float, float]]


@dataclass(frozen=True)
class Judged:
    """The finished trials of a study, and what is believed of the accuracies."""

    trials: list[Trial]
    beliefs: Beliefs = dataclasses.field(default_factory=dict)


class Studies(NamedTuple):
    """The studies of a run: the search, and random search (without trials where there is none)."""

    found: Judged
    rival: Judged


def studies(setup: Setup, log: Log, baseline: Log | None, before: Studies | None = None) -> Studies:
    """Return both studies of a run, judged.

    before: as they were judged earlier, which stands unless other drivers have added trials since.
    """
    found, rival = before or (None, None)
    return Studies(
        judged(setup, log.trials(), found),
        judged(setup, baseline.trials() if baseline else [], rival),
    )


def judged(setup: Setup, trials: list[Trial], before: Judged | None = None) -> Judged:
    """Return the trials with a model's beliefs; of two objectives the front stays observed."""
    if before and before.trials == trials:
        return before
    if setup.goal.pareto:
        return Judged(trials)
    return Judged(trials, posterior(setup.space, trials))


def without(study: Judged, archs: Collection[str]) -> Judged:
    """Return a study without the trials of some networks."""
    return Judged([t for t in study.trials if t.arch_id not in archs], study.beliefs)


def ranked(trials: Sequence[Trial], goal: Goal, beliefs: Beliefs = {}) -> list[Trial]:  # noqa: B006
    """Return the evaluated trials by reward, best first; ties by number.

    With beliefs by the reward at the mean that is believed. The hard reward means a limit: what
    keeps to its targets comes first.
    """
    scored = [trial for trial in trials if trial.state in SCORED]
    return sorted(
        scored,
        key=lambda t: (
            not within(t.metrics, goal),
            -goal.reward_of(_believed(t, beliefs)),
            t.number,
        ),
    )


def within(metrics: Metrics, goal: Goal) -> bool:
    """Tell whether a net keeps to the targets of a hard reward; other rewards set no limit."""
    return goal.objective.kind != "hard" or meets(metrics, goal.objective)


def _believed(trial: Trial, beliefs: Beliefs) -> Trial:
    """Return a trial with the accuracy that is believed of it; its reward is another one then."""
    if trial.number not in beliefs:
        return trial
    metrics = {**trial.metrics, "accuracy": beliefs[trial.number][0]}
    return dataclasses.replace(trial, metrics=metrics, values=())


def leaders(study: Judged, goal: Goal) -> list[Trial]:
    """Return the evaluated trials of a study, the one to hand over first."""
    return ranked(study.trials, goal, study.beliefs)


def finalists(setup: Setup, found: Judged, baseline: Judged) -> list[Finalist]:
    """Return the best few of the search and of its random baseline, and references; none twice.

    Of the references that were trials the best plays, of those beside the space all that fit.
    """
    top, named = setup.finalists, {each.arch.id: each.name for each in setup.references}
    first = leaders(found, setup.goal)
    tried = _best_reference(setup, first, found.trials, named)
    playing = [_finalist(setup, SEARCH, trial, named) for trial in first[:top]]
    playing += [_finalist(setup, SEARCH, tried, named)] if tried else []
    playing += [
        _finalist(setup, RANDOM, trial, named) for trial in leaders(baseline, setup.goal)[:top]
    ]
    playing += [
        Finalist(each.name, each.arch, each.cost, REFERENCE) for each in setup.beside_the_space
    ]
    once = {finalist.arch.id: finalist for finalist in reversed(playing)}
    return [finalist for finalist in playing if once[finalist.arch.id] is finalist]


def fewer(playing: Sequence[Finalist], most: int) -> list[Finalist]:
    """Return at most that many finalists, in their order: the first of each origin come first."""
    seen: Counter[str] = Counter()
    turns = []
    for index, finalist in enumerate(playing):
        turns.append((seen[finalist.origin], index))
        seen[finalist.origin] += 1
    kept = sorted(index for _, index in sorted(turns)[:most])
    return [playing[index] for index in kept]


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


def winner(
    setup: Setup, name: str, study: Judged, final: Mapping[str, Standing]
) -> Candidate | None:
    """Return the best of one study: by the finals among those that were in them."""
    first = leaders(study, setup.goal)
    played = [retold(trial, final) for trial in first if trial.arch_id in final]
    best = ranked(played, setup.goal) or first
    return entry(setup, name, best[0], study.beliefs) if best else None


def handed_over(
    setup: Setup, found: Judged, baseline: Judged, final: Mapping[str, Standing]
) -> tuple[BestArch, str] | None:
    """Return the network that is handed over, wherever it came from, and why.

    It is what did best in the finals, the cheapest of those that are level; without finals the best
    by posterior mean of the search with its references and of random search. None: nothing was
    evaluated.
    """
    entries = _in_finals(setup, found, baseline, final) or _by_posterior(setup, found, baseline)
    if not entries:
        return None
    contenders = [_contender(setup, each, bool(final)) for each in entries]
    # the absolute reward sets the cost itself
    cheaper = bool(final) and setup.goal.objective.kind != "absolute"
    choice = choose(contenders, cheaper=cheaper)
    chosen = entries[contenders.index(choice.chosen)]
    plain = all(each.reward == each.metrics["accuracy"] for each in entries)
    where = "in the finals" if final else "by posterior mean"
    if not final and not any(each.posterior for each in entries):
        where = "of those observed"
    sentence = explain(choice, where=where, unit="points" if plain else "of reward")
    return dataclasses.replace(chosen, name="best"), sentence


def _in_finals(
    setup: Setup, found: Judged, baseline: Judged, final: Mapping[str, Standing]
) -> list[BestArch]:
    """Return each finalist with the accuracy that the finals found."""
    trials = {
        trial.arch_id: (trial, study.beliefs)
        for study in (baseline, found)  # what both proposed is the search's
        for trial in study.trials
        if trial.state in SCORED
    }
    entries = []
    for arch_id, standing in final.items():
        finalist = standing.finalist
        if arch_id in trials:
            trial, beliefs = trials[arch_id]
        else:
            trial, beliefs = untried(finalist.arch, finalist.metrics), {}
        row = entry(setup, finalist.name, retold(trial, final), beliefs, finalist.arch)
        entries.append(BestArch(**vars(row), origin=finalist.origin, label=finalist.name))
    return entries


def _by_posterior(setup: Setup, found: Judged, baseline: Judged) -> list[BestArch]:
    """Return the best of the search, of its references and of random search.

    Of two objectives those of the search alone: what is handed over lies on its front.
    """
    named = {each.arch.id: each.name for each in setup.references}
    studies = [(SEARCH, found)] if setup.goal.pareto else [(SEARCH, found), (RANDOM, baseline)]
    entries: dict[str, BestArch] = {}
    for name, study in studies:
        for trial in leaders(study, setup.goal):
            label, origin = _origin(name, trial, named)
            if origin not in entries:
                row = entry(setup, label, trial, study.beliefs)
                entries[origin] = BestArch(**vars(row), origin=origin, label=label)
    return list(entries.values())


def _contender(setup: Setup, row: BestArch, final: bool) -> Contender:
    """Return a network as what may be handed over."""
    goal, metrics = setup.goal, row.metrics
    known = None if final else row.posterior
    accuracy = known.accuracy if known else metrics["accuracy"]
    error = known.accuracy_std if known else metrics.get("accuracy_std") or 0.0
    worth = known.reward if known else row.reward
    scale = 1.0 if goal.objective.kind == "absolute" or not accuracy else worth / accuracy
    spread = f" ±{error:.2f}" if error else ""
    in_finals = f"{accuracy:.2f}{spread} %, {amount(goal.cost, metrics[goal.cost])}"
    return Contender(
        label=row.label,
        origin=row.origin,
        arch_id=row.arch_id,
        reward=worth,
        error=error * scale,
        cost=metrics[goal.cost],
        within=within(metrics, goal),
        shown=in_finals if final else figures(row),
    )


def untried(arch: Arch, cost: Metrics) -> Trial:
    """Return a trial for a network that was none: a reference beside the space."""
    return Trial(-1, "done", {}, arch.id, cost)


def observed_best(setup: Setup, study: Judged, best: Candidate | None) -> Candidate | None:
    """Return the trial that looked best, where another one is handed over; else None."""
    first = ranked(study.trials, setup.goal)[:1]
    if not study.beliefs or not best or not first or first[0].number == best.number:
        return None
    return entry(setup, f"#{first[0].number}", first[0], study.beliefs)


def retold(trial: Trial, final: Mapping[str, Standing]) -> Trial:
    """Return a trial with the accuracy that the finals found."""
    metrics = fresh(trial.metrics, final[trial.arch_id])
    return dataclasses.replace(trial, metrics=metrics, values=())  # their reward is another one


def fresh(metrics: Metrics, standing: Standing) -> Metrics:
    """Return metrics with the accuracy that the finals found."""
    # with one seed each the spread is unknown: the evaluator's own stands
    known = {"accuracy_std": standing.error} if standing.deviation else {}
    return {**metrics, "accuracy": standing.mean, **known}


def entry(
    setup: Setup,
    name: str,
    trial: Trial,
    beliefs: Beliefs = {},  # noqa: B006
    arch: Arch | None = None,
) -> Candidate:
    """Return a trial as the result tells it: metrics as observed, its posterior if there is one.

    `arch`: its network, where that is no point of the space.
    """
    arch = arch or setup.space.decode(trial.choices)
    return Candidate(
        name=name,
        number=trial.number,
        state=trial.state,
        reward=setup.goal.reward_of(trial),
        metrics=trial.metrics,
        posterior=_posterior(trial, setup.goal, beliefs),
        choices=trial.choices,
        arch=arch,
        arch_id=arch.id,
    )


def _posterior(trial: Trial, goal: Goal, beliefs: Beliefs) -> Posterior | None:
    if trial.number not in beliefs:
        return None
    mean, deviation = beliefs[trial.number]
    worth = goal.reward_of(_believed(trial, beliefs))
    return Posterior(accuracy=mean, accuracy_std=deviation, reward=worth)
