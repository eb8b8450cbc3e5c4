"""HTML page of a search: gains, Pareto front, best reward over trials, best arch, leaderboard."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from nas.core import run_folder
from nas.core.units import amount, format_count, format_seconds
from nas.reporting.html import charts, data, leaders, training
from nas.reporting.html.axes import plot
from nas.reporting.html.charts import Point
from nas.reporting.html.drawing import networks
from nas.reporting.html.markup import Page, command, date, join, power, signed
from nas.searching.outcome.explanation import as_candidate, inherited, why
from nas.searching.result import Candidate, Gain, SearchResult

# what an accuracy of this evaluator is, beyond its own title
MEANING = {
    "surrogate": "The accuracy is a proxy: a model's prediction of what a short training would "
    "give. No net of this search was trained in full.",
    "training": "The accuracy is measured: each net was trained on the images for a short while, "
    "not to its end. It ranks nets; train the winner longer (nas train) to use it.",
    "synthetic": "The accuracy is made up and means nothing; the costs are exact.",
}
INHERITED = (
    "The accuracy is measured: each net inherited weights and was fine-tuned on the images, for a "
    "short while as a candidate, and as nas train does it in the finals. The winner's weights are "
    "in best/."
)
# trials under which importances are not told, and under which they are not to be trusted
FEWEST, FEW = 5, 50
ANY_MEANING = "The accuracy is this evaluator's: compare it with others of the same evaluator only."


def page(found: data.SearchFiles, family: Mapping[str, Any] | None) -> Page:
    """Return the page of a search; `family`: the members of `scale.in_search`, if there are any."""
    result = found.result
    context: dict[str, Any] = {
        "run": str(result.run),
        "headline": _headline(found),
        "facts": _facts(found),
        "meaning": INHERITED if result.parent else MEANING.get(result.evaluator.name, ANY_MEANING),
        "alerts": _alerts(found),
        "best": bool(result.winner),
    }
    if result.winner:
        context |= {
            "figures": _figures(found),
            "gains": _gains(found),
            **training.sections(found),
            "front": _front(found),
            "progress": _progress(found),
            "importance": _importance(found),
            "winner": _winner(found),
            "leaders": leaders.section(found),
            "family": family,
            "next": command("nas", "scale", str(result.run), "--phi", "1..7"),
        }
    return Page("search.html", f"{result.space.name}: report of a search", context)


def _facts(found: data.SearchFiles) -> list[tuple[str, object]]:
    result, states = found.result, found.result.states
    trials = [f"{result.trials:,} evaluated of {result.proposals:,} proposed"]
    trials += [
        f"{states[n]} {n}"
        for n in ("stopped", "duplicate", "rejected", "failed", "dropped", "earlier")
        if states.get(n)
    ]
    size = power(result.space.size)
    goal = result.objective
    if result.pareto:
        goal = f"Pareto front of accuracy against {found.axis.name}; best by {goal}"
    return [
        ("Space", join([result.space.name, ", ", size, " points"])),
        ("Objective", goal),
        ("Controller", f"{result.controller}, seed {found.args.get('seed', 'unknown')}"),
        ("Evaluator", result.evaluator.title),
        ("Trials", ", ".join(trials)),
        *[
            ("Warm start", warmed.line.removeprefix("warm start: "))
            for warmed in [result.warm_start]
            if warmed
        ],
        ("Evaluation", f"{format_seconds(result.seconds)}, all trials added up"),
        ("Started", date(found.env)),
        ("Repeat", command("nas", "search", "--config", f"{result.run}/{run_folder.ARGS}")),
    ]


def _headline(found: data.SearchFiles) -> str:
    best, space = found.result.winner, found.result.space.name
    if not best:
        return f"Search of {space}: no net was evaluated"
    metrics = best.metrics
    cost = amount(found.cost, metrics[found.cost])
    return f"Search of {space}: {metrics['accuracy']:.2f} % at {cost}"


def _alerts(found: data.SearchFiles) -> list[str]:
    """Return what a reader must know before believing the figures."""
    result, notes = found.result, []
    if result.stopped:
        notes.append(f"The search ended early: {result.stopped}.")
    if result.winner and not result.met:
        notes.append("No evaluated net is within the budget; the best by reward is shown.")
    reasons = Counter(row["reason"] for row in found.trials if row.get("state") == "failed")
    if reasons:
        reason, times = reasons.most_common(1)[0]
        count = sum(reasons.values())
        some = "" if times == count else f", {times} of them with"
        notes.append(f"{count} {'trial' if count == 1 else 'trials'} failed{some}: {reason}")
    return notes


def _figures(found: data.SearchFiles) -> list[tuple[str, str, str]]:
    best, metrics = found.best, found.best.metrics
    flops = metrics["flops"]
    figures = [
        ("accuracy", f"{data.accuracy(metrics)} %", _deviation(found)),
        (
            "FLOPs",
            format_count(flops),
            f"multiply-adds = {format_count(2 * flops)} FLOPs at 2 per MAC",
        ),
        ("parameters", format_count(metrics["params"]), "weights and biases"),
        ("reward", f"{best.reward:.2f}", data.label(best)),
    ]
    if not metrics.get("accuracy_std"):
        figures[0] = (*figures[0][:2], "no standard deviation from this evaluator")
    if "latency_ms" in metrics:
        figures.insert(3, ("latency", f"{metrics['latency_ms']:.2f} ms", _device(found)))
    return [(f"{name} of the winner", value, note) for name, value, note in figures]


def _deviation(found: data.SearchFiles) -> str:
    if found.result.finals and found.result.finals[0].seed_deviation:
        return "on validation images, ± the standard error over the seeds of the finals"
    return "± one standard deviation"


def _device(found: data.SearchFiles) -> str:
    return f"on {found.args.get('device') or 'the device of the run'}"


def _gains(found: data.SearchFiles) -> list[str]:
    """Return the gains over the references and random search, in sentences."""
    result = found.result
    beside = [result.search] if result.search else []
    others = {entry.name: entry for entry in [*data.compared(result), *beside]}
    reason = why(result)
    notes = [*([reason] if reason else []), *inherited(result)]
    notes += [_gain(found, gain, others[gain.over]) for gain in result.gains if gain.over in others]
    if found.best.metrics.get("accuracy_std") and not result.finals:
        notes.append(
            f"As the best of {_known(result):,} uncertain values the winner's accuracy is likely "
            "too high: confirm it before quoting it."
        )
    return notes


def _gain(found: data.SearchFiles, gain: Gain, other: Candidate) -> str:
    mine, theirs = found.best.metrics, other.metrics
    named = {data.RANDOM: _rival(found.result), "search": "the search's own best"}
    name = named.get(other.name, data.title(other.name))
    text = f"{signed(gain.accuracy)} points of accuracy over {name}, "
    text += compared(found.axis.name, mine[found.cost] / theirs[found.cost])
    spread = gain.accuracy_std or 0.0
    word = "gain" if gain.accuracy >= 0 else "difference"
    if gain.within_noise:
        text += f"; this {word} is smaller than the noise (two standard deviations of it are "
        return f"{text}{2 * spread:.2f} points): the two cannot be told apart."
    if spread:
        return f"{text}; two standard deviations of this {word} are {2 * spread:.2f} points."
    return f"{text}; how large the noise is this evaluator does not say."


def compared(name: str, ratio: float) -> str:
    """Return in words how a cost compares: in per cent, from the double on as a multiple."""
    if ratio >= 2:
        return f"{ratio:.1f} times the {name}"
    return f"{name} {100 * abs(ratio - 1):.1f} % {'lower' if ratio <= 1 else 'higher'}"


def _known(result: SearchResult) -> int:
    """Return how many trials a search knows: its own and those that it took over."""
    return result.trials + result.states.get("earlier", 0)


def _rival(result: SearchResult) -> str:
    equal = "as many new evaluations" if result.states.get("earlier") else "equal budget"
    return f"random search at {equal}"


def _front(found: data.SearchFiles) -> dict[str, object]:
    result, axis = found.result, found.axis
    trials, rivals = data.points(found, found.trials), data.points(found, found.rivals)
    numbers = {row["number"] for row in found.front}
    front = [point for point in trials if point.name in numbers]
    references = [data.entry_point(found, entry) for entry in data.references(result)]
    bounds = {
        f"{word} {amount(metric, value)}": value
        for word, group in (("target", result.targets), ("limit", result.limits))
        for metric, value in group.items()
        if metric == found.cost
    }
    best = found.best
    winner = data.entry_point(found, as_candidate(result, best)) or data.entry_point(found, best)
    chart = charts.front_chart(
        trials, front, rivals, [p for p in references if p], winner or trials[0], axis, bounds
    )
    thin = math.ceil(len(trials) / charts.MOST)
    return {
        "axis": axis.name,
        "shown": f"one trial in {thin}" if thin > 1 else "every trial",
        "elasticity": _elasticity(found, trials),
        "plot": plot(chart),
    }


def _elasticity(found: data.SearchFiles, trials: list[Point]) -> list[str]:
    """Return what a looser and a tighter budget would do to the best accuracy seen."""
    target = float(found.result.targets.get(found.cost, 0))
    within = {
        factor: max((p.accuracy for p in trials if p.cost <= factor * target), default=math.nan)
        for factor in (0.9, 1.0, 1.1)
        if target
    }
    if not within or not all(map(math.isfinite, within.values())):
        return []
    changes = [within[factor] - within[1.0] for factor in (1.1, 0.9)]
    if all(abs(change) < 0.005 for change in changes):
        return ["A budget 10 % looser or tighter would not change the best accuracy."]
    looser, tighter = (amount(found.cost, factor * target) for factor in (1.1, 0.9))
    return [
        f"Among these nets a budget 10 % looser ({looser}) {_change(changes[0])}, "
        f"one 10 % tighter ({tighter}) {_change(changes[1])}."
    ]


def _change(points: float) -> str:
    if abs(points) < 0.005:
        return "leaves the best accuracy as it is"
    return f"changes the best accuracy by {signed(points)} points"


def _progress(found: data.SearchFiles) -> dict[str, object] | None:
    """Return how the best reward grew, of a Pareto search the front; None if nothing is known."""
    if found.result.pareto:
        return _dominated(found)
    series = {"search": data.best_so_far(found.trials), data.RANDOM: data.best_so_far(found.rivals)}
    series = {name: values for name, values in series.items() if values}
    if not series:  # all that is known was taken over
        return None
    known = [entry for entry in data.references(found.result) if entry.known]
    levels = {data.title(entry.name): entry.reward for entry in known}
    compared = f", against {_rival(found.result)}" if len(series) > 1 else ""
    return {
        "title": f"Best reward after each evaluation{compared}",
        "plot": plot(charts.curve_chart(series, levels, "Best reward so far")),
        "note": "An evaluation is a net that was trained or predicted; duplicates cost none. "
        "Double-click to see the first ones too.",
    }


def _dominated(found: data.SearchFiles) -> dict[str, object] | None:
    """Return how the fronts of both searches grew."""
    rows = {"search": data.evaluated(found.trials), data.RANDOM: data.evaluated(found.rivals)}
    pairs = {name: [data.pair(found, row) for row in each] for name, each in rows.items() if each}
    known = [pair for each in pairs.values() for pair in each if pair]
    if not known:
        return None
    worst = min(a for a, _ in known), min(b for _, b in known)
    area = math.prod(max(p[i] for p in known) - worst[i] for i in (0, 1)) or 1.0
    series = {name: list(data.areas(each, worst, area)) for name, each in pairs.items()}
    return {
        "title": "How much of the trade-off was won after each evaluation",
        "plot": plot(charts.curve_chart(series, {}, "Dominated area (%)")),
        "note": "Hypervolume: the part of the box from the worst to the best accuracy and "
        f"{found.axis.name} of all these nets that a search has dominated.",
    }


def _importance(found: data.SearchFiles) -> dict[str, object] | None:
    """Return which choices mattered; None of too few trials."""
    read = ((row["choice"], data.number(row["importance"])) for row in found.importance)
    shares = [(*data.split(choice), share) for choice, share in read if math.isfinite(share)]
    count = _known(found.result)
    if not shares or count < FEWEST:
        return None
    what = "accuracy" if found.result.pareto else "the reward"
    note = (
        f"PED-ANOVA: how differently the trials that are best in {what} spread over the options of "
        "a choice than all trials do. The shares add up to 100 %; they say that a choice matters, "
        "not which option is better."
    )
    doubt = "; with so few it is mostly noise" if count < FEW else ""
    note += f" From {count:,} trials{doubt}."
    return {"plot": plot(charts.importance_chart(shares)), "note": note}


def _winner(found: data.SearchFiles) -> dict[str, object]:
    """Return the winner, beside the best reference that is another net."""
    result = found.result
    mine = f"Winner, {data.label(found.best)}"
    nets = [(mine, found.best.arch)]
    title, note = "The winner", ""
    others = (r for r in result.references if r.arch_id != found.best.arch_id)
    for entry in itertools.islice(others, 1):
        nets.append((data.title(entry.name), entry.arch))
        title = f"The winner beside {nets[1][0]}"
        note = " In colour: what the winner does differently."
    return {"title": title, "net": networks(nets, note)}
