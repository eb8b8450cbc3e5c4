"""The loop of every search: ask the study, screen by exact cost, evaluate, tell the study.

The journal is the only truth. What is in memory can be rebuilt from it, so a killed search goes
on where it was: finished trials count, a proposal without a result is evaluated again under its
own number.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from nas.arch import Arch
from nas.cost import count
from nas.errors import ArchError, NasError
from nas.interfaces import (
    SPENT,
    TRAINING_FLOPS,
    Choices,
    Executor,
    Metrics,
    Option,
    Outcome,
    Rung,
    Space,
    Task,
    Trial,
)
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


@dataclass(frozen=True)
class Budget:
    """What one trial gets. `rungs`: the epochs at which a training is asked and may be stopped.

    `limit`: seconds, 0: any. Checkpoints of what is being trained lie in folders of `folder`.
    """

    rungs: tuple[int, ...] = ()
    limit: float = 0.0
    folder: Path = Path()


@dataclass
class _Pending:
    """A trial that is being evaluated, and what its training has shown so far."""

    arch: Arch
    choices: Choices
    rungs: tuple[Rung, ...] = ()
    retries: int = 0

    @property
    def seconds(self) -> float:
        return sum(rung.seconds for rung in self.rungs)


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
        budget: Budget = Budget(),
    ) -> None:
        self._log, self._space, self._goal, self._executor = log, space, goal, executor
        self._seed, self._known, self._stop, self._watch = seed, known, stop, watch
        self._budget = budget
        self._distributions = distributions(space)
        self._pending: dict[int, _Pending] = {}
        self._twins: list[tuple[int, Choices, str]] = []  # with the arch id they wait for
        self._seen: set[str] = set()
        self._broken: dict[str, str] = {}  # the archs that gave no result, and why
        self._spent = self._idle = self._failed = 0
        self._reason = ""
        finished = log.trials()
        self._proposed: set[tuple[Option, ...]] = {tuple(t.choices.values()) for t in finished}
        for trial in finished:
            self._clear(trial)  # it may have been killed just before
            self._count(trial)
        if self._failed >= FAILURES:
            self._failed = 0  # the search ended for that, and goes on with a mended evaluator

    def run(self, trials: int) -> str:
        """Evaluate until `trials` archs are spent; return why it ended early, or "".

        What is being trained when it ends early is left to a resumption.

        Raises:
            NasError: the last evaluations all failed; the message gives the reason.
        """
        for trial in self._log.unfinished() if not self._ended() else []:
            self._screen(trial.number, trial.choices, trial.rungs)
        while True:
            reason = self._ended()
            while not reason and self._has_room(trials):
                self._screen(*self._log.ask(self._distributions))
                reason = self._ended()
            if not self._pending:
                if self._failed and not self._seen and not self._stop():
                    raise NasError(f"every evaluation failed: {self._reason}")
                return reason
            for outcome in self._executor.wait():
                self._record(outcome)
            # when it ends, they are left to a resumption as the trials they waited for are
            twins, self._twins = (self._twins if not self._stop() else []), []
            flying = self._flying()
            for twin in twins:
                if twin[2] in flying:  # looked at no earlier: there may be a thousand of them
                    self._twins.append(twin)
                else:
                    self._screen(*twin[:2])

    def _has_room(self, trials: int) -> bool:
        waiting, slots = len(self._pending), self._executor.slots
        if waiting and (self._idle >= PATIENCE or len(self._twins) >= 4 * slots):
            return False  # what is in flight may change what is proposed
        return waiting < slots and self._spent + waiting < trials

    def _ended(self) -> str:
        if self._failed >= FAILURES:
            raise NasError(f"the last {FAILURES} evaluations all failed: {self._reason}")
        if len(self._proposed) >= self._space.size:
            return self._stop() or "every point of the space was proposed"
        idle = f"{PATIENCE} proposals in a row were known already or above a limit"
        exhausted = self._idle >= PATIENCE and not self._pending
        return self._stop() or (idle if exhausted else "")

    def _screen(self, number: int, choices: Choices, rungs: tuple[Rung, ...] = ()) -> None:
        """Reject a proposal, answer it from what is known, or submit it."""
        self._proposed.add(tuple(choices.values()))
        try:
            arch = decode(self._space, choices)
            cost = cost_metrics(arch)
        except ArchError as error:
            return self._tell(Trial(number, "rejected", choices, "", {}, (), str(error)))
        reason = broken_limit(cost, self._goal.objective)
        if arch.id in self._broken:
            reason = f"this network was tried before: {self._broken[arch.id]}"
        if reason:
            return self._tell(Trial(number, "rejected", choices, arch.id, cost, (), reason))
        if arch.id in self._known:
            state = "duplicate" if arch.id in self._seen else "done"
            metrics = self._known[arch.id]
            values = self._goal.values(metrics)
            return self._tell(Trial(number, state, choices, arch.id, metrics, values))
        if arch.id in self._flying():
            self._twins.append((number, choices, arch.id))  # it gets the result of the one there
            return
        self._pending[number] = _Pending(arch, choices, rungs)
        self._submit(number)

    def _flying(self) -> set[str]:
        """Return the ids of the archs that are being evaluated."""
        return {pending.arch.id for pending in self._pending.values()}

    def _submit(self, number: int) -> None:
        """Have a trial evaluated, or trained up to its next rung."""
        pending, budget = self._pending[number], self._budget
        task = Task(number, pending.arch.to_dict(), self._seed)
        if budget.limit:
            left = max(1.0, budget.limit - pending.seconds)
            task = replace(task, limit=left)
        if budget.rungs:
            epochs = budget.rungs[len(pending.rungs)]
            task = replace(task, epochs=epochs, folder=str(self._checkpoints(number)))
        self._executor.submit(task)

    def _checkpoints(self, number: int) -> Path:
        return self._budget.folder / f"{self._log.study.study_name}-{number}".replace(" ", "-")

    def _record(self, outcome: Outcome) -> None:
        pending = self._pending[outcome.number]
        pending.retries += outcome.retries
        metrics = {**outcome.metrics, **cost_metrics(pending.arch)}
        if not outcome.error and len(pending.rungs) + 1 < len(self._budget.rungs):
            return self._report(outcome, metrics)
        if outcome.error and pending.rungs:  # what it has cost until then is spent
            metrics |= _spent(pending.rungs[-1].metrics)
        state, values = ("failed", ()) if outcome.error else ("done", self._goal.values(metrics))
        self._close(outcome, state, metrics, values, outcome.error)

    def _close(
        self,
        outcome: Outcome,
        state: str,
        metrics: Metrics,
        values: tuple[float, ...],
        reason: str,
    ) -> None:
        """Tell what came of a pending trial, with all that its tasks took."""
        pending = self._pending.pop(outcome.number)
        choices, arch_id, rungs = pending.choices, pending.arch.id, pending.rungs
        seconds = outcome.seconds + pending.seconds
        found = Trial(outcome.number, state, choices, arch_id, metrics, values, reason, seconds)
        place, retries = outcome.place, pending.retries
        self._tell(replace(found, rungs=rungs, place=place, retries=retries))

    def _report(self, outcome: Outcome, metrics: Metrics) -> None:
        """Go on with a training that has come to a rung, unless the pruner or the user stops it."""
        number, pending = outcome.number, self._pending[outcome.number]
        epochs = self._budget.rungs[len(pending.rungs)]
        worth = reward(metrics, self._goal.objective)
        rung = Rung(epochs, worth, metrics, outcome.seconds)
        stopped = self._log.report(number, rung)
        pending.rungs = (*pending.rungs, rung)
        if stopped:
            reason = f"stopped early, after {epochs} of {self._budget.rungs[-1]} epochs"
            self._close(replace(outcome, seconds=0.0), "stopped", metrics, (), reason)
        elif self._stop():
            del self._pending[number]
        else:
            self._submit(number)

    def _tell(self, trial: Trial) -> None:
        self._log.tell(trial)
        self._clear(trial)
        self._count(trial)
        self._watch(trial)

    def _clear(self, trial: Trial) -> None:
        """Remove the checkpoints of a finished trial."""
        if self._budget.rungs:
            shutil.rmtree(self._checkpoints(trial.number), ignore_errors=True)

    def _count(self, trial: Trial) -> None:
        if trial.state in ("failed", "stopped"):
            self._broken[trial.arch_id] = trial.reason
        if trial.state == "done":
            self._seen.add(trial.arch_id)
            self._known[trial.arch_id] = trial.metrics
        if trial.state in SPENT:
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


def _spent(metrics: Metrics) -> Metrics:
    return {name: value for name, value in metrics.items() if name == TRAINING_FLOPS}


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
