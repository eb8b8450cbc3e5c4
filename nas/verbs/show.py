"""Show: what an arch is and costs; what parts and runs there are."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

from nas import catalog, run
from nas import cost as counter
from nas.arch import Arch
from nas.errors import EvaluatorError, OptionError, RunError, did_you_mean
from nas.load import baselines, load_arch, published

SCHEMA = 1


def cost(source: str, resolution: int | None = None, check: bool = False) -> dict[str, Any]:
    """Return what an arch costs, as `nas cost --json` prints it; FLOPs are multiply-adds.

    With `check` the arch is built and compared with torch's counter and thop.

    Raises:
        OptionError: there is no such arch.
    """
    arch = load_arch(source)
    if resolution is not None:
        arch = dataclasses.replace(arch, resolution=resolution)
    found = _costs(arch)
    if not check:
        return found
    from nas.crosscheck import crosscheck  # loads torch

    return {**found, "counters": crosscheck(arch)}


def show(source: str) -> dict[str, Any]:
    """Return an arch stage by stage with its costs, published figures and prediction."""
    arch = load_arch(source)
    figures = published().get(arch.name)
    return {
        **_costs(arch),
        "arch": arch.to_dict(),
        "stages": [dataclasses.asdict(stage) for stage in counter.stages(arch)],
        "published": dataclasses.asdict(figures) if figures else None,
        "predicted": _predicted(arch),
    }


def listing(what: str, project: Path) -> list[dict[str, Any]]:
    """Return the parts of a kind, or the runs, as rows.

    Raises:
        OptionError: there is no such kind.
    """
    if what == "runs":
        return [
            _run_row(folder)
            for verb in ("search", "train", "proxy-check", "scale", "export")
            for folder in run.runs(verb, project)
        ]
    if what == "baselines":
        return [_baseline_row(name, arch) for name, arch in baselines().items()]
    if what not in catalog.ROOMS:
        known = (*catalog.ROOMS, "runs")
        raise OptionError(
            f"nas ls takes {', '.join(known)}, not {what!r}{did_you_mean(what, known)}"
        )
    return [_part_row(what, name) for name in catalog.names(what)]


def _costs(arch: Arch) -> dict[str, Any]:
    found = counter.count(arch)
    return {
        "schema": SCHEMA,
        "name": arch.name,
        "id": arch.id,
        **dataclasses.asdict(found),
        "resolution": arch.resolution,
    }


def _predicted(arch: Arch) -> dict[str, Any] | None:
    """Return the embedded evaluator's prediction, where it knows the arch."""
    evaluator = catalog.make("evaluators", "surrogate", options={})
    try:
        evaluator.check(arch)
    except EvaluatorError:
        return None
    return {"evaluator": evaluator.title, **evaluator.evaluate(arch)}


def _baseline_row(name: str, arch: Arch) -> dict[str, Any]:
    figures, found = published()[name], counter.count(arch)
    return {
        "name": name,
        "resolution": arch.resolution,
        "params": found.params,
        "flops": found.flops,
        "published_params": figures.params,
        "published_flops": figures.flops,
        "published_top1": figures.top1,
        "source": figures.source,
    }


def _part_row(room: str, name: str) -> dict[str, Any]:
    module = catalog.load(room, name)
    row: dict[str, Any] = {"name": name, "about": (inspect.getdoc(module) or "").splitlines()[0]}
    if room == "spaces":
        space = module.SPACE
        return {**row, "choices": len(space.choices), "size": space.size}
    if hasattr(module, "make"):
        options = catalog.option_defaults(room, name)
        given = ("workers",)
        row["options"] = {k: repr(v) for k, v in options.items() if k not in given}
    return row


# what `nas ls runs` tells of a run's arguments
TOLD = (
    *("arch", "space", "data", "target_flops", "controller", "trials", "recipe", "epochs"),
    "warm_start",
    *("base", "rule", "phi"),
    *("source", "format"),
)


def _run_row(folder: Path) -> dict[str, Any]:
    try:
        arguments = run.read_args(folder)
    except RunError as error:
        return {"name": str(folder), "finished": False, "about": f"damaged: {error}"}
    changed = {k: v for k, v in arguments.items() if v not in (None, {}, False)}
    about = " ".join(f"{key}={changed[key]}" for key in TOLD if key in changed)
    return {"name": str(folder), "finished": (folder / "result.json").exists(), "about": about}
