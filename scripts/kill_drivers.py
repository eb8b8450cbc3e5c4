"""Let several drivers share a study, kill and suspend them at random, and look for what went wrong.

    python scripts/kill_drivers.py --drivers 4 --trials 300 --kills 12 --stops 4 --storage URL

Every driver is a process with a run folder of its own, as on a machine of its own. A killed one is
resumed, half of them at once, half after the others had to take over. Exit code 1 if a trial is
lost or counted twice, if two drivers evaluate one arch at the same time, or if more evaluations are
begun again than were cut off.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna

from nas.studies.database import opened, split

# 1296 points, 576 networks: at one layer a second kernel is a dead gene, so proposals collide
SPACE = """
from nas.arch import Arch, Head, Stage, Stem
from nas.interfaces import Space

def stage(choices, n):
    kernel = choices[f"kernel{n}"] if choices[f"layers{n}"] > 1 else 3
    return Stage("conv", choices[f"channels{n}"], choices[f"layers{n}"], kernel, stride=2)

def decode(choices):
    first = Stage("mbconv", 16, stride=2, expansion=choices["expansion1"])
    second = Stage("mbconv", 24, stride=2, expansion=choices["expansion2"])
    stages = (first, stage(choices, 1), second, stage(choices, 2))
    return Arch("two", stages, Stem(8), Head(32, classes=10), resolution=32)

OPTIONS = {"expansion": (1, 3, 6), "channels": (16, 24, 32), "layers": (1, 2), "kernel": (3, 5)}
SPACE = Space("two", {f"{k}{n}": o for n in (1, 2) for k, o in OPTIONS.items()}, decode)
"""
# an evaluator that writes down when it begins and ends an arch, and in which process
LEDGER = """
import os, time
from nas import catalog

def make(*, ledger: str = "", sleep: float = 0.0):
    return Ledger(ledger, sleep, catalog.make("evaluators", "synthetic", options={}))

class Ledger:
    def __init__(self, ledger, sleep, inner):
        self.ledger, self.sleep, self.inner = ledger, sleep, inner
        self.title = inner.title

    def check(self, arch):
        self.inner.check(arch)

    def note(self, what, arch):
        with open(self.ledger, "a") as file:
            file.write(f"{what} {arch.id} {os.getpid()} {time.monotonic()}\\n")

    def evaluate(self, arch, *, seed=0):
        self.note("begin", arch)
        time.sleep(self.sleep)
        found = self.inner.evaluate(arch, seed=seed)
        self.note("end", arch)
        return found
