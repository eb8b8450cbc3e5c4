"""What a search hands over: not the trial that looked best, but the one that is expected to be.

The best of many noisy observations is partly luck (the winner's curse). So a model is fitted to all
trials of a study (nas/posterior.py), and the evaluated trial with the best reward at its posterior
mean is handed over. What was observed stays as it was, and both are told.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nas.arch import Arch
from nas.finals import Finalist, Standing
from nas.interfaces import SCORED, Metrics, Trial
from nas.objective import Goal, meets, reward
from nas.posterior import posterior
from nas.prepare import Setup

# by trial number: mean and standard deviation of the accuracy, in percent
Beliefs = Mapping[int, tuple[float, float]]


@dataclass(frozen=True)
class Judged:
    """The finished trials of a study, and what is believed of the accuracies."""

    trials: list[Trial]
    beliefs: Beliefs = dataclasses.field(default_factory=dict)


def judged(setup: Setup, trials: list[Trial]) -> Judged:
    """Return the trials with a model's beliefs; of two objectives the front stays observed."""
    if setup.goal.pareto:
        return Judged(trials)
    return Judged(trials, posterior(setup.space, trials))


def ranked(trials: Sequence[Trial], goal: Goal, beliefs: Beliefs = {}) -> list[Trial]:  # noqa: B006
    """Return the evaluated trials by reward, best first; ties by number.

    With beliefs by the reward at the mean that is believed. The hard reward means a limit: what
    keeps to its targets comes first.
    """
    scored = [trial for trial in trials if trial.state in SCORED]
    return sorted(
        scored,
        key=lambda t: (
            not within(t, goal),
            -reward(_believed(t, beliefs), goal.objective),
            t.number,
        ),
    )


def within(trial: Trial, goal: Goal) -> bool:
    """Tell whether a trial keeps to the targets of a hard reward; other rewards set no limit."""
    return goal.objective.kind != "hard" or meets(trial.metrics, goal.objective)


def _believed(trial: Trial, beliefs: Beliefs) -> Metrics:
    if trial.number not in beliefs:
        return trial.metrics
    return {**trial.metrics, "accuracy": beliefs[trial.number][0]}


def leaders(study: Judged, goal: Goal) -> list[Trial]:
    """Return the evaluated trials of a study, the one to hand over first."""
    return ranked(study.trials, goal, study.beliefs)


def finalists(
    setup: Setup, found: Judged, chance: Judged, references: list[dict[str, Any]]
) -> list[Finalist]:
    """Return the best few of the search and of random search, and the references; none twice."""
    top = setup.finalists
    named = [("search", t) for t in leaders(found, setup.goal)[:top]]
    named += [("random search", t) for t in leaders(chance, setup.goal)[:top]]
    playing = [
        Finalist(f"{name} #{trial.number}", setup.space.decode(trial.choices), trial.metrics)
        for name, trial in named
    ]
    playing += [
        Finalist(row["name"], Arch.from_dict(row["arch"]), row["metrics"]) for row in references
    ]
    first = {finalist.arch.id: finalist for finalist in reversed(playing)}
    return [finalist for finalist in playing if first[finalist.arch.id] is finalist]


def winner(
    setup: Setup, name: str, study: Judged, final: Mapping[str, Standing]
) -> dict[str, Any] | None:
    """Return what a study hands over: by the finals among those that were in them."""
    first = leaders(study, setup.goal)
    played = [_retold(trial, final) for trial in first if trial.arch_id in final]
    best = ranked(played, setup.goal) or first
    return entry(setup, name, best[0], study.beliefs) if best else None


def observed_best(setup: Setup, study: Judged, best: Mapping[str, Any] | None) -> Any:
    """Return the trial that looked best, where another one is handed over; else None."""
    first = ranked(study.trials, setup.goal)[:1]
    if not study.beliefs or not best or not first or first[0].number == best["number"]:
        return None
    return entry(setup, f"#{first[0].number}", first[0], study.beliefs)


def _retold(trial: Trial, final: Mapping[str, Standing]) -> Trial:
    """Return a trial with the accuracy that the finals found."""
    return dataclasses.replace(trial, metrics=fresh(trial.metrics, final[trial.arch_id]))


def fresh(metrics: Metrics, standing: Standing) -> Metrics:
    """Return metrics with the accuracy that the finals found."""
    # with one seed each the spread is unknown: the evaluator's own stands
    known = {"accuracy_std": standing.error} if standing.deviation else {}
    return {**metrics, "accuracy": standing.mean, **known}


def entry(setup: Setup, name: str, trial: Trial, beliefs: Beliefs = {}) -> dict[str, Any]:  # noqa: B006
    """Return a trial as JSON data: metrics as observed, and its posterior if there is one."""
    arch = setup.space.decode(trial.choices)
    return {
        "name": name,
        "number": trial.number,
        "state": trial.state,
        "reward": reward(trial.metrics, setup.goal.objective),
        "metrics": trial.metrics,
        "posterior": _posterior(trial, setup.goal, beliefs),
        "choices": trial.choices,
        "arch": arch.to_dict(),
        "arch_id": arch.id,
    }


def _posterior(trial: Trial, goal: Goal, beliefs: Beliefs) -> dict[str, float] | None:
    if trial.number not in beliefs:
        return None
    mean, deviation = beliefs[trial.number]
    worth = reward(_believed(trial, beliefs), goal.objective)
    return {"accuracy": mean, "accuracy_std": deviation, "reward": worth}
