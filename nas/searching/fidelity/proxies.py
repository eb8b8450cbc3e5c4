"""Rank correlation of short trainings (proxies) with long ones. Pure; `proxy_check` trains.

A budget is what one short training gets, on a schedule of its own. It ranks well enough when the
lower end of its tau's interval (nas.searching.ranking) to the mean of the long trainings is at or
above the threshold; or when it ranks a single long training as well as a second long one does,
both by the lower ends. Where neither can be shown, the verdict says why.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nas.core.errors import OptionError
from nas.core.units import parse_number
from nas.searching.ranking import Tau, against, agreement, archs_to_show, ceiling

EXAMPLE = "4 (epochs), 8:0.5 (of half the images) or 8:0.5:32 (at 32 pixels)"


class ProxyBudget(NamedTuple):
    """Budget of one training: epochs, a share of the training images, pixels a side.

    0 epochs: a linear probe, of archs that inherit weights. 0 pixels: those of each arch.
    """

    epochs: int
    fraction: float
    imgsz: int

    def __str__(self) -> str:
        text = f"{self.epochs}:{self.fraction:g}"
        return f"{text}:{self.imgsz}" if self.imgsz else text


def parse_budget(text: str | int, imgsz: int, least: int = 1) -> ProxyBudget:
    """Return the budget written as epochs[:fraction[:pixels]], of at least `least` epochs.

    Raises:
        OptionError: the text is none, or a part is out of range; the message gives examples.
    """
    parts = str(text).split(":")
    if len(parts) > 3:
        raise OptionError(f"--budget takes {EXAMPLE}, not {text!r}")
    numbers = [parse_number(part, f"--budget {text}:") for part in parts]
    epochs, fraction, side = [*numbers, *(1.0, float(imgsz))[len(numbers) - 1 :]]
    small = side < 32 and side != imgsz
    if epochs < least or epochs % 1 or not 0 < fraction <= 1 or small or side % 1:
        raise OptionError(
            f"--budget takes {EXAMPLE}: whole epochs from {least}, a share up to 1, whole pixels "
            f"from 32; not {text!r}"
        )
    return ProxyBudget(int(epochs), fraction, int(side))


def default_budgets(long: ProxyBudget, *, inherited: bool = False) -> list[ProxyBudget]:
    """Return an eighth, a quarter and a half of the long training's epochs.

    Where weights are inherited a linear probe, an epoch and three.
    """
    if inherited:
        return [long._replace(epochs=each) for each in (0, 1, 3) if each < long.epochs]
    epochs = {max(1, long.epochs // part) for part in (8, 4, 2)} - {long.epochs}
    return [long._replace(epochs=each) for each in sorted(epochs)]


@dataclass(frozen=True)
class BudgetTrainings:
    """All trainings of one budget: accuracies in percent (archs, seeds), and the mean of each cost.

    `seconds` of one training, `training_flops` its multiply-adds.
    """

    budget: ProxyBudget
    accuracies: npt.NDArray[np.float64]
    seconds: float
    training_flops: float


def rank_budgets(
    shorts: Sequence[BudgetTrainings],
    long: BudgetTrainings,
    flops: Sequence[float],
    threshold: float,
) -> dict[str, Any]:
    """Return a row for each budget, the cheapest that ranks well enough, and a verdict.

    `flops` of the archs: the baseline, a ranking by cost alone, which a budget must beat.
    """
    reference = long.accuracies.mean(1)
    noise = _noise(long)
    problem = _problem(len(reference), noise, threshold)
    rows = [_row(each, long, noise, threshold, problem) for each in shorts]
    passed = [row for row in rows if row["enough"] == "yes"]
    chosen = min(passed, key=lambda row: float(row["training_flops"]), default=None)
    counted = against(np.array(flops)[:, None], reference)
    return {
        "n": len(reference),
        "threshold": threshold,
        "budgets": rows,
        "long": _costs(long) | {"self": _numbers(noise)},
        "flops_alone": _numbers(counted),
        "chosen": chosen,
        "verdict": problem or _conclusion(rows, chosen, noise, threshold),
        "warnings": _warnings(rows, chosen, counted),
    }


def _noise(trained: BudgetTrainings) -> Tau | None:
    """Return the rank correlation between seeds of one budget, None with one seed."""
    return ceiling(trained.accuracies) if trained.accuracies.shape[1] > 1 else None


def _row(
    short: BudgetTrainings, long: BudgetTrainings, noise: Tau | None, threshold: float, problem: str
) -> dict[str, Any]:
    tau = against(short.accuracies, long.accuracies.mean(1))
    # with single long trainings, as seed against seed has it: the mean of several is less noisy
    one = agreement(itertools.product(short.accuracies.T, long.accuracies.T))
    tests = [(tau, threshold), *([(one, noise.low)] if noise else [])]
    if any(found.low >= bar for found, bar in tests):
        enough = "yes"
    else:
        enough = "no" if all(found.high < bar for found, bar in tests) else "unclear"
    return _costs(short) | {
        "share_of_long": short.training_flops / long.training_flops
        if long.training_flops
        else None,
        "tau": _numbers(tau),
        "tau_to_one": _numbers(one),
        "self": _numbers(_noise(short)),
        "enough": "unclear" if problem else enough,
    }


def _costs(trained: BudgetTrainings) -> dict[str, Any]:
    seeds = trained.accuracies.shape[1]
    variance = _mean(trained.accuracies.var(1, ddof=1)) if seeds > 1 else None
    return {
        "budget": str(trained.budget),
        **trained.budget._asdict(),
        "accuracy": _mean(trained.accuracies),
        # of one training over its seeds, pooled over archs
        "accuracy_std": None if variance is None else math.sqrt(variance),
        "seconds": trained.seconds,
        "training_flops": trained.training_flops,
    }


def _mean(values: npt.NDArray[np.float64]) -> float | None:
    return float(values.mean()) if values.size else None


def _numbers(tau: Tau | None) -> dict[str, float | int | None] | None:
    """Return a tau as JSON, which has no nan."""
    if tau is None:
        return None
    return {k: None if math.isnan(v) else v for k, v in tau._asdict().items()}


def _problem(n: int, noise: Tau | None, threshold: float) -> str:
    """Return why no conclusion is possible, or an empty string."""
    best = agreement([(range(n), range(n))]).low if n > 1 else -1.0
    if best < threshold:
        return (
            f"too few archs: of {n} even a perfect ranking has an interval from {best:.2f}, under "
            f"the threshold {threshold:g}; take more (--archs)"
        )
    if noise and not noise.low > 0:
        return (
            "the long training does not rank these archs itself: seed against seed "
            f"{describe(_numbers(noise))}; train longer (--long-epochs), take more seeds or archs "
            "that differ more"
        )
    return ""


def _conclusion(
    rows: Sequence[Mapping[str, Any]],
    chosen: Mapping[str, Any] | None,
    noise: Tau | None,
    threshold: float,
) -> str:
    level = f", nor as a second long training would ({describe(_numbers(noise))})" if noise else ""
    if chosen and chosen["tau"]["low"] >= threshold:
        why = f"tau to the long training {describe(chosen['tau'])}, threshold {threshold:g}"
    elif chosen:
        why = (
            f"tau to one long training {describe(chosen['tau_to_one'])}, as a second long training "
            f"has it ({describe(_numbers(noise))}); the threshold {threshold:g} is not shown"
        )
    if chosen:
        return (
            f"{chosen['budget']} is the cheapest budget that ranks well enough: {why}; it takes "
            f"{chosen['share_of_long']:.0%} of the multiply-adds of the long training"
        )
    if all(row["enough"] == "no" for row in rows):
        return f"no budget ranks well enough: all are under the threshold {threshold:g}{level}"
    return (
        f"no budget is shown to rank with a tau of {threshold:g} or more{level}"
        f"{_more(rows, threshold)}"
    )


def _more(rows: Sequence[Mapping[str, Any]], threshold: float) -> str:
    """Return about how many archs would be enough, if the best tau so far is right."""
    best = max((row["tau"]["value"] or -1.0 for row in rows), default=-1.0)
    if best <= threshold + 0.02:
        return "; train longer"
    archs = archs_to_show(best, threshold)
    return f"; if the best of them is right, about {archs} archs would show it (--archs)"


def _warnings(
    rows: Sequence[Mapping[str, Any]], chosen: Mapping[str, Any] | None, counted: Tau
) -> list[str]:
    best = chosen or max(rows, key=lambda row: row["tau"]["value"] or -1.0, default=None)
    found = []
    if best and counted.value >= (best["tau"]["value"] or -1.0):
        found.append(
            f"counting FLOPs ranks these archs as well as {best['budget']} does, without any "
            f"training (tau {describe(_numbers(counted))}): take archs of one size, as a search "
            "would compare (--target-flops, or --min-flops and --max-flops)"
        )
    return found


def describe(tau: Mapping[str, Any] | None) -> str:
    """Return 0.71 (0.42–0.88), or a dash where there is none."""
    if tau is None or tau["value"] is None:
        return "–"
    return f"{tau['value']:.2f} ({tau['low']:.2f}–{tau['high']:.2f})"
