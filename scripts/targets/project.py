"""A project folder in which a command is started, killed and resumed, and what it evaluated there.

What is evaluated is written down by the evaluator itself, whatever becomes of the process: each
project has one in `ledger.py`, which appends to `ledger.txt` beside it.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import psutil

START = (sys.executable, "-c", "from nas.cli.program import main; main()")
NAME = "killed"  # of the run in every project
FREE = ("seconds", "place", "retries", "images_per_second", "memory_bytes")  # a clock decides
NOTE = """
import glob, os, time
from pathlib import Path
from nas.core import registry

def note(what, *words):
    line = " ".join(map(str, (what, "/".join(map(str, words)), os.getpid(), time.time())))
    with Path(__file__).with_name("ledger.txt").open("a") as file:
        file.write(line + "\\n")
"""
# evaluates as a shipped evaluator does, slowed down
EVALUATOR = f"""{NOTE}
def make(*, sleep: float = 0.0, inner: str = "synthetic"):
    return Ledger(sleep, registry.make("evaluators", inner, options={{}}))

class Ledger:
    def __init__(self, sleep, inner):
        self.sleep, self.inner, self.title = sleep, inner, inner.title

    def check(self, arch):
        self.inner.check(arch)

    def evaluate(self, arch, *, seed=0):
        note("begin", arch.id)
        time.sleep(self.sleep)
        found = self.inner.evaluate(arch, seed=seed)
        note("end", arch.id)
        return found
"""
# trains as the evaluator `training` does, and notes each epoch once its checkpoint is there
TRAINER = f"""{NOTE}
TRAINS = True

def make(*, data: str = "", download: bool = False, recipe: str = "proxy", epochs: int = 4,
         fraction: float = 1.0, accelerator: str = "cpu"):
    options = dict(data=data, download=download, recipe=recipe, epochs=epochs, fraction=fraction)
    options["accelerator"] = "cpu"  # so that any two trainings are alike
    return Ledger(registry.make("evaluators", "training", options=options))

class Ledger:
    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def train(self, arch, *, seed, epochs, folder):
        places = glob.glob(os.path.join(folder, "checkpoints", "epoch-*"))
        done = max((int(place.rpartition("-")[2]) for place in places), default=0)
        for epoch in range(min(done, epochs - 1) + 1, epochs + 1):
            found = self.inner.train(arch, seed=seed, epochs=epoch, folder=folder)
            if epoch > done:
                note("epoch", os.path.basename(folder), arch.id, seed, epoch)
        return found
"""


class Entry(NamedTuple):
    """A line of the ledger. `of`: the arch, or folder/arch/seed/epoch of an epoch."""

    what: str
    of: str
    pid: int
    moment: float


@dataclass(frozen=True)
class Found:
    """What is told of a target: `shown` is only counted, a fault other than 0 is one."""

    shown: dict[str, object]
    faults: dict[str, object]


@dataclass(frozen=True)
class Project:
    """A folder, and the verb and flags of the command that runs there."""

    folder: Path
    words: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    program: tuple[str, ...] = START

    @classmethod
    def made(cls, folder: Path, words: Sequence[str], ledger: str = "", **more: Any) -> Project:
        """Return a project in a new folder; `ledger`: the text of its evaluator."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ledger.py").write_text(ledger)
        return cls(folder, tuple(words), **more)

    @property
    def run(self) -> Path:
        return self.folder / "runs" / self.words[0] / NAME

    @property
    def log(self) -> str:
        return (self.folder / "log.txt").read_text()

    def start(self) -> subprocess.Popen[bytes]:
        """Start the command, or go on with it."""
        command = [*self.program, *self.words, "--name", NAME, "--resume", "-q"]
        env = {**os.environ, "OMP_NUM_THREADS": "1", **self.environment}
        with (self.folder / "log.txt").open("ab") as log:
            return subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, env=env)

    def finish(self) -> None:
        """Run the command to its end.

        Raises:
            SystemExit: it failed.
        """
        if self.start().wait():
            raise SystemExit(self.log)

    def ledger(self, *kinds: str) -> list[Entry]:
        """Return what was evaluated, in order."""
        path = self.folder / "ledger.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        found = [Entry(what, of, int(pid), float(t)) for what, of, pid, t in map(str.split, lines)]
        return [entry for entry in found if not kinds or entry.what in kinds]


def killed_at(project: Project, wanted: int, linger: float, rng: random.Random, what: str) -> bool:
    """Start or go on, and kill some time after the ledger has so many entries of a kind.

    Returns whether the command was still running then.
    """
    process = project.start()
    while process.poll() is None and len(project.ledger(what)) < wanted:
        time.sleep(0.005)
    time.sleep(rng.uniform(0.0, linger))
    running = process.poll() is None
    process.kill()
    process.wait()
    return running


def trials(journal: Path) -> dict[tuple[str, int], optuna.trial.FrozenTrial]:
    """Return the trials with a result by study and number, as Optuna itself reads them."""
    if not journal.exists():
        return {}
    backend = optuna.storages.journal.JournalFileBackend(str(journal))
    storage = optuna.storages.JournalStorage(backend)
    return {
        (name, trial.number): trial
        for name in optuna.get_all_study_names(storage)
        for trial in optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)
        if trial.state.is_finished()
    }


def timeless(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of a table without what a clock or a place decides."""
    return [{name: value for name, value in row.items() if name not in FREE} for row in rows]


def below(parent: int, sign: str) -> list[int]:
    """Return the processes that one has started, and those have, with this in their command."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(parent).children(recursive=True):
            with contextlib.suppress(psutil.Error):  # it has just ended
                found += [process.pid] * (sign in " ".join(process.cmdline()))
    return sorted(found)
