"""The process in which one member of a family is trained; no command of `nas`.

    python -m nas.cli.commands.member FOLDER PARENT PROCESSES

goes on with the training in FOLDER, which holds its args.yaml, as `nas resume` does. It ends when
PARENT, the process that started it, ends. With several PROCESSES each gets its own GPU, as under
torchrun. An error is told in FOLDER/error.json, and on stderr for a person who looks there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from nas.core import run_folder
from nas.core.errors import NasError
from nas.core.processes import follow, tell_error
from nas.hardware.facts import memory_from_here, peak_memory
from nas.reporting.report import reported
from nas.reporting.terminal import tables
from nas.reporting.terminal.train import TrainingScreen
from nas.training.progress import Row, TrainingProgress

MEMORY, ERROR = "memory.json", "error.json"
STOPPED = 128 + signal.SIGTERM


def main() -> None:
    """Train; leave with 0 at the end, 143 after a SIGTERM, and an error's own code."""
    folder, parent, processes = sys.argv[1:]
    if "RANK" in os.environ:  # one of several: torchrun is the parent
        follow(os.getppid())
    else:
        follow(int(parent))
        if processes != "1":
            return _several(folder, processes)
    sys.exit(_trained(Path(folder)))


def _several(folder: str, processes: str) -> None:
    """Become torchrun for this many processes of this module."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    each = ["--standalone", f"--nproc-per-node={processes}", "-m", "nas.cli.commands.member"]
    try:
        torchrun([*each, folder, "0", "1"])
    except ChildFailedError as error:
        print(error, file=sys.stderr)
        code = error.get_first_failure()[1].exitcode
        if code < 0:  # it died of a signal: so does this process, for its parent to see
            with contextlib.suppress(OSError):
                signal.signal(-code, signal.SIG_DFL)
            os.kill(os.getpid(), -code)
        sys.exit(code)


def _trained(folder: Path) -> int:
    """Return the exit code of the training."""
    from nas.training.distributed import rank, world
    from nas.training.train import go_on

    asked: list[int] = []
    if world() > 1:  # they stop together, after an epoch; one alone stops at once
        signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    screen = TrainingProgress() if rank() else _MemberScreen(folder)
    try:
        found = reported(
            lambda: go_on(folder, {}, screen=screen, interrupted=lambda: bool(asked)), screen.say
        )
    except NasError as error:
        tell_error(folder / ERROR, error)
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    return STOPPED if found.stopped else 0


class _MemberScreen(TrainingScreen):
    """Also writes down what a training has added to the memory of this process."""

    def __init__(self, folder: Path) -> None:
        super().__init__(tables.console(stderr=True))
        self._path, self._before = folder / MEMORY, 0

    def begin(self, name: str, epochs: int, earlier: Sequence[Row]) -> None:
        """Note the memory that the process has before it trains."""
        self._before = memory_from_here()
        super().begin(name, epochs, earlier)

    def end(self) -> None:
        """Keep the peak, or that of an earlier process if it was higher."""
        super().end()
        if not self._before:
            return
        with contextlib.suppress(NasError):  # as on a full disk, of which the training tells
            earlier = run_folder.read_json(self._path)["added_bytes"] if self._path.exists() else 0
            run_folder.write_json(
                self._path, {"added_bytes": max(earlier, peak_memory() - self._before)}
            )


if __name__ == "__main__":
    main()
