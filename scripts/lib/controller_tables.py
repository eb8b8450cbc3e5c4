"""The rows of bench_controllers.py as tables and as a picture."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from lib.pictures import Picture, curve, over_counts
from lib.tables import markdown, quartiles, spread

PARETO, RANDOM = "pareto", "random"
YARDSTICKS = ("hillclimb", "tpe")  # of a front the trivial search knows nothing
EXPONENTS = {"hard": "w = 0 up to T, −1 above", "soft": "w = −0.07"}
MEASURES = {
    "handed": "of the arch handed over (best posterior mean)",
    "seen": "of the arch that looked best",
    "best": "of the best arch evaluated",
}
FRONTS = {
    "handed": "front by posterior mean",
    "seen": "front as observed",
    "best": "front of all that was evaluated",
}


class Row(NamedTuple):
    """What a search had found after so many evaluations.

    Rewards in percent points, or shares of the best front: `observed`: as the search saw it;
    `seen`, `handed`, `best`: true, of the arch that looked best, that is handed over, of the best.
    `flops`: of the arch handed over. `arrival`: evaluations until the ceiling was near, inf: never.
    `references`: the designs that the search began with. `ms`: CPU of an evaluated trial, all in
    all. `ended`: evaluations of the whole search, which keeps what it has found. `rows`: of this
    search.
    """

    landscape: str
    digest: str
    target: float
    noise: str
    reward: str
    controller: str
    options: str
    trials: int
    workers: int
    references: int
    seed: int
    evaluations: int
    observed: float
    seen: float
    handed: float
    best: float
    flops: float
    arrival: float
    ms: float
    ceiling: float
    ended: int
    rows: int

    @property
    def key(self) -> tuple[Any, ...]:
        """Return what tells its search from others."""
        return self[:11]

    @property
    def group(self) -> tuple[Any, ...]:
        """Return what is equal where searches can be compared."""
        return (*self[:5], self.workers)

    @property
    def label(self) -> str:
        return f"{self.controller} ({self.options})" if self.options else self.controller

    @staticmethod
    def of(cells: Sequence[str]) -> Row | None:
        """Return the row of a line, None if it is damaged."""
        kinds = [kind for name, kind in get_type_hints(Row).items() if name in Row._fields]
        try:
            return Row(*(kind(cell) for kind, cell in zip(kinds, cells, strict=True)))
        except ValueError:
            return None


Series = dict[int, list[Row]]  # by the number of evaluations, a row for each seed


def groups(rows: Sequence[Row]) -> dict[tuple[Any, ...], dict[str, Series]]:
    """Return the rows by what was searched, by controller and by evaluations."""
    found: dict[tuple[Any, ...], dict[str, Series]] = {}
    lengths: dict[tuple[Any, ...], set[int]] = defaultdict(set)
    most: dict[tuple[Any, ...], int] = defaultdict(int)
    for row in rows:
        lengths[*row.group, row.label].add(row.trials)
        most[row.group] = max(most[row.group], row.references)
    for row in sorted(rows, key=lambda row: (row.group, row.label, row.trials, row.seed)):
        several = len(lengths[*row.group, row.label]) > 1
        name = f"{row.label}, {row.trials:,}" if several else row.label
        if row.references < most[row.group]:
            name += ", no references"
        series = found.setdefault(row.group, {}).setdefault(name, {})
        series.setdefault(row.evaluations, []).append(row)
    return found


def lines(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the tables: medians with quartiles, and the share of the way from random's median."""
    for series in groups(rows).values():
        yield from ["", *heading(series)]
        first = next(iter(next(iter(series.values())).values()))[0]
        measures = FRONTS if first.reward == PARETO else MEASURES
        for measure, words in measures.items():
            yield from ["", f"{what(first)} {words}:", "", table(series, measure)]
        yield from paired(series)


def what(row: Row) -> str:
    return "Share of the best front's area," if row.reward == PARETO else "True reward"


def title(row: Row) -> str:
    """Return what was searched."""
    noise = f", noise {row.noise}" if row.noise else ""
    flight = f", {row.workers} in flight" if row.workers > 1 else ""
    if row.reward in (PARETO, "accuracy"):
        aim = "accuracy against FLOPs" if row.reward == PARETO else "accuracy alone"
    else:
        aim = f"{row.reward} reward, T = {row.target / 1e6:g}M"
    return f"{row.landscape}, {aim}{noise}{flight}"


