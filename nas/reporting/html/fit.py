"""The section of a family whose coefficients were fitted: the map, the candidates, the noise."""

from __future__ import annotations

from collections.abc import Sequence

from nas.core.units import format_count, format_seconds
from nas.reporting.html.axes import plot
from nas.reporting.html.charts_fit import FitCell, fit_chart
from nas.reporting.html.markup import MarkupTable, escape
from nas.scaling.fit.conclude import label, noise_said
from nas.scaling.fit.result import FitCandidate, FitResult

WEIGHTS = {"rejected": 0, "spare": 1, "failed": 1, "stopped": 2, "trained": 2}


def section(fit: FitResult | None) -> dict[str, object] | None:
    """Return the section of a fit; None where nothing was fitted."""
    if not fit:
        return None
    paper = fit.paper
    words = "the paper's coefficients"
    if paper.candidate and paper.candidate.point != paper.point:
        words = f"the network nearest the paper's {label(paper.point)}"
    views = [*(f"after {_epochs(rung)}" for rung in fit.rungs), "finals"]
    cells = [_cell(fit, each) for each in fit.candidates]
    return {
        "said": _said(fit),
        "plot": plot(fit_chart(cells, views)),
        "paper": words,
        "table": _table(fit),
        "others": _others(fit),
        "rule": fit.rule,
    }


def _epochs(count: int) -> str:
    return f"{count} epoch{'s' * (count != 1)}"


def _said(fit: FitResult) -> list[str]:
    chosen, paper = fit.chosen, fit.paper
    return [
        f"Chosen: {label(chosen.point)} with α·β²·γ² = {chosen.product:.3f}; the paper's, "
        f"fitted to EfficientNet-B0 on ImageNet, are {label(paper.point)} with "
        f"{paper.product:.3f}.",
        noise_said(fit),
        f"Trained: {fit.evaluator}. Ranked by {fit.objective}. All trainings took "
        f"{format_count(fit.training_flops)} multiply-adds and "
        f"{format_seconds(fit.seconds)}, added up.",
    ]


def _cell(fit: FitResult, each: FitCandidate) -> FitCell:
    accuracies = [each.accuracies.get(str(rung)) for rung in fit.rungs]
    chosen = each.arch_id == _chosen(fit).arch_id
    paper = fit.paper.candidate
    near = paper is not None and each.point == paper.point
    text = f"{label(each.point)}: {each.flops_ratio:.2f} × FLOPs, {_state(each)}"
    return FitCell(
        *each.point,
        mark="★ " * chosen + "◆ " * near,
        weight=WEIGHTS[each.state] + 2 * chosen + near,
        hover=escape(text),
        values=(*accuracies, each.final_mean),
    )


def _chosen(fit: FitResult) -> FitCandidate:
    return next(each for each in fit.candidates if each.point == fit.chosen.point)


def _state(each: FitCandidate) -> str:
    if each.reason:
        return each.reason
    return f"{each.state} after {_epochs(each.epochs)}"


def _table(fit: FitResult) -> MarkupTable:
    head: list[object] = ["candidate", "α·β²·γ²", "depth", "width", "pixels", "× FLOPs"]
    timed = any(each.latency_ms for each in fit.candidates)
    head += ["latency (ms)"] * timed
    head += [_epochs(rung) for rung in fit.rungs] + ["finals", ""]
    trained = fit.ordered()
    rows = [_row(fit, each, timed) for each in trained]
    marked = [at for at, e in enumerate(trained) if e.point == fit.chosen.point]
    last = len(head) - 1
    return MarkupTable(head, rows, left=(0, last), marked=marked, label="Candidates of the fit")


def _row(fit: FitResult, each: FitCandidate, timed: bool) -> Sequence[object]:
    rounded = each.rounded
    cells: list[object] = [
        label(each.point),
        f"{each.product:.3f}",
        f"{rounded.depth:.2f}",
        f"{rounded.width:.2f}",
        each.resolution,
        f"{each.flops_ratio:.2f}",
    ]
    if timed:
        cells.append(_number(each.latency_ms))
    cells += [_number(each.accuracies.get(str(rung))) for rung in fit.rungs]
    return [*cells, _final(fit, each), ", ".join(filter(None, (each.role, _end(each))))]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _final(fit: FitResult, each: FitCandidate) -> str:
    if each.final_mean is None:
        return "–"
    spread = fit.deviation
    error = f" ± {spread / len(each.final_scores) ** 0.5:.2f}" if spread else ""
    return f"{each.final_mean:.2f}{error}"


def _end(each: FitCandidate) -> str:
    return "" if each.state == "trained" else each.state


def _others(fit: FitResult) -> str:
    states = [each.state for each in fit.candidates]
    rejected, spare = states.count("rejected"), states.count("spare")
    return (
        f"Of the {len(states)} networks with α·β²·γ² = {fit.growth:g} ± "
        f"{fit.product_tolerance:.0%} (step {fit.step:g}) {rejected} miss "
        f"{fit.growth:g} times the FLOPs by more than {fit.flops_tolerance:.0%}, and {spare} "
        "lie close to one that is trained; fit.json lists them all. Under the epochs: accuracy in "
        "per cent. Finals: mean over new seeds ± its standard error. Depth and width: what "
        "rounding left of α and β."
    )
