"""Evaluations as plain Ray tasks: little overhead, for those of less than a minute."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import ray
from ray.exceptions import LocalRayletDiedError, RayError, RayTaskError

from nas.core.errors import first_line
from nas.evaluation.cluster.connection import LONGEST, Cluster, Share
from nas.evaluation.cluster.worker import perform_task
from nas.evaluation.retries import Retries
from nas.evaluation.workers import WorkerDied, read
from nas.interfaces import Outcome, Task


class Tasks:
    """One Ray task an evaluation; Ray retries nothing by itself, so that tries can be counted."""

    def __init__(self, cluster: Cluster, spec: str, isolate: bool, retries: Retries) -> None:
        self._cluster = cluster
        self._spec, self._isolate, self._retries = spec, isolate, retries
        self._live: dict[Any, Task] = {}

    def __len__(self) -> int:
        return len(self._live)

    def submit(self, task: Task) -> None:
        """Give a task to the cluster."""
        text = json.dumps(vars(task))
        remote = self._remote(self._cluster.needs(task))
        self._live[remote.remote(self._spec, self._isolate, text)] = task

    def wait(self) -> list[Outcome]:
        """Return the outcomes that are ready; block until there is one, but not for long."""
        ray.wait(list(self._live), num_returns=1, timeout=LONGEST)
        ready, _ = ray.wait(list(self._live), num_returns=len(self._live), timeout=0)
        outcomes = [self._collect(self._live.pop(ref), ref) for ref in ready]
        return [outcome for outcome in outcomes if outcome]

    def close(self) -> None:
        """Kill what is running."""
        for ref in self._live:
            ray.cancel(ref, force=True)
        self._live.clear()

    def _remote(self, share: Share) -> Any:
        # a process that has used a GPU ends with its task: only so its memory is free again
        limits: dict[str, Any] = {"max_calls": 1} if share.gpus else {}
        limits |= {"num_cpus": share.cpus, "num_gpus": share.gpus, "max_retries": 0}
        return ray.remote(**limits)(perform_task)

    def _collect(self, task: Task, ref: Any) -> Outcome | None:
        """Return the outcome of a task; None if it is begun again."""
        try:
            outcome = read(json.loads(ray.get(ref)))
        except LocalRayletDiedError:
            raise  # the cluster is lost: no try of any task can succeed
        except RayError as error:
            cause = _cause(error)
            if not self._retries.again(task.number, cause):
                return self._retries.failed(task.number, cause)
            self.submit(task)
            return None
        return dataclasses.replace(outcome, retries=self._retries.done(task.number))


def _cause(error: RayError) -> str:
    """Return in one line what ended a task."""
    if isinstance(error, RayTaskError):
        own = error.cause
        return str(own) if isinstance(own, WorkerDied) else f"{type(own).__name__}: {own}"
    return f"{type(error).__name__}: {first_line(error)}"
