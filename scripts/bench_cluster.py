"""Run controllers on a virtual cluster of 1 to 1,024 workers: hours, utilisation, regret.

Each search runs through the same engine and journal as `nas search`, on the executor `simulated`:
the accuracies are the surrogate's with the noise of one training (--noise, points), the hours are
virtual, of Accel-NASBench's trainings. What counts is the true reward (without the noise) of the
arch that looked best so far. Regret: that of the search with one worker, less that of this one,
both with the same seed and the same number of trials. `rough`: 10 % of the tries take four times as
long, and 5 % of them die on the way.

    python scripts/bench_cluster.py --out cluster.csv --picture cluster.png
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from lib import flags, plain_search
from lib.pictures import Picture, curve, over_counts
from lib.processes import mapped
from lib.tables import markdown

from nas.core import registry, run_folder
from nas.interfaces import EvaluatorSpec, Trial
from nas.searching.objective import Bound, Goal, make_objective

TARGET = 400_000_000
LEVELS = (64.0, 64.5, 65.0, 65.5, 66.0)
MOST = {"gp": 40}  # trials: each of its proposals takes some tenths of a second
CALM, ROUGH = "calm", "rough"
FORTUNES: dict[str, dict[str, float]] = {CALM: {}, ROUGH: {"stragglers": 0.1, "failures": 0.05}}


class Job(NamedTuple):
    controller: str
    workers: int
    fortune: str
    seed: int
    trials: int
    noise: float


class Row(NamedTuple):
    """One search: virtual hours in all and until each of LEVELS was reached (None: never).

    `proposals`: with the duplicates, which are not evaluated; `failed`: trials without a result;
    `cpu`: real seconds of this process.
    """

    controller: str
    workers: int
    fortune: str
    seed: int
    trials: int
    proposals: int
    failed: int
    hours: float
    utilisation: float
    true: float
    reached: tuple[float | None, ...]
    cpu: float


@flags.in_one_line
def main(words: Sequence[str] | None) -> None:
    given = arguments(words)
    rows = list(mapped(run, jobs_of(given), given.processes))
    if given.out:
        write(given.out, rows)
    print(f"{given.seeds} seeds, virtual hours; median (least–most); ", end="")
    print(f"{sum(row.cpu for row in rows):.0f} CPU s\n{table(rows)}")
    if given.picture:
        draw(given.picture, rows)


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = flags.parser(__doc__)
    parser.add_argument("--controllers", default="random,evolution,tpe,gp")
    parser.add_argument("--workers", default="1,8,64,256,1024")
    parser.add_argument("--rough", default="64,1024", help="workers of the rough searches")
    parser.add_argument("--trials", type=int, default=1152, help=f"at most, of some: {MOST}")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--noise", type=float, default=0.3)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, help="CSV")
    parser.add_argument("--picture", type=Path, help="PNG")
    return parser.parse_args(words)


def jobs_of(given: argparse.Namespace) -> list[Job]:
    """Return the searches to make, the longest first."""
    calm = [(int(n), CALM) for n in given.workers.split(",")]
    rough = [(int(n), ROUGH) for n in given.rough.split(",") if n]
    return [
        Job(name, workers, fortune, seed, min(given.trials, MOST.get(name, given.trials)), noise)
        for name in reversed(given.controllers.split(","))
        for workers, fortune in calm + rough
        for seed in range(given.seeds)
        for noise in [given.noise]
    ]


def run(job: Job) -> Row:
    """Make one search."""
    torch.set_num_threads(1)
    start = time.process_time()
    space = registry.export("spaces", "mbconv", "SPACE")
    goal = Goal(make_objective("hard", None, (Bound("flops", TARGET),), ()))
    work = EvaluatorSpec("surrogate", {"noise": job.noise, "seed": job.seed})
    options = {"seed": job.seed, **FORTUNES[job.fortune]}
    cluster = registry.make("executors", "simulated", work, options=options, workers=job.workers)
    sampler = registry.make(
        "controllers", job.controller, space, options={}, seed=job.seed, goal=goal
    )
    seen: list[tuple[float, Trial]] = []

    def watch(trial: Trial) -> None:
        seen.append((cluster.now / 3600, trial))

    plain_search.run(space, goal, sampler, cluster, seed=job.seed, trials=job.trials, watch=watch)
    done = [(hours, trial) for hours, trial in seen if trial.state == "done"]
    leaders = plain_search.leaders([trial for _, trial in done], space, goal.objective)
    timed = [(hours, true) for (hours, _), true in zip(done, leaders, strict=True)]
    reached = tuple(next((h for h, true in timed if true >= level), None) for level in LEVELS)
    failed = sum(trial.state == "failed" for _, trial in seen)
    found = cluster.now / 3600, cluster.utilisation, leaders[-1], reached
    return Row(*job[:5], len(seen), failed, *found, time.process_time() - start)


def write(path: Path, rows: list[Row]) -> None:
    """Write one line a search."""
    fields = [name for name in Row._fields if name != "reached"]
    header = [*fields, *(f"hours_to_{level:g}" for level in LEVELS)]
    cells = [[*(getattr(row, name) for name in fields), *row.reached] for row in rows]
    run_folder.write_csv(path, header, cells)


def groups(rows: list[Row]) -> dict[tuple[str, str, int], list[Row]]:
    """Return the searches of each controller, fortune and number of workers, by seed."""
    order = list(dict.fromkeys(row.controller for row in reversed(rows)))
    found: dict[tuple[str, str, int], list[Row]] = {}
    for row in sorted(rows, key=lambda r: (order.index(r.controller), *r[2:0:-1], r.seed)):
        found.setdefault((row.controller, row.fortune, row.workers), []).append(row)
    return found


def against(rows: list[Row], serial: list[Row]) -> tuple[list[float], list[float]]:
    """Return speed-ups and regrets of searches against those with one worker, seed by seed."""
    pairs = [(row, one) for row in rows for one in serial if row.seed == one.seed]
    return [one.hours / row.hours for row, one in pairs], [
        one.true - row.true for row, one in pairs
    ]


def table(rows: list[Row]) -> str:
    """Return a table: medians over the seeds, (least–most)."""
    found, lines = groups(rows), []
    for (name, fortune, workers), group in found.items():
        speed, regret = against(group, found.get((name, CALM, 1), []))
        title = f"{name}, {group[0].trials}" + (f", {ROUGH}" if fortune == ROUGH else "")
        lines.append(
            [
                *(title, f"{workers:,}", spread([r.hours for r in group], 1), spread(speed, 0)),
                spread([100 * r.utilisation for r in group], 0),
                *(level_cell([r.reached[i] for r in group]) for i in range(len(LEVELS))),
                *(spread([r.true for r in group], 2), spread(regret, 2)),
                *(spread([getattr(r, key) for r in group], 0) for key in ("proposals", "failed")),
            ]
        )
    levels = [f"h to {level:g}" for level in LEVELS]
    heads = ["controller, trials", "workers", "hours", "speed-up", "busy %", *levels]
    return markdown([*heads, "true reward", "regret", "proposals", "failed"], lines)


def spread(values: list[float], digits: int) -> str:
    """Return median (least–most)."""
    if not values:
        return "–"
    low, middle, high = min(values), statistics.median(values), max(values)
    shown = f"{middle:.{digits}f}"
    same = f"{low:.{digits}f}" == f"{high:.{digits}f}"
    return shown if same else f"{shown} ({low:.{digits}f}–{high:.{digits}f})"


def level_cell(hours: list[float | None]) -> str:
    """Return the median hours until a level, and in how many searches it was reached."""
    there = [value for value in hours if value is not None]
    if not there:
        return "never"
    share = f" ({len(there)} of {len(hours)})" if len(there) < len(hours) else ""
    return f"{statistics.median(there):.1f}{share}"


def draw(path: Path, rows: list[Row]) -> None:
    """Draw speed-up, regret and hours to a level over the number of workers."""
    found, picture = groups(rows), Picture(3, columns=3)
    names, level = list(dict.fromkeys(name for name, _, _ in found)), LEVELS.index(65.0)
    for name, fortune in dict.fromkeys((name, fortune) for name, fortune, _ in found):
        mine = {w: g for (n, f, w), g in sorted(found.items()) if (n, f) == (name, fortune)}
        serial = found.get((name, CALM, 1), [])
        style = {} if fortune == CALM else {"marker": "x", "linestyle": ""}
        shown = (
            {w: against(group, serial)[0] for w, group in mine.items()},
            {w: against(group, serial)[1] for w, group in mine.items()},
            {w: [r.reached[level] for r in group if r.reached[level]] for w, group in mine.items()},
        )
        for axis, values in zip(picture.panels, shown, strict=True):
            ranges = {w: (min(v), statistics.median(v), max(v)) for w, v in values.items() if v}
            curve(axis, ranges, names.index(name), f"{name}, {fortune}", **style)
    titles = (
        "speed-up of all trials",
        "regret: reward below the search with one worker",
        f"virtual hours until a true reward of {LEVELS[level]:g}",
    )
    counts = sorted({row.workers for row in rows})
    picture.panels[0].plot(counts, counts, color="#bbbbbb", linestyle=":", label="ideal")
    for axis, text in zip(picture.panels, titles, strict=True):
        over_counts(axis, counts, "workers")
        axis.set(title=text, yscale="linear" if text.startswith("regret") else "log")
        for formatter in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
            formatter("{x:g}")
    picture.panels[0].legend(fontsize=7)
    picture.save(path)


if __name__ == "__main__":
    main()
