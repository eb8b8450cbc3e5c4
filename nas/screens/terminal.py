"""The terminal of a command: its consoles, its one JSON object, its Ctrl-C."""

from __future__ import annotations

import json
import math
import os
import shlex
import signal
import sys
from collections.abc import Callable
from typing import Any

INTERRUPTED, NOT_MET, FAILED = 130, 3, 1


def console(*, stderr: bool = False) -> Any:
    """Return a console; a pipe gets wide lines, so that tables stay whole."""
    from rich.console import Console

    found = Console(stderr=stderr, highlight=False, soft_wrap=not stderr)
    return (
        found
        if found.is_terminal
        else Console(stderr=stderr, highlight=False, soft_wrap=True, width=1000)
    )


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


def show(data: Any, screen: Callable[[Any, Any], None], as_json: bool) -> None:
    """Print a result: as JSON, or by the function that shows it on a console."""
    if as_json:
        print_json(data)
    else:
        screen(data, console())


def say_resume(run: str = "") -> None:
    """Print the command that goes on with this run: by its folder, or as it was called."""
    from nas.run import arguments

    if run:
        print(f"resume with: {shlex.join(['nas', 'resume', run])}", file=sys.stderr)
        return
    words = [a for a in arguments() if a != "--resume"]
    again = [] if words[:1] == ["resume"] else ["--resume"]
    processes = os.environ.get("LOCAL_WORLD_SIZE", "1")  # torchrun's
    several = ["torchrun", "--nproc-per-node", processes, "-m"] if processes != "1" else []
    print(f"resume with: {shlex.join([*several, 'nas', *words, *again])}", file=sys.stderr)


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
