"""One search of bench_controllers.py, and the judgement of what it had found by when."""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from lib import landscapes
from lib.controller_tables import Row
from lib.landscapes import PARETO, Ceiling, Landscape
from lib.plain_search import run

from nas.core import registry
from nas.interfaces import Metrics, Space, Trial
from nas.models.points import decode
from nas.searching.gp.posterior import posterior
from nas.searching.objective import Goal, pareto_front, reward
from nas.searching.references import reference_points
from nas.searching.samplers import no_violation
from nas.searching.sampling.region import drawing

NEAR = 0.1  # of the ceiling, where a search has arrived
NEAR_FRONT = 0.99  # of its area


class Job(NamedTuple):
    """One search. `trials`: evaluations. `workers`: in flight at once.

    `references`: the number of reference designs that it begins with.
    """

    landscape: Landscape
    reward: str
    controller: str
    options: tuple[tuple[str, Any], ...]
    trials: int
    workers: int
    references: int
    seed: int
    points: tuple[int, ...]
    ceiling: Ceiling

    @property
    def key(self) -> tuple[Any, ...]:
        """Return what tells this search from others, as the columns of a Row have it."""
        place = self.landscape
        given = " ".join(f"{name}={value}" for name, value in self.options)
        return (
            *(place.name, place.digest, place.target, place.noise, self.reward),
            *(self.controller, given, self.trials, self.workers, self.references, self.seed),
        )


class Found(NamedTuple):
    """What a search had found by when. `seconds`: CPU until each evaluation had ended."""

    trials: list[Trial]
    truth: list[Metrics]
    seconds: list[float]


def tried(job: Job) -> tuple[list[Row], str]:
    """Return the rows of a search, or why it failed: the others go on."""
    try:
        return rows_of(job, searched(job)), ""
    except Exception as error:
        return [], f"{type(error).__name__}: {error}".splitlines()[0]


def searched(job: Job) -> Found:
    """Search through the engine and the journal; then look up what is true of what was found."""
    torch.set_num_threads(1)
    space = landscapes.space_of(job.landscape.space)
    goal = Goal(landscapes.objective_of(job.landscape, job.reward), pareto_of(job))
    work = landscapes.work_of(job.landscape, job.seed)
    local = job.workers == 1
    executor = registry.make(
        *("executors", "local" if local else "simulated", work),
        options={} if local else {"seed": job.seed},
        workers=job.workers,
    )
    told: dict[str, Any] = {"seed": job.seed, "constraint_violation": no_violation, "goal": goal}
    told["draw"] = drawing(space, goal)
    sampler = registry.make("controllers", job.controller, space, options=dict(job.options), **told)
    trials: list[Trial] = []
    seconds: list[float] = []
    start = time.process_time()

    def watch(trial: Trial) -> None:
        if trial.state == "done":
            trials.append(trial)
            seconds.append(time.process_time() - start)

    starts = list(reference_points(space, goal).values())[: job.references]
    limits: dict[str, Any] = {"seed": job.seed, "trials": job.trials}
    run(space, goal, sampler, executor, **limits, watch=watch, starts=starts)
    executor.close()
    truth = landscapes.truth_of(job.landscape)
    return Found(trials, [truth(decode(space, trial.choices)) for trial in trials], seconds)


def designs(place: Landscape, reward: str) -> int:
    """Return how many reference designs a search of a landscape begins with."""
    goal = Goal(landscapes.objective_of(place, reward), "flops" if reward == PARETO else None)
    return len(reference_points(landscapes.space_of(place.space), goal))


def pareto_of(job: Job) -> str | None:
    return "flops" if job.reward == PARETO else None


def rows_of(job: Job, found: Found) -> list[Row]:
    """Return what a search had found at each point; one that has ended keeps what it found."""
    judge = front_judge if job.reward == PARETO else reward_judge
    ended = len(found.trials)
    counts = [min(point, ended) for point in job.points]
    values, arrival = judge(job, found, sorted(set(counts)))
    return [
        Row(
            *(*job.key, point, *values[count], arrival),
            ms=1000 * found.seconds[count - 1] / count,
            ceiling=1.0 if job.reward == PARETO else job.ceiling.value,
            ended=ended,
            rows=len(counts),
        )
        for point, count in zip(job.points, counts, strict=True)
    ]


Shown = tuple[float, float, float, float, float]  # observed, seen, handed, best, flops


def believed(space: Space, trials: Sequence[Trial]) -> list[Metrics]:
    """Return the metrics of trials, the accuracy being the posterior mean where there is one."""
    means = posterior(space, trials)
    own = ((means.get(t.number, (t.metrics["accuracy"],))[0], t.metrics) for t in trials)
    return [{**metrics, "accuracy": accuracy} for accuracy, metrics in own]


def reward_judge(job: Job, found: Found, counts: Sequence[int]) -> tuple[dict[int, Shown], float]:
    """Return for each point the rewards, and the evaluations until within NEAR of the ceiling."""
    space = landscapes.space_of(job.landscape.space)
    objective = landscapes.objective_of(job.landscape, job.reward)
    true = [reward(metrics, objective) for metrics in found.truth]
    observed = [trial.values[0] for trial in found.trials]
    shown: dict[int, Shown] = {}
    for count in counts:
        means = [reward(m, objective) for m in believed(space, found.trials[:count])]
        seen = max(range(count), key=lambda i: observed[i])
        handed = max(range(count), key=lambda i: means[i])
        flops = found.truth[handed]["flops"]
        shown[count] = observed[seen], true[seen], true[handed], max(true[:count]), flops
    near = (n for n, value in enumerate(true, 1) if value >= job.ceiling.value - NEAR)
    return shown, next(near, math.inf)


def front_judge(job: Job, found: Found, counts: Sequence[int]) -> tuple[dict[int, Shown], float]:
    """Return for each point the areas, and the evaluations until NEAR_FRONT of the whole."""
    space = landscapes.space_of(job.landscape.space)

    def share(metrics: Sequence[Metrics]) -> float:
        return landscapes.area(metrics, job.ceiling.reference) / job.ceiling.value

    def true(metrics: Sequence[Metrics]) -> float:
        front = pareto_front([(each["accuracy"], -each["flops"]) for each in metrics])
        return share([found.truth[i] for i in front])

    shown: dict[int, Shown] = {}
    for count in counts:
        observed = [trial.metrics for trial in found.trials[:count]]
        means = believed(space, found.trials[:count])
        whole = share(found.truth[:count])
        shown[count] = share(observed), true(observed), true(means), whole, math.nan
    near = range(1, counts[-1] + 1)
    arrival = 1 + bisect_left(near, NEAR_FRONT, key=lambda n: share(found.truth[:n]))
    return shown, arrival if arrival <= counts[-1] else math.inf
