"""How well scores without training rank real trainings: Kendall's tau with its interval.

    python scripts/bench_zero_cost.py --table accel_nasbench.parquet --archs 300
    python scripts/bench_zero_cost.py --trials runs/search/NAME/trials.csv --space mbconv_small

`--table` is Accel-NASBench's (5,138 ImageNet proxy trainings of the space mbconv; needs pyarrow),
`--trials` the trials.csv of a search, of which those that were trained to the end count. A random
sample of them is scored. Beside NASWOT stand what is counted without any network: the same weights
of its layers without codes, multiply-adds, parameters, activations, and a line through the logs of
the first two, fitted to the other half of the sample.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nas import catalog, run
from nas.arch import Arch
from nas.cost import count
from nas.interfaces import Choices, Space
from nas.naswot import IMAGES, SIDE, by_channels, by_units, kernel, log_determinant, noise
from nas.ranking import agreement

Trained = tuple[Choices, float]
# Accel-NASBench's names of what a block chooses, and ours
NAMES = {"e": "expansion", "k": "kernel", "l": "layers", "se": "se"}


def main() -> None:
    given = arguments()
    space: Space = catalog.export("spaces", given.space, "SPACE")
    known = read_table(given.table) if given.table else read_trials(given.trials, space)
    rng = random.Random(given.seed)
    sample = rng.sample(known, min(given.archs, len(known)))
    rows, seconds = [], []
    for choices, _ in sample:
        arch = space.decode(choices)
        start = time.process_time()
        rows.append(scores(arch, given))
        seconds.append(time.process_time() - start)
    accuracies = [accuracy for _, accuracy in sample]
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
    columns["line through log FLOPs, log params"] = line(columns, accuracies)
    print(f"{len(sample)} of {len(known)} trainings, space {space.name}, {given.images} images of")
    print(f"at most {given.side} pixels, seed {given.seed}\n\n| score | tau (95 %) |\n|---|---|")
    for name, values in columns.items():
        tau = agreement([(values, accuracies)])
        print(f"| {name} | {tau.value:.3f} ({tau.low:.3f}–{tau.high:.3f}) |")
    print(f"\n{statistics.median(seconds) / 2:.2f} s of CPU a network and determinant (median)")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--table", type=Path, help="accel_nasbench.parquet")
    source.add_argument("--trials", type=Path, help="trials.csv of a search that trained")
    parser.add_argument("--space", default="mbconv", help="of the trials")
    parser.add_argument("--archs", type=int, default=300)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--side", type=int, default=SIDE, help="pixels")
    parser.add_argument("--seed", type=int, default=0, help="of the sample and of the weights")
    return parser.parse_args()


def scores(arch: Arch, given: argparse.Namespace) -> dict[str, float]:
    """Return what ranks an arch without training it."""
    images = noise(arch, images=given.images, side=given.side, seed=given.seed)
    ours, paper = (
        kernel(arch, images, seed=given.seed, weigh=weigh) for weigh in (by_channels, by_units)
    )
    cost = count(arch)
    return {
        "naswot, by channels": log_determinant(ours),
        "naswot, by units (the paper)": log_determinant(paper),
        "the roots of the channels alone": ours[0, 0],
        "FLOPs": cost.flops,
        "params": cost.params,
        "activations": cost.activations,
    }


def line(columns: dict[str, Any], accuracies: list[float]) -> list[float]:
    """Return what a line fitted to one half of the archs expects of the other half."""
    logs = [np.log(columns[name]) for name in ("FLOPs", "params")]
    x, y = np.stack([np.ones(len(accuracies)), *logs], axis=1), np.array(accuracies)
    half = np.arange(len(y)) % 2 == 0
    expected = np.empty(len(y))
    for fitted, judged in ((half, ~half), (~half, half)):
        expected[judged] = x[judged] @ np.linalg.lstsq(x[fitted], y[fitted], rcond=None)[0]
    return expected.tolist()


def read_table(path: Path) -> list[Trained]:
    """Return the points of the space mbconv that Accel-NASBench trained, each once, and top-1."""
    import pyarrow.parquet as parquet

    found = {}
    for row in parquet.read_table(path).to_pylist():
        codes = (
            (block, own, row[f"block{block}_{k}"]) for block in range(7) for k, own in NAMES.items()
        )
        point = {
            f"block{block + 1}_{own}": 0.25 * value if own == "se" else value
            for block, own, value in codes
        }
        found[tuple(point.values())] = point, row["val_top1"]
    return list(found.values())


def read_trials(path: Path, space: Space) -> list[Trained]:
    """Return the points that were trained to the end, and their accuracies."""
    return [
        ({name: option(options, row[name]) for name, options in space.choices.items()}, accuracy)
        for row in run.read_csv(path)
        if row["state"] == "done"
        for accuracy in [float(row["accuracy"])]
    ]


def option(options: Any, text: str) -> Any:
    """Return the option that is written so."""
    return next(each for each in options if str(each) == text)


if __name__ == "__main__":
    torch.set_num_threads(1)  # seconds of a core
    main()
