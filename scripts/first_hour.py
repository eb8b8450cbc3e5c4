"""Train with default flags, as a new user would, and tell the test accuracy and the CPU minutes.

    python scripts/first_hour.py digits clothing folder:60 --seeds 3 --shared ../shared/data

Each case is `nas train ARCH --data DATA --imgsz PIXELS --seed N` in a process of its own; minutes
are user and system time of all its processes. `folder:N` makes N pictures of three classes,
`gray:N` without colour, `skewed:N` two classes of which one has nine tenths, `many:N` three
pictures of each of N / 3 classes. `--threads 1` by default: two take longer together on small nets.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from lib import flags
from PIL import Image

CASES = {
    "digits": ("mobilenet_v3_small", "digits", 32),
    "clothing": ("mobilenet_v3_small", "clothing_small", 64),
    "cifar": ("mobilenet_v3_small", "cifar10-mini", 32),
    "b0": ("efficientnet_b0", "clothing_small", 224),
}
MADE = ("mobilenet_v3_small", 64)  # arch and pixels for folders that are made here
START = [sys.executable, "-c", "from nas.cli.program import main; main()"]


@flags.in_one_line
def main(words: Sequence[str] | None) -> None:
    parser = flags.parser(__doc__)
    parser.add_argument("cases", nargs="+", help=f"{', '.join(CASES)}, or kind:N")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arch", help="another net than the case's")
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/first_hour"))
    parser.add_argument("--threads", default="1")
    asked, more = parser.parse_known_args(words)
    for case in asked.cases:
        arch, data, side = _case(case, asked)
        found = [
            _train([asked.arch or arch, "--data", data, "--imgsz", str(side), *more], seed, asked)
            for seed in range(asked.seeds)
        ]
        tests = [top1 for top1, _ in found]
        print(
            f"| {case} | {asked.arch or arch} | {side} | {', '.join(f'{x:.1f}' for x in tests)} | "
            f"{statistics.mean(tests):.1f} | {', '.join(f'{s / 60:.1f}' for _, s in found)} |",
            flush=True,
        )


def _case(name: str, asked: argparse.Namespace) -> tuple[str, str, int]:
    if name in CASES:
        arch, data, side = CASES[name]
        return arch, data if data == "digits" else str(asked.shared / data), side
    kind, _, number = name.partition(":")
    folder = asked.out / f"{kind}-{number}"
    if not folder.exists():
        make_folder(folder, kind, int(number))
    return MADE[0], str(folder), MADE[1]


def _train(words: list[str], seed: int, asked: argparse.Namespace) -> tuple[float, float]:
    """Return the test accuracy in percent and the CPU seconds of one training."""
    before = _seconds()
    place = ["--project", str(asked.out / "runs"), "--seed", str(seed), "--json"]
    threads = {"OMP_NUM_THREADS": asked.threads}
    done = subprocess.run(
        [*START, "train", *words, *place], stdout=subprocess.PIPE, env={**os.environ, **threads}
    )
    if done.returncode:
        raise SystemExit(f"nas train ended with {done.returncode}")
    return json.loads(done.stdout)["test"]["top1"], _seconds() - before


def _seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def make_folder(folder: Path, kind: str, number: int) -> None:
    """Write `number` pictures of 96 pixels: discs, squares or stripes on a ground of noise."""
    rng = np.random.default_rng(0)
    classes = number // 3 if kind == "many" else 2 if kind == "skewed" else 3
    for place in range(number):
        label = place % classes
        if kind == "skewed":
            label = int(place % 10 == 0)
        path = folder / f"class_{label}" / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(_picture(rng, label, kind == "gray")).save(path)


def _picture(rng: np.random.Generator, label: int, gray: bool) -> np.ndarray:
    """Return pixels (96, 96, 3): a shape of the label's kind, somewhere, in some colour."""
    rows, columns = np.mgrid[:96, :96]
    row, column, size = rng.uniform(30, 66), rng.uniform(30, 66), rng.uniform(12, 24)
    period = 4 + 2 * (label // 3)
    shapes = (
        (rows - row) ** 2 + (columns - column) ** 2 < size**2,
        np.maximum(abs(rows - row), abs(columns - column)) < size,
        ((rows + columns) // period % 2 == 0) & (abs(rows - row) < size),
    )
    colours = rng.uniform(0, 255, (2, 1 if gray else 3))
    if label >= 3:  # many classes differ by colour too
        colours[1] = (label * 37 % 256, label * 91 % 256, label * 53 % 256)
    image = np.where(shapes[label % 3][..., None], colours[1], colours[0])
    noisy = image + rng.normal(0, 25, (96, 96, image.shape[-1]))
    return np.broadcast_to(noisy.clip(0, 255).astype(np.uint8), (96, 96, 3)).copy()


if __name__ == "__main__":
    main()
