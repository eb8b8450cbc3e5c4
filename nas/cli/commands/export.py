"""The command export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.cli.flags import RUNS, Json, Name, Project
from nas.reporting.terminal.tables import say, show


def export(
    source: Annotated[
        str,
        typer.Argument(help="A run, a member of a family, a baseline's name or an arch.json."),
    ],
    format: Annotated[
        str, typer.Option(help="onnx, pt2, standalone, timm, or your own .py.")
    ] = "onnx",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File or folder; default a new runs/export folder."),
    ] = None,
    imgsz: Annotated[
        int | None, typer.Option("--imgsz", "--img-size", help="Pixels a side; default its own.")
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", "-b", help="Images at once; 0: any number.")
    ] = 0,
    preprocessing: Annotated[
        bool,
        typer.Option("--preprocessing", help="Take uint8 RGB images (N, 3, imgsz, imgsz)."),
    ] = False,
    features_only: Annotated[
        bool, typer.Option("--features-only", help="Give the last map at each stride, no logits.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of fresh weights, where nothing was trained.")] = 0,
    project: Project = RUNS,
    name: Name = None,
    as_json: Json = False,
) -> None:
    """Write a network as a file for other programs, run the file and compare its answers."""
    from nas.exporting.export import export as run_export
    from nas.reporting.terminal import export as screen

    result = run_export(
        source,
        format=format,
        output=output,
        batch_size=batch_size,
        imgsz=imgsz,
        preprocessing=preprocessing,
        features_only=features_only,
        seed=seed,
        project=project,
        name=name,
        say=say,
    )
    show(result, screen.show_export, as_json)
