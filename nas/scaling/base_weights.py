"""Weights that the members of a family start from: those of the base, grown to each member."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from nas.models.skeleton import check_skeleton
from nas.scaling.setup import ScaleSetup
from nas.training.weights.sources import built_as, find_weights, save_weights

PARENT = (
    "parent"  # of a run: the weights of the base, so that it depends on no other run or package
)


def with_weights(setup: ScaleSetup, folder: Path | None) -> ScaleSetup:
    """Return a setup with the weights that members start from, if any are asked for.

    `folder`: of a run that has begun, which keeps them.

    Raises:
        OptionError: there are no such weights, or they are of another skeleton than the base.
        RunError: a file is damaged.
        MissingError: the package that has them is not installed.
    """
    if not setup.settings.weights:
        return setup
    kept = folder / PARENT if folder else None
    source = kept if kept and kept.is_dir() else setup.settings.weights
    found = find_weights(source, setup.arch)
    check_skeleton(found.arch, setup.arch)
    return dataclasses.replace(setup, weights=found)


def keep_weights(setup: ScaleSetup, folder: Path) -> None:
    """Keep the weights that members start from in the folder of the run, once.

    Raises:
        RunError: they cannot be written.
    """
    if setup.weights and not (folder / PARENT).is_dir():
        save_weights(folder / PARENT, setup.weights)


def built_as_weights(setup: ScaleSetup) -> ScaleSetup:
    """Return a setup whose base has the padding and the norm that its weights were trained with."""
    if not setup.weights:
        return setup
    return dataclasses.replace(setup, arch=built_as(setup.arch, setup.weights.arch))
