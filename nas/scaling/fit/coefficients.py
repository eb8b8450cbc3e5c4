"""Fitted coefficients: kept in the run of the fit, and found for its base by later runs."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, NamedTuple

from nas.core import run_folder
from nas.core.errors import RunError
from nas.models.arch import Arch
from nas.scaling.settings import COEFFICIENTS

SCHEMA = 1
FIT, FILE, FOLDER = "fit.json", "coefficients.json", "coefficients"


class Coefficients(NamedTuple):
    """Growth of depth, width and resolution at phi 1, and in words where they come from."""

    alpha: float
    beta: float
    gamma: float
    origin: str


# Source: Tan and Le 2019, section 3.3, fitted to B0 on ImageNet
PAPER = Coefficients(1.2, 1.1, 1.15, "the paper's, fitted to EfficientNet-B0 on ImageNet")


def network(arch: Arch) -> str:
    """Return the id of an arch, its number of classes aside: that is the data's."""
    head = dataclasses.replace(arch.head, classes=1000)
    return dataclasses.replace(arch, head=head).id


def fitted(project: Path, arch: Arch) -> tuple[Coefficients | None, str]:
    """Return the coefficients of the latest fit of a base under a project, and a line to say.

    The line is of runs that cannot be read, which are passed over; "" for none.
    """
    note = ""
    for folder in reversed(run_folder.runs("scale", project)):
        if not ((folder / FIT).is_file() and (folder / FILE).is_file()):
            continue
        try:
            fit = run_folder.read_json(folder / FIT)
            if fit["chosen"] and fit["arch_id"] == network(arch):
                return parsed(run_folder.read_json(folder / FILE)), note
        except (RunError, KeyError, TypeError, ValueError):
            note = f"{folder} holds no fit that can be read, and is passed over"
    return None, note


def former_place(path: Path | None, project: Path, name: str) -> Path:
    """Return the file in which earlier versions kept the coefficients of a base.

    Of a search run it lies in best/, of an arch.json beside it, of a base that is no file (`path`
    is None or leads nowhere, `name` is its arch's) under project/coefficients.
    """
    if path is None or not path.exists():
        plain = "".join(c if c.isalnum() or c in "-_." else "-" for c in name).lstrip(".")
        return project / FOLDER / f"{plain or 'arch'}.json"
    if (path / "best").is_dir():
        return path / "best" / FILE
    if path.is_dir():
        return path / FILE
    return path.with_name(FILE if path.name == "arch.json" else f"{path.stem}.{FILE}")


def find(path: Path, arch: Arch) -> tuple[Coefficients | None, str]:
    """Return the coefficients that a file of an earlier version holds for a base, and a line."""
    if not path.is_file():
        return None, ""
    try:
        data = run_folder.read_json(path)
        found, schema = parsed(data), data["schema"]
        mine = data["arch_id"] == network(arch)
    except (RunError, KeyError, TypeError, ValueError):
        return None, f"{path} holds no coefficients and is ignored: fit again, or delete it"
    if schema != SCHEMA:
        return None, f"{path} is of schema {schema!r}, not {SCHEMA}, and is ignored: fit again"
    if not mine:
        return None, f"{path} was fitted to another network of that name and is ignored: fit again"
    return found, ""


def parsed(data: Any) -> Coefficients:
    """Return the coefficients of JSON data.

    Raises:
        KeyError, TypeError, ValueError: one is missing, or no number of at least 1.
    """
    alpha, beta, gamma = (_growth(data[name]) for name in COEFFICIENTS)
    return Coefficients(alpha, beta, gamma, str(data["origin"]))


def _growth(value: object) -> float:
    """Return a coefficient; growth below 1 is none.

    Raises:
        ValueError: it is no number of at least 1.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(value)
    if not (math.isfinite(value) and value >= 1):
        raise ValueError(value)
    return float(value)
