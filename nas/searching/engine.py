"""Ask-and-tell loop of every search: ask the study, screen by exact cost, evaluate, tell the study.

All state lies in the study; what is in memory is rebuilt from it, so a killed search resumes:
finished trials count, a proposal without a result is evaluated again under its own number. Where
drivers share a study, each counts what the others finish, and waits for what they work on
(nas/searching/studies/shared.py says why that is enough).
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nas.core.errors import ArchError, NasError
from nas.interfaces import (
    SCORED,
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
from nas.models.arch import Arch
from nas.models.points import cost_metrics, decode
from nas.searching.objective import Goal, broken_limit, reward
from nas.searching.samplers import distributions
from nas.searching.studies.study import Log, Takeover

# proposals in a row that bring nothing new before a search ends
PATIENCE = 500
# failed evaluations in a row before a search ends: the evaluator is broken, not the archs
FAILURES = 20
# failed evaluations after which a search may end that has not one accuracy yet
FEW = 3
# the best trials of a study whose weights are kept: one of them may be the result
KEPT = 5
# seconds between two looks at what other drivers do, where there is nothing else to do
POLL = 0.25


@dataclass(frozen=True)
class Budget:
    """Training budget of a trial. `rungs`: the epochs at which it is evaluated and may be stopped.

    `timeout_s`: seconds, 0: any. Checkpoints of what is being trained lie in folders of `folder`.
    `unit`: of the rungs, as it is told.
    """

    rungs: tuple[int, ...] = ()
    timeout_s: float = 0.0
    folder: Path = Path()
    unit: str = "epochs"

    def progress(self, reached: int) -> str:
        """Return how far a training has come."""
        return f"after {reached} of {self.rungs[-1]} {self.unit}"


def training_folder(trials: Path, study: str, number: int) -> Path:
    """Return where a trial of a study is trained, in the folder of a run's trials."""
    return trials / f"{study}-{number}".replace(" ", "-")


@dataclass
class _Pending:
    """A pending trial: being evaluated, with the rungs of its training so far."""

    arch: Arch
    choices: Choices
    rungs: tuple[Rung, ...] = ()
    retries: int = 0

    @property
    def seconds(self) -> float:
        return sum(rung.seconds for rung in self.rungs)


@dataclass
class _Held:
    """A proposal that waits for a pending trial, here or of another driver."""

    number: int
    choices: Choices
    rungs: tuple[Rung, ...] = ()
    arch_id: str = ""


