"""Show: what an arch is and costs; what parts and runs there are."""

from __future__ import annotations

import dataclasses
import inspect
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nas.core import registry, run_folder
from nas.core.errors import EvaluatorError, OptionError, RunError, did_you_mean
from nas.models import cost as counter
from nas.models.arch import Arch
from nas.models.load import baselines, load_arch, published

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
    from nas.models.crosscheck import crosscheck  # loads torch

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
        rows = [_run_row(folder) for verb in VERBS for folder in run_folder.runs(verb, project)]
        return sorted(rows, key=lambda row: row["date"])
    if what == "baselines":
        return [_baseline_row(name, arch) for name, arch in baselines().items()]
    if what not in registry.PACKAGES:
        known = (*registry.PACKAGES, "runs")
        raise OptionError(
            f"nas ls takes {', '.join(known)}, not {what!r}{did_you_mean(what, known)}"
        )
    return [_part_row(what, name) for name in registry.names(what)]


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
    evaluator = registry.make("evaluators", "surrogate", options={})
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


def _part_row(kind: str, name: str) -> dict[str, Any]:
    module = registry.load(kind, name)
    row: dict[str, Any] = {"name": name, "about": (inspect.getdoc(module) or "").splitlines()[0]}
    if kind == "spaces":
        space = module.SPACE
        return {**row, "choices": len(space.choices), "size": space.size}
    if hasattr(module, "make"):
        options = registry.option_defaults(kind, name)
        given = ("workers",)
        row["options"] = {k: repr(v) for k, v in options.items() if k not in given}
    return row


VERBS = ("search", "train", "proxy-check", "scale", "export", "explain")
# what `nas ls runs` tells of a run's arguments
TOLD = (
    *("arch", "space", "data", "target_flops", "controller", "trials", "recipe", "epochs"),
    "warm_start",
    *("base", "rule", "phi"),
    *("source", "format"),
)


def _run_row(folder: Path) -> dict[str, Any]:
    row = {"name": str(folder), "date": "", "finished": False, **dict.fromkeys(FIGURES)}
    try:
        arguments = run_folder.read_args(folder)
        row["date"] = _started(folder)
        row["finished"] = (folder / "result.json").exists()
        row |= _figures(run_folder.read_object(folder / "result.json")) if row["finished"] else {}
    except RunError as error:
        return {**row, "about": f"damaged: {error}"}
    changed = {k: v for k, v in arguments.items() if v not in (None, {}, False)}
    return {**row, "about": " ".join(f"{key}={changed[key]}" for key in TOLD if key in changed)}


# numbers of what a run found, as `nas ls runs` tells them; None where a run has none
FIGURES = ("accuracy", "flops", "reward", "objective")


def _figures(result: Any) -> dict[str, Any]:
    """Return accuracy (percent), multiply-adds, reward and objective of a run's result.

    Of a search its winner's, of a training those of the test images, or of the validation images
    where it was stopped. An edited or foreign result has none.
    """
    found = result if isinstance(result, dict) else {}
    best, objective = found.get("best"), found.get("objective")
    if found.get("pareto"):
        objective = f"front of accuracy and {found['pareto']}, best by {objective}"
    if isinstance(best, dict):
        metrics = best.get("metrics") or {}
        numbers = (metrics.get("accuracy"), metrics.get("flops"), best.get("reward"))
    else:
        score = found.get("test") or found.get("val") or {}
        top1 = score.get("top1") if isinstance(score, dict) else None
        numbers = (top1, found.get("flops"), None)
    told = (value if type(value) in (int, float) else None for value in numbers)
    return dict(zip(FIGURES, (*told, objective and str(objective)), strict=True))


def _started(folder: Path) -> str:
    """Return when a run began, in ISO form and UTC; without its env.json as its files say."""
    if (folder / run_folder.ENVIRONMENT).exists():
        environment = run_folder.read_object(folder / run_folder.ENVIRONMENT)
        if isinstance(environment, dict) and isinstance(environment.get("time"), str):
            return str(environment["time"])
    seconds = (folder / run_folder.ARGS).stat().st_mtime
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
