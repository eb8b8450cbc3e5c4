"""The command line: which commands there are, and how an error ends.

Results go to stdout, progress and errors to stderr; every expected error is one line.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

from nas import __version__
from nas.commands import data, explain, export, look, resume, scale, search, train
from nas.errors import NasError
from nas.screens.terminal import INTERRUPTED

EXAMPLES = (
    "nas search --space mbconv --target-flops 400M",
    "nas search --space mbconv --target-flops 400M --data ./my_images",
    "nas train runs/search/search --data ./my_images",
    "nas predict runs/train/train photo.jpg",
    "nas scale --phi 1..7",
    "nas export runs/train/train --format onnx",
)

app = typer.Typer(
    name="nas",
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
    rank = os.environ.get("RANK", "0")  # torchrun's
    who = "nas" if rank == "0" else f"nas (process {rank})"
    print(f"{who}: {' '.join(message.split())}", file=sys.stderr)
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


for _name, _command in (
    ("search", search.search),
    ("plan", search.plan),
    ("resume", resume.resume),
    ("train", train.train),
    ("val", train.val),
    ("predict", train.predict),
    ("explain", explain.explain),
    ("scale", scale.scale),
    ("export", export.export),
    ("doctor", data.doctor),
    ("bench", data.bench),
    ("proxy-check", data.proxy_check),
    ("report", look.report),
    ("show", look.show),
    ("cost", look.cost),
    ("ls", look.list_parts),
):
    app.command(_name)(_command)