class Engine:
    """The evaluation of one study: proposals, pending trials, results.

    `finished`: its trials so far. `known` maps arch ids to metrics and may be shared between
    studies: what is in it is not evaluated again. `stop` returns a reason to end at once and leave
    what runs to a resumption, or an empty string; `late` one to begin nothing more: what is
    evaluated then is finished, a training at its next rung, with its accuracy there. Until
    `at_least` archs have an accuracy, or FEW have failed, more are begun all the same. `watch` is
    called with each finished trial.
    """

    def __init__(
        self,
        log: Log,
        space: Space,
        goal: Goal,
        executor: Executor,
        *,
        finished: Sequence[Trial],
        seed: int,
        known: dict[str, Metrics],
        stop: Callable[[], str],
        watch: Callable[[Trial], None],
        late: Callable[[], str] = lambda: "",
        at_least: int = 0,
        budget: Budget = Budget(),
    ) -> None:
        self._log, self._space, self._goal, self._executor = log, space, goal, executor
        self._seed, self._known, self._stop, self._watch = seed, known, stop, watch
        self._late, self._at_least, self._budget = late, at_least, budget
        self._distributions = distributions(space)
        self._pending: dict[int, _Pending] = {}
        self._held: list[_Held] = []
        self._others: dict[int, Choices] = {}  # what other drivers work on
        self._archs: dict[int, str] = {}  # the arch ids of these
        self._lost: set[int] = set()  # own trials that other drivers have ended
        self._seen: set[str] = set()
        self._kept: list[tuple[float, int]] = []  # rewards and negative numbers, best first
        self._broken: dict[str, str] = {}  # the archs that gave no result, and why
        self._spent = self._idle = self._failed = 0
        self._trials, self._reason = 0, ""
        self._proposed: set[tuple[Option, ...]] = set()
        for trial in finished:
            self._clear(trial)  # it may have been killed just before
            self._count(trial)
        if self._failed >= FAILURES or log.shared:
            self._failed = 0  # the search ended for that, and goes on with a mended evaluator

    def run(self, trials: int) -> str:
        """Evaluate until `trials` archs are spent; return why it ended early, or "".

        What is being trained when it ends early is left to a resumption. All drivers' trials count.

        Raises:
            NasError: the last evaluations all failed; the message gives the reason.
        """
        self._trials = trials
        unfinished = self._log.unfinished() if not self._ended() else []
        self._look()
        for trial in unfinished:
            self._screen(trial.number, trial.choices, trial.rungs)
        while True:
            self._catch_up()
            reason = self._ended()
            while not reason and self._has_room():
                number, choices = self._log.ask(self._distributions)
                self._look()
                self._screen(number, choices, self._taken_over(number))
                reason = self._ended()
            if self._pending:
                for outcome in self._executor.wait():
                    self._record(outcome)
            elif (self._held or self._others) and not self._over():
                time.sleep(POLL)
            else:
                if self._failed and not self._seen and not self._stop():
                    raise NasError(f"every evaluation failed: {self._reason}")
                return reason

    def _catch_up(self) -> None:
        """Read what other drivers finished, and screen again the proposals that wait.

        When the search ends, these are left to a resumption, as the trials they wait for are.
        """
        ends = bool(self._over())
        self._look()
        held, self._held = ([] if ends else self._held), []
        pending = {each.arch.id for each in self._pending.values()}
        for each in held:
            if each.arch_id in pending:  # screened no earlier: there may be a thousand of them
                self._held.append(each)
            else:
                self._screen(each.number, each.choices, each.rungs)

    def _look(self) -> None:
        """Read what other drivers have finished, and what they work on."""
        news, self._others = self._log.look()
        for trial in news:
            self._lost.add(trial.number)  # it may have been this driver's own
            own = self._failed, self._reason
            self._count(trial)
            self._failed, self._reason = own  # this driver's evaluator is not broken by others'
            if trial.state == "dropped":  # it may be in the queue now
                self._idle = 0
            self._watch(trial)

    def _has_room(self) -> bool:
        waiting, slots = len(self._pending), self._executor.slots
        idle = (waiting or self._others) and self._idle >= PATIENCE
        if idle or len(self._held) >= 4 * slots:
            return False  # pending results may change what is proposed
        return waiting < slots and self._spent + waiting + len(self._others) < self._trials

    def _ended(self) -> str:
        if self._failed >= FAILURES:
            raise NasError(f"the last {FAILURES} evaluations all failed: {self._reason}")
        if len(self._proposed) >= self._space.size:
            return self._over() or "every point of the space was proposed"
        idle = f"{PATIENCE} proposals in a row were known already or above a limit"
        exhausted = self._idle >= PATIENCE and not self._pending and not self._others
        return self._over() or (idle if exhausted else "")

    def _over(self) -> str:
        """Return the reason to propose no more that comes from outside of the study, or ""."""
        enough = len(self._seen) >= self._at_least or self._spent >= FEW
        return self._stop() or (self._late() if enough else "")

    def _screen(self, number: int, choices: Choices, rungs: tuple[Rung, ...] = ()) -> None:
        """Reject a proposal, answer it from known results, hold it, or submit it."""
        if number in self._lost:
            return
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
        if self._must_wait(number, arch.id):
            self._held.append(_Held(number, choices, rungs, arch.id))
            return
        full = self._log.shared and self._spent + len(self._pending) >= self._trials
        if full and arch.id not in self._seen:
            enough = f"{self._trials} trials are enough, and others came first"
            return self._tell(Trial(number, "dropped", choices, arch.id, cost, (), enough))
        if arch.id in self._known:
            state = "duplicate" if arch.id in self._seen else "done"
            metrics, values = self._known[arch.id], self._goal.values(self._known[arch.id])
            return self._tell(Trial(number, state, choices, arch.id, metrics, values))
        self._pending[number] = _Pending(arch, choices, rungs)
        self._submit(number)

    def _must_wait(self, number: int, arch_id: str) -> bool:
        """Tell whether a proposal waits for a pending trial: of the same arch, or the last one."""
        if any(arch_id == other.arch.id for other in self._pending.values()):
            return True
        ahead = [other for other in self._others if other < number]
        if any(self._arch_of(other) in ("", arch_id) for other in ahead):
            return True
        full = self._spent + len(self._pending) + len(ahead) >= self._trials
        return bool(ahead) and full and arch_id not in self._seen

    def _arch_of(self, other: int) -> str:
        """Return the arch id of another driver's trial, "" while it is being proposed."""
        if other not in self._archs and self._others[other]:
            self._archs[other] = "none"
            with contextlib.suppress(ArchError):  # its driver is about to reject it
                self._archs[other] = decode(self._space, self._others[other]).id
        return self._archs.get(other, "")

    def _submit(self, number: int) -> None:
        """Have a trial evaluated, or trained up to its next rung."""
        pending, budget = self._pending[number], self._budget
        task = Task(number, pending.arch.to_dict(), self._seed)
        if budget.timeout_s:
            left = max(1.0, budget.timeout_s - pending.seconds)
            task = replace(task, timeout_s=left)
        if budget.rungs:
            epochs = budget.rungs[len(pending.rungs)]
            task = replace(task, epochs=epochs, folder=str(self._checkpoints(number)))
        self._executor.submit(task)

    def _checkpoints(self, number: int) -> Path:
        return training_folder(self._budget.folder, self._log.study.study_name, number)

    def _taken_over(self, number: int) -> tuple[Rung, ...]:
        """Return the rungs of a trial taken over from a dead driver, and copy its checkpoints."""
        if not (takeover := self._log.origin(number)):
            return ()
        self._copy_checkpoints(takeover)
        return takeover.trial.rungs

    def _copy_checkpoints(self, takeover: Takeover) -> None:
        """Go on from the checkpoints of a dead driver, where this machine can read them."""
        mine = self._checkpoints(takeover.trial.number)
        if takeover.folder and self._budget.rungs:
            theirs = (
                takeover.folder / self._budget.folder.name / self._checkpoints(takeover.of).name
            )
            try:
                shutil.copytree(theirs, mine)
            except OSError:  # there are none, or its driver lives and writes there
                shutil.rmtree(mine, ignore_errors=True)

    def _record(self, outcome: Outcome) -> None:
        pending = self._pending[outcome.number]
        pending.retries += outcome.retries
        metrics = {**outcome.metrics, **cost_metrics(pending.arch)}
        if not outcome.error and len(pending.rungs) + 1 < len(self._budget.rungs):
            return self._report(outcome, metrics)
        if outcome.error and pending.rungs:  # what it has cost until then is spent
            before = pending.rungs[-1].metrics
            metrics |= {name: before[name] for name in (TRAINING_FLOPS,) if name in before}
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
        """Tell the study the result of a pending trial, with the time of all its tasks."""
        pending = self._pending.pop(outcome.number)
        choices, arch_id, rungs = pending.choices, pending.arch.id, pending.rungs
        seconds = outcome.seconds + pending.seconds
        found = Trial(outcome.number, state, choices, arch_id, metrics, values, reason, seconds)
        node, retries = outcome.node, pending.retries
        self._tell(replace(found, rungs=rungs, node=node, retries=retries))

    def _report(self, outcome: Outcome, metrics: Metrics) -> None:
        """Go on with a training that has come to a rung, unless the pruner or the user stops it."""
        number, pending = outcome.number, self._pending[outcome.number]
        epochs = self._budget.rungs[len(pending.rungs)]
        value = reward(metrics, self._goal.objective)
        rung = Rung(epochs, value, metrics, outcome.seconds)
        stopped = self._log.report(number, rung)
        pending.rungs = (*pending.rungs, rung)
        if stopped:
            reason = f"stopped early, {self._budget.progress(epochs)}"
            self._close(replace(outcome, seconds=0.0), "stopped", metrics, (), reason)
        elif self._stop():
            del self._pending[number]
        elif late := self._late():
            # the first keeps its accuracy, so that the search has a result
            first = len(self._seen) < self._at_least
            state, values = ("done", self._goal.values(metrics)) if first else ("stopped", ())
            reason = f"{late}, {self._budget.progress(epochs)}"
            self._close(replace(outcome, seconds=0.0), state, metrics, values, reason)
        else:
            self._submit(number)

    def _tell(self, trial: Trial) -> None:
        counted = self._log.tell(trial)
        self._clear(trial)
        if counted:  # else another driver has taken it over, and the next look tells
            self._count(trial)
            self._watch(trial)

    def _clear(self, trial: Trial) -> None:
        """Remove the checkpoints of a finished trial; the best few leave their weights."""
        folder, dropped = self._checkpoints(trial.number), trial.number
        if not self._budget.rungs:
            return
        if trial.state == "done" and (folder / "weights").is_dir():
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
            self._kept.append((self._goal.reward_of(trial), -trial.number))
            self._kept.sort(reverse=True)
            if len(self._kept) <= KEPT:
                return
            dropped = -self._kept.pop()[1]
        shutil.rmtree(self._checkpoints(dropped), ignore_errors=True)

    def _count(self, trial: Trial) -> None:
        if trial.state == "dropped":
            self._proposed.discard(tuple(trial.choices.values()))
            return
        self._proposed.add(tuple(trial.choices.values()))
        if trial.state in ("failed", "stopped"):
            self._broken[trial.arch_id] = trial.reason
        if trial.state in SCORED:
            self._seen.add(trial.arch_id)
            self._known[trial.arch_id] = trial.metrics
        if trial.state == "earlier":  # nobody proposed it here
            return
        if trial.state in SPENT:
            self._spent += 1
            self._idle = 0
            self._failed = self._failed + 1 if trial.state == "failed" else 0
            self._reason = trial.reason
        else:
            self._idle += 1
