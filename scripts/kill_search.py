"""Kill one search again and again, resume it each time, and compare it with an undisturbed one.

    python scripts/kill_search.py --kills 20 --trials 300 --controller evolution

Every kill is a SIGKILL at a random moment, one in four while the program still starts. Exit code 1
if a trial is lost, an arch is evaluated again after its result was on file, or the two searches
differ in anything: proposals, choices, values, the winner.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# an evaluator that writes down which archs it is asked about, whatever becomes of the process
LEDGER = """
import time
from nas import catalog

def make(*, ledger: str = "", sleep: float = 0.0, inner: str = "synthetic"):
    return Ledger(ledger, sleep, catalog.make("evaluators", inner, options={}))

class Ledger:
    def __init__(self, ledger, sleep, inner):
        self.ledger, self.sleep, self.inner = ledger, sleep, inner
        self.title = inner.title

    def check(self, arch):
        self.inner.check(arch)

    def evaluate(self, arch, *, seed=0):
        with open(self.ledger, "a") as file:
            file.write(arch.id + "\\n")
        time.sleep(self.sleep)
        return self.inner.evaluate(arch, seed=seed)
"""
START = [sys.executable, "-c", "from nas.cli import main; main()"]


@dataclass(frozen=True)
class Place:
    """One project folder with its ledger."""

    folder: Path
    flags: list[str]

    @property
    def journal(self) -> Path:
        return self.folder / "runs" / "search" / "killed" / "journal.log"

    def ledger(self) -> list[str]:
        path = self.folder / "ledger.txt"
        return path.read_text().split() if path.exists() else []

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        options = ["--evaluator-option", f"ledger={self.folder / 'ledger.txt'}"]
        command = [*START, "search", *self.flags, *options, "--name", "killed", "-q", *more]
        with (self.folder / "log.txt").open("ab") as log:
            return subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)

    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.journal.parent / "result.json").read_text())
        return found


@dataclass
class Tally:
    """What the kills did."""

    working: int = 0
    starting: int = 0
    lost: int = 0
    twice: int = 0
    unfinished: int = 0
    differences: list[str] = field(default_factory=list)


def finished(journal: Path) -> dict[tuple[int, int], tuple[str, Any, Any]]:
    """Return (study, trial) -> (arch, choices, values) of every result on file, read as plain JSON.

    A journal names trials by their order over all studies.
    """
    trials: list[dict[str, Any]] = []
    lines = journal.read_bytes().splitlines(keepends=True) if journal.exists() else []
    for line in lines:
        if not line.endswith(b"\n"):
            break
        log = json.loads(line)
        if log["op_code"] == 4:
            trials.append({"study": log["study_id"], "choices": {}, "arch": "", "values": None})
        elif log["op_code"] == 5:
            value = log["param_value_internal"]
            trials[log["trial_id"]]["choices"][log["param_name"]] = value
        elif log["op_code"] == 8 and "arch_id" in log["user_attr"]:
            trials[log["trial_id"]]["arch"] = log["user_attr"]["arch_id"]
        elif log["op_code"] == 6 and log["state"] != 0:
            trials[log["trial_id"]]["values"] = [log["state"], log.get("values")]
    numbers: Counter[int] = Counter()
    found = {}
    for trial in trials:
        number = numbers[trial["study"]]
        numbers[trial["study"]] += 1
        if trial["values"] is not None:
            found[trial["study"], number] = trial["arch"], trial["choices"], trial["values"]
    return found


def kill_once(place: Place, rng: random.Random, early: bool, share: float, total: int) -> bool:
    """Start or resume the search and kill it; return whether it was still running then.

    `early`: kill while it starts. Otherwise let it first work for up to twice `share` of what is
    left of `total` evaluations.
    """
    before = len(place.ledger())
    process = place.start("--resume")
    if early:
        time.sleep(rng.uniform(0.0, 1.0))
    else:
        wanted = before + 1 + round(rng.uniform(0, 2 * share) * max(total - before, 0))
        while process.poll() is None and len(place.ledger()) < wanted:
            time.sleep(0.005)
        time.sleep(rng.uniform(0.0, 0.02))  # anywhere within a trial
    running = process.poll() is None
    process.kill()
    process.wait()
    return running


def disturb(place: Place, kills: int, total: int, rng: random.Random) -> Tally:
    """Kill the search `kills` times, let it finish, and count what went wrong on the way."""
    tally, known = Tally(), finished(place.journal)
    for turn in range(kills):
        early = rng.random() < 0.25
        start = len(place.ledger())
        if not kill_once(place, rng, early, 1 / (kills - turn + 1), total):
            tally.differences.append(f"kill {turn + 1} came after the end")
            break
        if early:
            tally.starting += 1
        else:
            tally.working += 1
        known = _audit(place, tally, known, start)
    start = len(place.ledger())
    if place.start("--resume").wait():
        tally.differences.append("the last resumption failed: " + place.folder.name)
    _audit(place, tally, known, start)
    return tally


def _audit(place: Place, tally: Tally, known: dict[Any, Any], start: int) -> dict[Any, Any]:
    """Compare the results on file with those of before; count repeated and lost ones."""
    now = finished(place.journal)
    tally.lost += sum(now.get(key) != value for key, value in known.items())
    on_file = {value[0] for value in known.values() if value[2][0] == 1}
    tally.twice += sum(arch in on_file for arch in place.ledger()[start:])
    return now


def compare(calm: Place, disturbed: Place, tally: Tally) -> None:
    """Note every difference between the two searches."""
    wanted, found = finished(calm.journal), finished(disturbed.journal)
    if len(wanted) != len(found):
        tally.differences.append(f"{len(found)} trials instead of {len(wanted)}")
    wrong = [key for key in wanted if found.get(key) != wanted[key]]
    if wrong:
        tally.differences.append(f"{len(wrong)} trials differ, the first is {wrong[0]}")
    if calm.result()["best"] != disturbed.result()["best"]:
        tally.differences.append("another winner")
    tally.unfinished = len(disturbed.ledger()) - len(set(disturbed.ledger())) - tally.twice


def main(arguments: list[str] | None = None) -> int:
    """Run the test; return 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--controller", default="evolution")
    parser.add_argument("--objective", default="reward")
    parser.add_argument("--evaluator", default="synthetic", help="a shipped one, slowed down")
    parser.add_argument("--sleep", type=float, default=0.007, help="seconds of each evaluation")
    parser.add_argument("--seed", type=int, default=0, help="of the kills; the search has 0")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="nas-kills-") as folder:
        base = Path(folder)
        (base / "ledger.py").write_text(LEDGER)
        flags = f"--target-flops 400M --seed 0 --trials {given.trials}"
        flags += f" --controller {given.controller} --objective {given.objective}"
        flags += f" --evaluator {base / 'ledger.py'} --evaluator-option inner={given.evaluator}"
        flags += f" --evaluator-option sleep={given.sleep}"
        calm, disturbed = (Place(base / name, flags.split()) for name in ("calm", "disturbed"))
        for place in (calm, disturbed):
            place.folder.mkdir()
        started = time.monotonic()
        if calm.start().wait():
            print((calm.folder / "log.txt").read_text(), file=sys.stderr)
            return 1
        seconds = time.monotonic() - started
        rng = random.Random(given.seed)
        tally = disturb(disturbed, given.kills, len(calm.ledger()), rng)
        compare(calm, disturbed, tally)
        rows = {
            "controller": f"{given.controller}, {given.objective}",
            "trials (search + random search)": len(finished(calm.journal)),
            "seconds undisturbed": f"{seconds:.1f}",
            "kills while working / starting": f"{tally.working} / {tally.starting}",
            "evaluations undisturbed / with kills": (
                f"{len(calm.ledger())} / {len(disturbed.ledger())}"
            ),
            "evaluated again, running at a kill": tally.unfinished,
            "evaluated again after its result": tally.twice,
            "results lost or changed": tally.lost,
            "differences at the end": "; ".join(tally.differences) or "none",
            "best reward, both": f"{disturbed.result()['best']['reward']:.4f}",
        }
        for name, value in rows.items():
            print(f"{name:<38}{value}")
        return 1 if tally.differences or tally.lost or tally.twice else 0


if __name__ == "__main__":
    sys.exit(main())
