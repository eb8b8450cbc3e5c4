"""A search as the measurements run it: the engine and a journal of its own, without the verb."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from optuna.samplers import BaseSampler

from nas.core import registry
from nas.interfaces import Choices, Executor, Space, Trial
from nas.models.points import decode
from nas.searching.engine import Engine
from nas.searching.objective import Goal, Objective, reward
from nas.searching.samplers import distributions
from nas.searching.studies.study import SEARCH, Journal


def run(
    space: Space,
    goal: Goal,
    sampler: BaseSampler,
    executor: Executor,
    *,
    seed: int,
    trials: int,
    watch: Callable[[Trial], None],
    starts: Sequence[Choices] = (),
) -> None:
    """Search until so many trials are evaluated, `starts` first; `watch` sees each as it ends."""
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal.log", distributions(space))
        log = journal.log(SEARCH, goal.directions, sampler)
        for choices in starts:
            log.study.enqueue_trial(choices)
        Engine(
            *(log, space, goal, executor),
            seed=seed,
            finished=[],
            known={},
            stop=lambda: "",
            watch=watch,
        ).run(trials)


def leaders(trials: Iterable[Trial], space: Space, objective: Objective) -> list[float]:
    """Return after each trial the true reward of the arch that looked best until then.

    True: by the embedded surrogate without the noise under which the trials were seen.
    """
    truth = registry.make("evaluators", "surrogate", options={})
    best, found = float("-inf"), list[float]()
    for trial in trials:
        if trial.values[0] > best:
            best = trial.values[0]
            accuracy = truth.evaluate(decode(space, trial.choices))["accuracy"]
            true = reward({**trial.metrics, "accuracy": accuracy}, objective)
        found.append(true)
    return found
