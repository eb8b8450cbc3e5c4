"""Features of a point for the surrogate model: its choices encoded, and its counted costs.

Numbers are encoded by their rank among the options, words one-hot; then come the logs of each
stage's multiply-adds, and of the network's multiply-adds, parameters and activations. Columns of
one kind (`block1_kernel`, `block2_kernel`) share a group, thus a length scale.
"""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from nas.core.errors import ArchError
from nas.interfaces import Choices, Metrics, Option, Space
from nas.models.cost import sections
from nas.models.points import decode
from nas.searching.constraints import constraint_violation
from nas.searching.gp.gaussian import Array, Inputs
from nas.searching.objective import Objective
from nas.searching.samplers import Key, Prior, key_of, no_prior, sample_feasible

SAMPLE_SIZE = 500  # random points by which features are standardized
CACHE_SIZE = 20_000  # points of the cache, of some 2 kB each
MAX_HOMOGENEOUS = 1000  # homogeneous points, above which none are listed
COUNTED = 3  # costs of a network: flops, params, activations
Columns = Mapping[Option, tuple[float, ...]]  # of one choice: the encoding of each option


class CountedPoint(NamedTuple):
    """The encoding of a point and the costs of its network, counted without an evaluation."""

    # encoded choices; logs of the costs, then of each stage's multiply-adds. A tuple of numbers is
    # skipped by Python's garbage collector, which would walk through a list of each point
    raw: tuple[float, ...]
    metrics: Metrics  # flops, params, activations


class PointFeatures:
    """Features of the points of one space, standardized; the costs of a point are cached."""

    def __init__(self, space: Space, prior: Prior = no_prior) -> None:
        self._space, self._prior = space, prior
        self._points: dict[Key, CountedPoint | None] = {}
        self._columns = {name: _columns(options) for name, options in space.choices.items()}
        read = [kind_of(n) for n, each in self._columns.items() for _ in next(iter(each.values()))]
        rng = random.Random(0)
        valid = constraint_violation(space, Objective())
        drawn = (sample_feasible(space, rng, valid) for _ in range(SAMPLE_SIZE))
        sample = [choices for choices in drawn if self.counted(choices)]
        self._width = max((len(self._require(choices).raw) for choices in sample), default=0)
        self._width = self._width or len(read) + COUNTED
        nothing = np.zeros((1, self._width)), np.zeros(1)
        raw, prior_values = (self._raw(sample), prior(sample)) if sample else nothing
        spread = raw.std(axis=0)
        # where no feature differs, or no drawn point is a network, all are taken as they are
        self._used = (spread > 1e-9) | (spread.max() <= 1e-9)
        self._mean = raw.mean(axis=0)[self._used]
        self._scale = np.where(spread > 1e-9, spread, 1.0)[self._used]
        self._prior_scale = float(prior_values.mean()), float(prior_values.std()) or 1.0
        kinds = [*read, "flops", "params", "activations"]
        kinds += ["stage flops"] * (self._width - len(kinds))
        used = [kind for kind, use in zip(kinds, self._used, strict=True) if use]
        self._groups = np.array([list(dict.fromkeys(used)).index(kind) for kind in used])

    def counted(self, choices: Choices, key: Key | None = None) -> CountedPoint | None:
        """Return the encoding and costs of a point, None where it is no network.

        `key`: that of the point, where it is at hand.
        """
        key = key or key_of(choices)
        if key not in self._points:
            if len(self._points) >= CACHE_SIZE:
                self._points.clear()
            self._points[key] = _count(self._space, self._columns, choices)
        return self._points[key]

    def inputs(self, points: Sequence[Choices]) -> Inputs:
        """Return the inputs of a Gaussian process for points, all of them networks."""
        features = (self._raw(points)[:, self._used] - self._mean) / self._scale
        mean, scale = self._prior_scale
        return Inputs(features, self._groups, (self._prior(points) - mean) / scale)

    def _require(self, choices: Choices) -> CountedPoint:
        found = self.counted(choices)
        assert found, f"{choices} is no network"
        return found

    def _raw(self, points: Sequence[Choices]) -> Array:
        found = [_pad(self._require(choices).raw, self._width) for choices in points]
        return np.array(found, dtype=np.float64).reshape(len(found), self._width)


def kind_of(name: str) -> str:
    """Return the kind of a choice, without its stage: `block_kernel` of `block3_kernel`."""
    return re.sub(r"\d+", "", name)


def homogeneous_points(space: Space) -> list[Choices]:
    """Return the points whose stages all take the same option of each kind.

    As one kernel and one expansion everywhere. None where there are more than MOST_PLAIN.
    """
    sizes: dict[str, int] = {}
    for name, options in space.choices.items():
        sizes[kind_of(name)] = max(len(options), sizes.get(kind_of(name), 0))
    if math.prod(sizes.values()) > MAX_HOMOGENEOUS:
        return []
    found = []
    for places in itertools.product(*map(range, sizes.values())):
        at = dict(zip(sizes, places, strict=True))
        found.append({n: o[min(at[kind_of(n)], len(o) - 1)] for n, o in space.choices.items()})
    return found


def _columns(options: Sequence[Option]) -> Columns:
    """Return the encoding of each option of a choice: its rank, or of words one-hot."""
    if any(isinstance(option, str) for option in options):
        return {one: tuple(float(one == option) for option in options) for one in options}
    return {option: (float(rank),) for rank, option in enumerate(sorted(options))}


def _count(space: Space, columns: Mapping[str, Columns], choices: Choices) -> CountedPoint | None:
    try:
        parts = sections(decode(space, choices))
    except ArchError:
        return None
    flops = params = activations = 0
    for part in parts:
        flops, params = flops + part.flops, params + part.params
        activations += part.activations
    stages = [math.log1p(part.flops) for part in parts[1:-1]]
    chosen = [value for name, read in columns.items() for value in read[choices[name]]]
    logs = (math.log(flops), math.log(params), math.log1p(activations))
    metrics: Metrics = {"flops": flops, "params": params, "activations": activations}
    return CountedPoint((*chosen, *logs, *stages), metrics)


def _pad(values: tuple[float, ...], width: int) -> tuple[float, ...]:
    """Pad with zeros to a width: the points of a space may differ in their number of stages."""
    return values[:width] + (0.0,) * (width - len(values))
