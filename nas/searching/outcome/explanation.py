"""Choice of the result among contenders, and its explanation in one sentence. Light."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from nas.core.units import format_seconds
from nas.searching.result import Candidate, ParentResult, SearchResult, TeacherGain

CURSE = "the best of many observations is partly luck (the winner's curse)"
SEARCH, RANDOM, REFERENCE = "search", "random search", "reference"
Row = TypeVar("Row", bound=Candidate)


@dataclass(frozen=True)
class Contender:
    """A contender for the result of a search: its reward, and the standard error of that.

    `origin`: search, random search or reference. `reward`: of the finals, else at the posterior
    mean; `error` is 0 where unknown. `cost`: what is to be low. `within`: whether it keeps to the
    targets of a hard reward. `shown`: its figures, for a sentence.
    """

    label: str
    origin: str
    arch_id: str
    reward: float
    error: float
    cost: float
    within: bool
    shown: str

    def __str__(self) -> str:
        kind = "the reference " if self.origin == REFERENCE else ""
        return f"{kind}{self.label} ({self.shown})"


@dataclass(frozen=True)
class Choice:
    """The network that is chosen, and all contenders by reward, best first."""

    chosen: Contender
    ranked: tuple[Contender, ...]


def choose(contenders: Sequence[Contender], *, cheaper: bool) -> Choice:
    """Return the contender of the best reward, or the cheapest that is level with it.

    Level: behind by at most one standard error of the difference. This is the one-standard-error
    rule for two means that are both uncertain: take the simplest model within one standard error
    of the best (Breiman et al. 1984, CART, section 3.4.3). Without `cheaper` the
    reward alone counts.
    """
    ranked = tuple(sorted(contenders, key=lambda c: (not c.within, -c.reward)))
    best = ranked[0]
    level = [c for c in ranked if c.within == best.within and _is_level(c, best)]
    return Choice(min(level, key=lambda c: c.cost) if cheaper else best, ranked)


def _is_level(contender: Contender, best: Contender) -> bool:
    return best.reward - contender.reward <= _error(best, contender)


def _error(one: Contender, other: Contender) -> float:
    """Return the standard error of the difference of two rewards, 0 where it is unknown."""
    known = one.error > 0 and other.error > 0 and one is not other
    return math.hypot(one.error, other.error) if known else 0.0


def explain(choice: Choice, *, where: str, unit: str) -> str:
    """Return the explanation of a choice in one sentence: what it is ahead of, and by how much.

    `where`: how they were compared, as "in the finals". `unit`: of the reward, as "points".
    """
    chosen, best = choice.chosen, choice.ranked[0]
    if chosen is not best:
        return (
            f"Handed over is {chosen}: {where} {_gap(best, chosen, unit)} behind {best}, within "
            "one standard error, and the cheapest of those."
        )
    others = [_best_of(origin, choice) for origin in (SEARCH, RANDOM, REFERENCE)]
    gaps = [f"{_gap(chosen, other, unit)} ahead of {_named(other)}" for other in others if other]
    ahead = f", {' and '.join(gaps)}" if gaps else ""
    return f"Handed over is {chosen}, best {where}{ahead}."


def _best_of(origin: str, choice: Choice) -> Contender | None:
    """Return the best contender of an origin; None if there is none, or it is the choice."""
    best = next((c for c in choice.ranked if c.origin == origin), None)
    return None if best is choice.chosen else best


def _named(other: Contender) -> str:
    owners = {
        SEARCH: "the search's best",
        RANDOM: "random search's best",
        REFERENCE: "the best reference",
    }
    return f"{owners[other.origin]} ({other.label.removeprefix(f'{other.origin} ')})"


def _gap(ahead: Contender, behind: Contender, unit: str) -> str:
    gap, error = ahead.reward - behind.reward, _error(ahead, behind)
    return f"{gap:.2f} ±{error:.2f} {unit}" if error else f"{gap:.2f} {unit} (noise unknown)"


def why(result: SearchResult) -> str:
    """Return the explanation of the result, with the winner's curse where it shows; "" of none."""
    best = result.winner
    if not best:
        return ""
    verdict = result.verdict or _older(best)
    return " ".join(
        part for part in (verdict, _winners_curse(result, best), _short(result)) if part
    )


