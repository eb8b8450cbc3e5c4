"""Fit the surrogate evaluator (surrogate.npz) to the tables of Accel-NASBench; print its errors.

    python scripts/fit_surrogate.py --data PATH_TO/accel_nasbench

`--data` is the folder with accel_nasbench.parquet and accel_nasbench_multiseed.parquet. Needs
pyarrow; takes some minutes on two cores. Everything is seeded: the same versions of
numpy and torch on the same machine give the same file.

Accuracy: a Gaussian process, one length per feature by marginal likelihood on random subsets of
the training rows, reduced to weights at CENTRES random networks (the posterior mean of Titsias
2009, eq. 6). Times: a linear table of stages in ms, then a kernel ridge on the log residual. The
spread around each is log-linear in the features, by maximum likelihood on held-out residuals.

Held out means: the distinct networks are dealt to the folds, so repeats of one network stay
together; each fold's models, lengths included, see the other folds only. The folds share the
settings below, and the centres and the scaling, which come from random networks, not from the
table. The figures are of those fold models; the shipped model is fitted in the same way to all.
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lib import flags
from lib.folds import deal
from scipy.optimize import minimize
from scipy.stats import kendalltau

from nas.core.tables import Row, read_rows
from nas.evaluation.evaluators.surrogate import (
    DEVICES,
    FILE,
    MEASURED_LATENCY,
    TIMES,
    Accuracy,
    Spread,
    Time,
    rbf,
    scaled,
    unpack,
)
from nas.evaluation.skeleton import (
    EXPANSIONS,
    GRID,
    KERNELS,
    MOST_LAYERS,
    Array,
    Codes,
    features,
    options,
)

CENTRES, TIME_CENTRES = 2000, 1000
# the settings were chosen on two folds of seed 0; other seeds give the same figures
SUBSET, STEPS, RATE = 1000, 100, 0.08  # of the marginal likelihood
# what the kernel cannot express looks like noise to the likelihood; half its variance ranks better
NOISE_FACTOR = 0.5
JITTER = 1e-6
TIME_LENGTH, TIME_RIDGE = 14.0, 1e-2  # of lengths 8 to 24 and ridges 1e-3 to 1e-1: all near equal
TABLE_RIDGE, SPREAD_RIDGE = 1e-2, 1e-2

PROVENANCE = {
    "data": "Accel-NASBench, EfficientNet/MnasNet space on ImageNet, short proxy training",
    "source": "github.com/afzalxo/Accel-NASBench",
    "commit": "42603572d530310e6bac7191d00cf45625a6b197",
    "licence": "Apache-2.0; these coefficients are derived from that data and hold no row of it",
    "citation": "A. Ahmad, L. Du, Z. Xie, W. Zhang, Accel-NASBench: Sustainable Benchmarking for "
    "Accelerator-Aware NAS, DAC 2024, arXiv:2404.08005 (from memory: the repository gives none)",
}


@flags.in_one_line
def main(words: Sequence[str] | None) -> None:
    """Read, hold out, fit, print, write."""
    args = arguments(words)
    start = time.perf_counter()
    torch.manual_seed(args.seed)
    centres = random_points(CENTRES, args.seed)
    points = features(centres)
    scaling = points.mean(axis=0), points.std(axis=0)
    codes, truth = read(args.data / "accel_nasbench.parquet")
    x, z = scaled(features(codes), scaling), scaled(points, scaling)
    fold = deal(codes.reshape(len(codes), -1), args.folds, args.seed)
    models, quality = {}, {}
    for name, values in truth.items():
        models[name], quality[name] = fit_and_judge(name, values, codes, x, z, fold, args.seed)
        print(row(name, quality[name]), flush=True)
    others, seeds = read_seeds(args.data / "accel_nasbench_multiseed.parquet")
    twice = [group for group in by_network(codes, truth["accuracy"])[1] if len(group) > 1]
    quality["accuracy"] |= repeats(twice + seeds)
    quality["accuracy"] |= multiseed(others, seeds, models["accuracy"], scaling)
    provenance = PROVENANCE | describe(args, len(codes))
    stored = pack(centres, models, quality, provenance)
    unpack(stored)  # what cannot be read back is not written
    np.savez_compressed(args.out, **stored)
    print(json.dumps(quality["accuracy"]))
    size, seconds = args.out.stat().st_size / 1e3, time.perf_counter() - start
    print(f"{args.out.name}: {size:.0f} kB, {seconds:.0f} s")


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = flags.parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the two tables")
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(words)


def genotypes(rows: list[Row]) -> Codes:
    """Return the (n, 7, 4) codes of a table's rows."""
    columns = [f"block{stage}_{gene}" for stage in range(7) for gene in ("e", "k", "l", "se")]
    codes = [[row[name] for name in columns] for row in rows]
    return np.asarray(codes, dtype=np.int64).reshape(-1, 7, 4)


