"""Kill one fit of alpha, beta and gamma again and again, and compare it with a calm one.

Every kill comes at a random moment, one in four while the program still starts; the trainings are
real ones, on digits. A fault is an epoch that is trained again after its checkpoint, or any
difference at the end but the clock's: accuracies, order, coefficients.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from targets.project import TRAINER, Found, Project, killed_at, timeless

from nas.core import run_folder
from nas.models.arch import Arch, Head, Stage, Stem

# a fit has no --evaluator
PROGRAM = """
from nas.scaling.fit import setup
setup.EVALUATOR = "ledger.py"
from nas.cli.program import main
main()
"""
# four networks at twice its cost
BASE = Arch(
    "small",
    (
        Stage("mbconv", 32, 2, stride=2, expansion=2.0),
        Stage("mbconv", 64, 2, stride=2, expansion=2.0),
    ),
    Stem(16),
    Head(64, classes=10),
    resolution=32,
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4, help="of each training")
    parser.add_argument("--candidates", type=int, default=4)
    parser.add_argument("--final-seeds", type=int, default=2)
    parser.add_argument("--fraction", type=float, default=0.2, help="of the digits")
    parser.add_argument("--step", type=int, default=8, help="epochs between two kills, at most")


def disturb(given: argparse.Namespace, base: Path) -> Found:
    flags = "scale small.json --fit --data digits --phi 1 --finalists 2 --seed 0"
    flags += f" --fit-epochs {given.epochs} --fit-fraction {given.fraction}"
    flags += f" --candidates {given.candidates} --final-seeds {given.final_seeds}"
    more: dict[str, Any] = {"program": (sys.executable, "-c", PROGRAM)}
    more["environment"] = {"NAS_CACHE": str(base / "cache")}
    calm, broken = (
        Project.made(base / name, flags.split(), TRAINER, **more) for name in ("calm", "broken")
    )
    for project in (calm, broken):
        (project.folder / "small.json").write_text(BASE.to_json())
    beside = calm.start()  # at the same time: it is compared with, not timed
    rng, met = random.Random(given.seed), Counter[str]()
    for _ in range(given.kills):
        early, before = rng.random() < 0.25, len(broken.ledger())
        wanted, linger = (0, 2.0) if early else (before + rng.randint(1, max(1, given.step)), 0.3)
        met["starting" if early else "working"] += killed_at(broken, wanted, linger, rng, "epoch")
    broken.finish()
    if beside.wait():
        raise SystemExit(calm.log)
    wanted_left, found = left_by(calm), left_by(broken)
    apart = [name for name, value in wanted_left.items() if found[name] != value]
    trained = [entry.of for entry in broken.ledger()]
    kept = wanted_left["coefficients"]
    return Found(
        {
            "epochs of the fit": len(calm.ledger()),
            "kills while working / starting": f"{met['working']} / {met['starting']}",
            "coefficients": " ".join(str(kept[name]) for name in ("alpha", "beta", "gamma")),
        },
        {
            "epochs trained again after a checkpoint": len(trained) - len(set(trained)),
            "differences at the end": ", ".join(apart) or 0,
            "no kill came in time": int(not met.total()),
        },
    )


def left_by(project: Project) -> dict[str, Any]:
    """Return all that a fit has left, without what a clock or the place of its folder decides."""
    tables = {
        name: sorted(
            tuple(row.items()) for row in timeless(run_folder.read_csv(project.run / name))
        )
        for name in ("fit.csv", "finals.csv")
    }
    [fit] = timeless([run_folder.read_json(project.run / "fit.json")])
    kept = run_folder.read_json(project.run / "coefficients.json")
    fit.pop("base")
    return {"fit": fit, **tables, "coefficients": kept, "epochs": epochs(project)}


def epochs(project: Project) -> set[str]:
    return {entry.of for entry in project.ledger()}
