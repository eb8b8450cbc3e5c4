"""Best weights and config.json of a training; repair of damaged ones on resume."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from nas.core import run_folder
from nas.core.errors import RunError
from nas.data.loader import Data
from nas.models.arch import Arch
from nas.training.checkpoint import read_weights, write_weights
from nas.training.progress import Row, best
from nas.training.trained import CONFIG, config

BEST = "weights/best.safetensors"

_log = logging.getLogger("nas")


def keep_best(
    folder: Path, shown: nn.Module, arch: Arch, data: Data, recipe: str, row: Row
) -> None:
    """Write the weights of the best epoch so far, whose row this is, and config.json."""
    write_weights(folder / BEST, shown.state_dict())
    describe(folder, arch, data, recipe, row)


def describe(folder: Path, arch: Arch, data: Data, recipe: str, row: Row) -> None:
    """Write config.json of the best epoch's weights, with what others have put there."""
    described = config(arch, data, recipe=recipe, metrics=dict(row))
    try:
        before = run_folder.read_json(folder / CONFIG)
    except RunError:  # none, or damaged
        before = {}
    run_folder.write_json(folder / CONFIG, before | described)


def mend(
    folder: Path, shown: nn.Module, arch: Arch, data: Data, recipe: str, rows: Sequence[Row]
) -> bool:
    """Make what is damaged of a resumed training again; tell whether weights had to be replaced.

    Those of the checkpoint take the place of lost ones. They are the same where its last epoch was
    the best; else the accuracy to beat is that of this epoch.
    """
    replaced = False
    try:
        read_weights(folder / BEST)
    except RunError as error:
        write_weights(folder / BEST, shown.state_dict())
        replaced = True
        _log.warning("%s; those of epoch %d take their place", error, len(rows))
    try:
        run_folder.read_json(folder / CONFIG)
    except RunError:
        describe(folder, arch, data, recipe, best(rows))
    return replaced
