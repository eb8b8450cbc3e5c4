"""The first round of a fit: a row of fit.csv for each training up to a rung."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from nas.core.ledger import Ledger
from nas.core.units import format_seconds
from nas.interfaces import Metrics, Outcome, Task
from nas.scaling.fit.conclude import label
from nas.scaling.fit.grid import GridPoint
from nas.scaling.fit.setup import FitPlan, measured
from nas.scaling.progress import ScalingProgress

TABLE = "fit.csv"


@dataclass(frozen=True)
class FitTraining:
    """A candidate's training up to a rung: what it showed there, or an error."""

    arch_id: str
    alpha: float
    beta: float
    gamma: float
    seed: int
    epochs: int
    accuracy: float | None
    latency_ms: float | None
    training_flops: float | None
    seconds: float
    place: str
    retries: int
    error: str

    @property
    def metrics(self) -> Metrics:
        found = {
            "accuracy": self.accuracy,
            "latency_ms": self.latency_ms,
            "training_flops": self.training_flops,
        }
        return {name: value for name, value in found.items() if value is not None}


@dataclass
class FitTable:
    """What the first round has shown; `slots`: trainings at once, to estimate the time left."""

    plan: FitPlan
    folder: Path
    screen: ScalingProgress
    slots: Callable[[], int] = lambda: 1
    ledger: Ledger[FitTraining] = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.folder / TABLE, FitTraining)
        # what failed before gets another chance: the cause may be mended
        self.ledger.forget(lambda row: row.accuracy is None)

    @property
    def rows(self) -> list[FitTraining]:
        return self.ledger.rows

    @property
    def seen(self) -> dict[str, dict[int, Metrics]]:
        """Return the metrics of each network after the epochs of each rung it has come to."""
        found: dict[str, dict[int, Metrics]] = {}
        by_id = {each.arch.id: each for each in self.plan.grid.trained}
        for row in self.rows:
            own = found.setdefault(row.arch_id, {})
            if row.accuracy is not None and row.arch_id in by_id:
                own[row.epochs] = measured(row.metrics, by_id[row.arch_id])
        return found

    def failed(self, arch_id: str) -> str:
        """Return why a network's training failed, "" if it did not."""
        return next((r.error for r in self.rows if r.arch_id == arch_id and r.error), "")

    def seconds(self, arch_id: str) -> float:
        """Return what a network's trainings have taken so far."""
        return sum(row.seconds for row in self.rows if row.arch_id == arch_id)

    def __contains__(self, item: tuple[GridPoint, Task]) -> bool:
        candidate, task = item
        own = [row for row in self.rows if row.arch_id == candidate.arch.id]
        return any(row.error or row.epochs == task.epochs for row in own)

    def finish(self, candidate: GridPoint, task: Task, outcome: Outcome) -> None:
        """Put a finished training on file, and tell of it."""
        found = outcome.metrics
        row = FitTraining(
            candidate.arch.id,
            *candidate.coefficients,
            task.seed,
            task.epochs,
            accuracy=found.get("accuracy"),
            latency_ms=found.get("latency_ms"),
            training_flops=found.get("training_flops"),
            seconds=float(f"{outcome.seconds:.4g}"),
            place=outcome.node,
            retries=outcome.retries,
            error=outcome.error,
        )
        self.ledger.append(row)
        shown = outcome.error or f"{found['accuracy']:.2f} %"
        words = f"{label(candidate.coefficients)} epoch {task.epochs}: {shown}"
        self.screen.say(words + self._left())

    def _left(self) -> str:
        """Return how long the rest will take, by what an epoch has taken so far."""
        seconds, done = sum(row.seconds for row in self.rows), self._done()
        left = max(0, self.plan.epochs - done) * seconds / (done or 1) / self.slots()
        return f"; about {format_seconds(left)} to go" if left else ""

    def _done(self) -> int:
        """Return the epochs that were trained; a training comes back at each rung."""
        before = dict(zip(self.plan.rungs, (0, *self.plan.rungs), strict=False))
        ends = [row.epochs for row in self.rows if not row.error]
        return sum(end - before[end] for end in ends if end in before)