def column(rows: list[Row], name: str) -> Array:
    """Return the numbers of a column; NaN: missing."""
    return np.array([row[name] for row in rows], dtype=np.float64)


def read(path: Path) -> tuple[Codes, dict[str, Array]]:
    """Return codes and what was observed: top-1 in percent, log of times in ms."""
    rows = read_rows(path)
    truth = {"accuracy": column(rows, "val_top1")}
    for device in DEVICES:
        truth[device] = np.log(1000 / column(rows, f"{device}_throughput_mean"))
    for device in MEASURED_LATENCY:
        truth[f"{device}_latency"] = np.log(column(rows, f"{device}_latency_mean"))
    return genotypes(rows), truth


def read_seeds(path: Path) -> tuple[Codes, list[Array]]:
    """Return the second table's networks, each with its three seeds under the proxy training."""
    rows = [row for row in read_rows(path) if row["scheme"] == "proxified"]
    return by_network(genotypes(rows), column(rows, "val_top1"))


def random_points(count: int, seed: int) -> Codes:
    """Return points drawn evenly from the space."""
    rng, size = np.random.default_rng(seed), (count, 7)
    genes = [rng.choice(EXPANSIONS, size), rng.choice(KERNELS, size)]
    genes += [rng.integers(1, np.array(MOST_LAYERS) + 1, size), rng.integers(0, 2, size)]
    return np.stack(genes, axis=2).astype(np.int64)


def fit_and_judge(
    name: str, values: Array, codes: Codes, x: Array, z: Array, fold: Codes, seed: int
) -> tuple[Any, dict[str, float]]:
    """Return the model of all rows, with its spread, and the figures of the fold models."""
    seen = ~np.isnan(values)
    codes, x, values, fold = codes[seen], x[seen], values[seen], fold[seen]

    def fitted(rows: npt.NDArray[np.bool_]) -> Any:
        if name == "accuracy":
            return fit_accuracy(x[rows], values[rows], z, seed)
        return fit_time(codes[rows], x[rows], values[rows], z)

    held = np.empty_like(values)
    for one in np.unique(fold):
        model = fitted(fold != one)
        at = fold == one
        held[at] = model(x[at]) if name == "accuracy" else model(codes[at], x[at])
    spread = fit_spread(x, values - held)
    return replace(fitted(fold >= 0), spread=spread), judge(name, values, held, x, fold)


def fit_accuracy(x: Array, top1: Array, z: Array, seed: int) -> Accuracy:
    """Return the sparse Gaussian process of these rows, its spread not yet known."""
    mean, deviation = float(top1.mean()), float(top1.std())
    y = (top1 - mean) / deviation
    inverse_length, signal, noise = fit_lengths(x, y, seed)
    noise *= NOISE_FACTOR
    kzx = signal * rbf(z * inverse_length, x * inverse_length)
    kzz = signal * rbf(z * inverse_length, z * inverse_length)
    inner = kzz + kzx @ kzx.T / noise + JITTER * signal * np.eye(len(z))
    weights = np.linalg.solve(inner, kzx @ y / noise) * signal * deviation
    return Accuracy(z, inverse_length, rounded(weights), mean, unknown(x))


def fit_lengths(x: Array, y: Array, seed: int) -> tuple[Array, float, float]:
    """Return inverse lengths, signal and noise variance: Adam on the log marginal likelihood.

    Each step sees other rows, so that all rows count at the price of SUBSET**3 a step.
    """
    rng = np.random.default_rng(seed)
    rows, targets = torch.tensor(x), torch.tensor(y)
    logs = [torch.full((x.shape[1],), -2.5), torch.tensor(2.0), torch.tensor(-4.0)]
    logs = [part.double().requires_grad_(True) for part in logs]
    adam = torch.optim.Adam(logs, lr=RATE, betas=(0.9, 0.99))
    cool = torch.optim.lr_scheduler.CosineAnnealingLR(adam, STEPS)
    for _ in range(STEPS):
        pick = torch.tensor(rng.permutation(len(y))[:SUBSET])
        adam.zero_grad()
        evidence(rows[pick], targets[pick], logs).backward()  # type: ignore[no-untyped-call]
        adam.step()
        cool.step()
    inverse, signal, noise = (part.detach().exp().numpy() for part in logs)
    return rounded(inverse), float(signal), float(noise)


