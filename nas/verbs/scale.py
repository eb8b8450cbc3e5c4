"""Scale: a baseline in, a family of larger (or smaller) archs out."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas import compound, cost, report, run
from nas.arch import Arch
from nas.errors import NasError
from nas.load import latest_search, load_arch
from nas.units import parse_phis

SCHEMA = 1
RESULT, FAMILY = "result.json", "family.csv"
COLUMNS = (
    "name",
    "phi",
    "depth",
    "width",
    "resolution",
    "requested_resolution",
    "rounded_depth",
    "rounded_width",
    "rounded_resolution",
    "params",
    "flops",
    "flops_ratio",
    "two_to_phi",
    "activations",
    "training_bytes_per_image",
    "training_bytes",
)


def scale(
    base: str | Path | Arch | Mapping[str, Any] | None = None,
    *,
    phi: str | float = "1..7",
    rule: str = "formula",
    alpha: float = 1.2,
    beta: float = 1.1,
    gamma: float = 1.15,
    fixed_ends: bool = False,
    project: str | Path = "runs",
    name: str | None = None,
) -> dict[str, Any]:
    """Scale a baseline; return what `nas scale --json` prints (`rule`, `members`, ...).

    `base` is a search run, a baseline's name, an arch.json, an Arch or its data; without it the
    latest search under `project` is taken. `rule` is one of `nas.compound.RULES`. Writes
    project/scale/name with b1/arch.json and so on, family.csv and report.html.

    Raises:
        OptionError: no such base, rule or phi, or a coefficient below 1.
        RunError: the folder cannot be written.
    """
    project = Path(project)
    source = latest_search(project) if base is None else base
    arch = load_arch(source)
    members = compound.family(
        arch,
        parse_phis(phi),
        rule=rule,
        alpha=alpha,
        beta=beta,
        gamma=gamma,
        fixed_ends=fixed_ends,
    )
    named = str(source) if isinstance(source, str | Path) else arch.name
    arguments = {
        "base": named,
        "phi": str(phi),
        "rule": rule,
        "alpha": alpha,
        "beta": beta,
        "gamma": gamma,
        "fixed_ends": fixed_ends,
    }
    folder = run.create("scale", name, project, arguments)
    result = {
        "schema": SCHEMA,
        "run": str(folder),
        **arguments,
        "baseline": {"name": arch.name, "arch": arch.to_dict(), **_costs(arch, arch)},
        "members": [_row(member, arch) for member in members],
    }
    _write(folder, result)
    _refresh(folder, source)
    return result


def _row(member: compound.Member, base: Arch) -> dict[str, Any]:
    """Return one member as JSON data: multipliers as asked for, resolution in pixels."""
    return {
        "name": member.name,
        "phi": member.phi,
        "depth": member.requested.depth,
        "width": member.requested.width,
        "resolution": member.arch.resolution,
        "requested_resolution": member.requested.resolution,
        "rounded_depth": member.rounded.depth,
        "rounded_width": member.rounded.width,
        "rounded_resolution": member.rounded.resolution,
        "two_to_phi": 2**member.phi,
        **_costs(member.arch, base),
        "arch": member.arch.to_dict(),
    }


def _costs(arch: Arch, base: Arch) -> dict[str, Any]:
    own = cost.count(arch)
    return {
        "params": own.params,
        "flops": own.flops,
        "flops_ratio": own.flops / cost.count(base).flops,
        "activations": own.activations,
        "training_bytes_per_image": own.training_bytes_per_image,
        "training_bytes": own.training_bytes,
    }


def _write(folder: Path, result: dict[str, Any]) -> None:
    run.write_environment(folder)
    for member in result["members"]:
        arch = Arch.from_dict(member["arch"])
        run.write_text(folder / member["name"] / "arch.json", arch.to_json() + "\n")
    rows = [[member[column] for column in COLUMNS] for member in result["members"]]
    run.write_csv(folder / FAMILY, COLUMNS, rows)
    run.write_json(folder / RESULT, result)


def _refresh(folder: Path, source: object) -> None:
    """Write the family's report, and the search's again, which shows its latest family."""
    report.write(folder)
    if isinstance(source, str | Path) and (Path(source) / "best").is_dir():
        # a courtesy: the family is complete, and `nas report` says what is wrong with the search
        with contextlib.suppress(NasError):
            report.write(Path(source))
