"""What `nas.proxy_check` returns: how well each budget ranks archs. Light."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nas.core.records import Record, Table, named
from nas.interfaces import Choices


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Correlation(Record):
    """Kendall's tau-b with its 95 % interval; None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None
    n: int | None = None


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class BudgetResult(Record):
    """What trainings of one budget cost and gave, each a mean; accuracies in percent.

    `tau`: of one training to the mean of the long ones; `tau_to_one`: to one long one; `own_tau`:
    seed against seed. `enough`: yes, no or unclear. The long training has only the last of these.
    """

    budget: str
    epochs: int
    fraction: float
    imgsz: int
    accuracy: float | None
    accuracy_std: float | None
    seconds: float
    training_flops: float
    share_of_long: float | None = None
    tau: Correlation | None = None
    tau_to_one: Correlation | None = None
    own_tau: Correlation | None = named("self")
    enough: str = ""

    def _omits(self, key: str) -> bool:
        return not self.enough and key in ("share_of_long", "tau", "tau_to_one", "enough")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class FailedTraining(Record):
    """A training that failed, and why."""

    arch_id: str
    budget: str
    seed: int
    error: str


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class CheckedArch(Record):
    """An arch of the check, with the accuracies of its trainings, by budget."""

    arch_id: str
    flops: int
    choices: Choices
    accuracies: dict[str, list[float]]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ProxyCheckResult(Record):
    """How short a training may be and still rank archs: `chosen`, None if no budget does.

    `n` archs came through all their trainings; `flops_alone`: how well counting ranks them.
    """

    schema: int = 1
    run: Path
    stopped: str
    data: str
    split: str
    space: str
    recipe: str
    device: str
    seeds: int
    fraction: float
    trainings: int
    notes: tuple[str, ...]
    failed: tuple[FailedTraining, ...]
    archs: tuple[CheckedArch, ...]
    n: int
    threshold: float
    budgets: tuple[BudgetResult, ...]
    long: BudgetResult
    flops_alone: Correlation | None
    chosen: BudgetResult | None
    verdict: str
    warnings: tuple[str, ...]

    def _summary(self) -> dict[str, object]:
        told: dict[str, object] = {"data": self.data, "space": self.space, "archs": self.n}
        return {**told, "chosen": self.chosen and self.chosen.budget, "run": self.run}

    def _table(self) -> Table:
        rows = [(e.budget, f"{e.seconds:.1f}", e.enough) for e in (*self.budgets, self.long)]
        return Table(("budget", "seconds", "ranks well enough"), rows)
