"""Priors of the accuracy, before a search has evaluated any point.

A prior gives one score a point, in percent accuracy of another task: only its shape counts. A
controller with a keyword `prior` uses it as the mean of its surrogate model, scaled by a factor
that is fitted, so that trials that disagree override it.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nas.core import registry
from nas.core.errors import OptionError
from nas.interfaces import Choices, Option, Space
from nas.models.arch import Arch
from nas.models.points import decode
from nas.searching.constraints import constraint_violation
from nas.searching.gp.features import PointFeatures
from nas.searching.gp.posterior import Observation, condition_on, fit_accuracy
from nas.searching.samplers import Prior, no_prior
from nas.searching.setup import Setup
from nas.searching.start import zero_cost

SURROGATE = "surrogate"
KINDS = ("expansion", "kernel", "layers", "se")  # of each block, as the surrogate's codes have them


class Place(NamedTuple):
    """Context in which a prior is made: the run folder, a function for messages, one to stop."""

    folder: Path
    say: Callable[[str], None]
    stop: Callable[[], bool]


def surrogate_prior(setup: Setup) -> tuple[Prior, str]:
    """Return a prior: the embedded surrogate's accuracy of the `mbconv` point of equal choices.

    Raises:
        OptionError: the space lacks choices of `mbconv`, or the surrogate is the evaluator itself.
    """
    if setup.spec.evaluator == SURROGATE:
        raise OptionError(
            f"--warm-start {SURROGATE} would tell the evaluator {SURROGATE} what it knows: leave "
            "it out, or give --data or another --evaluator"
        )
    known: Space = registry.export("spaces", "mbconv", "SPACE")
    for name, options in known.choices.items():
        if not set(setup.space.choices.get(name, ("none",))) <= set(options):
            raise OptionError(
                f"--warm-start {SURROGATE} knows the choices of mbconv, and space "
                f"{setup.space.name} has no such {name}: use mbconv or mbconv_small, or leave it "
                "out"
            )
    surrogate: Any = registry.make("evaluators", SURROGATE, options={})
    extra = [name for name in setup.space.choices if name not in known.choices]
    ignored = f"; {', '.join(extra)} ignored" if extra else ""
    line = (
        "prior: the surrogate's ImageNet proxy accuracy of the mbconv net with the same "
        f"choices (5,138 trainings){ignored}; only its shape counts"
    )
    blocks = range(1, len(known.choices) // len(KINDS) + 1)

    def prior(points: Sequence[Choices]) -> npt.NDArray[np.float64]:
        codes = [[_code(point, block) for block in blocks] for point in points]
        accuracy: npt.NDArray[np.float64] = surrogate.predict(codes)["accuracy"]
        return accuracy

    return prior, line


def _code(point: Choices, block: int) -> list[int]:
    expansion, kernel, layers, se = (point[f"block{block}_{kind}"] for kind in KINDS)
    return [int(expansion), int(kernel), int(layers), int(float(se) > 0)]


def naswot_plan(setup: Setup) -> str:
    """Score the first network, and return how many there are and how long they will take.

    Raises:
        OptionError: it cannot be scored, or there are too few within the limits.
    """
    points, start = _to_score(setup), time.perf_counter()
    zero_cost.score_arch(decode(setup.space, points[0]), _naswot(setup))
    seconds = (time.perf_counter() - start) * len(points)
    return f"naswot: {len(points)} networks are scored without training, about {seconds:.0f} s"


def naswot_prior(setup: Setup, place: Place) -> tuple[Prior, str]:
    """Return a Gaussian process of the NASWOT scores of some random points, as a prior.

    Raises:
        OptionError: a network cannot be scored.
        RunError: the scores cannot be kept in the run folder.
    """
    points = _to_score(setup)
    archs = [decode(setup.space, point) for point in points]
    path = place.folder / zero_cost.FILE
    values, seconds = zero_cost.score_archs(path, archs, _naswot(setup), place.say, place.stop)
    line = f"naswot: {len(values)} networks scored without training in {seconds:.0f} s"
    prior, note = prior_of_scores(setup.space, points[: len(values)], values)
    return prior, f"{line}; {note}"


def prior_of_scores(
    space: Space, points: Sequence[Choices], scores: Sequence[float]
) -> tuple[Prior, str]:
    """Return a prior: a Gaussian process of scores, in deviations from their mean."""
    if len(scores) < zero_cost.MIN_POINTS:
        return no_prior, "too few scores for a prior"
    mean, spread = statistics.fmean(scores), statistics.pstdev(scores) or 1.0
    standard = [(value - mean) / spread for value in scores]
    return prior_of_run(space, space.choices, list(zip(points, standard, strict=True)))


def _to_score(setup: Setup) -> list[Choices]:
    allowed = constraint_violation(setup.space, setup.goal.objective)
    return zero_cost.sample_points(setup.space, allowed, setup.settings.seed)


def _naswot(setup: Setup) -> zero_cost.Scorer:
    from nas.evaluation.naswot import score  # torch: only where it is asked for

    return functools.partial(score, seed=setup.settings.seed)


def common(space: Space, choices: Mapping[str, Sequence[Option]]) -> list[str]:
    """Return the names that a space has in common with the choices of another one.

    Raises:
        OptionError: neither has all of the other's, or their options differ.
    """
    names = [name for name in space.choices if name in choices]
    if len(names) < min(len(space.choices), len(choices)):
        other = next(name for name in choices if name not in space.choices)
        raise OptionError(
            f"--warm-start needs a run whose choices are among those of space {space.name}, or the "
            f"other way round: {other} is not; name another run"
        )
    for name in names:
        if list(choices[name]) != list(space.choices[name]):
            raise OptionError(
                f"--warm-start needs a run with equal options: {name} has {list(choices[name])} "
                f"there and {list(space.choices[name])} in space {space.name}; name another run"
            )
    return names


def prior_of_run(
    space: Space, choices: Mapping[str, Sequence[Option]], points: Sequence[tuple[Choices, float]]
) -> tuple[Prior, str]:
    """Return a Gaussian process of an earlier run's accuracies (percent) as a prior.

    `choices`: the earlier run's names and options. What only one of the spaces has is left out.

    Raises:
        OptionError: the choices differ, or none of the points is a network of this space.
    """
    names = common(space, choices)
    features = PointFeatures(_shared(space, names))
    given = [Observation(_of(point, names), y, 0.0, y) for point, y in points]
    observed = [each for each in given if features.counted(each.choices)]
    if not observed:
        raise OptionError(
            f"--warm-start needs a run with networks of space {space.name}, and none of the "
            f"{len(points)} evaluated there is one: name another run"
        )
    process = condition_on(features, fit_accuracy(features, observed), observed)
    left = [name for name in {**space.choices, **choices} if name not in names]
    ignored = f" without {', '.join(left)}" if left else ""
    if len(observed) < len(given):
        ignored += f", from the {len(observed)} points that are networks here"

    def prior(points: Sequence[Choices]) -> npt.NDArray[np.float64]:
        asked = [_of(point, names) for point in points]
        # what is held may make no network of a point that is one
        here = [place for place, point in enumerate(asked) if features.counted(point)]
        found = np.full(len(points), process.y_mean)
        if here:
            found[here] = process.mean_at(features.inputs([asked[place] for place in here]))
        return found

    return prior, f"prior: the mean of a Gaussian process{ignored}; only its shape counts"


def _of(point: Choices, names: Sequence[str]) -> Choices:
    return {name: point[name] for name in names}


def _shared(space: Space, names: Sequence[str]) -> Space:
    """Return a space of some of the choices; the others are held at their middle options."""
    if len(names) == len(space.choices):
        return space
    held = {name: options[len(options) // 2] for name, options in space.choices.items()}
    valid = space.valid

    def decode(choices: Mapping[str, Any]) -> Arch:
        return space.decode({**held, **choices})

    def is_valid(choices: Mapping[str, Any]) -> bool:
        return valid is None or valid({**held, **choices})

    few = {name: space.choices[name] for name in names}
    return dataclasses.replace(space, choices=few, decode=decode, encode=None, valid=is_valid)


class Source(NamedTuple):
    """A source of --warm-start beside a run.

    `check` raises an OptionError where it can tell nothing, before anything is written, and returns
    the line that a plan shows; `make` returns the prior, and the line that a search shows.
    """

    check: Callable[[Setup], str]
    make: Callable[[Setup, Place], tuple[Prior, str]]


MAKERS: Mapping[str, Source] = {
    SURROGATE: Source(
        lambda setup: surrogate_prior(setup)[1], lambda setup, _: surrogate_prior(setup)
    ),
    "naswot": Source(naswot_plan, naswot_prior),
}