def heading(series: dict[str, Series]) -> list[str]:
    every = [row for by_count in series.values() for group in by_count.values() for row in group]
    first, seeds = every[0], {row.seed for row in every}
    form = (
        f", accuracy × (FLOPs/T)^w, {EXPONENTS[first.reward]}" if first.reward in EXPONENTS else ""
    )
    top = "" if first.reward == PARETO else f"; ceiling {first.ceiling:.2f}"
    begun = max(row.references for row in every)
    starts = f"; all begin with {begun} reference designs" if begun else ""
    return [
        f"### {title(first)}",
        "",
        f"{len(seeds)} seed{'s' * (len(seeds) > 1)}{form}; FLOPs are multiply-adds{top}{starts}.",
    ]


def table(series: dict[str, Series], measure: str) -> str:
    """Return a table of one measure, with what a search cost beside it."""
    counts = sorted({count for by_count in series.values() for count in by_count})
    pareto = _is_pareto(series)
    near = "99 % of the front" if pareto else "within 0.1 of the ceiling"
    more = [f"evaluations until {near}"] if measure == "best" else ["CPU ms a trial"]
    more += ["FLOPs, M"] if measure == "handed" and not pareto else []
    rows = []
    for name, by_count in series.items():
        last = by_count[max(by_count)]
        if measure == "best":
            cells = [spread([row.arrival for row in last], 0)]
        else:
            cells = [f"{statistics.median(row.ms for row in last):.1f}"]
        if len(more) > 1:
            digits = 0 if last[0].target > 1e8 else 1
            cells.append(spread([row.flops / 1e6 for row in last], digits))
        rows.append([name, *(cell(series, by_count, n, measure) for n in counts), *cells])
    return markdown(["controller", *(f"{n:,}" for n in counts), *more], rows)


def cell(series: dict[str, Series], by_count: Series, count: int, measure: str) -> str:
    """Return a median with its quartiles, and the share of the way from random's to the ceiling."""
    if count not in by_count:
        return ""
    values = [getattr(row, measure) for row in by_count[count]]
    text = spread(values, 3 if _is_pareto(series) else 2)
    share = way(series, by_count, count, measure)
    return text if share is None else f"{text} {100 * share:.0f} %"


def way(series: dict[str, Series], by_count: Series, count: int, measure: str) -> float | None:
    """Return the share of the way from random's median to the ceiling, None for random itself."""
    chance = series.get(RANDOM, {}).get(count)
    if not chance or by_count is series[RANDOM]:
        return None
    low, top = statistics.median(getattr(row, measure) for row in chance), chance[0].ceiling
    middle = statistics.median(getattr(row, measure) for row in by_count[count])
    return (middle - low) / (top - low) if top > low else None


def paired(series: dict[str, Series]) -> list[str]:
    """Return how much more each hands over than the yardstick with the same seed."""
    yardstick = next((name for name in YARDSTICKS if name in series), "")
    if not yardstick or len(series) < 2:
        return []
    mine, digits = series[yardstick], 3 if _is_pareto(series) else 2
    counts = sorted(mine)
    rows = [
        [name, *(_gain(by_count.get(count, []), mine[count], digits) for count in counts)]
        for name, by_count in series.items()
        if name != yardstick
    ]
    head = f"Handed over, less what {yardstick} hands over with the same seed: median, wins:"
    return ["", head, "", markdown(["controller", *(f"{n:,}" for n in counts)], rows)]


def _gain(rows: Sequence[Row], others: Sequence[Row], digits: int) -> str:
    theirs = {row.seed: row.handed for row in others}
    gains = [row.handed - theirs[row.seed] for row in rows if row.seed in theirs]
    if not gains:
        return ""
    wins = sum(gain > 0 for gain in gains)
    return f"{statistics.median(gains):+.{digits}f}, {wins} of {len(gains)}"


def _is_pareto(series: dict[str, Series]) -> bool:
    return next(iter(next(iter(series.values())).values()))[0].reward == PARETO


def draw(path: Path, rows: Sequence[Row]) -> None:
    """Draw what was handed over by when: a panel for all that can be compared."""
    found = groups(rows)
    names = sorted({name for series in found.values() for name in series})
    names.sort(key=lambda name: name != RANDOM)
    picture = Picture(len(found), columns=2)
    for axis, series in zip(picture.panels, found.values(), strict=False):
        first = next(iter(series.values()))
        row, counts = first[min(first)][0], set[int]()
        for name, by_count in series.items():
            handed = {n: quartiles([r.handed for r in by_count[n]]) for n in sorted(by_count)}
            curve(axis, handed, names.index(name), name)
            counts |= handed.keys()
        axis.axhline(row.ceiling, color="black", linestyle="--", linewidth=1, label="ceiling")
        over_counts(axis, sorted(counts), "evaluations")
        measure = "share of the best front's area" if row.reward == PARETO else "true reward"
        axis.set_ylabel(f"{measure}, handed over")
        axis.set_title(f"{title(row)}\nFLOPs are multiply-adds; median and quartiles", fontsize=10)
        axis.legend(fontsize=8)
    picture.save(path)
