"""Fit the times of nas/evaluation/durations.py to Accel-NASBench and print how good they are.

    python scripts/fit_times.py --data PATH_TO/accel_nasbench.parquet

A time is a sum of `durations.features`, none of which may shorten it. The squared error of its log
is minimised, beyond `ROBUST` the error itself, as some rows waited for something else. The rows
above OUTLIERS seconds are left out. Held out: equal archs share a fold. Copy what is printed into
nas/evaluation/durations.py; no row of the table goes there. Needs pyarrow; takes under a minute.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from lib import flags
from lib.folds import deal
from scipy.optimize import least_squares
from scipy.stats import kendalltau

from nas.evaluation.durations import arch_of, features, read_rows

OUTLIERS = 6000.0
ROBUST = 0.05
Array = npt.NDArray[np.float64]


@flags.in_one_line
def main(words: Sequence[str] | None) -> None:
    parser = flags.parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="accel_nasbench.parquet")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(words)
    rows = [row for row in read_rows(given.data) if row["train_time"] <= OUTLIERS]
    archs = [arch_of(row) for row in rows]
    x = np.array([features(arch) for arch in archs])
    seconds = np.array([row["train_time"] for row in rows])
    fold = deal([arch.id for arch in archs], given.folds, given.seed)
    held = np.empty_like(seconds)
    for one in range(given.folds):
        held[fold == one] = x[fold == one] @ fit(x[fold != one], seconds[fold != one])
    found = fit(x, seconds)
    print("SECONDS =", tuple(float(f"{value:.4g}") for value in found))
    print("mean share of a training:", *(f"{s:.2f}" for s in found * x.mean(0) / seconds.mean()))
    print(judge(seconds, held))


def fit(x: Array, seconds: Array) -> Array:
    """Return seconds per unit of each feature, all above 0: x (n, k), seconds (n,) to (k,)."""
    scale = x.mean(axis=0)

    def error(log: Array) -> Array:
        return np.asarray(np.log(x / scale @ np.exp(log) / seconds), dtype=np.float64)

    start = np.full(x.shape[1], np.log(seconds.mean() / x.shape[1]))
    found = least_squares(error, start, loss="soft_l1", f_scale=ROBUST).x
    return np.asarray(np.exp(found) / scale, dtype=np.float64)


def judge(seconds: Array, held: Array) -> str:
    """Return the held-out figures in one line."""
    error = np.log(seconds / held)
    low, high = np.quantile(error, (0.16, 0.84))
    off = 100 * np.abs(held / seconds - 1)
    return (
        f"n {len(seconds)}, held out: tau {kendalltau(seconds, held).statistic:.3f}, "
        f"median error {np.median(off):.1f} %, mean {off.mean():.1f} %, log RMSE "
        f"{np.sqrt(np.mean(error**2)):.3f}, SPREAD (half of the middle 68 % of the log error) "
        f"{(high - low) / 2:.3f}"
    )


if __name__ == "__main__":
    main()
