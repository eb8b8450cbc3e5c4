"""Result of a fit from its trainings: every candidate, the choice, and whether it is noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nas.core.errors import NasError
from nas.interfaces import Metrics
from nas.models.cost import count
from nas.scaling.fit.coefficients import PAPER, network
from nas.scaling.fit.grid import GROWTH, MISS, GridPoint, product
from nas.scaling.fit.result import (
    ChosenPoint,
    Coefficients,
    FitCandidate,
    FitResult,
    PaperPoint,
)
from nas.scaling.fit.setup import MEMORY, FitPlan, measured
from nas.searching.objective import describe
from nas.searching.outcome.finals import FinalScore, pooled_deviation

SCHEMA = 1
ERRORS = 2  # standard errors of a difference within which it is called noise
RULE = (
    "the highest mean over the seeds of the finals is taken, of equal ones the better of the first "
    "round; two candidates cannot be told apart "
    f"where their means differ by less than {ERRORS} standard errors of the difference, with the "
    "deviation over seeds pooled over the finalists"
)

Observed = Mapping[str, Mapping[int, Metrics]]


def label(point: Sequence[float]) -> str:
    """Return α 1.2 β 1.1 γ 1.15."""
    return " ".join(f"{name} {value:g}" for name, value in zip("αβγ", point, strict=True))


def noise_said(fit: FitResult) -> str:
    """Return in sentences how large the noise of the choice is."""
    if fit.ahead is None:
        return "Only one candidate was in the finals: there is nothing to compare it with."
    unit = "points " if fit.objective == "accuracy" else ""
    ahead = f"The chosen is {fit.ahead:.2f} {unit}ahead of the next in the finals"
    if fit.within_noise is None:
        return f"{ahead}; with one seed each, or equal ones, the noise is unknown."
    error = f"{ahead}, with a standard error of {fit.ahead_error:.2f}"
    if not fit.within_noise:
        return f"{error}: that is more than the noise ({ERRORS} standard errors)."
    others = "; ".join(label(each.point) for each in fit.alike)
    return (
        f"{error}: within the noise ({ERRORS} standard errors). It has the highest mean, and "
        f"cannot be told from {others}."
    )


def conclude(
    plan: FitPlan, seen: Observed, final_scores: Sequence[FinalScore], spent: Mapping[str, float]
) -> FitResult:
    """Return the whole fit; `seen`: metrics by arch id and epochs of the first round.

    Raises:
        NasError: no finalist was trained.
    """
    if not final_scores:
        raise NasError(
            "every training of the finals failed: finals.csv has the reasons; mend that, delete "
            "the file and go on with --resume"
        )
    scores = {s.finalist.arch.id: _scores(plan, s) for s in final_scores}
    deviation = pooled_deviation(list(scores.values()))
    by_id = {each.arch.id: each for each in plan.grid.candidates}
    first = {s.finalist.arch.id: plan.score(s.finalist.metrics) for s in final_scores}
    order = sorted(scores, key=lambda name: (-_mean(scores[name]), -first[name]))
    best = by_id[order[0]]
    chosen = plan.setup.settings
    return FitResult(
        schema=SCHEMA,
        base=plan.setup.source,
        arch_id=network(plan.setup.arch),
        data=chosen.data,
        fingerprint=plan.evaluator.fingerprint,
        evaluator=plan.evaluator.title,
        objective=describe(plan.objective),
        device=plan.spec.device,
        fixed_ends=chosen.fixed_ends,
        step=plan.grid.step,
        product_tolerance=plan.grid.tolerance,
        flops_tolerance=MISS,
        growth=GROWTH,
        rungs=plan.rungs,
        seed=chosen.seed,
        final_seeds=plan.final_seeds,
        candidates=tuple(_entry(plan, each, seen, scores) for each in plan.grid.candidates),
        deviation=deviation or None,
        chosen=ChosenPoint(
            **_point(best), role=", ".join(best.roles), score=_mean(scores[order[0]])
        ),
        paper=_paper(plan, scores),
        **_noise(order, scores, deviation, by_id),
        rule=RULE,
        training_flops=spent["training_flops"],
        seconds=spent["seconds"],
    )


def _scores(plan: FitPlan, final_score: FinalScore) -> list[float]:
    """Return the score of each training of a finalist."""
    known = final_score.finalist.metrics
    return [plan.score({**known, "accuracy": a}) for a in final_score.accuracies]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _point(candidate: GridPoint) -> dict[str, Any]:
    alpha, beta, gamma = candidate.coefficients
    return {"alpha": alpha, "beta": beta, "gamma": gamma, "product": candidate.product}


def _entry(
    plan: FitPlan, candidate: GridPoint, seen: Observed, scores: Mapping[str, list[float]]
) -> FitCandidate:
    """Return one candidate: what it is, how far it was trained, what it showed."""
    name, cost = candidate.arch.id, count(candidate.arch)
    own = seen.get(name, {})
    final = scores.get(name, [])
    last = own[max(own)] if own else {}
    return FitCandidate(
        **_point(candidate),
        rounded=candidate.rounded,
        resolution=candidate.arch.resolution,
        arch_id=name,
        flops=cost.flops,
        flops_ratio=candidate.ratio,
        params=cost.params,
        role=", ".join(candidate.roles),
        state=_state(plan, candidate, seen),
        reason=candidate.reason,
        epochs=max(own, default=0),
        accuracies={str(epochs): metrics["accuracy"] for epochs, metrics in own.items()},
        accuracy=last.get("accuracy"),
        latency_ms=last.get("latency_ms"),
        memory_mib=measured({}, candidate)[MEMORY],
        final_scores=tuple(final),
        final_mean=_mean(final) if final else None,
    )


def _state(plan: FitPlan, candidate: GridPoint, seen: Observed) -> str:
    if candidate.reason:
        return "spare" if candidate.passes else "rejected"
    own = seen.get(candidate.arch.id, {})
    if not own:
        return "failed"
    return "trained" if max(own) == plan.rungs[-1] else "stopped"


def _paper(plan: FitPlan, scores: Mapping[str, list[float]]) -> PaperPoint:
    """Return the paper's coefficients, and the candidate that stands for them."""
    point = PAPER.alpha, PAPER.beta, PAPER.gamma
    near = next((e for e in plan.grid.trained if e.near_papers), None)
    own = scores.get(near.arch.id) if near else None
    return PaperPoint(
        alpha=PAPER.alpha,
        beta=PAPER.beta,
        gamma=PAPER.gamma,
        product=product(point),
        candidate=Coefficients(**_point(near)) if near else None,
        score=_mean(own) if own else None,
    )


def _noise(
    order: Sequence[str],
    scores: Mapping[str, list[float]],
    deviation: float,
    by_id: Mapping[str, GridPoint],
) -> dict[str, Any]:
    """Return how far the best is ahead of the next, and which cannot be told from it.

    `within_noise` is None where there is no next, or one seed each.
    """
    best = scores[order[0]]

    def apart(name: str) -> tuple[float, float]:
        other = scores[name]
        error = deviation * math.sqrt(1 / len(best) + 1 / len(other))
        return _mean(best) - _mean(other), error

    gaps = {name: apart(name) for name in order[1:]}
    alike = [name for name, (gap, error) in gaps.items() if gap < ERRORS * error]
    gap, error = gaps[order[1]] if gaps else (None, None)
    known = bool(gaps) and bool(deviation)
    return {
        "ahead": gap,
        "ahead_error": error if known else None,
        "within_noise": bool(alike) if known else None,
        "alike": tuple(Coefficients(**_point(by_id[name])) for name in alike),
    }