"""
START = [sys.executable, "-c", "from nas.cli import main; main()"]


@dataclass
class Crowd:
    """The drivers of one study: a folder each, and the processes that ran in them."""

    home: Path
    flags: list[str]
    environment: dict[str, str]
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    cuts: list[tuple[int, float]] = field(default_factory=list)  # process, and when it was cut off

    @property
    def ledger(self) -> Path:
        return self.home / "ledger.txt"

    def start(self, driver: int) -> None:
        """Start or resume a driver."""
        folder = self.home / f"driver{driver}"
        folder.mkdir(exist_ok=True)
        (folder / "space.py").write_text(SPACE)
        (folder / "ledger.py").write_text(LEDGER)
        command = [*START, "search", *self.flags, "--name", "mine", "--resume", "-q"]
        with (folder / "log.txt").open("ab") as log:
            self.processes[driver] = subprocess.Popen(
                command, cwd=folder, stdout=log, stderr=log, env=self.environment
            )

    def running(self) -> list[int]:
        return [d for d, process in self.processes.items() if process.poll() is None]

    def kill(self, driver: int) -> None:
        process = self.processes[driver]
        process.kill()
        process.wait()
        self.cuts.append((process.pid, time.monotonic()))

    def suspend(self, driver: int, seconds: float) -> None:
        process = self.processes[driver]
        process.send_signal(signal.SIGSTOP)
        self.cuts.append((process.pid, time.monotonic()))
        time.sleep(seconds)
        process.send_signal(signal.SIGCONT)

    def evaluations(self) -> list[tuple[str, int, float, float]]:
        """Return arch, process, begin and end of each evaluation; one cut off ends at its cut."""
        found: list[tuple[str, int, float, float]] = []
        lines = self.ledger.read_text().splitlines() if self.ledger.exists() else []
        for line in lines:
            what, arch, process, moment = line.split()
            pid, now = int(process), float(moment)
            if what == "begin":
                found.append((arch, pid, now, self._cut(pid, now, float("inf"))))
            else:
                index = max(i for i, e in enumerate(found) if e[:2] == (arch, pid))
                begin = found[index][2]
                found[index] = (arch, pid, begin, self._cut(pid, begin, now))
        return found

    def _cut(self, pid: int, begin: float, end: float) -> float:
        """Return when a process was killed or suspended between two moments, else the second."""
        return min(
            (t for process, t in self.cuts if process == pid and begin <= t <= end), default=end
        )


def disturb(crowd: Crowd, kills: int, stops: int, trials: int, rng: random.Random) -> int:
    """Kill and suspend drivers spread over the search; return how often it was possible."""
    turns = [*["kill"] * kills, *["stop"] * stops]
    rng.shuffle(turns)
    grace = float(crowd.environment["NAS_DRIVER_GRACE"])
    for turn, kind in enumerate(turns):
        wanted = round(trials * (turn + rng.uniform(0.2, 0.9)) / (len(turns) + 1))
        while len(crowd.evaluations()) < wanted and crowd.running():
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.1))  # anywhere within a trial
        alive = crowd.running()
        if not alive:
            return turn
        victim = rng.choice(alive)
        if kind == "stop":
            crowd.suspend(victim, 2 * grace)
            continue
        crowd.kill(victim)
        if rng.random() < 0.5:
            time.sleep(2 * grace)
        crowd.start(victim)
    return len(turns)


def overlaps(evaluations: list[tuple[str, int, float, float]]) -> int:
    """Return how many pairs of evaluations of one arch ran at the same time."""
    pairs = [
        (one, other)
        for i, one in enumerate(evaluations)
        for other in evaluations[i + 1 :]
        if one[0] == other[0]
    ]
    return sum(one[2] < other[3] and other[2] < one[3] for one, other in pairs)


def faults(trials: list[optuna.trial.FrozenTrial], wanted: int) -> dict[str, int]:
    """Return what must not be in the study of the drivers, counted."""
    states = [trial.user_attrs.get("state", "none") for trial in trials]
    done = Counter(t.user_attrs["arch_id"] for t in trials if t.user_attrs.get("state") == "done")
    number = {trial.number: trial for trial in trials}
    heirs: list[int] = []
    for trial in trials:
        reason = trial.user_attrs.get("reason", "")
        if "taken over as trial" in reason:
            heirs.append(int(reason.split()[-1]))
            heirs += [-1] * (number[heirs[-1]].params != trial.params)
    return {
        "trials without an end": sum(not trial.state.is_finished() for trial in trials),
        "trials missing or too many": abs(states.count("done") - wanted),
        "archs counted twice": sum(n > 1 for n in done.values()),
        "numbers missing": len(trials) - len(number) + max(number) + 1 - len(number),
        "trials taken over twice": len(heirs) - len(set(heirs)),
        "heirs with other choices": heirs.count(-1),
    }


def report(crowd: Crowd, storage: str, wanted: int) -> bool:
    """Print what was found; return whether all is well."""
    with opened(*split(storage)) as database:
        trials = optuna.load_study(study_name="shared search", storage=database).get_trials()
    evaluations = crowd.evaluations()
    states = Counter(trial.user_attrs.get("state", "none") for trial in trials)
    taken = sum("taken over as" in t.user_attrs.get("reason", "") for t in trials)
    again = len(evaluations) - len({evaluation[0] for evaluation in evaluations})
    found = faults(trials, wanted)
    found["evaluations of one arch at one time"] = overlaps(evaluations)
    found["evaluations begun again beyond those cut off"] = max(0, again - len(crowd.cuts))
    codes = [process.wait() for process in crowd.processes.values()]
    found["drivers that failed"] = sum(code != 0 for code in codes)
    shown: dict[str, Any] = {
        "proposals": len(trials),
        **states,
        "kills and suspensions": len(crowd.cuts),
        "trials taken over": taken,
        "evaluations": len(evaluations),
        "begun again after a cut": again,
        **found,
    }
    for name, value in shown.items():
        print(f"{name:46}{value:6}")
    return not any(found.values())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--drivers", type=int, default=3)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--stops", type=int, default=0)
    parser.add_argument("--grace", type=float, default=3.0)
    parser.add_argument("--sleep", type=float, default=0.1, help="seconds of an evaluation")
    parser.add_argument("--controller", default="tpe")
    parser.add_argument("--storage", required=True, help="a database without the study 'shared'")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    rng = random.Random(chosen.seed)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        flags = ["--storage", chosen.storage, "--study", "shared", "--no-random-search"]
        flags += ["--space", "space.py", "--evaluator", "ledger.py"]
        flags += ["--evaluator-option", f"ledger={home / 'ledger.txt'}"]
        flags += ["--evaluator-option", f"sleep={chosen.sleep}"]
        flags += ["--trials", str(chosen.trials), "--controller", chosen.controller]
        crowd = Crowd(home, flags, {**os.environ, "NAS_DRIVER_GRACE": str(chosen.grace)})
        start = time.monotonic()
        for driver in range(chosen.drivers):
            crowd.start(driver)
        try:
            disturb(crowd, chosen.kills, chosen.stops, chosen.trials, rng)
            for process in crowd.processes.values():
                process.wait(600)
        finally:
            for driver in crowd.running():
                crowd.kill(driver)
        fine = report(crowd, chosen.storage, chosen.trials)
        print(f"{time.monotonic() - start:.0f} s")
        if not fine:
            for log in sorted(home.glob("driver*/log.txt")):
                print(log.parent.name, *log.read_text().splitlines()[-5:], sep="\n  ")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
