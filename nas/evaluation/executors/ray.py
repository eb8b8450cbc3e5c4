"""Evaluations on a Ray cluster: short ones as plain Ray tasks, long ones through Ray Tune.

Only JSON goes to workers. A task whose worker dies is tried again, up to `retries` times in all;
one whose node is lost is tried again without being counted among these.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import statistics
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nas.core import registry
from nas.core.errors import MissingError, OptionError, install
from nas.interfaces import EvaluatorSpec, Executor, ExecutorStatus, Outcome, Task

if TYPE_CHECKING:
    from nas.evaluation.cluster.connection import Cluster
    from nas.evaluation.cluster.tasks import Tasks
    from nas.evaluation.cluster.tune_trials import TuneTrials
    from nas.evaluation.retries import Retries

# seconds of a task from which it goes through Tune, which starts a worker anew (some 2 s) where
# several end at once. A plain task starts one for each GPU task, so there Tune pays sooner
LONG, LONG_GPU = 60.0, 10.0
THROUGH = ("auto", "tasks", "tune")
REMEMBERED = 50  # tasks, whose seconds tell how long the next ones will take


def make(
    spec: EvaluatorSpec,
    *,
    workers: int = 0,
    isolate: bool = False,
    folder: Path | None = None,
    seconds: float = 0.0,
    address: str = "",
    cpus_per_trial: float = 1.0,
    gpus_per_trial: float = 0.0,
    retries: int = 3,
    patience: float = 60.0,
    through: str = "auto",
    runtime_env: str = "",
) -> Executor:
    """Return the executor.

    workers: evaluations in flight; 0: as many as the cluster holds, following it as nodes join and
    leave. address: auto, HOST:PORT, ray://HOST:PORT or local; default auto where RAY_ADDRESS is
    set, else local. retries: tries of a task whose worker dies. patience: seconds to wait for a
    node that can hold an evaluation. through: tasks, tune, or auto, by how long a task takes.
    runtime_env: a YAML file with Ray's runtime_env.

    Raises:
        MissingError: Ray is not installed.
        OptionError: a wrong option, or no node can hold an evaluation.
        RunError: the cluster cannot be reached, or a node does not see the run folder.
    """
    _check(cpus_per_trial, gpus_per_trial, retries, patience, through)
    _quiet()
    try:
        import ray.tune  # noqa: F401  a Ray without Tune's packages fails here, not in the middle

        from nas.evaluation.cluster import connection
        from nas.evaluation.retries import Retries
    except ImportError as error:
        raise MissingError(
            f"--executor ray needs Ray with Tune ({error}): {install('ray')}"
        ) from error

    where = address or ("auto" if os.environ.get("RAY_ADDRESS") else "local")
    share = connection.Share(cpus_per_trial, gpus_per_trial)
    cluster = connection.connect(where, share, runtime_env)
    try:
        connection.await_room(cluster, cluster.share, patience)
        trains = getattr(registry.load("evaluators", spec.evaluator), "TRAINS", False)
        spec, paths = _located(spec, ships_code=bool(runtime_env))
        seen = folder if trains else None
        check = functools.partial(connection.check_nodes, cluster, seen, paths)
        check()
        data, apart = json.dumps(dataclasses.asdict(spec)), isolate or trains
        parts = _Parts(
            cluster, data, apart, folder, Retries(retries, folder), through, check, patience
        )
        return Ray(parts, workers, seconds or (LONG if trains else 0.0))
    except BaseException:
        connection.disconnect()
        raise


@dataclasses.dataclass(frozen=True)
class _Parts:
    """What both ways through the cluster are made of."""

    cluster: Cluster
    spec: str
    isolate: bool
    folder: Path | None
    retries: Retries
    through: str
    check: Callable[[], None]  # of nodes that have joined
    patience: float = 0.0

    def short(self, expected: float) -> bool:
        """Tell whether tasks that take so many seconds go as plain Ray tasks."""
        if self.cluster.client:  # Tune would run on the head node, where nobody hears us
            return True
        limit = LONG_GPU if self.cluster.share.gpus else LONG
        return expected < limit if self.through == "auto" else self.through == "tasks"

    def open(self, short: bool) -> Tasks | TuneTrials:
        """Return one of the two ways."""
        common = (self.cluster, self.spec, self.isolate, self.retries)
        if short:
            from nas.evaluation.cluster.tasks import Tasks

            return Tasks(*common)
        from nas.evaluation.cluster.tune_trials import TuneTrials

        return TuneTrials(*common, self.folder)


class Ray:
    """Tasks on a cluster; the way they go is chosen anew whenever nothing is in flight."""

    def __init__(self, parts: _Parts, workers: int, expected: float) -> None:
        from nas.evaluation.cluster.connection import telling_loss

        self._parts, self._cluster, self._workers = parts, parts.cluster, workers
        self._telling_loss = telling_loss
        self._seconds = deque([expected], REMEMBERED)
        self._short = parts.short(expected)
        self._way = parts.open(self._short)
        self._given_up: list[Outcome] = []  # tasks that were tried often enough before

    @property
    def slots(self) -> int:
        """Return how many tasks to keep in flight: as asked for, or what has room now."""
        with self._telling_loss():
            capacity = max(1, self._cluster.capacity())
        asked = self._workers or capacity
        return min(asked, capacity) if self._cluster.alone else asked

    def submit(self, task: Task) -> None:
        """Give a task to the cluster.

        Raises:
            OptionError: no node has the GPUs that it asks for.
        """
        if task.gpus:
            from nas.evaluation.cluster.connection import await_room

            with self._telling_loss():
                await_room(self._cluster, self._cluster.needs(task), self._parts.patience)
        if task.folder:  # workers run in folders of their own
            task = dataclasses.replace(task, folder=str(Path(task.folder).absolute()))
        if failure := self._parts.retries.begin(task):
            self._given_up.append(failure)
            return
        with self._telling_loss():
            if not len(self._way):
                self._choose()
            self._way.submit(task)

    def wait(self) -> list[Outcome]:
        """Return the outcomes that are ready; block until there is one, or for some seconds."""
        if self._given_up:
            given_up, self._given_up = self._given_up, []
            return given_up
        with self._telling_loss():
            self._parts.check()
            found = self._way.wait()
        self._seconds.extend(outcome.seconds for outcome in found if not outcome.error)
        return found

    def status(self) -> ExecutorStatus:
        """Return the nodes and what they do."""
        cluster = self._cluster
        with self._telling_loss():
            workers, nodes = min(self.slots, cluster.capacity()), len(cluster.nodes())
            gpus, retries = cluster.gpus(), self._parts.retries.total
        return ExecutorStatus(workers, len(self._way), nodes, gpus, retries, cluster.link)

    def close(self) -> None:
        """Kill what is running and leave the cluster; one that was started here ends."""
        from nas.evaluation.cluster.connection import disconnect

        with contextlib.suppress(Exception):  # the cluster may be gone
            self._way.close()
        self._parts.retries.leave()
        disconnect()

    def _choose(self) -> None:
        short = self._parts.short(statistics.median(self._seconds))
        if short != self._short:
            self._way.close()
            self._short, self._way = short, self._parts.open(short)


def _check(cpus: float, gpus: float, retries: int, patience: float, through: str) -> None:
    """Do nothing if these options can be.

    Raises:
        OptionError: the first that cannot.
    """
    for name, value in {"--cpus-per-trial": cpus, "--gpus-per-trial": gpus}.items():
        if value < 0 or (value > 1 and value != int(value)):
            raise OptionError(f"{name} takes a whole number or a part below 1, not {value:g}")
    if not cpus and not gpus:
        raise OptionError("--cpus-per-trial 0 needs --gpus-per-trial: a trial must take something")
    if retries < 1:
        raise OptionError(f"executor option retries must be at least 1, not {retries}")
    if patience < 0:
        raise OptionError(f"executor option patience is in seconds, at least 0, not {patience:g}")
    if through not in THROUGH:
        raise OptionError(f"executor option through takes {', '.join(THROUGH)}, not {through!r}")


def _located(spec: EvaluatorSpec, *, ships_code: bool) -> tuple[EvaluatorSpec, list[str]]:
    """Return the work with the user's paths made absolute, and those that every node must have.

    A runtime_env may bring code along, so with one the paths of .py files stay as typed.
    """
    paths = []

    def absolute(value: object, name: str = "") -> object:
        if not isinstance(value, str) or not Path(value).exists():
            return value
        if value.endswith(".py") and ships_code:
            return value
        # a folder called digits is meant by --data digits, but not by --recipe digits
        if name != "data" and not value.endswith(".py") and "/" not in value:
            return value
        paths.append(str(Path(value).resolve()))
        return paths[-1]

    options = {name: absolute(value, name) for name, value in spec.options.items()}
    evaluator = str(absolute(spec.evaluator))
    return dataclasses.replace(spec, evaluator=evaluator, options=options), paths


def _quiet() -> None:
    """Set what Ray reads when it is first imported: mostly to print nothing and to tell nobody."""
    wanted = {
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a runtime_env's files lie in the worker's own folder
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_FORCE_TRIAL_CLEANUP_S": "30",
        "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
        "TUNE_MAX_PENDING_TRIALS_PG": "200",  # an autoscaler must see all that wait
        "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "0",
    }
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
