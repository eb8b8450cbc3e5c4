"""Kill one search again and again, and compare it with one that nobody disturbed.

Every kill comes at a random moment, one in four while the program still starts. A fault is a result
that is lost or changed, an arch that is evaluated again after its result was on file, or any
difference at the end: proposals, choices, values, the winner.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

from optuna.trial import TrialState
from targets.project import EVALUATOR, Found, Project, killed_at, trials

from nas.core import run_folder

Results = dict[tuple[str, int], tuple[Any, ...]]


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--controller", default="evolution")
    parser.add_argument("--objective", default="reward")
    parser.add_argument("--evaluator", default="synthetic", help="a shipped one, slowed down")
    parser.add_argument("--sleep", type=float, default=0.007, help="seconds of each evaluation")


def disturb(given: argparse.Namespace, base: Path) -> Found:
    flags = f"search --target-flops 400M --seed 0 --trials {given.trials} --evaluator ledger.py"
    flags += f" --controller {given.controller} --objective {given.objective}"
    flags += f" --evaluator-option inner={given.evaluator}"
    flags += f" --evaluator-option sleep={given.sleep}"
    calm, broken = (
        Project.made(base / name, flags.split(), EVALUATOR) for name in ("calm", "broken")
    )
    started = time.monotonic()
    calm.finish()
    seconds = time.monotonic() - started
    total, rng, met = len(evaluated(calm)), random.Random(given.seed), Counter[str]()
    faults: Counter[str] = Counter()
    for turn in range(given.kills):
        known, before = results(broken), len(evaluated(broken))
        early = rng.random() < 0.25
        # up to twice an equal share of what is left
        share = rng.uniform(0, 2 / (given.kills - turn + 1)) * max(total - before, 0)
        wanted, linger = (0, 1.0) if early else (before + 1 + round(share), 0.02)
        if not killed_at(broken, wanted, linger, rng, "begin"):
            faults["kills after the end"] += 1
            break
        met["starting" if early else "working"] += 1
        faults += audit(broken, known, before)
    known, before = results(broken), len(evaluated(broken))
    broken.finish()
    faults += audit(broken, known, before)
    wanted_results, found = results(calm), results(broken)
    best = [run_folder.read_json(each.run / "result.json")["best"] for each in (calm, broken)]
    again = len(evaluated(broken)) - len(set(evaluated(broken)))
    shown = {
        "controller": f"{given.controller}, {given.objective}",
        "trials (search + random search)": len(wanted_results),
        "seconds undisturbed": f"{seconds:.1f}",
        "kills while working / starting": f"{met['working']} / {met['starting']}",
        "evaluations undisturbed / with kills": f"{total} / {len(evaluated(broken))}",
        "evaluated again, running at a kill": again - faults["evaluated again after its result"],
        "best reward, disturbed": f"{best[1]['reward']:.4f}",
    }
    return Found(
        shown,
        {
            **dict.fromkeys(("evaluated again after its result", "results lost or changed"), 0),
            **faults,
            "trials that differ at the end": apart(wanted_results, found),
            "another winner": int(best[0] != best[1]),
        },
    )


def evaluated(project: Project) -> list[str]:
    """Return the archs whose evaluation was begun."""
    return [entry.of for entry in project.ledger("begin")]


def results(project: Project) -> Results:
    """Return arch, choices, state and values of every result on file."""
    found = trials(project.run / "journal.log")
    return {
        key: (trial.user_attrs.get("arch_id"), trial.params, trial.state, trial.values)
        for key, trial in found.items()
    }


def audit(project: Project, known: Results, before: int) -> Counter[str]:
    """Return what went wrong since the ledger had `before` archs and these results were on file."""
    now = results(project)
    on_file = {arch for arch, _, state, _ in known.values() if state == TrialState.COMPLETE}
    return Counter(
        {
            "results lost or changed": apart(known, now, missing=False),
            "evaluated again after its result": sum(
                arch in on_file for arch in evaluated(project)[before:]
            ),
        }
    )


def apart(wanted: Results, found: Results, *, missing: bool = True) -> int:
    """Return how many results differ; `missing`: those that only the second has, too."""
    keys = wanted.keys() | found.keys() if missing else wanted.keys()
    return sum(wanted.get(key) != found.get(key) for key in keys)
