"""The commands that look at the user's images and machine: doctor, bench, proxy-check."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from nas.cli.flags import (
    RUNS,
    ArchName,
    Config,
    ImageColumn,
    Json,
    LabelColumn,
    Name,
    Project,
    Quiet,
    Resume,
    given,
    pairs,
    with_settings,
)
from nas.reporting.terminal.tables import (
    FAILED,
    INTERRUPTED,
    console,
    on_interrupt,
    say_resume,
    show,
)


def doctor(
    data: Annotated[
        str | None, typer.Option(help="Images to look at; without, the machine only.")
    ] = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch the data set.")] = False,
    as_json: Json = False,
) -> int:
    """Look at images and machine: classes, splits, damage, devices, disk, and what to do."""
    from nas.reporting.terminal import data as data_screen
    from nas.training.doctor import doctor as run_doctor

    result = run_doctor(
        data, download=download, image_column=image_column, label_column=label_column
    )
    show(result, lambda found, out: data_screen.show_doctor(found, out, data), as_json)
    return FAILED if any(found.level == "error" for found in result.findings) else 0


def bench(
    arch: ArchName,
    device: Annotated[
        str, typer.Option(help="cpu, cuda, cuda:1, onnxruntime (`nas ls devices`) or your .py.")
    ] = "cpu",
    batch_size: Annotated[
        int, typer.Option("--batch-size", "-b", min=1, help="Images at once.")
    ] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads, each pinned to a core.")] = 1,
    resolution: Annotated[
        int | None, typer.Option("--imgsz", "--img-size", help="Pixels a side; default the arch's.")
    ] = None,
    memory: Annotated[
        bool, typer.Option("--memory", help="Also peak memory beside our estimate (cuda).")
    ] = False,
    option: Annotated[
        list[str] | None, typer.Option("--device-option", help="Option of the device: name=value.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure latency and throughput of an arch on a device of this machine."""
    from nas.hardware.bench import bench as run_bench
    from nas.reporting.terminal import data as data_screen

    result = run_bench(
        arch,
        device=device,
        batch=batch_size,
        threads=threads,
        resolution=resolution,
        memory=memory,
        options=pairs(option or []),
    )
    show(result, data_screen.show_bench, as_json)


@with_settings("nas.searching.fidelity.settings:ProxySettings")
def proxy_check(
    project: Project = RUNS,
    name: Name = None,
    resume: Resume = False,
    config: Config = None,
    as_json: Json = False,
    quiet: Quiet = False,
    **settings: Any,
) -> int:
    """Tell how short a training may be and still rank archs as a long one does."""
    chosen = given(settings, config)
    return attend_check(as_json, quiet, project=project, name=name, resume=resume, **chosen)


def attend_check(as_json: bool, quiet: bool, **arguments: Any) -> int:
    """Check with progress and Ctrl-C, print the result; return the exit code."""
    from nas.reporting.terminal.proxy import show_proxy_check
    from nas.searching.fidelity.proxy_check import proxy_check as run_check
    from nas.training.preemption import Preempted

    screen = console(stderr=True)
    try:
        result = run_check(
            arguments.pop("data", None),
            say=lambda text: None if quiet else screen.print(text, markup=False, soft_wrap=True),
            interrupted=on_interrupt("epoch", lambda _: False),
            **arguments,
        )
    except (KeyboardInterrupt, Preempted):
        say_resume()
        return INTERRUPTED
    show(result, show_proxy_check, as_json)
    if result.stopped:
        say_resume()
        return INTERRUPTED
    return 0
