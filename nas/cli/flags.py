"""The flags that several commands share, and the flags that are made of the settings."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from nas.core.errors import OptionError

Command = TypeVar("Command", bound=Callable[..., Any])
RUN = "The run"
RUNS = Path("runs")
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
ImageColumn = Annotated[str | None, typer.Option(help="Parquet column that holds the images.")]
LabelColumn = Annotated[str | None, typer.Option(help="Parquet column that holds the labels.")]
ArchName = Annotated[
    str, typer.Argument(help="A baseline's name, a run (folder or name) or an arch.json.")
]


def with_settings(settings: type[Any]) -> Callable[[Command], Command]:
    """Give a command one flag for each field of a dataclass of settings, beside its own."""

    def change(function: Command) -> Command:
        own = inspect.signature(function, eval_str=True).parameters.values()
        mine = [p for p in own if p.kind is not p.VAR_KEYWORD]
        flags = [_flag(field) for field in dataclasses.fields(settings)]
        first = [p for p in mine if p.default is p.empty]
        rest = [p for p in mine if p.default is not p.empty]
        signature = inspect.Signature([*first, *flags, *rest])
        function.__signature__ = signature  # type: ignore[attr-defined]
        return function

    return change


def _flag(field: dataclasses.Field[Any]) -> inspect.Parameter:
    kind, names = _KINDS[str(field.type)], [f"--{field.name.replace('_', '-')}"]
    if kind is bool:
        names = [f"{names[0]}/--no-{names[0][2:]}"]
    names += _ALIASES.get(field.name, [])
    plain = isinstance(field.default, str | int | float) and not isinstance(field.default, bool)
    default = f" [default: {field.default}]" if plain else ""
    if field.name.endswith("_options"):
        names = [names[0].removesuffix("s")]
    option = typer.Option(
        *names,
        help=(field.metadata["help"] + default).replace("[", "\\["),  # no markup of rich's
        metavar=_METAVARS.get(str(field.type)),
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
    "float": str,
    "float | None": str,
    "bool": bool,
    "bool | None": bool,
    "dict[str, Any]": list[str],
    "list[str]": list[str],
}
_METAVARS = {
    "int | None": "<number>",
    "float": "<number>",
    "float | None": "<number>",
    "dict[str, Any]": "<name=value>",
    "list[str]": "<text>",
}
_ALIASES = {
    "target_flops": ["--target-macs"],
    "imgsz": ["--img-size"],
    "batch_size": ["-b"],
    "workers": ["-j"],
}


def given(settings: dict[str, Any], config: Path | None) -> dict[str, Any]:
    """Return the settings that were given: flags first, then the file of --config."""
    from nas.core import run_folder

    flags = {k: v for k, v in settings.items() if v is not None and v != []}
    for key in flags:
        if key.endswith(("_options", "_gpus")):
            flags[key] = pairs(flags[key])
    return {**(run_folder.read_args(config) if config else {}), **flags}


def pairs(texts: list[str]) -> dict[str, Any]:
    """Return the options given as name=value, with numbers and true or false read as such.

    Raises:
        OptionError: one is no name=value.
    """
    return dict(_pair(text) for text in texts)


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
