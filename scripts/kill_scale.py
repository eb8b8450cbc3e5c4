"""Kill one fit of alpha, beta, gamma again and again, resume it, compare it with a calm one.

    python scripts/kill_scale.py --kills 5

Every kill is a SIGKILL at a random moment, one in four while the program still starts; the
trainings are real ones, on digits. Exit code 1 if an epoch that was on file is trained again, or if
the two fits differ in anything but the clock: accuracies, order, coefficients.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas import run
from nas.arch import Arch, Head, Stage, Stem

# trains as the evaluator `training` does, and writes each epoch down once its checkpoint is there
LEDGER = """
import os
from nas import catalog

TRAINS = True

def make(*, data="", download=False, recipe="proxy", epochs=4, fraction=1.0, accelerator="auto"):
    options = dict(data=data, download=download, recipe=recipe, epochs=epochs, fraction=fraction)
    return Ledger(catalog.make("evaluators", "training", options=options | {"accelerator": "cpu"}))

class Ledger:
    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def train(self, arch, *, seed, epochs, folder):
        from nas.training import train

        plain = train.fit

        def note(row):
            with open(os.environ["LEDGER"], "a") as file:
                file.write(f"{arch.id}-{seed}-{row['epoch']}\\n")

        train.fit = lambda *given, **more: plain(*given, **more, watch=note)
        try:
            return self.inner.train(arch, seed=seed, epochs=epochs, folder=folder)
        finally:
            train.fit = plain
"""
DRIVER = """
import sys
from nas import fit_setup
fit_setup.EVALUATOR = sys.argv.pop(1)
from nas.cli import main
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
CLOCK = ("seconds", "place", "retries")
PLACE = "base"  # of the two lies each in its own folder


@dataclass(frozen=True)
class Place:
    """One project folder with its ledger."""

    folder: Path
    flags: list[str]

    @property
    def run(self) -> Path:
        return self.folder / "runs" / "scale" / "killed"

    def ledger(self) -> list[str]:
        path = self.folder / "ledger.txt"
        return path.read_text().split() if path.exists() else []

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        words = [str(self.folder.parent / "ledger.py"), "scale", "small.json", "--fit", *self.flags]
        command = [sys.executable, "-c", DRIVER, *words, "--name", "killed", "-q", *more]
        environment = {
            **os.environ,
            "LEDGER": str(self.folder / "ledger.txt"),
            "NAS_CACHE": str(self.folder.parent / "cache"),
            "OMP_NUM_THREADS": "1",
        }
        with (self.folder / "log.txt").open("ab") as log:
            return subprocess.Popen(
                command, cwd=self.folder, stdout=log, stderr=log, env=environment
            )

    def found(self) -> dict[str, Any]:
        """Return all that the fit has left, without what a clock decides."""
        fit = run.read_json(self.run / "fit.json")
        tables = {
            name: sorted(
                tuple((k, v) for k, v in row.items() if k not in CLOCK)
                for row in run.read_csv(self.run / name)
            )
            for name in ("fit.csv", "finals.csv")
        }
        kept = run.read_json(self.folder / "small.coefficients.json")
        return {
            "fit": {k: v for k, v in fit.items() if k not in (*CLOCK, PLACE)},
            **tables,
            "kept": kept,
        }


def kill_once(place: Place, rng: random.Random, early: bool, step: int) -> bool:
    """Start or resume the fit and kill it; return whether it was still running then.

    `early`: kill while it starts. Otherwise let it first train some epochs, up to `step`.
    """
    wanted = len(place.ledger()) + rng.randint(1, max(1, step))
    process = place.start("--resume")
    if early:
        time.sleep(rng.uniform(0.0, 2.0))
    else:
        while process.poll() is None and len(place.ledger()) < wanted:
            time.sleep(0.005)
        time.sleep(rng.uniform(0.0, 0.3))
    running = process.poll() is None
    process.kill()
    process.wait()
    return running


def disturb(place: Place, kills: int, step: int, rng: random.Random) -> Counter[str]:
    """Kill the fit so often, then let it finish; return how many kills met it at what."""
    met = Counter[str]()
    for _ in range(kills):
        early = rng.random() < 0.25
        met["starting" if early else "working"] += kill_once(place, rng, early, step)
    _finish(place, place.start("--resume"))
    return met


def _finish(place: Place, process: subprocess.Popen[bytes]) -> None:
    if process.wait():
        raise SystemExit((place.folder / "log.txt").read_text())


def differences(calm: Place, disturbed: Place) -> list[str]:
    """Return in what the two fits differ."""
    wanted, found = calm.found(), disturbed.found()
    apart = [name for name, value in wanted.items() if found[name] != value]
    if set(calm.ledger()) != set(disturbed.ledger()):
        apart.append("other epochs were trained")
    return apart


def places(base: Path, flags: list[str]) -> list[Place]:
    """Return two project folders, calm and disturbed, with what the fit needs."""
    (base / "ledger.py").write_text(LEDGER)
    found = [Place(base / name, flags) for name in ("calm", "disturbed")]
    for place in found:
        place.folder.mkdir()
        (place.folder / "small.json").write_text(BASE.to_json())
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run the test; return 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4, help="of each training")
    parser.add_argument("--candidates", type=int, default=4)
    parser.add_argument("--final-seeds", type=int, default=2)
    parser.add_argument("--fraction", type=float, default=0.2, help="of the digits")
    parser.add_argument("--step", type=int, default=8, help="epochs between two kills, at most")
    parser.add_argument("--seed", type=int, default=0, help="of the kills; the fit has 0")
    given = parser.parse_args(arguments)
    flags = "--data digits --phi 1 --finalists 2 --seed 0"
    flags += f" --fit-epochs {given.epochs} --fit-fraction {given.fraction}"
    flags += f" --candidates {given.candidates} --final-seeds {given.final_seeds}"
    with tempfile.TemporaryDirectory(prefix="nas-kills-") as folder:
        calm, disturbed = places(Path(folder), flags.split())
        beside = calm.start()  # at the same time: it is compared with, not timed
        met = disturb(disturbed, given.kills, given.step, random.Random(given.seed))
        _finish(calm, beside)
        apart = differences(calm, disturbed)
        twice = len(disturbed.ledger()) - len(set(disturbed.ledger()))
        kept = calm.found()["kept"]
        rows = {
            "epochs of the fit": len(calm.ledger()),
            "kills while working / starting": f"{met['working']} / {met['starting']}",
            "epochs trained again after a checkpoint": twice,
            "differences at the end": "; ".join(apart) or "none",
            "coefficients, both": " ".join(str(kept[n]) for n in ("alpha", "beta", "gamma")),
        }
        for name, value in rows.items():
            print(f"{name:<42}{value}")
        return 1 if apart or twice or not sum(met.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
