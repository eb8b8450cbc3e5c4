"""The points of a space that a person would try first: its reference designs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from nas.core.errors import NasError, OptionError
from nas.interfaces import Choices, Fits, Metrics, Space
from nas.models.arch import Arch
from nas.models.points import cost_metrics, decode
from nas.searching.objective import Goal, Objective

LATENCY = "latency_ms"


@dataclass(frozen=True)
class Reference:
    """A design that a search is compared with.

    `choices`: its point, None where it lies outside of the space. `fits`: whether it meets the
    targets and limits of the search, as far as they are counted or its latency is known.
    """

    name: str
    arch: Arch
    choices: Choices | None
    cost: Metrics
    fits: bool


Latency = Callable[[Arch], float]


def references(
    space: Space,
    objective: Objective,
    *,
    beside: Mapping[str, Arch] = {},
    latency: Latency | None = None,
) -> list[Reference]:
    """Return the reference designs of a space under an objective, each network once.

    `beside`: archs to list too, where they are points of the space, by the names that they keep.
    `latency`: ms of an arch, if that is known at no cost.

    Raises:
        OptionError: the space's `references` fails or gives what is no design.
    """

    def fits(arch: Arch) -> bool:
        return _fits(arch, objective, latency)

    named = _designs(space, fits)
    points = {name: space.encode(arch) if space.encode else None for name, arch in beside.items()}
    named |= {n: point for n, point in points.items() if point is not None and n not in named}
    found: dict[str, Reference] = {}
    for name, design in named.items():
        each = _reference(space, name, design, fits)
        known = found.setdefault(each.arch.id, each)
        found[each.arch.id] = replace(known, name=name if name in beside else known.name)
    return list(found.values())


def reference_points(space: Space, goal: Goal) -> dict[str, Choices]:
    """Return the reference designs that are points of the space and meet the goal, by name."""
    found = references(space, goal.objective)
    return {each.name: each.choices for each in found if each.choices is not None and each.fits}


def _fits(arch: Arch, objective: Objective, latency: Latency | None) -> bool:
    try:
        known = cost_metrics(arch)
        bounds = (*objective.targets, *objective.limits)
        if latency and any(bound.metric == LATENCY for bound in bounds):
            known[LATENCY] = latency(arch)
    except NasError:
        return False
    return all(known[bound.metric] <= bound.value for bound in bounds if bound.metric in known)


def _designs(space: Space, fits: Fits) -> dict[str, Arch | Choices]:
    """Return what the space's `references` gives, by name.

    Raises:
        OptionError: it fails, or gives no mapping of names.
    """
    if space.references is None:
        return {}
    try:
        found: Any = space.references(fits)
    except Exception as error:  # a space is the user's code
        kind = type(error).__name__
        raise OptionError(f"space {space.name}: references fails: {kind}: {error}") from error
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        raise OptionError(
            f"space {space.name}: references must give archs or choices by name, not {found!r:.80}"
        )
    return dict(found)


def _reference(space: Space, name: str, design: Any, fits: Fits) -> Reference:
    """Return a design as a point of the space where it is one.

    Raises:
        OptionError: it is neither an arch nor a point of the space.
    """
    where = f"space {space.name}: references gives for {name}"
    if isinstance(design, Arch):
        choices = space.encode(design) if space.encode else None
    elif isinstance(design, Mapping):
        choices = _point(space, design, where)
    else:
        raise OptionError(f"{where} no Arch and no choices but {type(design).__name__}")
    try:
        arch = design if choices is None else decode(space, choices)
        cost = cost_metrics(arch)
    except NasError as error:
        raise OptionError(f"{where} what is no network: {error}") from error
    return Reference(name, arch, choices, cost, fits(arch))


def _point(space: Space, design: Mapping[Any, Any], where: str) -> Choices:
    """Return choices in the order of the space.

    Raises:
        OptionError: one is missing, unknown, or has another option than the space.
    """
    for name, options in space.choices.items():
        if name not in design or design[name] not in options:
            given = repr(design[name]) if name in design else "nothing"
            known = ", ".join(map(str, options))
            raise OptionError(f"{where} {given} as {name}, which takes one of {known}")
    if others := [name for name in design if name not in space.choices]:
        raise OptionError(f"{where} the choice {others[0]!r}, which the space does not have")
    # the options of the space itself: 0 is no 0.0 in a file
    return {name: o[list(o).index(design[name])] for name, o in space.choices.items()}
