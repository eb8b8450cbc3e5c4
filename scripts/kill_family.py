"""Kill the training of a family again and again, resume it, compare it with an undisturbed one.

    python scripts/kill_family.py --kills 12 --phi 0,1 --epochs 6

Every kill is a SIGKILL at a random moment: of the driver (which is started again with --resume), of
its worker, or of the training's own process (which the driver begins again by itself). The members
are tiny nets on digits, trained by one worker. Exit code 1 if an epoch that was on file is trained
again, a member that was on file is, or any member's weights or results differ from those of the
undisturbed family.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nas.arch import Arch, Head, Stage, Stem
from nas.training.checkpoint import load_weights

START = [sys.executable, "-c", "from nas.cli import main; main()"]
KINDS = ("training", "driver", "worker")
# how the command line of each kind of process is known
SIGNS = {"worker": "spawn_main", "training": "nas.commands.member"}
CLOCK = {"seconds", "images_per_second", "memory_bytes"}
TINY = Arch(
    "tiny",
    (Stage("mbconv", 8, stride=2, expansion=2.0), Stage("mbconv", 8, expansion=2.0)),
    Stem(8),
    Head(16, classes=10),
    resolution=32,
)


@dataclass(frozen=True)
class Place:
    """One project folder and the flags of its family."""

    folder: Path
    flags: tuple[str, ...]

    @property
    def run(self) -> Path:
        return self.folder / "runs" / "scale" / "killed"

    def start(self) -> subprocess.Popen[bytes]:
        """Start the family or go on with it."""
        command = [*START, "scale", *self.flags, "--name", "killed", "--resume", "-q"]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "NAS_CACHE": str(self.folder / "cache")}
        with (self.folder / "log.txt").open("ab") as log:
            return subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, env=env)

    def epochs(self) -> Counter[tuple[str, int]]:
        """Return how often each epoch of each member was finished, as the trainings' logs say."""
        found: Counter[tuple[str, int]] = Counter()
        for path in self.run.glob("*/log.txt"):
            for number in re.findall(r"^epoch (\d+)/", path.read_text(), re.MULTILINE):
                found[path.parent.name, int(number)] += 1
        return found

    def members(self) -> dict[str, int]:
        """Return the members that are on file, and when they were written."""
        paths = self.run.glob("*/member.json")
        return {path.parent.name: path.stat().st_mtime_ns for path in paths}


def below(parent: int) -> dict[int, str]:
    """Return the processes that one has started, and those have, with their command lines."""
    shown = subprocess.run(["ps", "-ww", "-eo", "pid,ppid,args"], capture_output=True, text=True)
    rows = [line.split(None, 2) for line in shown.stdout.splitlines()[1:]]
    found, parents = {}, {parent}
    while parents:
        mine = {int(pid): args for pid, above, args in rows if int(above) in parents}
        found |= mine
        parents = set(mine)
    return found


def strike(place: Place, driver: subprocess.Popen[bytes], kind: str, rng: random.Random) -> bool:
    """Kill a process of a kind at a random moment of its life; tell whether there was one."""
    sign = SIGNS.get(kind, "")
    before, target = sum(place.epochs().values()), driver.pid
    while sign:
        if driver.poll() is not None:
            return False
        found = [pid for pid, args in below(driver.pid).items() if sign in args]
        if found:
            target = found[0]
            break
        time.sleep(0.05)
    # while it starts, or once it has finished an epoch
    wanted, end = before + rng.randint(0, 1), time.monotonic() + 60
    time.sleep(rng.uniform(0, 0.3))
    while driver.poll() is None and sum(place.epochs().values()) < wanted:
        time.sleep(0.02)
        if time.monotonic() > end:
            break
    if driver.poll() is not None:
        return False
    try:
        os.kill(target, signal.SIGKILL)
    except ProcessLookupError:  # it has just ended, as a worker does whose training was killed
        return strike(place, driver, kind, rng)
    if kind == "driver":
        driver.wait()
    return True


def disturb(
    place: Place, kills: int, rng: random.Random, kinds: Sequence[str] = KINDS
) -> tuple[Counter[str], list[str]]:
    """Kill a family's processes so often, and have it finished; return the kills and the faults."""
    done: Counter[str] = Counter()
    faults: list[str] = []
    known: dict[str, int] = {}
    driver = place.start()
    for number in range(kills):
        kind = kinds[number % len(kinds)]
        done[kind] += strike(place, driver, kind, rng)
        again = [name for name, when in known.items() if place.members().get(name) != when]
        faults += [f"{name} was written again after it was on file" for name in again]
        known = place.members()
        if driver.poll() is not None:
            driver = place.start()
    if driver.wait() and place.start().wait():
        faults.append("the last resumption failed")
    return done, faults


def compare(calm: Place, disturbed: Place) -> list[str]:
    """Return every difference between two families, and every epoch that was trained twice."""
    faults = [f"epoch {n} of {m} twice" for (m, n), k in disturbed.epochs().items() if k > 1]
    if set(calm.members()) != set(disturbed.members()):
        return [*faults, f"{sorted(disturbed.members())} instead of {sorted(calm.members())}"]
    for name in calm.members():
        mine, theirs = (place.run / name for place in (calm, disturbed))
        weights = "weights/best.safetensors"
        one, other = load_weights(mine / weights), load_weights(theirs / weights)
        # not the bytes: safetensors orders the keys of its metadata at random
        if one.keys() != other.keys() or not all(one[key].equal(other[key]) for key in one):
            faults.append(f"{name} has other weights")
        if rows(mine / "results.csv") != rows(theirs / "results.csv"):
            faults.append(f"{name} has other results")
    return faults


def rows(path: Path) -> list[dict[str, str]]:
    """Return a table without what a clock decides."""
    with path.open(newline="") as file:
        return [{k: v for k, v in r.items() if k not in CLOCK} for r in csv.DictReader(file)]


def main(arguments: list[str] | None = None) -> int:
    """Run the test; return 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--phi", default="0,1")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0, help="of the kills; the trainings have 0")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="nas-family-") as folder:
        base = Path(folder)
        (base / "tiny.json").write_text(TINY.to_json())
        flags = f"{base / 'tiny.json'} --phi {given.phi} --train --data digits --recipe proxy"
        flags += f" --epochs {given.epochs} --device fake --accelerator cpu"
        calm, disturbed = (Place(base / n, tuple(flags.split())) for n in ("calm", "disturbed"))
        for place in (calm, disturbed):
            place.folder.mkdir()
        started = time.monotonic()
        if calm.start().wait():
            print((calm.folder / "log.txt").read_text(), file=sys.stderr)
            return 1
        seconds = time.monotonic() - started
        done, faults = disturb(disturbed, given.kills, random.Random(given.seed))
        faults += compare(calm, disturbed)
        killed = ", ".join(f"{done[kind]} of a {kind}" for kind in KINDS)
        print(f"members                   {len(calm.members())}, {given.epochs} epochs each")
        print(f"seconds undisturbed       {seconds:.1f}")
        print(f"kills                     {killed}")
        print(f"faults                    {'; '.join(faults) or 'none'}")
        return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
