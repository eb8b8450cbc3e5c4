"""The command scale."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli.flags import (
    RUNS,
    Config,
    Json,
    Name,
    Project,
    Quiet,
    Resume,
    given,
    with_settings,
)
from nas.reporting.terminal.tables import (
    FAILED,
    INTERRUPTED,
    console,
    on_interrupt,
    say,
    say_resume,
    show,
)

if TYPE_CHECKING:
    from nas.scaling.result import ScaleResult


@with_settings("nas.scaling.settings:ScaleSettings")
def scale(
    base: Annotated[
        str | None,
        typer.Argument(help="A search run, a baseline or an arch.json; default: latest search."),
    ] = None,
    project: Project = RUNS,
    name: Name = None,
    resume: Resume = False,
    config: Config = None,
    as_json: Json = False,
    quiet: Quiet = False,
    **settings: Any,
) -> int:
    """Scale a baseline to a family: depth, width and resolution together."""
    from nas.scaling.scale import scale as run_scale

    chosen = given(settings, config)
    base = chosen.pop("base", None) if base is None else base
    chosen.pop("base", None)
    place: dict[str, Any] = {"project": project, "name": name, "resume": resume}
    return attend(as_json, quiet, lambda **seen: run_scale(base, **place, **chosen, **seen))


def attend(as_json: bool, quiet: bool, work: Callable[..., ScaleResult]) -> int:
    """Scale with lines of progress and Ctrl-C, print the result; return the exit code."""
    from nas.reporting.report import reported
    from nas.reporting.terminal import scale as screen
    from nas.scaling.progress import ScalingProgress

    lines = ScalingProgress() if quiet else screen.ScalingScreen(console(stderr=True))
    interrupted = on_interrupt("training", lambda _: False, lambda: lines.patient)
    try:
        result = reported(lambda: work(screen=lines, interrupted=interrupted))
    except KeyboardInterrupt:
        say_resume(lines.run)
        return INTERRUPTED
    show(result, screen.show_family, as_json)
    if result.stopped:
        say_resume(lines.run)
        return INTERRUPTED
    if lacks := screen.missing(result):
        say(f"nas: {lacks}")
        return FAILED
    return 0
