"""What a search maximises: rewards, hard limits, the Pareto front. Pure functions.

Sources: Tan et al. 2019 (MnasNet), equation 2; Tan and Le 2019 (EfficientNet), section 4;
Bender et al. 2020 (TuNAS), section 4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from nas.core.errors import OptionError, did_you_mean
from nas.interfaces import Trial

# (exponent at or under the target, exponent above it); for `absolute` the slope on both sides
EXPONENTS = {"hard": (0.0, -1.0), "soft": (-0.07, -0.07), "absolute": (-0.1, -0.1)}


@dataclass(frozen=True)
class Bound:
    """A value that a metric should come to (a target) or must not exceed (a limit)."""

    metric: str
    value: float


@dataclass(frozen=True)
class Objective:
    """The reward of a search; `alpha` at or under each target, `beta` above it.

    `hard` and `soft` give accuracy * prod (cost / T) ** w, in percent like the accuracy.
    `absolute` gives accuracy + 100 * beta * sum |cost / T - 1|.
    """

    kind: str = "hard"
    alpha: float = 0.0
    beta: float = -1.0
    targets: tuple[Bound, ...] = ()
    limits: tuple[Bound, ...] = ()


@dataclass(frozen=True)
class Goal:
    """What a study is told: a reward, or accuracy against one cost (`pareto`)."""

    objective: Objective
    pareto: str | None = None  # the cost metric of a two-objective search

    @property
    def directions(self) -> list[Literal["maximize", "minimize"]]:
        return ["maximize", "minimize"] if self.pareto else ["maximize"]

    @property
    def cost(self) -> str:
        """Return the cost metric that accuracy is set against."""
        targets = self.objective.targets
        return self.pareto or (targets[0].metric if targets else "flops")

    def values(self, metrics: Mapping[str, float]) -> tuple[float, ...]:
        """Return what the study is told for these metrics."""
        if self.pareto:
            return metrics["accuracy"], metric_of(metrics, self.pareto)
        return (reward(metrics, self.objective),)

    def reward_of(self, trial: Trial) -> float:
        """Return the reward that a trial was told with; where none was, that of its metrics."""
        told = () if self.pareto else trial.values
        return told[0] if told else reward(trial.metrics, self.objective)


def make_objective(
    kind: str, w: float | None, targets: tuple[Bound, ...], limits: tuple[Bound, ...]
) -> Objective:
    """Return the objective of a named reward; `w` replaces its exponent or slope (hard: above T).

    Raises:
        OptionError: an unknown reward, or a `w` that would reward a higher cost.
    """
    if kind not in EXPONENTS:
        known = ", ".join(EXPONENTS)
        raise OptionError(f"--reward takes {known}, not {kind!r}{did_you_mean(kind, EXPONENTS)}")
    alpha, beta = EXPONENTS[kind]
    if w is not None:
        if not -10 <= w <= 0:
            raise OptionError(
                f"--w must lie in -10..0, not {w:g}: the reward is accuracy x (cost/T)^w, "
                "so a positive w would pay for higher cost"
            )
        alpha, beta = (0.0 if kind == "hard" else w), w
    return Objective(kind, alpha, beta, targets, limits)


def reward(metrics: Mapping[str, float], objective: Objective) -> float:
    """Return the reward of metrics (accuracy in percent); more is better.

    With alpha = beta (`soft`) the best arch does not depend on T: T ** -w is a constant factor.

    Raises:
        OptionError: a target's metric is missing from `metrics`.
    """
    offset, factor = reward_line(metrics, objective)
    return offset + factor * metrics["accuracy"]


def reward_line(metrics: Mapping[str, float], objective: Objective) -> tuple[float, float]:
    """Return offset and factor of the reward of a network of these costs: linear in its accuracy.

    Raises:
        OptionError: a target's metric is missing from `metrics`.
    """
    distance, factor = 0.0, 1.0
    for target in objective.targets:
        ratio = metric_of(metrics, target.metric) / target.value
        distance += abs(ratio - 1)
        factor *= float(ratio ** (objective.alpha if ratio <= 1 else objective.beta))
    if objective.kind == "absolute":
        return 100 * objective.beta * distance, 1.0
    return 0.0, factor


def broken_limit(metrics: Mapping[str, float], objective: Objective) -> str:
    """Return which hard limit the metrics exceed, as a sentence, or an empty string."""
    for limit in objective.limits:
        if metric_of(metrics, limit.metric) > limit.value:
            return f"{limit.metric} {metrics[limit.metric]:,.0f} above the limit {limit.value:,.0f}"
    return ""


def meets(metrics: Mapping[str, float], objective: Objective) -> bool:
    """Tell whether metrics are at or under every target and limit."""
    bounds = (*objective.targets, *objective.limits)
    return all(metric_of(metrics, bound.metric) <= bound.value for bound in bounds)


def pareto_front(points: Sequence[Sequence[float]]) -> list[int]:
    """Return the indices of the points that no other beats; every coordinate is maximised.

    Of equal points the first stays. Sorted by the first coordinate, best first. O(n * front).
    """
    order = sorted(range(len(points)), key=lambda i: tuple(-x for x in points[i]))
    front: list[int] = []
    for i in order:
        if not any(_covers(points[j], points[i]) for j in front):
            front.append(i)
    return front


def hypervolume(points: Iterable[tuple[float, float]], reference: tuple[float, float]) -> float:
    """Return the area that 2-d points (both maximised) dominate above a reference point."""
    inside = [p for p in points if p[0] > reference[0] and p[1] > reference[1]]
    area, height = 0.0, reference[1]
    for index in pareto_front(inside):
        x, y = inside[index]
        area += (x - reference[0]) * (y - height)
        height = y
    return area


def describe(objective: Objective) -> str:
    """Return the reward as a formula with its numbers, for the screen."""
    if not objective.targets:
        return "accuracy"
    names = {bound.metric: _short(bound) for bound in objective.targets}
    if objective.kind == "absolute":
        terms = " + ".join(f"|{m}/{t} − 1|" for m, t in names.items())
        return f"accuracy − {100 * -objective.beta:g} × ({terms})"
    same = objective.alpha == objective.beta
    w = f"{objective.beta:g}" if same else "w"
    rest = "" if same else f", w = {objective.alpha:g} up to T, {objective.beta:g} above"
    return " × ".join(["accuracy", *(f"({m}/{t})^{w}" for m, t in names.items())]) + rest


def _short(bound: Bound) -> str:
    from nas.core.units import format_count

    return f"{bound.value:g} ms" if bound.metric == "latency_ms" else format_count(bound.value)


def _covers(a: Sequence[float], b: Sequence[float]) -> bool:
    return all(x >= y for x, y in zip(a, b, strict=True))


def metric_of(metrics: Mapping[str, float], name: str) -> float:
    """Return one metric.

    Raises:
        OptionError: it is not there; the message lists what is.
    """
    if name not in metrics:
        raise OptionError(
            f"the evaluator gives no {name}; it gives {', '.join(sorted(metrics))}: "
            "choose a target among these, or a --device for latency"
        )
    return metrics[name]
