"""The process in which one member of a family is trained; no command of `nas`.

    python -m nas.commands.member FOLDER PARENT PROCESSES

goes on with the training in FOLDER, which holds its args.yaml, as `nas resume` does. It ends when
PARENT, the process that started it, ends. With several PROCESSES each gets its own GPU, as under
torchrun. An error is the last line on stderr: its kind, a colon, its text.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

from nas import run
from nas.errors import NasError
from nas.processes import follow

MEMORY = "memory.json"
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
    from torch.distributed.run import main as torchrun

    each = ["--standalone", f"--nproc-per-node={processes}", "-m", "nas.commands.member"]
    torchrun([*each, folder, "0", "1"])


def _trained(folder: Path) -> int:
    """Return the exit code of the training."""
    from nas.screens import terminal
    from nas.screens.train import Training, silent
    from nas.training.distributed import rank, world
    from nas.verbs.train import RESULT, go_on

    asked: list[int] = []
    if world() > 1:  # they stop together, after an epoch; one alone stops at once
        signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    screen = silent() if rank() else Training(terminal.console(stderr=True))
    finished = (folder / RESULT).exists()
    try:
        found = go_on(folder, {}, screen=screen, interrupted=lambda: bool(asked))
    except NasError as error:
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    finally:
        if not finished and rank() == 0:
            _keep_peak(folder / MEMORY)
    return STOPPED if found.get("stopped") else 0


def _keep_peak(path: Path) -> None:
    """Write down the most memory that a process of this training has held, unless more is known."""
    from nas.machines.facts import peak_memory

    with contextlib.suppress(NasError):  # as on a full disk, of which the training tells
        before = run.read_json(path)["peak_bytes"] if path.exists() else 0.0
        run.write_json(path, {"peak_bytes": max(before, peak_memory())})


if __name__ == "__main__":
    main()
