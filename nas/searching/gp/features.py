"""What a model of accuracy sees of a point: its choices in order, and what its network costs.

Numbers are taken by their rank among the options, words as one column each; then the logs of each
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
from nas.searching.constraints import excess
from nas.searching.gp.gaussian import Array, Rows
from nas.searching.objective import Objective
from nas.searching.samplers import Key, Prior, allowed_choices, key_of, no_prior

SAMPLE = 500  # random points that tell how large a feature is in a space
REMEMBERED = 20_000  # points, of some 2 kB each
MOST_PLAIN = 1000  # points whose stages are alike, that are looked at
COUNTED = 3  # costs of a network: flops, params, activations
Columns = Mapping[Option, tuple[float, ...]]  # of one choice: what each option is in numbers


class Seen(NamedTuple):
    """What is known of a point without an evaluation: its own columns and costs, and the costs."""

    # what is chosen; the logs of what the network costs, then of each stage. A tuple of numbers is
    # nothing to Python's garbage collector, which would walk through a list of each point
    raw: tuple[float, ...]
    metrics: Metrics  # flops, params, activations


class Features:
    """The features of the points of one space; what a point costs is remembered."""

    def __init__(self, space: Space, prior: Prior = no_prior) -> None:
        self._space, self._prior = space, prior
        self._points: dict[Key, Seen | None] = {}
        self._columns = {name: _columns(options) for name, options in space.choices.items()}
        read = [kind_of(n) for n, each in self._columns.items() for _ in next(iter(each.values()))]
        rng = random.Random(0)
        valid = excess(space, Objective())
        drawn = (allowed_choices(space, rng, valid) for _ in range(SAMPLE))
        sample = [choices for choices in drawn if self.seen(choices)]
        self._width = max((len(self._known(choices).raw) for choices in sample), default=0)
        self._width = self._width or len(read) + COUNTED
        nothing = np.zeros((1, self._width)), np.zeros(1)
        raw, believed = (self._raw(sample), prior(sample)) if sample else nothing
        spread = raw.std(axis=0)
        # where no feature differs, or no drawn point is a network, all are taken as they are
        self._used = (spread > 1e-9) | (spread.max() <= 1e-9)
        self._mean = raw.mean(axis=0)[self._used]
        self._scale = np.where(spread > 1e-9, spread, 1.0)[self._used]
        self._believed = float(believed.mean()), float(believed.std()) or 1.0
        kinds = [*read, "flops", "params", "activations"]
        kinds += ["stage flops"] * (self._width - len(kinds))
        used = [kind for kind, use in zip(kinds, self._used, strict=True) if use]
        self._groups = np.array([list(dict.fromkeys(used)).index(kind) for kind in used])

    def seen(self, choices: Choices, key: Key | None = None) -> Seen | None:
        """Return what a point costs, None where it is no network; `key`: of it, where known."""
        key = key or key_of(choices)
        if key not in self._points:
            if len(self._points) >= REMEMBERED:
                self._points.clear()
            self._points[key] = _look(self._space, self._columns, choices)
        return self._points[key]

    def rows(self, points: Sequence[Choices]) -> Rows:
        """Return points, all of them networks, as a process sees them."""
        features = (self._raw(points)[:, self._used] - self._mean) / self._scale
        mean, scale = self._believed
        return Rows(features, self._groups, (self._prior(points) - mean) / scale)

    def _known(self, choices: Choices) -> Seen:
        found = self.seen(choices)
        assert found, f"{choices} is no network"
        return found

    def _raw(self, points: Sequence[Choices]) -> Array:
        found = [_filled(self._known(choices).raw, self._width) for choices in points]
        return np.array(found, dtype=np.float64).reshape(len(found), self._width)


def kind_of(name: str) -> str:
    """Return what the choices of all stages share: `block_kernel` of `block3_kernel`."""
    return re.sub(r"\d+", "", name)


def plain_points(space: Space) -> list[Choices]:
    """Return the points whose choices of a kind all have the same place among their options.

    Such as one kernel and one expansion everywhere. None where there are more than MOST_PLAIN.
    """
    sizes: dict[str, int] = {}
    for name, options in space.choices.items():
        sizes[kind_of(name)] = max(len(options), sizes.get(kind_of(name), 0))
    if math.prod(sizes.values()) > MOST_PLAIN:
        return []
    found = []
    for places in itertools.product(*map(range, sizes.values())):
        at = dict(zip(sizes, places, strict=True))
        found.append({n: o[min(at[kind_of(n)], len(o) - 1)] for n, o in space.choices.items()})
    return found


def _columns(options: Sequence[Option]) -> Columns:
    """Return what each option of a choice is: its rank, or of words one column each."""
    if any(isinstance(option, str) for option in options):
        return {one: tuple(float(one == option) for option in options) for one in options}
    return {option: (float(rank),) for rank, option in enumerate(sorted(options))}


def _look(space: Space, columns: Mapping[str, Columns], choices: Choices) -> Seen | None:
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
    return Seen((*chosen, *logs, *stages), metrics)


def _filled(values: tuple[float, ...], width: int) -> tuple[float, ...]:
    """Return so many values: the points of a space may differ in their number of stages."""
    return values[:width] + (0.0,) * (width - len(values))
