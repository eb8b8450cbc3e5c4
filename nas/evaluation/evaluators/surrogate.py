"""Predict an arch without training it: ImageNet *proxy* top-1 and the speed on six devices.

Coefficients fitted to Accel-NASBench (`scripts/fit_surrogate.py`, `surrogate.npz`); no row of that
table is here. It knows one space: EfficientNet-B0's skeleton with free expansion, kernel, layers
and squeeze-and-excitation in each of the seven stages, 1e11 networks.

Accuracy is the mean of a sparse Gaussian process whose centres are random networks. The time of a
network is a sum over its stages, corrected by the same kind of kernel expansion in log space.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.core.errors import EvaluatorError, OptionError, did_you_mean
from nas.evaluation.skeleton import Array, Codes, encode, features, misfit, options
from nas.models.arch import Arch

FILE = Path(__file__).with_suffix(".npz")
DEVICES = ("a100", "rtx3090", "tpuv2", "tpuv3", "zcu102", "vck190")
MEASURED_LATENCY = ("zcu102", "vck190")
# what a time is predicted for, in ms: 1000 / throughput, and the latency where it was measured
TIMES = DEVICES + tuple(f"{device}_latency" for device in MEASURED_LATENCY)


def make(*, device: str | None = None, noise: float = 0.0, seed: int = 0) -> Surrogate:
    """Return the surrogate of Accel-NASBench: proxy top-1 and, for a device, its speed.

    Options:
        device: a100, rtx3090, tpuv2, tpuv3, zcu102 or vck190; adds `throughput` (images/s),
            `latency_ms` and `latency_ms_std`. Latency was measured on zcu102 and vck190; for the
            others it is 1000 / throughput: the time per image at the benchmark's batch size, not
            the time one image waits.
        noise: standard deviation, in percent points, of a fixed draw added to each arch's accuracy
            to imitate one training (the table repeats within 0.2 to 0.4; 0: the prediction).
        seed: which draw.

    Raises:
        OptionError: an unknown device or a negative noise.
    """
    if device is not None and device not in DEVICES:
        raise OptionError(
            f"no device {device!r} in the surrogate{did_you_mean(device, DEVICES)}; "
            f"it knows {', '.join(DEVICES)}"
        )
    if not 0 <= noise < 100:
        raise OptionError(f"noise is a standard deviation of 0 to 100 points, not {noise!r}")
    return Surrogate(_load(), device=device, noise=noise, seed=seed)


@dataclass(frozen=True)
class Spread:
    """One standard deviation of what is observed around a prediction: log-linear in features."""

    weights: Array  # (features + 1,), the constant last

    def __call__(self, x: Array) -> Array:
        log: Array = x @ self.weights[:-1] + self.weights[-1]
        return np.exp(log)


@dataclass(frozen=True)
class Accuracy:
    """Proxy top-1 in percent: a constant plus one Gaussian bump per centre."""

    centres: Array  # (m, features)
    inverse_length: Array  # (features,), one per feature
    weights: Array  # (m,)
    constant: float
    spread: Spread

    def __call__(self, x: Array) -> Array:
        bumps = rbf(x * self.inverse_length, self.centres * self.inverse_length)
        top1: Array = self.constant + bumps @ self.weights
        return top1


@dataclass(frozen=True)
class Time:
    """Log of a time in ms: the stages' times added up, then corrected for what does not add up.

    What does not add up is an accelerator that waits for its input: the fastest networks share a
    ceiling. The spread is of the log, thus relative.
    """

    stages: Array  # (7, GRID) ms
    constant: float  # ms: stem, head, input
    floor: float  # ms; no sum is taken to be faster than this
    centres: Array
    length: float
    weights: Array
    spread: Spread

    def added(self, codes: Codes) -> Array:
        """Return the log of the added-up times alone."""
        total: Array = self.constant + self.stages[np.arange(7), options(codes)].sum(axis=1)
        return np.log(np.maximum(total, self.floor))

    def __call__(self, codes: Codes, x: Array) -> Array:
        bumps = rbf(x / self.length, self.centres / self.length)
        log: Array = self.added(codes) + bumps @ self.weights
        return log


@dataclass(frozen=True)
class CostCoefficients:
    """Everything in surrogate.npz, ready to use."""

    scaling: tuple[Array, Array]
    accuracy: Accuracy
    times: dict[str, Time]
    quality: dict[str, dict[str, float]]
    provenance: dict[str, Any]


class Surrogate:
    """The evaluator. `title`, `noise_sd` and `quality` say how far to trust it.

    `noise_sd`: deviation between trainings of one network over the table's space, percent points;
    `quality["accuracy"]["repeat_sd_above_62"]` is the one that good networks have. `quality` holds
    the held-out figures of each metric: accuracy, each device's throughput, measured latencies.
    """

    def __init__(
        self, fitted: CostCoefficients, *, device: str | None, noise: float, seed: int
    ) -> None:
        self._fitted, self._device, self._noise, self._seed = fitted, device, noise, seed
        self.quality, self.provenance = fitted.quality, fitted.provenance
        self.noise_sd = fitted.quality["accuracy"]["repeat_sd"]
        self.title = _title(fitted.quality, device)

    def check(self, arch: Arch) -> None:
        """Do nothing if the arch lies in the table's space.

        Raises:
            EvaluatorError: it does not; the message names the rule it breaks.
        """
        if reason := misfit(arch):
            raise EvaluatorError(reason)

    def evaluate(self, arch: Arch, *, seed: int = 0) -> dict[str, float]:
        """Return `accuracy` (proxy top-1, percent), `accuracy_std` and the device's metrics.

        Each `_std` is one standard deviation of what one training or one measurement of this arch
        would show around the prediction, its repeat noise included.
        Dropout, stochastic depth and the name do not matter.

        Raises:
            EvaluatorError: the arch lies outside the space; the message names the rule.
        """
        if reason := misfit(arch):
            raise EvaluatorError(reason)
        found = self.predict(encode(arch)[None])
        metrics = {name: float(values[0]) for name, values in found.items()}
        metrics["accuracy"] += self._noise * _draw(f"{arch.id}/{self._seed}/{seed}")
        return metrics

    def predict(self, codes: npt.ArrayLike) -> dict[str, Array]:
        """Return the metrics of many points (n, 7, 4), each stage as (expansion, kernel, layers,
        se 0 or 1), without the noise option. The codes are not checked.
        """
        every = np.asarray(codes, dtype=np.int64)
        # in pieces, so that the (points x centres) matrix stays small
        starts = range(0, max(len(every), 1), 500)
        pieces = [self._piece(every[start : start + 500]) for start in starts]
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    def _piece(self, points: Codes) -> dict[str, Array]:
        x = scaled(features(points), self._fitted.scaling)
        accuracy = self._fitted.accuracy
        found = {"accuracy": accuracy(x), "accuracy_std": accuracy.spread(x)}
        return found | (self._speed(self._device, points, x) if self._device else {})

    def _speed(self, device: str, codes: Codes, x: Array) -> dict[str, Array]:
        times = self._fitted.times
        per_image = np.exp(times[device](codes, x))
        waiting = times.get(f"{device}_latency")
        latency = np.exp(waiting(codes, x)) if waiting else per_image
        spread = (waiting or times[device]).spread(x)
        return {
            "latency_ms": latency,
            "latency_ms_std": latency * spread,
            "throughput": 1000 / per_image,
        }


def scaled(x: Array, scaling: tuple[Array, Array]) -> Array:
    """Return features with mean 0 and deviation 1 over the space."""
    mean, deviation = scaling
    return np.asarray((x - mean) / deviation, dtype=np.float64)


def rbf(a: Array, b: Array) -> Array:
    """Return exp(-d**2 / 2) for the distances d between the rows of `a` and of `b`."""
    square: Array = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1) - 2 * (a @ b.T)
    return np.exp(np.maximum(square, 0) * -0.5)


def _title(quality: dict[str, dict[str, float]], device: str | None) -> str:
    held = quality["accuracy"]
    text = (
        "Accel-NASBench surrogate: ImageNet proxy top-1, not full training (EfficientNet-B0 gets "
        f"about 65 here, not 77); held-out tau {held['tau']:.3f}, RMSE {held['rmse']:.2f} points"
    )
    if device is None:
        return text
    kind = "measured" if device in MEASURED_LATENCY else "1000 / throughput, per image"
    key = f"{device}_latency" if device in MEASURED_LATENCY else device
    mape = quality[key]["mape"]
    return f"{text}; {device} latency ({kind}), held-out error {mape:.1f} %"


def _draw(key: str) -> float:
    """Return the standard normal number that belongs to `key`, the same on every machine."""
    digest = hashlib.blake2b(key.encode(), digest_size=6).digest()
    return NormalDist().inv_cdf((int.from_bytes(digest, "big") + 0.5) / 2**48)


@cache
def _load() -> CostCoefficients:
    """Return the coefficients in surrogate.npz, read once per process."""
    with np.load(FILE, allow_pickle=False) as file:
        return unpack({name: file[name] for name in file.files})


def unpack(stored: dict[str, Any]) -> CostCoefficients:
    """Return the coefficients from the arrays of an npz file; `pack` in the script writes them."""
    points = features(stored["centres"].astype(np.int64))
    scaling = points.mean(axis=0), points.std(axis=0)
    centres = scaled(points, scaling)
    get = {
        key: array.astype(np.float64) for key, array in stored.items() if array.dtype.kind == "f"
    }
    spread, constant = Spread(get["spread"]), float(get["constant"])
    accuracy = Accuracy(centres, get["inverse_length"], get["weights"], constant, spread)
    few = centres[: get["time_weights"].shape[1]]
    times = {
        name: Time(
            stages=get["time_stages"][i],
            constant=float(get["time_constant"][i]),
            floor=float(get["time_floor"][i]),
            centres=few,
            length=float(get["time_length"]),
            weights=get["time_weights"][i],
            spread=Spread(get["time_spread"][i]),
        )
        for i, name in enumerate(TIMES)
    }
    quality, provenance = (json.loads(str(stored[key])) for key in ("quality", "provenance"))
    return CostCoefficients(scaling, accuracy, times, quality, provenance)
