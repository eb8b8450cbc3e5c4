"""A search from weights: the space of a parent's sub-networks, and where its weights are kept."""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nas.core import run_folder
from nas.core.errors import EvaluatorError, OptionError
from nas.evaluation.parent import AUTO, NONE, Parent
from nas.interfaces import Choices, Fits, Space
from nas.models.arch import Arch
from nas.models.compound import LEAST_PIXELS
from nas.models.subnets import subnet_space
from nas.searching.feasibility import try_decode
from nas.searching.samplers import random_choices

PARENT = "parent"  # the folder of a run
ITSELF = "parent at "  # how the name of the reference begins that is the parent, at some pixels
STEP = 8  # of the pixels of the parent beside the space
TRIED = 100  # random points of a space of the user's, of which one must be able to inherit


def subnets(parent: Parent, classes: int, imgsz: int | None) -> Space:
    """Return the space of the sub-networks of a parent, for the classes of the data.

    imgsz: pixels a side of all of them; None: they are a choice. Where the parent itself fits at
    none of these it is a reference beside the space, at the most pixels that fit.
    """
    space = subnet_space(parent.arch, classes=classes, pixels=(imgsz,) if imgsz else ())
    named = space.references
    assert named
    head = replace(parent.arch.head, classes=classes or parent.arch.head.classes)
    whole = replace(parent.arch, head=head)

    def references(fits: Fits) -> Mapping[str, Arch | Choices]:
        found = dict(named(fits))
        if any(name.startswith(ITSELF) for name in found):
            return found
        sides = range(whole.resolution // STEP * STEP, LEAST_PIXELS - 1, -STEP)
        archs = (replace(whole, resolution=side) for side in sides)
        smaller = next((arch for arch in archs if fits(arch)), None)
        beside = {f"{ITSELF}{smaller.resolution} px": smaller} if smaller else {}
        return {**beside, **found}

    return replace(space, references=references)


def with_weights_paths(given: Mapping[str, Any], project: Path) -> dict[str, Any]:
    """Return settings in which runs and files of weights are paths that are the same anywhere."""
    from nas.training.trained import VERBS
    from nas.training.weights.sources import is_named

    found = dict(given)
    for key in ("init", "teacher"):
        source = given.get(key)
        told = str(source) if isinstance(source, str | Path) else ""
        if told not in ("", AUTO, NONE) and not is_named(told):
            found[key] = str(run_folder.find(told, VERBS, project).resolve())
    return found


def alike(space: Space, parent: Parent) -> Space:
    """Return a space of the user's whose archs have the padding and the norm of a parent.

    Weights belong to these.
    """
    from nas.training.weights.sources import built_as

    def decode(choices: Mapping[str, Any]) -> Arch:
        return built_as(space.decode(choices), parent.arch)

    return replace(space, decode=decode)


def check_inherits(space: Space, parent: Parent) -> None:
    """Check that some archs of a space can inherit the weights of a parent.

    Raises:
        OptionError: none of those drawn can; the message says how one differs.
    """
    rng, reason = random.Random(0), "it has no valid point"
    for _ in range(TRIED):
        arch = try_decode(space, random_choices(space, rng))
        try:
            if arch:
                return parent.check(arch)
        except EvaluatorError as error:
            reason = str(error)
    raise OptionError(
        f"no arch of space {space.name} can inherit the weights of {parent.told}: {reason}; leave "
        "--space out for the sub-networks of that net, or take --init none"
    )


def keep_parent(parent: Parent, folder: Path) -> Path:
    """Return the folder of a run that keeps the weights, written once.

    So neither workers elsewhere nor a resumption need the package or the run that they come from.

    Raises:
        RunError: they cannot be written.
    """
    from nas.training.weights.sources import save_weights

    place, part = folder / PARENT, folder / f".{PARENT}"
    if not place.is_dir():
        shutil.rmtree(part, ignore_errors=True)
        save_weights(part, parent.weights)
        part.replace(place)
    return place.resolve()


def kept(folder: Path | None) -> Path | None:
    """Return the folder of a run that keeps the weights of its parent, None where none does."""
    return folder / PARENT if folder and (folder / PARENT).is_dir() else None
