"""Landscapes to compare controllers on: what is searched, what is true, how high it goes.

Three kinds: the embedded evaluator on the space mbconv with the noise of one training, a table
that is made up from a seed (every point of synthetic_space.py), and a table of the user's.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import random
import statistics
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import combinations, product
from pathlib import Path
from typing import Any, NamedTuple

from nas.core import registry
from nas.core.errors import ArchError
from nas.interfaces import Choices, EvaluatorSpec, Metrics, Space
from nas.models.arch import Arch
from nas.models.points import cost_metrics, decode
from nas.searching.objective import Bound, Objective, hypervolume, make_objective, reward
from nas.searching.samplers import random_choices

EMBEDDED, SYNTHETIC, PARETO, PLAIN = "embedded", "synthetic", "pareto", "accuracy"
SPACE = str(Path(__file__).with_name("synthetic_space.py"))
TARGET = 400_000_000  # multiply-adds, of the embedded landscape
SEEDS = 20  # trainings of each network in the synthetic table
# its accuracies, in points: where large networks end, what the smallest lack, by how many e-folds
# of FLOPs that shrinks to a third; deviations of what an option and what a pair of options adds
HIGHEST, SPAN, SCALE, LEAST = 92.0, 30.0, 1.0, 1.5e6
OWN, BOTH = 0.08, 0.03
SMALL = 50_000  # points up to which a space is enumerated
FEW = 2000  # points drawn of a larger one, for its usual costs
STARTS, KICKS, KICKED = 12, 200, 3  # of the local search, and choices that a kick changes
TARGETS = 24  # of the local searches that look for a front


class Landscape(NamedTuple):
    """`target`: multiply-adds. `digest`: of what accuracies come from."""

    name: str
    space: str
    evaluator: str
    options: tuple[tuple[str, Any], ...]
    target: float
    noise: str
    digest: str


class Ceiling(NamedTuple):
    """The best true reward, or the area under the best front above `reference`.

    `how`: a line on how it was found.
    """

    value: float
    how: str
    reference: tuple[float, float] = (0.0, 0.0)


def embedded(noise: float) -> Landscape:
    """Return the embedded evaluator with a fixed normal draw for each arch."""
    digest = _digest(registry.load("evaluators", "surrogate").FILE)
    options = (("noise", noise),)
    return Landscape(EMBEDDED, "mbconv", "surrogate", options, TARGET, f"{noise:g}", digest)


def synthetic(folder: Path, noise: float) -> Landscape:
    """Return the made-up table, written into the folder unless it is there."""
    path = folder / f"synthetic-{noise:g}.csv"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        _write(unfinished, noise)
        unfinished.replace(path)
    return of_table(path, SPACE, None)._replace(name=SYNTHETIC, noise=f"{noise:g}")


def of_table(path: Path, space: str, target: float | None) -> Landscape:
    """Return the landscape of a table; by default half of its networks are below the target.

    Raises:
        OptionError: no such table or space, or one that does not hold the other.
    """
    options = (("path", str(path)), ("space", space))
    registry.make("evaluators", "table", options=dict(options))
    if target is None:
        target = float(f"{statistics.median(_some_flops(space)):.2g}")
    return Landscape(path.stem, space, "table", options, target, "", _digest(path))


def space_of(name: str) -> Space:
    """Return a space by its name or path."""
    space: Space = registry.export("spaces", name, "SPACE")
    return space


def work_of(landscape: Landscape, seed: int) -> EvaluatorSpec:
    """Return what a search with that seed evaluates with."""
    options = dict(landscape.options)
    return EvaluatorSpec(
        landscape.evaluator, options | ({"seed": seed} if "noise" in options else {})
    )


def objective_of(landscape: Landscape, name: str) -> Objective:
    """Return the objective of a reward at the landscape's target; of a front accuracy alone."""
    if name in (PARETO, PLAIN):
        return Objective()
    return make_objective(name, None, (Bound("flops", landscape.target),), ())


