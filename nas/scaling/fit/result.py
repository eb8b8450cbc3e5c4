"""Result of a fit of alpha, beta and gamma: every candidate, the choice, its noise. Light."""

from __future__ import annotations

from dataclasses import dataclass, field

from nas.core.records import Record, Table
from nas.models.compound import Multipliers


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Coefficients(Record):
    """Growth of depth, width and resolution at phi 1; `product` is alpha * beta**2 * gamma**2."""

    alpha: float
    beta: float
    gamma: float
    product: float

    @property
    def point(self) -> tuple[float, float, float]:
        """Return alpha, beta and gamma."""
        return self.alpha, self.beta, self.gamma


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class FitCandidate(Coefficients):
    """One network of the grid: its costs, its trained epochs, its accuracies.

    `reason`: why it was not trained, "" of those that were. `accuracies`: percent, by epochs.
    `final_scores`: of each seed of the finals.
    """

    rounded: Multipliers
    resolution: int
    arch_id: str
    flops: int
    flops_ratio: float
    params: int
    role: str
    state: str
    reason: str
    epochs: int
    accuracies: dict[str, float] = field(default_factory=dict)
    accuracy: float | None
    latency_ms: float | None
    memory_mib: float | None = None
    final_scores: tuple[float, ...] = ()
    final_mean: float | None


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ChosenPoint(Coefficients):
    """The coefficients that were chosen; `score`: mean of the finals, in percent."""

    role: str = ""
    score: float


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class PaperPoint(Coefficients):
    """The paper's coefficients, the candidate nearest to them, and its score in the finals."""

    candidate: Coefficients | None
    score: float | None = None


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class FitResult(Record):
    """Result of a fit; `chosen` goes into the family.

    `ahead`: of the next in the finals, in points, with its standard error; None where there is no
    next. `within_noise`: None where the noise is unknown. `alike`: what the chosen cannot be told
    from. `deviation`: over seeds, pooled over the finalists.
    """

    schema: int = 1
    base: str = ""
    arch_id: str = ""
    data: str | None = None
    fingerprint: str
    evaluator: str
    objective: str
    device: str | None = None
    fixed_ends: bool = False
    step: float
    product_tolerance: float
    flops_tolerance: float
    growth: float
    rungs: tuple[int, ...]
    seed: int = 0
    final_seeds: int = 1
    candidates: tuple[FitCandidate, ...]
    deviation: float | None
    chosen: ChosenPoint
    paper: PaperPoint
    ahead: float | None
    ahead_error: float | None
    within_noise: bool | None
    alike: tuple[Coefficients, ...]
    rule: str
    training_flops: float
    seconds: float

    def ordered(self) -> list[FitCandidate]:
        """Return the trained candidates: finalists first, then by the rung they reached."""
        trained = [each for each in self.candidates if not each.reason]
        return sorted(trained, key=lambda e: (-(e.final_mean or 0), -e.epochs, -(e.accuracy or 0)))

    def _summary(self) -> dict[str, object]:
        alpha, beta, gamma = self.chosen.point
        told: dict[str, object] = {"alpha": alpha, "beta": beta, "gamma": gamma}
        return {**told, "ahead": self.ahead, "within_noise": self.within_noise}

    def _table(self) -> Table:
        head = ("alpha", "beta", "gamma", "x FLOPs", "epochs", "accuracy", "finals", "state")
        rows = [
            (*e.point, f"{e.flops_ratio:.2f}", e.epochs, _two(e.accuracy), _two(e.final_mean))
            for e in self.ordered()
        ]
        return Table(head, [(*row, e.state) for row, e in zip(rows, self.ordered(), strict=True)])


def _two(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
