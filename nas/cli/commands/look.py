"""The commands that look at what there is: report, show, cost, ls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.cli.flags import RUNS, ArchName, Json, Project
from nas.core.quoting import visible
from nas.reporting.terminal.tables import console, print_json
from nas.reporting.terminal.tables import show as print_result


def report(run: Annotated[Path, typer.Argument(help="A run's folder or name.")]) -> None:
    """Write report.html of a search, scale or train run: one page that works offline."""
    from nas.reporting import report as page

    print(visible(str(page.write(run))))


def show(arch: ArchName, as_json: Json = False) -> None:
    """Show an arch stage by stage, with what it costs and what is published about it."""
    from nas.models.show import show as run_show
    from nas.reporting.terminal import look as screen

    print_result(run_show(arch), screen.show_arch, as_json)


def cost(
    archs: Annotated[
        list[str],
        typer.Argument(help="Baselines, run folders or arch.json files; several are compared."),
    ],
    resolution: Annotated[
        int | None, typer.Option("--imgsz", "--img-size", help="Pixels a side; default the arch's.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Build it and compare with torch's counter and thop.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Count params, FLOPs, activations and memory of an arch, or of several, without building."""
    from nas.models.show import cost as run_cost
    from nas.reporting.terminal import look as screen

    if len(archs) == 1:
        print_result(run_cost(archs[0], resolution, check), screen.show_cost, as_json)
        return
    found = [{"source": arch, **run_cost(arch, resolution, check)} for arch in archs]
    print_result({"schema": 1, "archs": found}, screen.show_costs, as_json)


def list_parts(
    what: Annotated[
        str,
        typer.Argument(
            help="runs, or parts: spaces, baselines, controllers, evaluators, executors, datasets, "
            "recipes, devices, exporters, pruners, trackers, ops."
        ),
    ],
    project: Project = RUNS,
    as_json: Json = False,
) -> None:
    """List the parts of a kind, or the runs."""
    from nas.models.show import listing
    from nas.reporting.terminal import look as screen

    found = listing(what, project)
    if as_json:
        print_json({"schema": 1, what: found})
    elif what == "runs":
        screen.show_runs(found, console())
    else:
        screen.show_listing(found, console())