@lru_cache(maxsize=8)
def truth_of(landscape: Landscape) -> Callable[[Arch], Metrics]:
    """Return what gives the true accuracy of an arch, in percent, and its counted costs."""
    options = {name: value for name, value in landscape.options if name != "noise"}
    evaluator = registry.make("evaluators", landscape.evaluator, options=options)

    def truth(arch: Arch) -> Metrics:
        if landscape.evaluator == "table":
            return {"accuracy": evaluator.truth(arch), **cost_metrics(arch)}
        return {"accuracy": evaluator.evaluate(arch)["accuracy"], **cost_metrics(arch)}

    return truth


def ceiling(landscape: Landscape, name: str, folder: Path) -> Ceiling:
    """Return how high a landscape goes; what had to be searched for is kept in the folder."""
    space = space_of(landscape.space)
    if space.size <= SMALL:
        return _enumerated(landscape, name)
    path, key = folder / "ceilings.json", f"{landscape.name} {name} {landscape.target:g}"
    kept = json.loads(path.read_text()) if path.exists() else {}
    key += f" {landscape.digest} {STARTS} {KICKS} {TARGETS}"
    if key not in kept:
        search = _front_climbed if name == PARETO else _climbed
        folder.mkdir(parents=True, exist_ok=True)
        kept[key] = search(landscape, name)
        path.write_text(json.dumps(kept, indent=1))
    value, how, reference = kept[key]
    return Ceiling(value, how, (reference[0], reference[1]))


def area(points: Sequence[Metrics], reference: tuple[float, float]) -> float:
    """Return the hypervolume of points, in percent points × e-folds of multiply-adds.

    The logarithm, so that a tenth less cost counts the same for small networks and large ones.
    """
    return hypervolume([_pair(metrics) for metrics in points], reference)


def _pair(metrics: Metrics) -> tuple[float, float]:
    return metrics["accuracy"], -math.log(metrics["flops"])


def _enumerated(landscape: Landscape, name: str) -> Ceiling:
    every = _every(landscape)
    how = f"all {len(every):,} points were looked at"
    if name == PARETO:
        reference = _reference(every)
        return Ceiling(area(every, reference), how, reference)
    objective = objective_of(landscape, name)
    return Ceiling(max(reward(metrics, objective) for metrics in every), how)


@lru_cache(maxsize=4)
def _every(landscape: Landscape) -> list[Metrics]:
    """Return the true metrics of every valid point of a small space."""
    space, truth, found = space_of(landscape.space), truth_of(landscape), []
    for values in product(*space.choices.values()):
        try:
            arch = decode(space, dict(zip(space.choices, values, strict=True)))
        except ArchError:
            continue
        found.append(truth(arch))
    return found


def _reference(points: Sequence[Metrics]) -> tuple[float, float]:
    """Return the worst accuracy and the highest cost: what a front is measured from."""
    pairs = [_pair(metrics) for metrics in points]
    return min(accuracy for accuracy, _ in pairs), min(cost for _, cost in pairs)


