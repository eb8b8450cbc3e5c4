"""Kill workers, nodes and the driver of searches on a Ray cluster, and count what that cost.

The cluster is real (several raylets on this machine), the trainings are real (digits), every kill
comes at a random moment: of a worker or its training process, of all processes of a node (a new
node joins then), or of the driver (which is started again). A fault is a trial that is lost or
fails, one that is trained again after its result was on file, and with `--workers 1` any difference
from a search that nobody disturbed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psutil import process_iter
from targets.project import TRAINER, Found, Project, below, timeless, trials

from nas.core import run_folder

ENOUGH = 1000  # tries of a trial: what is counted here are losses, not what gives up
KINDS = ("worker", "node", "driver")


@dataclass
class Tally:
    """What the kills did in all searches."""

    kills: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)


class Nodes:
    """A head that takes no work, and nodes that do."""

    def __init__(self, count: int) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False}
        self._cluster: Any = Cluster(initialize_head=True, head_node_args=head)
        self.nodes = [self.add() for _ in range(count)]
        self.address: str = self._cluster.address

    def add(self) -> Any:
        return self._cluster.add_node(num_cpus=2, num_gpus=1)

    def kill_one(self, rng: random.Random) -> None:
        """Kill all processes of a node at once; a new one joins."""
        node = self.nodes.pop(rng.randrange(len(self.nodes)))
        self._cluster.remove_node(node, allow_graceful=False)
        self.nodes.append(self.add())

    def close(self) -> None:
        self._cluster.shutdown()


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--trials", type=int, default=12, help="of one search")
    parser.add_argument("--nodes", type=int, default=3, help="beside the head, of 2 CPUs each")
    parser.add_argument("--workers", type=int, default=0, help="evaluations in flight; 0: all room")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--fraction", type=float, default=0.1)
    parser.add_argument("--through", default="auto", help="auto, tasks or tune")
    parser.add_argument("--gap", type=float, default=5.0, help="most seconds between kills")
    parser.add_argument("--patience", type=float, default=1200.0, help="seconds for one search")


def disturb(given: argparse.Namespace, base: Path) -> Found:
    tally, nodes, differing, seed = Tally(), Nodes(given.nodes), 0, given.seed
    try:
        while tally.kills.total() < given.kills:
            project = prepared(base / f"run-{seed}", given, nodes, seed)
            strike(project, nodes, given.kills, tally, given)
            count(project, tally)
            if given.workers == 1:
                calm = prepared(base / f"calm-{seed}", given, nodes, seed)
                strike(calm, nodes, 0, tally, given)
                differing += results(calm) != results(project)
            seed += 1
    finally:
        nodes.close()
    kills = ", ".join(f"{tally.kills[kind]} {kind}" for kind in KINDS)
    states = ", ".join(f"{number} {state}" for state, number in sorted(tally.states.items()))
    shown: dict[str, object] = {
        "kills (SIGKILL)": f"{tally.kills.total()}: {kills}",
        "searches": seed - given.seed,
        "trials": f"{tally.states.total()}: {states}",
    }
    names = ("tries after a lost worker or node", "epochs trained", "epochs redone")
    shown |= {name: tally.counts[name] for name in names}
    return Found(
        shown,
        {
            "trials lost": tally.counts["trials lost"],
            "trials failed": tally.states["failed"],
            "epochs trained after the result was on file": tally.counts["epochs after the end"],
            "differing from the undisturbed search": differing,
        },
    )


def prepared(folder: Path, given: argparse.Namespace, nodes: Nodes, seed: int) -> Project:
    """Return an empty project for a search."""
    flags = f"search --evaluator {folder / 'ledger.py'} --data digits --max-flops 2M"
    flags += f" --epochs {given.epochs} --fraction {given.fraction} --trials {given.trials}"
    flags += f" --seed {seed} --finalists 0 --no-random-search --controller random"
    flags += f" --space mbconv_small --executor ray --address {nodes.address}"
    flags += f" --executor-option retries={ENOUGH} --executor-option through={given.through}"
    workers = f" --workers {given.workers}" if given.workers else ""
    return Project.made(folder, (flags + workers).split(), TRAINER)


def strike(
    project: Project, nodes: Nodes, wanted: int, tally: Tally, given: argparse.Namespace
) -> None:
    """Run one search to its end, killing what it stands on, up to `wanted` kills in all."""
    rng = random.Random(f"{given.seed} {project.folder.name}")
    driver, began = project.start(), time.monotonic()
    while driver.poll() is None:
        time.sleep(rng.uniform(0.5, given.gap))
        if time.monotonic() > began + given.patience:
            driver.kill()
            raise SystemExit(f"no end after {given.patience} s: {project.log[-2000:]}")
        if tally.kills.total() >= wanted:
            continue
        kind = rng.choices(KINDS, weights=(6, 2, 2))[0]
        if kind == "worker" and not kill_worker(rng, driver):
            break
        if kind == "node":
            nodes.kill_one(rng)
        if kind == "driver":
            driver.kill()
            driver.wait()
            driver = project.start()
        tally.kills[kind] += 1
        print(f"kill {tally.kills.total()}: {kind}", file=sys.stderr, flush=True)
    if driver.returncode not in (0, 3):
        raise SystemExit(f"the search ended with {driver.returncode}: {project.log[-2000:]}")


def kill_worker(rng: random.Random, driver: subprocess.Popen[bytes]) -> bool:
    """Kill a worker as soon as there is one; tell whether the search was still running."""
    while driver.poll() is None:
        if pids := busy_workers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(pids), signal.SIGKILL)
                return True
        time.sleep(0.1)
    return False


def busy_workers() -> list[int]:
    """Return the Ray workers that hold a task, and their training processes."""
    every = [(each.pid, " ".join(each.info["cmdline"] or ())) for each in process_iter(["cmdline"])]
    workers = {
        pid
        for pid, command in every
        if command.startswith("ray::") and "IDLE" not in command and "Agent" not in command
    }
    return sorted(workers.union(*(below(worker, "spawn_main") for worker in workers)))


def count(project: Project, tally: Tally) -> None:
    """Add what one search left behind."""
    rows = run_folder.read_csv(project.run / "trials.csv")
    ends = {
        str(number): trial.datetime_complete.timestamp()
        for (study, number), trial in trials(project.run / "journal.log").items()
        if trial.datetime_complete
    }
    epochs = project.ledger("epoch")
    found = Counter(row["state"] for row in rows)
    tally.states += found
    tally.counts += Counter(
        {
            "tries after a lost worker or node": sum(int(row["retries"]) for row in rows),
            "epochs trained": len(epochs),
            "epochs redone": len(epochs) - len({entry.of for entry in epochs}),
            "trials lost": abs(len(ends) - len(rows)),
            "epochs after the end": sum(
                entry.moment > ends.get(number_of(entry.of), float("inf")) for entry in epochs
            ),
        }
    )
    print(f"search of {project.folder.name}: {dict(found)}", file=sys.stderr, flush=True)


def number_of(epoch: str) -> str:
    """Return the number of the trial of an epoch of the ledger: trial-NUMBER/..."""
    return epoch.partition("/")[0].rpartition("-")[2]


def results(project: Project) -> list[dict[str, Any]]:
    """Return the trials without what a clock or a place decides, in order."""
    rows = timeless(run_folder.read_csv(project.run / "trials.csv"))
    return sorted(rows, key=lambda row: int(row["number"]))
