"""The command explain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.cli.flags import RUNS, Json, Name, Project
from nas.reporting.terminal.tables import FAILED, show


def explain(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE...", help="Image files or folders of them; runs may stand here, too."
        ),
    ],
    models: Annotated[
        list[Path] | None,
        typer.Option(
            "--models", help="A train run, or a family that was trained. Give it once for each."
        ),
    ] = None,
    method: Annotated[
        str, typer.Option(help="cam; gradcam, for any head; auto: cam where the head is linear.")
    ] = "auto",
    class_name: Annotated[
        str | None, typer.Option("--class", help="Of this class; default the likeliest of each.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="A .png or .html to write; default one in a new runs/explain folder."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    project: Project = RUNS,
    name: Name = None,
    as_json: Json = False,
) -> int:
    """Draw where trained models look: class activation maps of images, a column for each model."""
    from nas.reporting.explain import explain as run_explain
    from nas.reporting.terminal import data as data_screen

    result = run_explain(
        paths,
        models=models or (),
        method=method,
        class_name=class_name,
        output=output,
        device=device,
        project=project,
        name=name,
    )
    show(result, data_screen.show_explain, as_json)
    return FAILED if result.failed == len(result.images) else 0
