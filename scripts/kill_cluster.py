"""Kill workers, nodes and the driver of searches on a Ray cluster, and count what that cost.

    python scripts/kill_cluster.py --kills 30 --trials 12 --nodes 3

The cluster is real (several raylets on this machine), the trainings are real (digits), every kill
is a SIGKILL at a random moment: of a worker or its training process, of all processes of a node
(a new node joins then), or of the driver (which is started again with --resume). Exit code 1 if a
trial is lost, or trained again after its result was on file, or if with `--workers 1` the search
differs from one that nobody disturbed.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# trains as the evaluator `training` does, and writes each epoch down with the time
LEDGER = """
import glob, os, time
from nas import catalog

TRAINS = True

def make(*, data: str = "", epochs: int = 2, fraction: float = 1.0, ledger: str = ""):
    options = {"data": data, "epochs": epochs, "fraction": fraction}
    return Ledger(catalog.make("evaluators", "training", options=options), ledger)

class Ledger:
    def __init__(self, inner, ledger):
        self.inner, self.ledger = inner, ledger

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def train(self, arch, *, seed, epochs, folder):
        places = glob.glob(os.path.join(folder, "checkpoints", "epoch-*"))
        done = max((int(place.rpartition("-")[2]) for place in places), default=0)
        for epoch in range(min(done, epochs - 1) + 1, epochs + 1):
            found = self.inner.train(arch, seed=seed, epochs=epoch, folder=folder)
            if epoch > done:
                with open(self.ledger, "a") as file:
                    file.write(f"{os.path.basename(folder)} {epoch} {time.time()}\\n")
        return found