class _Climb:
    """Iterated local search on what is true; every point that it looked at is kept."""

    def __init__(self, landscape: Landscape) -> None:
        self._space, self._truth = space_of(landscape.space), truth_of(landscape)
        self._rng, self.seen = random.Random(0), dict[tuple[Any, ...], Metrics | None]()

    def best(self, objective: Objective, kicks: int) -> float:
        """Return what one start comes to after so many kicks that were climbed from."""
        choices = random_choices(self._space, self._rng)
        choices, height = self._up(choices, objective)
        for _ in range(kicks):
            other, there = self._up(self._kicked(choices), objective)
            if there >= height:
                choices, height = other, there
        return height

    def _up(self, choices: Choices, objective: Objective) -> tuple[Choices, float]:
        height, climbing = self._height(choices, objective), True
        while climbing:
            climbing, steps = False, self._steps(choices)
            self._rng.shuffle(steps)
            for name, option in steps:
                nearer = {**choices, name: option}
                if (there := self._height(nearer, objective)) > height:
                    choices, height, climbing = nearer, there, True
        return choices, height

    def _steps(self, choices: Choices) -> list[tuple[str, Any]]:
        pairs = ((n, o) for n, options in self._space.choices.items() for o in options)
        return [(name, option) for name, option in pairs if choices[name] != option]

    def _kicked(self, choices: Choices) -> Choices:
        names = self._rng.sample(list(choices), min(KICKED, len(choices)))
        return {**choices, **{n: self._rng.choice(list(self._space.choices[n])) for n in names}}

    def _height(self, choices: Choices, objective: Objective) -> float:
        key = tuple(choices.values())
        if key not in self.seen:
            try:
                self.seen[key] = self._truth(decode(self._space, choices))
            except ArchError:
                self.seen[key] = None
        metrics = self.seen[key]
        return -math.inf if metrics is None else reward(metrics, objective)


def _climbed(landscape: Landscape, name: str) -> Ceiling:
    objective = objective_of(landscape, name)
    climb = _Climb(landscape)
    found = [climb.best(objective, KICKS) for _ in range(STARTS)]
    top = max(found)
    ends = sum(value > top - 0.01 for value in found)
    how = f"{ends} of {STARTS} local searches with {KICKS} kicks each end within 0.01 of it"
    return Ceiling(top, how)


def _front_climbed(landscape: Landscape, name: str) -> Ceiling:
    """Return the front of all that local searches for many targets have looked at."""
    climb = _Climb(landscape)
    flops = _some_flops(landscape.space)
    low, high = math.log(min(flops)), math.log(max(flops))
    for step in range(TARGETS):
        target = math.exp(low + (high - low) * step / (TARGETS - 1))
        climb.best(make_objective("hard", None, (Bound("flops", target),), ()), KICKS)
    every = [metrics for metrics in climb.seen.values() if metrics]
    reference = _reference(every)
    how = f"the front of {len(every):,} points that local searches for {TARGETS} targets looked at"
    return Ceiling(area(every, reference), how, reference)


@lru_cache(maxsize=4)
def _some_flops(name: str) -> list[float]:
    """Return the multiply-adds of some points of a space."""
    space = space_of(name)
    return [cost_metrics(decode(space, point))["flops"] for point in _some_points(space)]


def _some_points(space: Space) -> list[Choices]:
    """Return all points of a small space, else some thousand at random; valid ones."""
    if space.size <= SMALL:
        every = product(*space.choices.values())
        points = [dict(zip(space.choices, values, strict=True)) for values in every]
    else:
        rng = random.Random(0)
        points = [random_choices(space, rng) for _ in range(FEW)]
    return [point for point in points if not space.valid or space.valid(point)]


def _write(path: Path, noise: float) -> None:
    """Write the synthetic table: it is a function of its seed and of the noise.

    True accuracy: what saturates with log FLOPs, and fixed draws for each option and each pair.
    """
    space, rng = space_of(SPACE), random.Random(0)
    own = {(n, o): rng.gauss(0, OWN) for n, options in space.choices.items() for o in options}
    pairs = {pair: rng.gauss(0, BOTH) for pair in combinations(own, 2)}
    names = [*space.choices, "true", *(f"accuracy_{seed}" for seed in range(SEEDS))]
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        for values in product(*space.choices.values()):
            chosen = list(zip(space.choices, values, strict=True))
            flops = cost_metrics(space.decode(dict(chosen)))["flops"]
            size = HIGHEST - SPAN * math.exp(-math.log(flops / LEAST) / SCALE)
            taste = sum(own[one] for one in chosen) + sum(pairs[p] for p in combinations(chosen, 2))
            true = size + taste
            seen = (true + rng.gauss(0, noise) for _ in range(SEEDS))
            writer.writerow([*values, *(f"{value:.4f}" for value in (true, *seen))])


def _digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=6).hexdigest()