def evidence(x: torch.Tensor, y: torch.Tensor, logs: list[torch.Tensor]) -> torch.Tensor:
    """Return the negative log marginal likelihood of a Gaussian process, less its constant."""
    inverse, signal, noise = (part.exp() for part in logs)
    a = x * inverse
    square = (a * a).sum(1)[:, None] + (a * a).sum(1) - 2 * a @ a.T
    kernel = signal * torch.exp(-0.5 * square) + noise * torch.eye(len(y), dtype=x.dtype)
    root = torch.linalg.cholesky(kernel)
    half = torch.linalg.solve_triangular(root, y[:, None], upper=False)
    loss: torch.Tensor = (half * half).sum() / 2 + root.diagonal().log().sum()
    return loss


def fit_time(codes: Codes, x: Array, log_time: Array, z: Array) -> Time:
    """Return the table of stages and its correction, the spread not yet known."""
    stages, constant = fit_table(codes, log_time)
    floor = float(np.exp(log_time.min()) / 2)
    few = z[:TIME_CENTRES]
    model = Time(stages, constant, floor, few, TIME_LENGTH, np.zeros(TIME_CENTRES), unknown(x))
    bumps = rbf(x / TIME_LENGTH, few / TIME_LENGTH)
    inner = bumps.T @ bumps + TIME_RIDGE * rbf(few / TIME_LENGTH, few / TIME_LENGTH)
    inner += 1e-8 * np.eye(TIME_CENTRES)
    weights = np.linalg.solve(inner, bumps.T @ (log_time - model.added(codes)))
    return replace(model, weights=rounded(weights))


def fit_table(codes: Codes, log_time: Array) -> tuple[Array, float]:
    """Return the ms of each option of each stage and a constant: least relative squares."""
    found = options(codes) + GRID * np.arange(7)
    design = np.zeros((len(codes), 7 * GRID + 1))
    design[np.arange(len(codes))[:, None], found] = 1
    design[:, -1] = 1
    observed = np.exp(log_time)
    weighed = design / observed[:, None] ** 2
    ridge = TABLE_RIDGE * np.mean(observed**-2) * np.eye(design.shape[1])
    times = rounded(np.linalg.solve(weighed.T @ design + ridge, weighed.T @ observed))
    return times[:-1].reshape(7, GRID), float(times[-1])


def fit_spread(x: Array, residual: Array) -> Spread:
    """Return the log-linear deviation under which normal residuals are likeliest."""
    design = np.c_[x, np.ones(len(x))]

    def loss(weights: Array) -> tuple[float, Array]:
        log = design @ weights
        ratio = (residual * np.exp(-log)) ** 2
        shrink = SPREAD_RIDGE * np.r_[weights[:-1], 0]
        slope = design.T @ (1 - ratio) / len(x) + 2 * shrink
        return float(np.mean(log + ratio / 2) + shrink @ weights), slope

    start = np.r_[np.zeros(x.shape[1]), np.log(residual.std())]
    return Spread(rounded(minimize(loss, start, jac=True, method="L-BFGS-B").x))


def judge(name: str, truth: Array, held: Array, x: Array, fold: Codes) -> dict[str, float]:
    """Return held-out figures: means over the folds, the spread of tau over them, coverage."""
    each = []
    for one in np.unique(fold):
        at, rest = fold == one, fold != one
        # the spread, too, is judged on rows that it was not fitted to
        ratio = (truth - held)[at] / fit_spread(x[rest], (truth - held)[rest])(x[at])
        each.append(figures(name, truth[at], held[at]) | coverage(ratio))
    means = {key: float(np.mean([one[key] for one in each])) for key in each[0]}
    taus = [one["tau"] for one in each]
    return means | {"tau_sd": float(np.std(taus, ddof=1)), "tau_min": min(taus), "n": len(truth)}


def figures(name: str, truth: Array, held: Array) -> dict[str, float]:
    """Return tau, R2 and RMSE in points, images/s or ms; for times MAPE in percent, log RMSE."""
    if name != "accuracy":
        log_rmse = float(np.sqrt(np.mean((held - truth) ** 2)))
        sign = -1 if name in DEVICES else 1
        scale = 1000 if name in DEVICES else 1
        truth, held = scale * np.exp(sign * truth), scale * np.exp(sign * held)
    error = held - truth
    found = {
        "tau": float(kendalltau(truth, held).statistic),
        "rmse": float(np.sqrt(np.mean(error**2))),
        "r2": float(1 - np.mean(error**2) / np.var(truth)),
    }
    if name != "accuracy":
        found["mape"] = float(100 * np.mean(np.abs(error) / truth))
        found["log_rmse"] = log_rmse
    return found


