"""What runs on a worker of the cluster: tasks in, answers out, both JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from functools import cache
from importlib import metadata
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import ray

import nas
from nas.evaluation.evaluate import make_evaluator
from nas.evaluation.retries import PREEMPTED
from nas.evaluation.workers import (
    Worker,
    WorkerDied,
    answer,
    given_up,
    kill,
    preempt,
    receive_result,
    send_task,
    start_worker,
)
from nas.interfaces import Evaluator, EvaluatorSpec, Task

# seconds that a training gets for its checkpoint; clouds give 30 before they take a machine
GRACE = 25.0
TOKEN = ".shared"  # a file of the run folder that every node must see


class IsolatedWorker:
    """Does one task after another.

    With `isolate` in a process of its own, which can be killed at a time limit, and whose death is
    told instead of shared. That process sees the GPUs that Ray gave to this one.
    """

    def __init__(self, spec: str, isolate: bool) -> None:
        self._text, self._spec = spec, EvaluatorSpec(**json.loads(spec))
        self._isolate = isolate
        self._worker: Worker | None = None
        self._gpus: str | None = None

    def do(self, text: str) -> str:
        """Return the answer to a task.

        Raises:
            WorkerDied: the process of its own died; the message tells how.
        """
        task = Task(**json.loads(text))
        found = self._do_apart(task) if self._isolate else answer(lambda: _made(self._text), task)
        return json.dumps({**found, "node": node_name()} if "fatal" not in found else found)

    def close(self) -> None:
        """Kill the process of its own."""
        if self._worker:
            kill(self._worker)
        self._worker = None

    def _do_apart(self, task: Task) -> dict[str, Any]:
        worker = self._started()
        try:
            send_task(worker, task)
            if wait([worker.pipe], task.timeout_s or None):
                return receive_result(worker)
        except WorkerDied:
            self.close()
            raise
        except SystemExit as notice:  # how Ray tells of a SIGTERM
            preempt([worker], GRACE)
            self._worker = None
            raise WorkerDied(PREEMPTED) from notice
        self.close()
        return dataclasses.asdict(given_up(task))

    def _started(self) -> Worker:
        """Return the process; a new one where Ray has given other GPUs than before."""
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
        if self._worker and gpus != self._gpus:
            self.close()
        self._gpus = gpus
        self._worker = self._worker or start_worker(self._spec, {"OMP_WAIT_POLICY": "PASSIVE"})
        return self._worker


@cache
def isolated_worker(spec: str, isolate: bool) -> IsolatedWorker:
    """Return the one worker of this process for a EvaluatorSpec."""
    return IsolatedWorker(spec, isolate)


def perform_task(spec: str, isolate: bool, task: str) -> str:
    """Return the answer to a task: the body of a plain Ray task."""
    return isolated_worker(spec, isolate).do(task)


@cache
def _made(spec: str) -> Evaluator:
    return make_evaluator(EvaluatorSpec(**json.loads(spec)))


def node_name() -> str:
    """Return where this worker is: its node, and the GPUs that it has now."""
    gpus = ",".join(str(gpu) for gpu in ray.get_gpu_ids())
    return f"{_node()} gpu {gpus}" if gpus else _node()


@cache
def _node() -> str:
    """Return the node's address and the start of its id."""
    address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return f"{address}/{ray.get_runtime_context().get_node_id()[:6]}"


def versions() -> dict[str, str]:
    """Return the versions of what must be the same on every node."""
    return {"nas": nas.__version__, "torch": metadata.version("torch")}


def look_around(folder: str, token: str, paths: list[str]) -> dict[str, Any]:
    """Return what this node is: versions, whether it sees the run folder, which paths it misses."""
    try:
        shared = not folder or (Path(folder) / TOKEN).read_text(encoding="utf-8") == token
    except OSError:
        shared = False
    return {
        **versions(),
        "host": platform.node(),
        "shared": shared,
        "missing": [path for path in paths if not Path(path).exists()],
    }
