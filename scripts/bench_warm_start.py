"""What a changed target costs with the trials of an earlier search taken over, and without.

For each seed and controller: a search at one target, then one at another target that begins with
all of its trials, and one that begins with nothing. The embedded evaluator with a fixed normal draw
per arch as one training would show it; told is the true reward (without the draw) of the arch that
looked best after so many new evaluations. Writes warm_start.csv, prints Markdown.

    python scripts/bench_warm_start.py --seeds 8 --output FOLDER
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas import catalog, run
from nas.objective import Bound, Objective, reward
from nas.verbs.search import search

NOISE = 0.3
MARKS = (5, 10, 25, 50, 100, 200, 300)


def main(words: Sequence[str] | None = None) -> None:
    """Run the searches and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--controllers", nargs="+", default=["tpe", "evolution"])
    parser.add_argument("--first", default="400M", help="target of the earlier search")
    parser.add_argument("--then", type=float, default=200e6, help="multiply-adds of the new target")
    parser.add_argument("--trials", type=int, default=300, help="of the earlier search, and cold")
    parser.add_argument("--warm-trials", type=int, default=50)
    parser.add_argument("--output", type=Path, default=Path("bench"))
    chosen = parser.parse_args(words)
    rows = [
        row
        for controller in chosen.controllers
        for seed in range(chosen.seeds)
        for row in measure(controller, seed, chosen)
    ]
    run.write_csv(chosen.output / "warm_start.csv", list(rows[0]), [list(r.values()) for r in rows])
    for line in table(rows):
        print(line)


def measure(controller: str, seed: int, chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """Return one row per mark of the search that begins with nothing and of the other."""
    with tempfile.TemporaryDirectory() as project:
        common: dict[str, Any] = {
            "project": project,
            "controller": controller,
            "random_search": False,
            "evaluator_options": {"noise": NOISE, "seed": seed},
        }
        search(**common, name="a", target_flops=chosen.first, trials=chosen.trials, seed=seed)
        later = {**common, "target_flops": int(chosen.then), "seed": seed + 1000}
        cold = search(**later, name="cold", trials=chosen.trials)
        warm = search(**later, name="warm", trials=chosen.warm_trials, warm_start="a")
        return [
            {"controller": controller, "seed": seed, "start": name, "new": new, "true": true}
            for name, found in (("cold", cold), ("warm", warm))
            for new, true in curve(Path(found["run"]), chosen.then)
        ]


def curve(folder: Path, target: float) -> list[tuple[int, float]]:
    """Return the true reward of what looked best after each mark of new evaluations."""
    space = catalog.export("spaces", "mbconv", "SPACE")
    surrogate = catalog.make("evaluators", "surrogate", options={})
    objective = Objective(targets=(Bound("flops", target),))
    new, best, found = 0, None, []
    for row in run.read_csv(folder / "trials.csv"):
        if row["state"] not in ("done", "earlier"):
            continue
        if best is None or float(row["reward"]) > float(best["reward"]):
            best = row
        new += row["state"] == "done"
        if new in MARKS and row["state"] == "done":
            kinds = {name: type(options[0]) for name, options in space.choices.items()}
            arch = space.decode({name: kind(best[name]) for name, kind in kinds.items()})
            metrics = {**surrogate.evaluate(arch), "flops": float(best["flops"])}
            found.append((new, reward(metrics, objective)))
    return found


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Return medians (quartiles) over the seeds as Markdown."""
    marks = sorted({row["new"] for row in rows})
    lines = [f"| controller | begins with | {' | '.join(map(str, marks))} |"]
    lines.append("|---" * (len(marks) + 2) + "|")
    for controller, start in dict.fromkeys((row["controller"], row["start"]) for row in rows):
        mine = [r for r in rows if (r["controller"], r["start"]) == (controller, start)]
        cells = (_cell([r["true"] for r in mine if r["new"] == mark]) for mark in marks)
        what = "nothing" if start == "cold" else "the earlier trials"
        lines.append(f"| {controller} | {what} | {' | '.join(cells)} |")
    return lines


def _cell(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.2f}" if values else "–"
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.2f} ({low:.2f}–{high:.2f})"


if __name__ == "__main__":
    main()
