"""The commands search and plan."""

from __future__ import annotations

import gc
from typing import Annotated, Any

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
    INTERRUPTED,
    NOT_MET,
    console,
    on_interrupt,
    say,
    say_resume,
    show,
)


@with_settings("nas.searching.settings:SearchSettings")
def search(
    project: Project = RUNS,
    name: Name = None,
    resume: Resume = False,
    config: Config = None,
    as_json: Json = False,
    quiet: Quiet = False,
    **settings: Any,
) -> int:
    """Search a space for the best arch at a target cost."""
    chosen = given(settings, config)
    return attend(as_json, quiet, project=project, name=name, resume=resume, **chosen)


def attend(as_json: bool, quiet: bool, **arguments: Any) -> int:
    """Search with progress and Ctrl-C, print the result; return the exit code."""
    from nas.reporting.report import reported
    from nas.reporting.terminal import search as screen
    from nas.searching.search import INTERRUPTED as STOPPED
    from nas.searching.search import search as run_search

    gc.freeze()  # what is imported stays: spare the garbage collector the walk through it
    progress = None if quiet else screen.SearchScreen(console(stderr=True))
    interrupted = on_interrupt("trial", progress.notice if progress else lambda _: False)
    try:
        result = reported(lambda: run_search(screen=progress, interrupted=interrupted, **arguments))
    except KeyboardInterrupt:
        say_resume()
        return INTERRUPTED
    show(result, screen.show_search, as_json)
    if ending := screen.ending(result):
        say(ending)
    if result.stopped == STOPPED:
        say_resume()
        return INTERRUPTED
    return 0 if result.met else NOT_MET


@with_settings("nas.searching.settings:SearchSettings")
def plan(
    price: Annotated[
        str | None,
        typer.Option(
            help="Tell the cost: what an hour of one GPU (with --gpus-per-trial), else of one "
            "worker costs, such as 2.5.",
            metavar="<number>",
            rich_help_panel="Cluster",
        ),
    ] = None,
    project: Project = RUNS,
    config: Config = None,
    as_json: Json = False,
    **settings: Any,
) -> None:
    """Tell what a search would reach, take and cost, without searching."""
    from nas.reporting.terminal.look import show_plan
    from nas.searching.plan import plan as run_plan

    found = run_plan(price=price, project=project, **given(settings, config))
    show(found, show_plan, as_json)
