"""The command scale."""

from __future__ import annotations

from typing import Annotated

import typer

from nas.flags import RUNS, Json, Name, Project
from nas.screens.terminal import show


def scale(
    base: Annotated[
        str | None,
        typer.Argument(help="A search run, a baseline or an arch.json; default: latest search."),
    ] = None,
    phi: Annotated[str, typer.Option(help="Members: 1..7, 0.5,1,2 or -1..1.")] = "1..7",
    rule: Annotated[
        str, typer.Option(help="formula, released, exact, width, depth, resolution or fast.")
    ] = "formula",
    alpha: Annotated[float, typer.Option(help="Depth coefficient, >= 1.")] = 1.2,
    beta: Annotated[float, typer.Option(help="Width coefficient, >= 1.")] = 1.1,
    gamma: Annotated[float, typer.Option(help="Resolution coefficient, >= 1.")] = 1.15,
    fixed_ends: Annotated[
        bool, typer.Option("--fixed-ends", help="Keep stem, head and the end stages' layers.")
    ] = False,
    project: Project = RUNS,
    name: Name = None,
    as_json: Json = False,
) -> None:
    """Scale a baseline to a family: depth, width and resolution together."""
    from nas.screens import search as screen
    from nas.verbs.scale import scale as run_scale

    result = run_scale(
        base,
        phi=phi,
        rule=rule,
        alpha=alpha,
        beta=beta,
        gamma=gamma,
        fixed_ends=fixed_ends,
        project=project,
        name=name,
    )
    show(result, screen.show_family, as_json)
