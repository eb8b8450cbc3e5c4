"""The terminal of a command: its consoles, its one JSON object, its Ctrl-C."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from nas.core.errors import NasError
from nas.core.quoting import command, visible
from nas.core.records import plain

if TYPE_CHECKING:
    from rich.console import Console

INTERRUPTED, NOT_MET, FAILED = 130, 3, 1
Result = TypeVar("Result")


class CannotPrint(Exception):
    """A result cannot be written to stdout; the text tells why.

    `unwanted`: its reader has had enough, as `head -1`.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(error.strerror)
        self.unwanted = isinstance(error, BrokenPipeError)


class _Stdout(io.TextIOWrapper):
    """A stdout whose errors are told from those of files."""

    def write(self, text: str, /) -> int:
        with _named():
            return super().write(text)

    def flush(self) -> None:
        with _named():
            super().flush()


@contextlib.contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        drop(1)
        raise CannotPrint(error) from error


class _Stderr(io.TextIOWrapper):
    """A stderr that may lose its reader: what is running is worth more than its progress."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError:
            drop(2)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            drop(2)


def drop(descriptor: int) -> None:
    """Redirect a file descriptor to /dev/null: its reader or its disk is gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def settle_streams() -> None:
    """Replace closed stdout and stderr by /dev/null; put ? for what they cannot encode."""
    if sys.stdout is None:  # closed, as by >&- : the next file opened would get its number
        sys.stdout = io.TextIOWrapper(io.FileIO(os.devnull, "w"), "utf-8")
    if sys.stderr is None:
        sys.stderr = io.TextIOWrapper(io.FileIO(os.devnull, "w"), "utf-8")
    sys.stdout = _own(sys.stdout, sys.__stdout__, _Stdout)
    sys.stderr = _own(sys.stderr, sys.__stderr__, _Stderr)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that has no ± or φ
            stream.reconfigure(errors="replace")


def _own(stream: TextIO, real: TextIO | None, kind: type[io.TextIOWrapper]) -> TextIO:
    """Return a stream as one of our own kind if it is the process's own."""
    if stream is not real or not isinstance(stream, io.TextIOWrapper):
        return stream
    buffered, coding = stream.line_buffering, stream.encoding
    return kind(stream.detach(), coding, line_buffering=buffered)


def console(*, stderr: bool = False) -> Any:
    """Return a console; a pipe gets wide lines, so that tables stay whole.

    All text is shown as it is: none is markup, and control characters are written out.
    """
    from rich.console import Console
    from rich.text import Text

    class Literal(Console):
        def render_str(self, text: str, **style: Any) -> Text:
            return super().render_str(visible(text), **style)

    plain: dict[str, Any] = {"stderr": stderr, "highlight": False, "markup": False, "emoji": False}
    found = Literal(**plain, soft_wrap=not stderr)
    return found if found.is_terminal else Literal(**plain, soft_wrap=True, width=1000)


def say(text: object) -> None:
    """Print one line to stderr."""
    print(visible(str(text)), file=sys.stderr)


def print_json(data: Any) -> None:
    """Print data as one line; a number that is not finite, which JSON does not have, as null."""
    try:
        text = json.dumps(data, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(data), allow_nan=False)
    print(text)


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def show(result: Result, screen: Callable[[Result, Console], None], as_json: bool) -> None:
    """Print a result: as JSON, or by the function that shows it on a console."""
    if as_json:
        return print_json(plain(result))
    try:
        screen(result, console())
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise NasError(
            f"the result cannot be shown ({type(error).__name__}: {error}); was a file of the run "
            "edited? --json prints all that there is"
        ) from error


def say_resume(run: str = "") -> None:
    """Print the command that goes on with this run: by its folder, or as it was called."""
    from nas.core.run_folder import arguments

    if run:
        return say(f"resume with: {command('nas', 'resume', run)}")
    words = [a for a in arguments() if a != "--resume"]
    again = [] if words[:1] == ["resume"] else ["--resume"]
    processes = os.environ.get("LOCAL_WORLD_SIZE", "1")  # torchrun's
    several = ["torchrun", "--nproc-per-node", processes, "-m"] if processes != "1" else []
    say(f"resume with: {command(*several, 'nas', *words, *again)}")


def on_interrupt(
    running: str, notice: Callable[[str], bool], underway: Callable[[], bool] = lambda: True
) -> Callable[[], bool]:
    """Make the first Ctrl-C or SIGTERM a request to stop; the second stops at once.

    `running` names what is finished first; while none is `underway` the first stops at once, too.
    `notice` shows a line on a live screen and tells whether there is one.
    """
    requests: list[int] = []

    def handle(number: int, _: Any) -> None:
        requests.append(number)
        if len(requests) > 1 or not underway():
            for each in (signal.SIGINT, signal.SIGTERM):  # one more ends it without a word
                signal.signal(each, signal.SIG_DFL)
            raise KeyboardInterrupt
        text = f"stopping after the running {running}; once more stops now"
        if not notice(text):
            # no print: the signal may come in the middle of one
            os.write(2, f"\n{text}\n".encode())

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
    return lambda: bool(requests)
