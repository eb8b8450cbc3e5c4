"""The flags that several commands share, and the flags that are made of the settings."""

from __future__ import annotations

import functools
import importlib
import inspect
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from nas.core.errors import OptionError

if typing.TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from nas.core.settings import Settings

Command = TypeVar("Command", bound=Callable[..., Any])
RUN = "The run"
PLACE = ("project", "name", "resume")  # what a file of settings does not hold
MODEL = "settings_model"  # attribute of a command
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
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Go on with the run of these settings.", rich_help_panel=RUN),
]
Config = Annotated[
    Path | None, typer.Option(help="Settings from a run's args.yaml.", rich_help_panel=RUN)
]
ImageColumn = Annotated[str | None, typer.Option(help="Parquet column that holds the images.")]
LabelColumn = Annotated[str | None, typer.Option(help="Parquet column that holds the labels.")]
ArchName = Annotated[
    str, typer.Argument(help="A baseline's name, a run (folder or name) or an arch.json.")
]


def with_settings(model: str) -> Callable[[Command], Command]:
    """Let a command have one flag for each setting of a verb, beside its own.

    `model`: the pydantic model as module:name, which is imported where flags are needed.
    """

    def mark(function: Command) -> Command:
        vars(function)[MODEL] = model
        return function

    return mark


def flagged(function: Command) -> Command:
    """Return a command whose signature has the flags of its settings, if it has settings."""
    if MODEL not in vars(function):
        return function
    module, name = vars(function)[MODEL].split(":")
    settings: type[Settings] = getattr(importlib.import_module(module), name)
    own = inspect.signature(function, eval_str=True).parameters.values()
    mine = [p for p in own if p.kind is not p.VAR_KEYWORD]
    flags = [_flag(key, field) for key, field in settings.model_fields.items()]
    first = [p for p in mine if p.default is p.empty]
    rest = [p for p in mine if p.default is not p.empty]

    @functools.wraps(function)
    def call(**given: Any) -> Any:
        return function(**given)

    vars(call)["__signature__"] = inspect.Signature([*first, *flags, *rest])
    return typing.cast(Command, call)


def _flag(name: str, field: FieldInfo) -> inspect.Parameter:
    """Return the flag of a setting; its default is None, "not given", so that --config fills it."""
    from nas.core.settings import flag_name, reader_of, shown

    reader, flag, default = reader_of(field), flag_name(name), field.default
    (group, text, also), switch = shown(field), reader.typed is bool
    plain = isinstance(default, str | int | float) and not switch
    text += f" [default: {default}]" if plain else ""
    option = typer.Option(
        *(f"{flag}/--no-{flag[2:]}" if switch else flag, *also),
        help=text.replace("[", "\\["),  # no markup of rich's
        metavar=reader.metavar,
        rich_help_panel=group,
        show_default=False,
    )
    annotation = Annotated[reader.typed | None, option]  # type: ignore[name-defined]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(name, kind, default=None, annotation=annotation)


def given(settings: dict[str, Any], config: Path | None) -> dict[str, Any]:
    """Return the settings that were given: flags first, then the file of --config."""
    from nas.core import run_folder

    flags = {k: v for k, v in settings.items() if v is not None and v != []}
    for key in flags:
        if key.endswith(("_options", "_gpus")):
            flags[key] = pairs(flags[key])
    kept = run_folder.read_args(config) if config else {}
    for key in PLACE:
        if key in kept:
            raise OptionError(
                f"--config {config} holds {key}, which says where a run lies and is no setting of "
                f"one: give --{key} instead"
            )
    return {**kept, **flags}


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
