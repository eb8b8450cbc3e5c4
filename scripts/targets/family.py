"""Kill the training of a family again and again, and compare it with one that nobody disturbed.

Every kill comes at a random moment: of the driver (which is started again), of its worker, or of
the training's own process (which the driver begins again by itself). The members are tiny nets on
digits, trained by one worker. A fault is an epoch or a member that is trained again after it was on
file, or other weights or results at the end.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from targets.project import Found, Project, below, timeless

from nas.core import run_folder
from nas.models.arch import Arch, Head, Stage, Stem
from nas.training.checkpoint import read_weights

KINDS = ("training", "driver", "worker")
# how the command line of each kind of process is known
SIGNS = {"worker": "spawn_main", "training": "nas.cli.commands.member"}
TINY = Arch(
    "tiny",
    (Stage("mbconv", 8, stride=2, expansion=2.0), Stage("mbconv", 8, expansion=2.0)),
    Stem(8),
    Head(16, classes=10),
    resolution=32,
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--phi", default="0,1")
    parser.add_argument("--epochs", type=int, default=6)


def disturb(given: argparse.Namespace, base: Path) -> Found:
    (base / "tiny.json").write_text(TINY.to_json())
    flags = f"scale {base / 'tiny.json'} --phi {given.phi} --train --data digits --recipe proxy"
    flags += f" --epochs {given.epochs} --device fake --accelerator cpu"
    more: dict[str, Any] = {"environment": {"NAS_CACHE": str(base / "cache")}}
    calm, broken = (Project.made(base / n, flags.split(), **more) for n in ("calm", "broken"))
    started = time.monotonic()
    calm.finish()
    seconds = time.monotonic() - started
    done, faults = kill(broken, given.kills, random.Random(given.seed))
    faults += compare(calm, broken)
    shown = {
        "members": f"{len(members(calm))}, {given.epochs} epochs each",
        "seconds undisturbed": f"{seconds:.1f}",
        "kills": ", ".join(f"{done[kind]} of a {kind}" for kind in KINDS),
    }
    return Found(shown, {"faults": "; ".join(faults) or 0})


def kill(
    project: Project, kills: int, rng: random.Random, kinds: Sequence[str] = KINDS
) -> tuple[Counter[str], list[str]]:
    """Kill a family's processes so often, and have it finished; return the kills and the faults."""
    done: Counter[str] = Counter()
    faults: list[str] = []
    known: dict[str, int] = {}
    driver = project.start()
    for number in range(kills):
        kind = kinds[number % len(kinds)]
        done[kind] += strike(project, driver, kind, rng)
        again = [name for name, when in known.items() if members(project).get(name) != when]
        faults += [f"{name} was written again after it was on file" for name in again]
        known = members(project)
        if driver.poll() is not None:
            driver = project.start()
    if driver.wait() and project.start().wait():
        faults.append("the last resumption failed")
    return done, faults


def strike(
    project: Project, driver: subprocess.Popen[bytes], kind: str, rng: random.Random
) -> bool:
    """Kill a process of a kind at a random moment of its life; tell whether there was one."""
    before, found = epochs(project).total(), [driver.pid]
    if sign := SIGNS.get(kind):
        found = []
        while not found:
            if driver.poll() is not None:
                return False
            time.sleep(0.05)
            found = below(driver.pid, sign)
    # while it starts, or once it has finished an epoch
    wanted, end = before + rng.randint(0, 1), time.monotonic() + 60
    time.sleep(rng.uniform(0, 0.3))
    while driver.poll() is None and epochs(project).total() < wanted and time.monotonic() < end:
        time.sleep(0.02)
    if driver.poll() is not None:
        return False
    try:
        os.kill(found[0], signal.SIGKILL)
    except ProcessLookupError:  # it has just ended, as a worker does whose training was killed
        return strike(project, driver, kind, rng)
    if kind == "driver":
        driver.wait()
    return True


def epochs(project: Project) -> Counter[tuple[str, int]]:
    """Return how often each epoch of each member was finished, as the trainings' logs say."""
    return Counter(
        (path.parent.name, int(number))
        for path in project.run.glob("*/log.txt")
        for number in re.findall(r"^epoch (\d+)/", path.read_text(), re.MULTILINE)
    )


def members(project: Project) -> dict[str, int]:
    """Return the members that are on file, and when they were written."""
    paths = project.run.glob("*/member.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in paths}


def compare(calm: Project, broken: Project) -> list[str]:
    """Return every difference between two families, and every epoch that was trained twice."""
    faults = [f"epoch {n} of {m} twice" for (m, n), k in epochs(broken).items() if k > 1]
    if set(members(calm)) != set(members(broken)):
        return [*faults, f"{sorted(members(broken))} instead of {sorted(members(calm))}"]
    for name in members(calm):
        mine, theirs = (project.run / name for project in (calm, broken))
        one, other = (read_weights(f / "weights/best.safetensors") for f in (mine, theirs))
        # not the bytes: safetensors orders the keys of its metadata at random
        if one.keys() != other.keys() or not all(one[key].equal(other[key]) for key in one):
            faults.append(f"{name} has other weights")
        tables = [
            timeless(run_folder.read_csv(folder / "results.csv")) for folder in (mine, theirs)
        ]
        if tables[0] != tables[1]:
            faults.append(f"{name} has other results")
    return faults
