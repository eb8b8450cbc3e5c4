"""Evaluations through Ray Tune, for trainings: a worker goes on to the next task where one waits.

Tune decides nothing but where and when: its Searcher is a queue of our tasks, and what comes of
them goes back through a queue. The study is asked and told by the engine alone, so a killed run is
resumed from its journal; Tune's own state is thrown away.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import queue
import shutil
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import tune
from ray.exceptions import LocalRayletDiedError
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.search import Searcher

from nas.core.errors import RunError
from nas.evaluation.cluster.connection import LONGEST, Cluster
from nas.evaluation.cluster.worker import IsolatedWorker
from nas.evaluation.retries import Retries
from nas.evaluation.workers import WorkerDied, read
from nas.interfaces import Outcome, Task

ANSWER = "answer"
SCRATCH = ".tune-"
DIED = f"{WorkerDied.__module__}.{WorkerDied.__name__}: "
END_SECONDS = 20.0
IDLE_SECONDS = 1.0


class TaskTrainable(tune.Trainable):
    """A worker as Tune knows it: each trial is one task; the process goes on to the next."""

    def setup(self, config: dict[str, Any]) -> None:
        self._worker = IsolatedWorker(config["work"], config["isolate"])

    def step(self) -> dict[str, Any]:
        return {ANSWER: self._worker.do(self.config["task"]), "done": True}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.config = new_config
        return True

    def cleanup(self) -> None:
        self._worker.close()


class QueueSearcher(Searcher):
    """Tune's way to ask what to run next: the next task of a queue."""

    def __init__(self, spec: str, isolate: bool) -> None:
        super().__init__(metric=None, mode=None)
        self._fixed = {"work": spec, "isolate": isolate}
        self._waiting: queue.SimpleQueue[str] | None = queue.SimpleQueue()
        self._running = 0
        self.closed = False

    def put(self, task: Task) -> None:
        """Queue a task."""
        assert self._waiting
        self._waiting.put(json.dumps(vars(task)))

    def suggest(self, trial_id: str) -> Any:
        assert self._waiting
        try:
            # with nothing to watch Tune would sleep for a second, or for two, between its questions
            task = self._waiting.get(timeout=0.0 if self._running else IDLE_SECONDS)
        except queue.Empty:
            return Searcher.FINISHED if self.closed else None
        self._running += 1
        return {"task": task, **self._fixed}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Count; ResultCallback is told, with the reason of an error."""
        self._running -= 1

    def __getstate__(self) -> dict[str, Any]:
        """Return what Tune may write into its snapshot, which nobody reads."""
        return {**self.__dict__, "_waiting": None}

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the journal is the only truth."""

    def restore(self, checkpoint_path: str) -> None:
        raise AssertionError("a run is resumed from its journal, not from Tune's snapshot")


@dataclasses.dataclass(frozen=True)
class TaskResult:
    """What Tune tells of one trial: an answer, or why there is none. Neither: Tune has ended."""

    task: Task | None
    answer: str = ""
    error: str = ""


class ResultCallback(tune.Callback):
    """Tune's way to tell what came of a trial."""

    def __init__(self) -> None:
        self.results: queue.SimpleQueue[TaskResult] | None = queue.SimpleQueue()

    def put(self, result: TaskResult) -> None:
        """Queue what became of a trial."""
        assert self.results
        self.results.put(result)

    def on_trial_complete(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        self.put(TaskResult(_task(trial), trial.last_result[ANSWER]))

    def on_trial_error(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        # the file on this machine: the copy in the run folder comes later
        text = Path(trial.error_file or "").read_text(encoding="utf-8")
        self.put(TaskResult(_task(trial), error=text))

    def __getstate__(self) -> dict[str, Any]:
        return {}


class TuneTrials:
    """Tasks as trials of one Tune experiment, which runs in a thread and ends when it is closed."""

    def __init__(
        self, cluster: Cluster, spec: str, isolate: bool, retries: Retries, folder: Path | None
    ) -> None:
        self._retries = retries
        self._searcher, self._callback = QueueSearcher(spec, isolate), ResultCallback()
        self._live = 0
        self._stopper = _Stop()
        for left in folder.glob(f"{SCRATCH}*") if folder else ():  # of a driver that was killed
            shutil.rmtree(left, ignore_errors=True)
        # every node must be able to write here, says Tune
        self._scratch = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=folder))
        self._thread = threading.Thread(target=self._fit, args=(cluster,), daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return self._live

    def submit(self, task: Task) -> None:
        """Give a task to Tune."""
        self._live += 1
        self._searcher.put(task)

    def wait(self) -> list[Outcome]:
        """Return the outcomes that are ready; block until there is one, but not for long.

        Raises:
            RunError: Tune has ended by itself.
        """
        outcomes, patience = [], LONGEST
        with contextlib.suppress(queue.Empty):
            while True:
                assert self._callback.results
                outcomes.append(self._collect(self._callback.results.get(timeout=patience)))
                patience = 0.0
        return [outcome for outcome in outcomes if outcome]

    def close(self) -> None:
        """Kill what is running, end Tune and remove what it wrote."""
        self._searcher.closed = self._stopper.asked = True
        self._thread.join(END_SECONDS)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _collect(self, result: TaskResult) -> Outcome | None:
        task = result.task
        if task is None:
            raise RunError(f"Ray Tune has ended: {result.error}; go on with --resume")
        if result.answer:
            self._live -= 1
            outcome = read(json.loads(result.answer))
            return dataclasses.replace(outcome, retries=self._retries.done(task.number))
        if "LocalRayletDiedError" in result.error:  # no try of any task can succeed
            raise LocalRayletDiedError(_cause(result.error))
        if self._retries.again(task.number, result.error):
            self._searcher.put(task)
            return None
        self._live -= 1
        return self._retries.failed(task.number, _cause(result.error))

    def _fit(self, cluster: Cluster) -> None:
        """Run the experiment. The body of the thread."""

        def needs(config: Mapping[str, Any]) -> tune.PlacementGroupFactory:
            share = cluster.needs(Task(**json.loads(config["task"])))
            return tune.PlacementGroupFactory([{"CPU": share.cpus, "GPU": share.gpus}])

        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # ResultCallback tells what fails
        try:
            tune.Tuner(
                tune.with_resources(TaskTrainable, needs),
                tune_config=tune.TuneConfig(
                    search_alg=self._searcher,
                    num_samples=-1,
                    reuse_actors=True,
                    trial_dirname_creator=lambda trial: trial.trial_id,
                ),
                run_config=tune.RunConfig(
                    name="tune",
                    storage_path=str(self._scratch),
                    verbose=0,
                    stop=self._stopper,
                    callbacks=[self._callback],
                    # checkpoints are the trainings' own, in the run folder
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                    failure_config=tune.FailureConfig(max_failures=0),
                ),
            ).fit()
        except BaseException as error:  # the other thread has to learn of it
            with contextlib.suppress(Exception):
                self._callback.put(TaskResult(None, error=f"{type(error).__name__}: {error}"))


class _Stop(tune.Stopper):
    """Ends all trials when it is asked to."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.asked


def _task(trial: TuneTrial) -> Task:
    return Task(**json.loads(trial.config["task"]))


def _cause(error: str) -> str:
    """Return in one line what ended a trial, from Tune's text on it."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    own = [line.partition(DIED)[2] for line in lines if DIED in line]
    rays = [line for line in lines if "died" in line]
    return (own or rays or lines or ["no reason known"])[-1][:200]