def inherited(result: SearchResult) -> tuple[str, ...]:
    """Return what weights a search began with, and what its search added to them, in sentences."""
    parent, gained = result.parent, teacher_lines(result.teacher) if result.teacher else ()
    if parent is None:
        return gained
    lines = [f"All candidates inherited the weights of {parent.told}."]
    told = []
    if parent.accuracy is not None:
        told.append(f"fine-tuned alike {_points(parent.accuracy, parent.accuracy_std)} %")
    if probe := parent.probe:
        took = format_seconds(probe.seconds)
        told.append(f"its linear probe {probe.accuracy:.2f} % after {took}")
    if told:
        lines.append(f"The {parent.name}: {', '.join(told)}.")
    added = () if result.teacher and result.teacher.over else _added(result, parent)
    return (*lines, *added, *gained)


def _added(result: SearchResult, parent: ParentResult) -> list[str]:
    """Return what the architecture added to the parent, where both were in the finals."""
    best = result.winner
    if parent.accuracy is None or best is None:
        return []
    if best.arch_id == parent.arch_id:
        return ["The architecture added nothing: no sub-network was better than the parent."]
    gain = best.metrics["accuracy"] - parent.accuracy
    mine, theirs = best.metrics.get("accuracy_std") or 0.0, parent.accuracy_std or 0.0
    error = math.hypot(mine, theirs) if mine and theirs else None
    return [f"The architecture added {_gain(gain, error).removesuffix(',')}."]


def _points(value: float, error: float | None) -> str:
    return f"{value:.2f}" + (f" ±{error:.2f}" if error else "")


def teacher_lines(gain: TeacherGain) -> tuple[str, ...]:
    """Return one line on the architecture and one on the teacher, as far as both were measured."""
    found = []
    if gain.architecture is not None:
        told = _gain(gain.architecture, gain.architecture_std)
        found.append(f"Architecture: {told} over {gain.over}, both with the teacher.")
    if gain.teacher is not None:
        told = _gain(gain.teacher, gain.teacher_std)
        found.append(
            f"Teacher: {told} for the same net with the same seeds; it is {gain.info.told} "
            f"(val top-1 {gain.info.top1:.2f} %)."
        )
    return tuple(found)


def _gain(value: float, error: float | None) -> str:
    if error is None:
        return f"{value:+.2f} points (one seed: noise unknown)"
    noise = ", within the noise," if abs(value) < 2 * error else ""
    return f"{value:+.2f} ±{error:.2f} points{noise}"


def as_candidate(result: SearchResult, row: Row) -> Row:
    """Return a row with the metrics of its net as a candidate, comparable with other trials.

    The row of a finalist has the accuracy of the finals, whose trainings are longer; of one that
    was no trial accuracy and reward are left out: the reward is nan.
    """
    final = next((each for each in result.finals if each.arch_id == row.arch_id), None)
    reward = final.searched_reward if final else math.nan
    if not final or (reward is not None and math.isnan(reward)):  # an older version's finals
        return row
    seen = {"accuracy": final.searched, "accuracy_std": final.searched_std}
    kept = {k: v for k, v in row.metrics.items() if k not in seen}
    metrics = kept | {name: value for name, value in seen.items() if value is not None}
    return replace(row, metrics=metrics, reward=math.nan if reward is None else reward)


def _short(result: SearchResult) -> str:
    """Return a sentence where the finals were too short to rank archs, else ""."""
    length = result.finals_length
    return f"The finals were short: {length.text}." if length and not length.enough else ""


def _older(best: Candidate) -> str:
    """Return the explanation of a run that an older version left."""
    return f"Handed over is {_told(best)}, best by posterior mean." if best.posterior else ""


def _winners_curse(result: SearchResult, best: Candidate) -> str:
    if result.pareto:
        return (
            "The nets of the front are not ranked: none is better than another in both accuracy "
            f"and {result.pareto}. Their accuracies are as observed, no model was asked which "
            "are luck."
        )
    if not best.posterior:
        return ""
    if result.finals:
        return f"The finalists were chosen by posterior mean, since {CURSE}."
    other = result.observed_best
    return f"Observed best was {_told(other)}: {CURSE}." if other else "It was best observed too."


def _told(row: Candidate) -> str:
    return f"trial {row.number} ({figures(row)})"


def figures(row: Candidate) -> str:
    """Return the figures of a trial: observed, and of its posterior."""
    seen = f"reward {row.reward:.3f}, accuracy {row.metrics['accuracy']:.2f}"
    if not (known := row.posterior):
        return seen
    return f"{seen} observed, {known.accuracy:.2f} ±{known.accuracy_std:.2f} posterior"
