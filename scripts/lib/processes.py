"""Work that several processes share, and work that has a process of its own."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]  # where nas lies

Job = TypeVar("Job")
Result = TypeVar("Result")


def mapped(
    function: Callable[[Job], Result], jobs: Sequence[Job], processes: int
) -> Iterator[Result]:
    """Yield the results of all jobs in order; one process is this one."""
    if processes == 1:
        yield from map(function, jobs)
        return
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with ProcessPoolExecutor(processes, context) as pool:
        yield from pool.map(function, jobs)


def alone(
    script: str, words: Sequence[str], text: str = "", env: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run a script in a fresh process, to which `text` is fed.

    Returns the JSON object that it printed last, or {"reason": its last words}.
    """
    done = subprocess.run(
        [sys.executable, script, *words],
        input=text,
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {}), "PYTHONPATH": search_path()},
    )
    if done.returncode == 0:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found
    said = done.stderr.strip().splitlines() or [f"its process ended with {done.returncode}"]
    return {"reason": said[-1].removeprefix(f"{Path(script).stem}: ")}


def search_path() -> str:
    """Return a PYTHONPATH on which `nas` and what was there before are found."""
    return os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