def coverage(ratio: Array) -> dict[str, float]:
    """Return the shares of residuals within 1 and 1.96 deviations: 0.683 and 0.95 if right."""
    return {f"within_{c}": float(np.mean(np.abs(ratio) < k)) for c, k in ((68, 1.0), (95, 1.96))}


def repeats(groups: list[Array]) -> dict[str, float]:
    """Return the deviation of one training from another of the same network, percent points."""
    top = [group for group in groups if group.mean() > 62]
    found = {"repeat_sd": pooled(groups), "repeat_n": len(groups)}
    return found | {"repeat_sd_above_62": pooled(top), "repeat_n_above_62": len(top)}


def pooled(groups: list[Array]) -> float:
    """Return the pooled standard deviation within groups."""
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    return float(np.sqrt(squares / sum(len(group) - 1 for group in groups)))


def by_network(codes: Codes, top1: Array) -> tuple[Codes, list[Array]]:
    """Return the distinct networks and the accuracies of each."""
    rows = codes.reshape(len(codes), -1)
    distinct, network = np.unique(rows, axis=0, return_inverse=True)
    groups = [top1[network.ravel() == n] for n in range(len(distinct))]
    return distinct.reshape(-1, 7, 4), groups


def multiseed(
    networks: Codes, groups: list[Array], model: Accuracy, scaling: tuple[Array, Array]
) -> dict[str, float]:
    """Return the shipped model's figures on other networks, against the means of their seeds."""
    x = scaled(features(networks), scaling)
    held, mean = model(x), np.array([group.mean() for group in groups])
    error = [group - one for group, one in zip(groups, held, strict=True)]
    ratio = [part / one for part, one in zip(error, model.spread(x), strict=True)]
    found = figures("accuracy", mean, held) | {"bias": float(np.mean(held - mean))}
    found |= coverage(np.concatenate(ratio)) | {"n": len(networks)}
    found["rmse_one"] = float(np.sqrt(np.mean(np.concatenate(error) ** 2)))
    return {f"multiseed_{key}": value for key, value in found.items()}


def pack(
    centres: Codes, models: dict[str, Any], quality: dict[str, Any], provenance: dict[str, Any]
) -> dict[str, Any]:
    """Return the arrays of the npz file; `surrogate.unpack` reads them."""
    accuracy, times = models["accuracy"], [models[name] for name in TIMES]
    return {
        "centres": centres.astype(np.uint8),
        "inverse_length": np.array(accuracy.inverse_length, np.float32),
        "weights": np.array(accuracy.weights, np.float32),
        "constant": np.array(accuracy.constant, np.float64),
        "spread": np.array(accuracy.spread.weights, np.float32),
        "time_stages": np.array([model.stages for model in times], np.float32),
        "time_constant": np.array([model.constant for model in times], np.float64),
        "time_floor": np.array([model.floor for model in times], np.float64),
        "time_length": np.array(TIME_LENGTH, np.float64),
        "time_weights": np.array([model.weights for model in times], np.float32),
        "time_spread": np.array([model.spread.weights for model in times], np.float32),
        "quality": np.array(json.dumps(quality)),
        "provenance": np.array(json.dumps(provenance)),
    }


def describe(args: argparse.Namespace, rows: int) -> dict[str, Any]:
    """Return when and how this file was made; no path of this machine."""
    flags = f"--data accel_nasbench --folds {args.folds} --seed {args.seed}"
    return {
        "rows": rows,
        "date": datetime.date.today().isoformat(),
        "command": f"python scripts/fit_surrogate.py {flags}",
        "versions": f"numpy {np.__version__}, torch {torch.__version__}",
    }


def rounded(values: npt.NDArray[Any]) -> Array:
    """Return what the file will hold, so that the judged models are the ones stored."""
    return values.astype(np.float32).astype(np.float64)


def unknown(x: Array) -> Spread:
    """Return a spread of 1 for a model that has not been judged yet."""
    return Spread(np.zeros(x.shape[1] + 1))


def row(name: str, found: dict[str, float]) -> str:
    """Return one line of the table."""
    mape = f"{found['mape']:6.2f} %" if "mape" in found else "       -"
    return (
        f"{name:15} n {found['n']:4}  tau {found['tau']:.4f} ± {found['tau_sd']:.4f}  "
        f"RMSE {found['rmse']:8.3f}  R2 {found['r2']:.4f}  MAPE {mape}  "
        f"within 1 sd {found['within_68']:.3f}, 1.96 sd {found['within_95']:.3f}"
    )


if __name__ == "__main__":
    main()
