"""Let several drivers share a study, and kill and suspend them at random.

Every driver is a process with a run folder of its own, as on a machine of its own. A killed one is
resumed, half of them at once, half after the others had to take over. A fault is a trial that is
lost or counted twice, an arch that two drivers evaluate at the same time, and an evaluation that is
begun again without having been cut off.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from targets.project import EVALUATOR, Found, Project

from nas.searching.studies.database import opened, split
from nas.searching.studies.shared import TAKES
from nas.searching.studies.study import trial_of

# 1296 points, 576 networks: at one layer a second kernel is a dead gene, so proposals collide
SPACE = """
from nas.models.arch import Arch, Head, Stage, Stem
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


class Evaluation(NamedTuple):
    """One that was cut off ends at its cut."""

    arch: str
    pid: int
    begin: float
    end: float


@dataclass
class Crowd:
    """The drivers of one study: a project each, and the processes that ran in them."""

    projects: list[Project]
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    cuts: list[tuple[int, float]] = field(default_factory=list)  # process, and when it was cut off

    def start(self, driver: int) -> None:
        """Start or resume a driver."""
        self.processes[driver] = self.projects[driver].start()

    def running(self) -> list[int]:
        return [d for d, process in self.processes.items() if process.poll() is None]

    def kill(self, driver: int) -> None:
        process = self.processes[driver]
        process.kill()
        process.wait()
        self.cuts.append((process.pid, time.time()))

    def suspend(self, driver: int, seconds: float) -> None:
        process = self.processes[driver]
        process.send_signal(signal.SIGSTOP)
        self.cuts.append((process.pid, time.time()))
        time.sleep(seconds)
        process.send_signal(signal.SIGCONT)

    def evaluations(self) -> list[Evaluation]:
        """Return what all drivers have evaluated."""
        found: list[Evaluation] = []
        for project in self.projects:
            for what, arch, pid, moment in project.ledger():
                if what == "begin":
                    found.append(
                        Evaluation(arch, pid, moment, self._cut(pid, moment, float("inf")))
                    )
                    continue
                place = max(i for i, e in enumerate(found) if e[:2] == (arch, pid))
                end = self._cut(pid, found[place].begin, moment)
                found[place] = found[place]._replace(end=end)
        return found

    def _cut(self, pid: int, begin: float, end: float) -> float:
        """Return when a process was killed or suspended between two moments, else the second."""
        return min(
            (t for process, t in self.cuts if process == pid and begin <= t <= end), default=end
        )


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--drivers", type=int, default=3)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--stops", type=int, default=0)
    parser.add_argument("--grace", type=float, default=3.0)
    parser.add_argument("--sleep", type=float, default=0.1, help="seconds of an evaluation")
    parser.add_argument("--controller", default="tpe")
    parser.add_argument("--storage", required=True, help="a database without the study 'shared'")


def disturb(given: argparse.Namespace, base: Path) -> Found:
    flags = f"search --storage {given.storage} --study shared --no-random-search --space space.py"
    flags += f" --evaluator ledger.py --evaluator-option sleep={given.sleep}"
    flags += f" --trials {given.trials} --controller {given.controller}"
    more: dict[str, Any] = {"environment": {"NAS_DRIVER_GRACE": str(given.grace)}}
    crowd = Crowd(
        [
            Project.made(base / f"driver{n}", flags.split(), EVALUATOR, **more)
            for n in range(given.drivers)
        ]
    )
    for number, project in enumerate(crowd.projects):
        (project.folder / "space.py").write_text(SPACE)
        crowd.start(number)
    try:
        strike(crowd, given, random.Random(given.seed))
        codes = [process.wait(600) for process in crowd.processes.values()]
    finally:
        for driver in crowd.running():
            crowd.kill(driver)
    for project, code in zip(crowd.projects, codes, strict=True):
        if code:
            print(project.folder.name, *project.log.splitlines()[-5:], sep="\n  ")
    with opened(*split(given.storage)) as database:
        trials = optuna.load_study(study_name="shared search", storage=database).get_trials()
    evaluations = crowd.evaluations()
    again = len(evaluations) - len({evaluation.arch for evaluation in evaluations})
    shown: dict[str, object] = {
        "proposals": len(trials),
        **Counter(trial_of(trial).state for trial in trials),
        "kills and suspensions": len(crowd.cuts),
        "trials taken over": sum(TAKES in trial.system_attrs for trial in trials),
        "evaluations": len(evaluations),
        "begun again after a cut": again,
    }
    return Found(
        shown,
        {
            **faults(trials, given.trials),
            "evaluations of one arch at one time": overlaps(evaluations),
            "evaluations begun again beyond those cut off": max(0, again - len(crowd.cuts)),
            "drivers that failed": sum(code != 0 for code in codes),
        },
    )


def strike(crowd: Crowd, given: argparse.Namespace, rng: random.Random) -> None:
    """Kill and suspend drivers spread over the search, as long as one runs."""
    turns = [*["kill"] * given.kills, *["stop"] * given.stops]
    rng.shuffle(turns)
    for turn, kind in enumerate(turns):
        wanted = round(given.trials * (turn + rng.uniform(0.2, 0.9)) / (len(turns) + 1))
        while len(crowd.evaluations()) < wanted and crowd.running():
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.1))  # anywhere within a trial
        alive = crowd.running()
        if not alive:
            return
        victim = rng.choice(alive)
        if kind == "stop":
            crowd.suspend(victim, 2 * given.grace)
            continue
        crowd.kill(victim)
        if rng.random() < 0.5:
            time.sleep(2 * given.grace)
        crowd.start(victim)


def overlaps(evaluations: list[Evaluation]) -> int:
    """Return how many pairs of evaluations of one arch ran at the same time."""
    return sum(
        one.begin < other.end and other.begin < one.end
        for one, other in combinations(evaluations, 2)
        if one.arch == other.arch
    )


def faults(trials: list[optuna.trial.FrozenTrial], wanted: int) -> dict[str, object]:
    """Return what must not be in the study of the drivers, counted."""
    done = [trial.arch_id for trial in map(trial_of, trials) if trial.state == "done"]
    number = {trial.number: trial for trial in trials}
    heirs = [(t, t.system_attrs[TAKES][0]) for t in trials if TAKES in t.system_attrs]
    running = optuna.trial.TrialState.RUNNING  # what waits may be begun by a search of more trials
    return {
        "trials without an end": sum(trial.state is running for trial in trials),
        "trials missing or too many": abs(len(done) - wanted),
        "archs counted twice": sum(n > 1 for n in Counter(done).values()),
        "numbers missing": len(trials) - len(number) + max(number) + 1 - len(number),
        "trials taken over twice": len(heirs) - len({heir for _, heir in heirs}),
        "heirs with other choices": sum(
            not number[heir].params.items() <= t.params.items() for t, heir in heirs
        ),
    }
