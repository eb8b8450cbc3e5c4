"""The command line: flags in, one function of `nas.verbs` called, its result printed.

Results go to stdout, progress and errors to stderr. Heavy modules are imported inside the
commands, so that help and usage errors answer at once.
"""

from __future__ import annotations

import dataclasses
import inspect
import io
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from nas import __version__
from nas.errors import NasError, OptionError

INTERRUPTED, NOT_MET = 130, 3
EXAMPLES = (
    "nas search --space mbconv --target-flops 400M",
    "nas scale --phi 1..7",
    "nas plan --target-flops 400M",
    "nas show efficientnet_b0",
    "nas cost runs/search/search --json",
)

app = typer.Typer(
    name="nas",
    help="Search a baseline architecture, scale it to a family.",
    epilog="Examples:\n\n" + "\n\n".join(EXAMPLES),
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

RUN = "The run"
Json = Annotated[
    bool,
    typer.Option("--json", help="Print exactly one JSON object to stdout.", rich_help_panel=RUN),
]
Project = Annotated[Path, typer.Option(help="Folder that holds the runs.", rich_help_panel=RUN)]
Name = Annotated[
    str | None,
    typer.Option(help="Name of the run's folder; taken names get a number.", rich_help_panel=RUN),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Show no progress.", rich_help_panel=RUN)
]
Config = Annotated[
    Path | None, typer.Option(help="Settings from a run's args.yaml.", rich_help_panel=RUN)
]
ArchName = Annotated[str, typer.Argument(help="A baseline's name, a run folder or an arch.json.")]
RUNS = Path("runs")


def main() -> None:
    """Run the command line; every expected error is one line on stderr and an exit code."""
    debug = "--debug" in sys.argv
    try:
        arguments = [a for a in sys.argv[1:] if a != "--debug"]
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a terminal that has no ± or φ
                stream.reconfigure(errors="replace")
        code = app(arguments or ["--help"], prog_name="nas", standalone_mode=False)
        sys.stdout.flush()
    except NasError as error:
        if debug:
            raise
        code = _fail(str(error), error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as error:
        # typer's usage errors, whatever package they live in
        if debug or not hasattr(error, "format_message"):
            raise
        code = _fail(f"{error.format_message()}; see `nas --help`", 2)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> int:
    print(f"nas: {' '.join(message.split())}", file=sys.stderr)
    return code


def _version(wanted: bool) -> None:
    if wanted:
        print(f"nas {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Search a baseline architecture, scale it to a family."""


def _with_settings(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command one flag for each field of `nas.settings.Settings`, beside its own."""
    from nas.settings import Settings

    own = inspect.signature(function, eval_str=True).parameters.values()
    mine = [p for p in own if p.kind is not p.VAR_KEYWORD]
    flags = [_flag(field) for field in dataclasses.fields(Settings)]
    function.__signature__ = inspect.Signature([*flags, *mine])  # type: ignore[attr-defined]
    return function


def _flag(field: dataclasses.Field[Any]) -> inspect.Parameter:
    kind, names = _KINDS[str(field.type)], [f"--{field.name.replace('_', '-')}"]
    if kind is bool:
        names = [f"{names[0]}/--no-{names[0][2:]}"]
    if field.name in _ALIASES:
        names += _ALIASES[field.name]
    default = (
        f" [default: {field.default}]"
        if field.default is not None and field.default is not True
        else ""
    )
    if field.name.endswith("_options"):
        names, default = [names[0].removesuffix("s")], ""
    option = typer.Option(
        *names,
        help=field.metadata["help"] + default,
        rich_help_panel=field.metadata["group"],
        show_default=False,
    )
    annotation = Annotated[kind | None, option]  # type: ignore[valid-type]
    return inspect.Parameter(
        field.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=annotation
    )


# flags are read as text where a unit may follow; None means "not given", so --config can fill it
_KINDS: dict[str, Any] = {
    "str": str,
    "str | None": str,
    "int": int,
    "int | None": str,
    "float | None": str,
    "bool": bool,
    "dict[str, Any]": list[str],
}
_ALIASES = {"target_flops": ["--target-macs"]}


def _given(settings: dict[str, Any], config: Path | None) -> dict[str, Any]:
    """Return the settings that were given: flags first, then the file of --config."""
    from nas import run

    flags = {k: v for k, v in settings.items() if v is not None and v != []}
    for key in ("controller_options", "evaluator_options", "executor_options"):
        if key in flags:
            flags[key] = dict(_pair(text) for text in flags[key])
    return {**(run.read_args(config) if config else {}), **flags}


def _pair(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise OptionError(f"an option is given as name=value, not {text!r}")
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, {"true": True, "false": False}.get(value.lower(), value)


def _console(*, stderr: bool = False) -> Any:
    """Return a console; a pipe gets wide lines, so that tables stay whole."""
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False, soft_wrap=not stderr)
    return (
        console
        if console.is_terminal
        else Console(stderr=stderr, highlight=False, soft_wrap=True, width=1000)
    )


def _print_json(data: Any) -> None:
    print(json.dumps(data))


@app.command()
@_with_settings
def search(
    project: Project = RUNS,
    name: Name = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the run of these settings.", rich_help_panel=RUN),
    ] = False,
    config: Config = None,
    as_json: Json = False,
    quiet: Quiet = False,
    **settings: Any,
) -> int:
    """Search a space for the best arch at a target cost."""
    from nas import screen
    from nas.verbs.search import INTERRUPTED as STOPPED
    from nas.verbs.search import search as run_search

    progress = None if quiet else screen.Progressing(_console(stderr=True))
    try:
        result = run_search(
            project=project,
            name=name,
            resume=resume,
            screen=progress,
            interrupted=_on_interrupt(progress.notice if progress else lambda _: False),
            **_given(settings, config),
        )
    except KeyboardInterrupt:
        print(f"resume with: {_command()} --resume", file=sys.stderr)
        return INTERRUPTED
    if as_json:
        _print_json(result)
    else:
        screen.show_search(result, _console())
    if result["stopped"]:
        print(f"stopped early: {result['stopped']}", file=sys.stderr)
    if result["stopped"] == STOPPED:
        print(f"resume with: {_command()} --resume", file=sys.stderr)
        return INTERRUPTED
    return 0 if result["met"] else NOT_MET


def _command() -> str:
    import shlex

    return shlex.join(["nas", *(a for a in sys.argv[1:] if a != "--resume")])


def _on_interrupt(notice: Callable[[str], bool]) -> Callable[[], bool]:
    """Make the first Ctrl-C or SIGTERM a request to stop; the second stops at once.

    `notice` shows a line on a live screen and tells whether there is one.
    """
    requests: list[int] = []

    def handle(number: int, _: Any) -> None:
        requests.append(number)
        if len(requests) > 1:
            raise KeyboardInterrupt
        text = "stopping after the running trial; once more stops now"
        if not notice(text):
            # no print: the signal may come in the middle of one
            os.write(2, f"\n{text}\n".encode())

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
    return lambda: bool(requests)


@app.command()
@_with_settings
def plan(
    config: Config = None,
    as_json: Json = False,
    **settings: Any,
) -> None:
    """Tell what a search would reach and take, without searching."""
    from nas import screen
    from nas.verbs.plan import plan as run_plan

    found = run_plan(**_given(settings, config))
    if as_json:
        _print_json(found)
    else:
        screen.show_plan(found, _console())


@app.command()
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
    from nas import screen
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
    if as_json:
        _print_json(result)
    else:
        screen.show_family(result, _console())


@app.command()
def report(run: Annotated[Path, typer.Argument(help="A run folder.")]) -> None:
    """Write report.html of a search or scale run: one page that works offline."""
    from nas import report as page

    print(page.write(run))


@app.command()
def show(arch: ArchName, as_json: Json = False) -> None:
    """Show an arch stage by stage, with what it costs and what is published about it."""
    from nas import screen
    from nas.verbs.show import show as run_show

    found = run_show(arch)
    if as_json:
        _print_json(found)
    else:
        screen.show_arch(found, _console())


@app.command()
def cost(
    arch: ArchName,
    resolution: Annotated[
        int | None, typer.Option("--imgsz", "--img-size", help="Pixels a side; default the arch's.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Build it and compare with torch's counter and thop.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Count params, FLOPs, activations and memory of an arch, without building it."""
    from nas import screen
    from nas.verbs.show import cost as run_cost

    found = run_cost(arch, resolution, check)
    if as_json:
        _print_json(found)
    else:
        screen.show_cost(found, _console())


@app.command("ls")
def list_parts(
    what: Annotated[
        str,
        typer.Argument(help="spaces, baselines, controllers, evaluators, executors, ops or runs."),
    ],
    project: Project = RUNS,
    as_json: Json = False,
) -> None:
    """List the parts of a kind, or the runs."""
    from nas import screen
    from nas.verbs.show import listing

    found = listing(what, project)
    if as_json:
        _print_json({"schema": 1, what: found})
    else:
        screen.show_listing(found, _console())
