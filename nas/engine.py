"""The loop of every search: ask the study, screen by exact cost, evaluate, tell the study.

The journal is the only truth. What is in memory can be rebuilt from it, so a killed search goes
on where it was: finished trials count, a proposal without a result is evaluated again under its
own number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nas.arch import Arch
from nas.cost import count
from nas.errors import ArchError, NasError
from nas.interfaces import Choices, Executor, Metrics, Option, Outcome, Space, Task, Trial
from nas.objective import Objective, broken_limit, metric_of, reward
from nas.samplers import Excess, distributions, no_excess
from nas.study import Direction, Log

# proposals in a row that bring nothing new before a search ends
PATIENCE = 500
# failed evaluations in a row before a search ends: the evaluator is broken, not the archs
FAILURES = 20


@dataclass(frozen=True)
class Goal:
    """What a study is told: a reward, or accuracy against one cost (`pareto`)."""

    objective: Objective
    pareto: str | None = None  # the cost metric of a two-objective search

    @property
    def directions(self) -> list[Direction]:
        return ["maximize", "minimize"] if self.pareto else ["maximize"]

    def values(self, metrics: Metrics) -> tuple[float, ...]:
        """Return what the study is told for these metrics."""
        if self.pareto:
            return metrics["accuracy"], metric_of(metrics, self.pareto)
        return (reward(metrics, self.objective),)


class Engine:
    """One study of a journal with everything that is needed to go on with it.

    `known` maps arch ids to metrics and may be shared between studies: what is in it is not
    evaluated again. `stop` returns a reason to end early, or an empty string. `watch` is called
    with each finished trial.
    """

    def __init__(
        self,
        log: Log,
        space: Space,
        goal: Goal,
        executor: Executor,
        *,
        seed: int,
        known: dict[str, Metrics],
        stop: Callable[[], str],
        watch: Callable[[Trial], None],
    ) -> None:
        self._log, self._space, self._goal, self._executor = log, space, goal, executor
        self._seed, self._known, self._stop, self._watch = seed, known, stop, watch
        self._distributions = distributions(space)
        self._pending: dict[int, tuple[Arch, Choices]] = {}
        self._twins: list[tuple[int, Choices]] = []
        self._seen: set[str] = set()
        self._broken: dict[str, str] = {}  # the archs that failed, and why
        self._spent = self._idle = self._failed = 0
        self._reason = ""
        finished = log.trials()
        self._proposed: set[tuple[Option, ...]] = {tuple(t.choices.values()) for t in finished}
        for trial in finished:
            self._count(trial)
        if self._failed >= FAILURES:
            self._failed = 0  # the search ended for that, and goes on with a mended evaluator

    def run(self, budget: int) -> str:
        """Evaluate until `budget` archs are done or failed; return why it ended early, or "".

        Raises:
            NasError: the last evaluations all failed; the message gives the reason.
        """
        for number, choices in self._log.unfinished():
            self._screen(number, choices)
        while True:
            reason = self._ended()
            while not reason and self._has_room(budget):
                self._screen(*self._log.ask(self._distributions))
                reason = self._ended()
            if not self._pending:
                if self._broken and not self._seen and not self._stop():
                    raise NasError(f"every evaluation failed: {self._reason}")
                return reason
            for outcome in self._executor.wait():
                self._record(outcome)
            twins, self._twins = self._twins, []
            for number, choices in twins:
                self._screen(number, choices)

    def _has_room(self, budget: int) -> bool:
        waiting, slots = len(self._pending), self._executor.slots
        if waiting and (self._idle >= PATIENCE or len(self._twins) >= 4 * slots):
            return False  # what is in flight may change what is proposed
        return waiting < slots and self._spent + waiting < budget

    def _ended(self) -> str:
        if self._failed >= FAILURES:
            raise NasError(f"the last {FAILURES} evaluations all failed: {self._reason}")
        if len(self._proposed) >= self._space.size:
            return self._stop() or "every point of the space was proposed"
        idle = f"{PATIENCE} proposals in a row were known already or above a limit"
        exhausted = self._idle >= PATIENCE and not self._pending
        return self._stop() or (idle if exhausted else "")

    def _screen(self, number: int, choices: Choices) -> None:
        """Reject a proposal, answer it from what is known, or submit it."""
        self._proposed.add(tuple(choices.values()))
        try:
            arch = decode(self._space, choices)
            cost = cost_metrics(arch)
        except ArchError as error:
            return self._tell(Trial(number, "rejected", choices, "", {}, (), str(error)))
        reason = broken_limit(cost, self._goal.objective)
        if arch.id in self._broken:
            reason = f"this network failed before: {self._broken[arch.id]}"
        if reason:
            return self._tell(Trial(number, "rejected", choices, arch.id, cost, (), reason))
        if arch.id in self._known:
            state = "duplicate" if arch.id in self._seen else "done"
            metrics = self._known[arch.id]
            values = self._goal.values(metrics)
            return self._tell(Trial(number, state, choices, arch.id, metrics, values))
        if any(arch.id == other.id for other, _ in self._pending.values()):
            self._twins.append((number, choices))  # it gets the result of the one in flight
            return
        self._pending[number] = arch, choices
        self._executor.submit(Task(number, arch.to_dict(), self._seed))

    def _record(self, outcome: Outcome) -> None:
        arch, choices = self._pending.pop(outcome.number)
        metrics = {**outcome.metrics, **cost_metrics(arch)}
        state, values = ("failed", ()) if outcome.error else ("done", self._goal.values(metrics))
        found = (metrics, values, outcome.error, outcome.seconds)
        self._tell(Trial(outcome.number, state, choices, arch.id, *found))

    def _tell(self, trial: Trial) -> None:
        self._log.tell(trial)
        self._count(trial)
        self._watch(trial)

    def _count(self, trial: Trial) -> None:
        if trial.state == "failed":
            self._broken[trial.arch_id] = trial.reason
        if trial.state == "done":
            self._seen.add(trial.arch_id)
            self._known[trial.arch_id] = trial.metrics
        if trial.state in ("done", "failed"):
            self._spent += 1
            self._idle = 0
            self._failed = self._failed + 1 if trial.state == "failed" else 0
            self._reason = trial.reason
        else:
            self._idle += 1


def decode(space: Space, choices: Choices) -> Arch:
    """Return the arch of a point.

    Raises:
        ArchError: the space calls the point invalid, or it decodes to something impossible.
    """
    try:
        if space.valid and not space.valid(choices):
            raise ArchError("the space says that this point is not valid")
        arch = space.decode(choices)
    except NasError:
        raise
    except Exception as error:  # a space is the user's code
        raise ArchError(f"decode fails on {choices}: {type(error).__name__}: {error}") from error
    if not isinstance(arch, Arch):
        raise ArchError(f"decode gives no Arch for {choices} but {type(arch).__name__}")
    return arch


def excess(space: Space, objective: Objective) -> Excess:
    """Return how far a point is above the hard limits, as a share of the limit; inf if invalid.

    Controllers that take it propose within the limits instead of being rejected.
    """
    if not objective.limits and space.valid is None:
        return no_excess

    def above(choices: Choices) -> float:
        try:
            cost = cost_metrics(decode(space, choices))
        except ArchError:
            return float("inf")
        return max((cost[b.metric] / b.value - 1 for b in objective.limits), default=0.0)

    return above


def cost_metrics(arch: Arch) -> Metrics:
    """Return the metrics that are counted, not evaluated."""
    cost = count(arch)
    return {"flops": cost.flops, "params": cost.params, "activations": cost.activations}