"""
START = [sys.executable, "-c", "from nas.cli import main; main()"]
ENOUGH = 1000  # tries of a trial: what is counted here are losses, not what gives up
KINDS = ("worker", "node", "driver")


@dataclass(frozen=True)
class Place:
    """One project folder with its ledger."""

    folder: Path
    flags: tuple[str, ...]

    @property
    def run(self) -> Path:
        return self.folder / "runs" / "search" / "killed"

    def start(self, address: str) -> subprocess.Popen[bytes]:
        """Start the search or go on with it."""
        cluster = ["--executor", "ray", "--address", address]
        options = [*cluster, "--executor-option", f"retries={ENOUGH}", "--resume", "-q"]
        command = [*START, "search", *self.flags, *options, "--name", "killed"]
        with (self.folder / "log.txt").open("ab") as log:
            return subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)

    def ledger(self) -> list[tuple[str, int, float]]:
        """Return (trial's folder, epoch, time) of every epoch that was trained."""
        path = self.folder / "ledger.txt"
        rows = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [(name, int(epoch), float(when)) for name, epoch, when in rows]


@dataclass
class Tally:
    """What the kills did."""

    kills: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    epochs: int = 0
    redone: int = 0
    retries: int = 0
    lost: int = 0
    twice: int = 0
    runs: int = 0
    differences: list[str] = field(default_factory=list)


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


def processes() -> dict[int, tuple[int, str]]:
    """Return the parent and the command of every process."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue  # it has just ended
        found[int(path.name)] = parent, command
    return found


def busy_workers() -> list[int]:
    """Return the Ray workers that hold a task, and their training processes."""
    every = processes()
    workers = {
        pid
        for pid, (_, command) in every.items()
        if command.startswith("ray::") and "IDLE" not in command and "Agent" not in command
    }
    children = {
        pid
        for pid, (parent, command) in every.items()
        if parent in workers and "spawn_main" in command
    }
    return sorted(workers | children)


def kill_worker(rng: random.Random, driver: subprocess.Popen[bytes]) -> bool:
    """Kill a worker as soon as there is one; tell whether the search was still running."""
    while driver.poll() is None:
        if pids := busy_workers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(pids), signal.SIGKILL)
                return True
        time.sleep(0.1)
    return False


def disturb(place: Place, nodes: Nodes, wanted: int, tally: Tally, asked: Any) -> None:
    """Run one search to its end, killing what it stands on, up to `wanted` kills in all."""
    rng = random.Random(asked.seed * 1000 + tally.runs)
    driver, began = place.start(nodes.address), time.monotonic()
    while driver.poll() is None:
        time.sleep(rng.uniform(0.5, asked.gap))
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
            driver = place.start(nodes.address)
        tally.kills[kind] += 1
        print(f"kill {tally.kills.total()}: {kind}", file=sys.stderr, flush=True)
        if time.monotonic() > began + asked.patience:
            driver.kill()
            raise SystemExit(f"no end after {asked.patience} s; see {place.folder / 'log.txt'}")
    if driver.returncode not in (0, 3):
        last = (place.folder / "log.txt").read_text()[-2000:]
        raise SystemExit(f"the search ended with {driver.returncode}: {last}")


def finished(journal: Path) -> dict[int, float | None]:
    """Return for each trial of the first study when it had its result; None: it has none."""
    trials: list[tuple[int, float | None]] = []
    for line in journal.read_text().splitlines():
        log = json.loads(line)
        if log["op_code"] == 4:
            trials.append((log["study_id"], None))
        elif log["op_code"] == 6 and log["state"] != 0:
            when = datetime.fromisoformat(log["datetime_complete"]).replace(tzinfo=UTC)
            trials[log["trial_id"]] = trials[log["trial_id"]][0], when.timestamp()
    mine = [when for study, when in trials if study == 0]
    return dict(enumerate(mine))


def count(place: Place, tally: Tally) -> None:
    """Add what one search left behind."""
    with (place.run / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    ends = finished(place.run / "journal.log")
    ledger = place.ledger()
    tally.runs += 1
    tally.states.update(row["state"] for row in rows)
    tally.retries += sum(int(row["retries"]) for row in rows)
    tally.lost += sum(when is None for when in ends.values()) + abs(len(ends) - len(rows))
    seen = Counter((name, epoch) for name, epoch, _ in ledger)
    tally.epochs += len(ledger)
    tally.redone += len(ledger) - len(seen)
    for name, _, when in ledger:
        number = name.rpartition("-")[2]
        end = ends.get(int(number)) if number.isdecimal() else None
        tally.twice += end is not None and when > end
    print(f"run {tally.runs}: {dict(Counter(row['state'] for row in rows))}", flush=True)


def results(place: Place) -> list[dict[str, str]]:
    """Return the trials without what a clock or a place decides."""
    free = ("seconds", "place", "retries", "images_per_second")
    with (place.run / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    kept = [{k: v for k, v in row.items() if k not in free} for row in rows]
    return sorted(kept, key=lambda row: int(row["number"]))


def new_place(folder: Path, asked: Any, seed: int) -> Place:
    """Return an empty place for a search."""
    folder.mkdir()
    (folder / "ledger.py").write_text(LEDGER)
    flags = (
        *("--evaluator", str(folder / "ledger.py"), "--data", "digits", "--max-flops", "2M"),
        *("--evaluator-option", f"ledger={folder / 'ledger.txt'}"),
        *("--epochs", str(asked.epochs), "--fraction", str(asked.fraction)),
        *("--trials", str(asked.trials), "--seed", str(seed), "--finalists", "0"),
        *("--no-random-search", "--controller", "random", "--space", "mbconv_small"),
    )
    workers = ("--workers", str(asked.workers)) if asked.workers else ()
    through = ("--executor-option", f"through={asked.through}")
    return Place(folder, (*flags, *workers, *through))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--trials", type=int, default=12, help="of one search")
    parser.add_argument("--nodes", type=int, default=3, help="beside the head, of 2 CPUs each")
    parser.add_argument("--workers", type=int, default=0, help="evaluations in flight; 0: all room")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--fraction", type=float, default=0.1)
    parser.add_argument("--through", default="auto", help="auto, tasks or tune")
    parser.add_argument("--gap", type=float, default=5.0, help="most seconds between kills")
    parser.add_argument("--patience", type=float, default=1200.0, help="seconds for one search")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    tally = Tally()
    with tempfile.TemporaryDirectory() as temporary:
        nodes = Nodes(asked.nodes)
        try:
            while tally.kills.total() < asked.kills:
                seed = asked.seed + tally.runs
                place = new_place(Path(temporary) / f"run-{seed}", asked, seed)
                disturb(place, nodes, asked.kills, tally, asked)
                count(place, tally)
                if asked.workers == 1:
                    calm = new_place(Path(temporary) / f"calm-{seed}", asked, seed)
                    disturb(calm, nodes, 0, tally, asked)
                    if results(calm) != results(place):
                        tally.differences.append(f"the search with seed {seed}")
        finally:
            nodes.close()
    return tell(tally, asked)


def tell(tally: Tally, asked: Any) -> int:
    """Print the counts; return the exit code."""
    kills = ", ".join(f"{tally.kills[kind]} {kind}" for kind in KINDS)
    states = ", ".join(f"{number} {state}" for state, number in sorted(tally.states.items()))
    rows = {
        "kills (SIGKILL)": f"{tally.kills.total()}: {kills}",
        "searches": tally.runs,
        "trials": f"{tally.states.total()}: {states}",
        "tries after a lost worker or node": tally.retries,
        "epochs trained": tally.epochs,
        "epochs redone": tally.redone,
        "trials lost": tally.lost,
        "epochs trained after the result was on file": tally.twice,
    }
    if asked.workers == 1:
        rows["differing from the undisturbed search"] = len(tally.differences)
    for name, value in rows.items():
        print(f"{name:44} {value}")
    return int(bool(tally.lost or tally.twice or tally.differences or tally.states["failed"]))


if __name__ == "__main__":
    sys.exit(main())
