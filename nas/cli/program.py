"""The command line: which commands there are, and how an error ends.

Results go to stdout, progress and errors to stderr; every expected error is one line.
"""

from __future__ import annotations

import functools
import itertools
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from nas import __version__
from nas.cli.commands import data, explain, export, look, resume, scale, search, train
from nas.cli.flags import flagged
from nas.core.errors import NasError
from nas.core.quoting import visible
from nas.core.registry import error_text
from nas.reporting.terminal.tables import FAILED, INTERRUPTED, CannotPrint, settle_streams

MOST_LETTERS = 2000  # of an error
COMPLETE = "_NAS_COMPLETE"  # set by the shell's completion, as typer writes it

EXAMPLES = (
    "nas search --space mbconv --target-flops 400M",
    "nas search --space mbconv --target-flops 400M --data ./my_images",
    "nas train runs/search/search --data ./my_images",
    "nas predict runs/train/train photo.jpg",
    "nas scale --phi 1..7",
    "nas export runs/train/train --format onnx",
)

COMMANDS: dict[str, Callable[..., Any]] = {
    "search": search.search,
    "plan": search.plan,
    "resume": resume.resume,
    "train": train.train,
    "val": train.val,
    "predict": train.predict,
    "explain": explain.explain,
    "scale": scale.scale,
    "export": export.export,
    "doctor": data.doctor,
    "bench": data.bench,
    "proxy-check": data.proxy_check,
    "report": look.report,
    "show": look.show,
    "cost": look.cost,
    "ls": look.list_parts,
}


class _Program(TyperGroup):
    """Makes the flags of the command that is called, and of no other.

    So `nas --help` imports no settings, and no command those of another.
    """

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        """Return the name of the command that is called, the command and its arguments."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and command_of(str(command.name)), rest


@functools.cache
def command_of(name: str) -> Any:
    """Return the command of a verb, with its flags."""
    alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
    alone.command(name)(flagged(COMMANDS[name]))
    return typer.main.get_command(alone)


app = typer.Typer(
    name="nas",
    cls=_Program,
    help="Search a baseline architecture, scale it to a family.",
    epilog="Examples:\n\n" + "\n\n".join(EXAMPLES),
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def main() -> None:
    """Run the command line; every expected error is one line on stderr and an exit code."""
    debug = "--debug" in sys.argv
    # a waiting OpenMP thread that spins takes its core from the thread it waits for: on a busy
    # machine two threads then train 3 times slower than one (docs/results.md)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    settle_streams()
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    try:
        code = app(arguments or ["--help"], prog_name="nas", standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except SystemExit as end:
        # a training's, for a notice; a shell's that asks for completions
        if type(end) is not SystemExit or COMPLETE in os.environ:
            raise
        code = _fail(f"a part of this run: {error_text(end)}", FAILED)
    except Exception as error:
        expected = _expected(error)
        if debug or not expected:
            raise
        code = _fail(*expected)
    sys.exit(code if isinstance(code, int) else 0)


def _expected(error: Exception) -> tuple[str, int] | None:
    """Return what to say of an error that is no fault of ours, and the exit code."""
    if isinstance(error, NasError):
        return str(error), error.exit_code
    if hasattr(error, "format_message"):  # typer's usage errors, whatever package they live in
        return f"{error.format_message()}{_given(error)}; see `nas --help`", 2
    if isinstance(error, MemoryError):
        return f"not enough memory: {error or 'give a smaller network or batch'}", FAILED
    if isinstance(error, CannotPrint) and error.unwanted:
        return "", 0
    if isinstance(error, CannotPrint):
        return f"cannot print the result: {error}; what was computed is saved", FAILED
    if not isinstance(error, OSError):
        return None
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}", 2


def _given(error: Any) -> str:
    """Return the value that a flag was given with where typer does not tell it."""
    words, told = sys.argv[1:], error.format_message()
    for flag in getattr(getattr(error, "param", None), "opts", ()):
        values = [b for a, b in itertools.pairwise(words) if a == flag]
        values += [word.partition("=")[2] for word in words if word.startswith(f"{flag}=")]
        if values and repr(values[-1]) not in told:
            return f", not {values[-1]!r}"
    return ""


def _fail(message: str, code: int) -> int:
    rank = os.environ.get("RANK", "0")  # torchrun's
    who = "nas" if rank == "0" else f"nas (process {rank})"
    if not message:
        return code
    line = visible(" ".join(message.split()))
    if len(line) > MOST_LETTERS:  # what was given is in it, and may be a whole file
        line = f"{line[: MOST_LETTERS // 2]} ... {line[-MOST_LETTERS // 2 :]}"
    print(f"{who}: {line}", file=sys.stderr)
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


for _name, _command in COMMANDS.items():
    app.command(_name, help=_command.__doc__)(lambda: None)
