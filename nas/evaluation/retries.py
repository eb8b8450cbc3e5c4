"""How often a task is begun again after its worker, its node or the driver itself was lost.

What crashes the process that evaluates it is given up after three tries, counted over all
resumptions of a run. So each try is on file before it begins: with one worker the evaluation runs
in the search's own process, and what ends that ends the counting too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas.core import run_folder
from nas.core.errors import RunError
from nas.interfaces import Outcome, Task

TRIES = 3
FILE = "tries.json"  # of a run folder
# how a worker ended that was told to: no fault of its task
PREEMPTED = "SIGTERM, after a checkpoint"
# a node that leaves is no fault of the task, but a task must not go round for ever
LOSSES = 100
# what Ray says of it, and what a worker says that was told to end
GONE = (
    *("NodeDiedError", "TaskUnschedulableError", "ActorUnavailableError"),
    *("node died", "node has died", "is unavailable", PREEMPTED),
)


class Retries:
    """Counts, for each task that is not done, the workers that died under it and the nodes.

    `folder`: of the run, where crashes are kept for its resumptions. A training that has written
    another checkpoint since its last crash begins to count anew, so a machine that is often
    switched off does not use up the tries of a long one.
    """

    def __init__(self, most: int = TRIES, folder: Path | None = None) -> None:
        self._most = most
        self._crashes: Counter[int] = Counter()  # of this process's tasks, by their number
        self._losses: Counter[int] = Counter()
        self._begun: dict[int, Task] = {}
        self._attempts = _Attempts(folder / FILE if folder else None)
        self.total = 0  # of all tasks

    def begin(self, task: Task) -> Outcome | None:
        """Note on file that a task begins; return its failure where it was tried often enough."""
        self._begun[task.number] = task
        count = self._attempts.begin(task)
        if count < self._most:
            return None
        self.done(task.number, crashed=True)
        error = f"the process that evaluated it died {count} times: it is not tried again"
        return Outcome(task.number, {}, error)

    def again(self, number: int, cause: str) -> bool:
        """Count a death, of the node or of the worker alone; tell whether to try once more."""
        gone = any(words in cause for words in GONE)
        counted, most = (self._losses, LOSSES) if gone else (self._crashes, self._most)
        counted[number] += 1
        count = counted[number]
        if not gone and number in self._begun:
            count = max(count, self._attempts.crash(self._begun[number]))
        again = count <= most if gone else count < most
        self.total += again
        return again

    def done(self, number: int, *, crashed: bool = False) -> int:
        """Forget a task that has an outcome; return how often it was begun again."""
        if task := self._begun.pop(number, None):
            self._attempts.done(task, crashed=crashed)
        return self._crashes.pop(number, 0) + self._losses.pop(number, 0)

    def failed(self, number: int, cause: str) -> Outcome:
        """Forget a task and return its failure."""
        tries = self.done(number, crashed=True)
        error = f"its worker process died {max(tries, self._most)} times: {cause}"
        return Outcome(number, {}, error, retries=tries - 1)

    def leave(self) -> None:
        """Forget running tasks on a clean shutdown; they are not counted as crashes."""
        self._begun.clear()
        self._attempts.leave()


class _Attempts:
    """The crashes of each arch and the tasks in flight, in memory and in a file.

    The file: {"begun": [task, ...], "crashes": {arch: [where its training stood, how often]}}.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        found = _read(path)
        self._crashes: dict[str, tuple[str, int]] = found["crashes"]
        self._left: set[str] = set(found["begun"])  # by a process that ended over them
        self._begun: set[str] = set()

    def begin(self, task: Task) -> int:
        """Note that a task begins; return how often its arch has crashed where it stands now."""
        if (name := _name(task)) in self._left:
            self._left.discard(name)
            self._add(task)
        self._begun.add(name)
        self._write()
        where, count = self._crashes.get(_arch(task), ("", 0)) if self._crashes else ("", 0)
        return count if count and where == _position(task) else 0

    def crash(self, task: Task) -> int:
        """Note a crash; return how often the arch has crashed there."""
        count = self._add(task)
        self._write()
        return count

    def done(self, task: Task, *, crashed: bool) -> None:
        """Note that a task has its outcome; of an arch that was given up the crashes are kept.

        The file may name it until the next begins: one write for each task is enough.
        """
        self._begun.discard(_name(task))
        if not crashed and self._crashes and _arch(task) in self._crashes:
            del self._crashes[_arch(task)]
            self._write()

    def leave(self) -> None:
        """Note that nothing is in flight any more."""
        self._begun.clear()
        if self._path and self._path.exists():
            with contextlib.suppress(RunError):  # the disk is full, which is told elsewhere
                self._write()

    def _add(self, task: Task) -> int:
        where, count = self._crashes.get(_arch(task), ("", 0))
        count = count + 1 if where == _position(task) else 1
        self._crashes[_arch(task)] = _position(task), count
        return count

    def _write(self) -> None:
        if self._path:
            data = {"begun": sorted(self._begun | self._left), "crashes": self._crashes}
            run_folder.write_json(self._path, data)


def _read(path: Path | None) -> Mapping[str, Any]:
    """Return what a file holds; nothing where there is none or it is damaged: it only counts."""
    empty: dict[str, Any] = {"begun": [], "crashes": {}}
    if path is None or not path.exists():
        return empty
    with contextlib.suppress(RunError, KeyError, TypeError, ValueError, AttributeError):
        data = run_folder.read_object(path)
        crashes = {str(a): (str(where), int(n)) for a, (where, n) in data["crashes"].items()}
        return {"begun": [str(name) for name in data["begun"]], "crashes": crashes}
    return empty


def _arch(task: Task) -> str:
    text = json.dumps(task.arch, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _name(task: Task) -> str:
    return f"{_arch(task)}/{task.seed}"


def _position(task: Task) -> str:
    """Return the name of a training's last checkpoint, "" where there is none."""
    if not task.folder:
        return ""
    found = (each.name for each in (Path(task.folder) / "checkpoints").glob("[!.]*"))
    return max(found, default="")
