"""The whole system on one page: what each part must offer to the others.

    space ──▶ controller proposes choices ──▶ Space.decode ──▶ Arch ──▶ cost, exact, before anything
                      ▲                                          │
                      │ tell                                     ▼
                  objective ◀── Metrics ◀── evaluator, run by an executor

Only JSON crosses a process border: a Task out, an Outcome back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from nas.evaluation.parent import Parent
    from nas.exporting.request import ExportRequest
    from nas.models.arch import Arch
    from nas.training.amount import Amount

Option = bool | int | float | str
Choices = dict[str, Option]
Decode = Callable[[Mapping[str, Any]], "Arch"]
Fits = Callable[["Arch"], bool]  # whether an arch meets the targets and limits of a search
# `accuracy` in percent; any other name may follow: accuracy_std, latency_ms, throughput, ...
Metrics = dict[str, float]
# what the journal keeps of a trial beside its metrics, which must not be called so
RECORD = ("state", "arch_id", "reason", "seconds", "rungs", "place", "retries")
# how the node of a trial begins whose seconds are no real ones
VIRTUAL = "virtual"
# the states of a trial that was evaluated, and counts against the number of trials
SPENT = ("done", "stopped", "failed")
# the states of a trial whose accuracy is known in full, each network once
SCORED = ("done", "earlier")
# multiply-adds that a training has cost so far: what searches of equal cost are compared by
TRAINING_FLOPS = "training_flops"


@dataclass(frozen=True)
class Space:
    """A set of choices and how a point of it becomes an Arch.

    `choices` maps each name to its options, in the order a controller decides them. `decode` must
    be pure. `encode` finds the choices of an arch, or None if the space cannot express it. `valid`
    tells which points are meant to be networks at all; without it every point is.

    `references` names designs that a person would try, as points of the space, which become the
    first trials of a search, or as archs beside it, which are compared with. It is given a
    function that tells whether an arch meets the targets and limits of the search; it must be
    pure, and take milliseconds.
    """

    name: str
    choices: Mapping[str, Sequence[Option]]
    decode: Decode
    encode: Callable[[Arch], Choices | None] | None = None
    valid: Callable[[Mapping[str, Any]], bool] | None = None
    source: str = ""
    references: Callable[[Fits], Mapping[str, Arch | Choices]] | None = None

    @property
    def size(self) -> int:
        """Return the number of points; several may decode to one network."""
        return math.prod(len(options) for options in self.choices.values())


class Evaluator(Protocol):
    """Arch in, metrics out.

    A file of nas/evaluation/evaluators exports `make(**options) -> Evaluator`.
    """

    title: str  # one line for the screen: what is predicted or measured, and how well

    def check(self, arch: Arch) -> None:
        """Do nothing, at once, if this arch can be evaluated.

        Raises:
            EvaluatorError: the arch lies outside what the evaluator knows.
        """

    def evaluate(self, arch: Arch, *, seed: int = 0) -> Metrics:
        """Return finite metrics with at least `accuracy`; equal seeds, equal metrics."""


class Trainer(Evaluator, Protocol):
    """An evaluator that trains, and can be asked for an accuracy on the way.

    `rungs`: the epochs at which it is asked, ascending; the last is the whole training. Its file
    sets `TRAINS = True`, so that executors give it processes of its own: a training may take all
    memory, hang or crash.
    """

    rungs: tuple[int, ...]

    def train(self, arch: Arch, *, seed: int, epochs: int, folder: str) -> Metrics:
        """Train up to `epochs`, from the checkpoint in `folder` if there is one.

        Return what `evaluate` returns, and `training_flops`: multiply-adds spent so far. Equal
        seeds, equal metrics on one device, however often it was stopped on the way.
        """


class TrainingEvaluator(Trainer, Protocol):
    """A trainer that also says what it trains on, and for how long: all that is read of one.

    `notes`: lines to show before a search. `fingerprint`: equal for equal images, "" where there
    are none; `former_fingerprint`: what an older version would have said of them. `classes` of the
    images. `image_side`: median shorter side in pixels of some, None where there are none; it may
    decode them. `images`: image passes of a whole trial, in training steps. `trial_seconds`: of
    each trial, 0: it is trained for epochs. `rung_unit` tells what a rung counts. `amount`: a
    candidate's training as images, batch and epochs, None where each has its own; `fraction`: the
    share of the training images in it. `parent`: whose weights each arch inherits, None for none;
    `full_amount`: a whole fine-tuning then.

    What an evaluator of the user's lacks of these has a stand-in in `nas.evaluation.evaluate`.
    """

    notes: tuple[str, ...]
    fingerprint: str
    former_fingerprint: str
    classes: tuple[str, ...]
    images: float
    trial_seconds: float
    rung_unit: str
    amount: Amount | None
    fraction: float
    parent: Parent | None

    @property
    def image_side(self) -> int | None: ...

    def full_amount(self, arch: Arch) -> Amount | None: ...

    def estimated_seconds(self, arch: Arch) -> float:
        """Return about how long a candidate's training takes; 0: unknown."""

    def estimated_worth(self, arch: Arch) -> str:
        """Return in words what a candidate gets that is trained for a time; "" for any other."""


class Controller(Protocol):
    """Proposes points: a file of nas/searching/controllers exports `make(space, *, seed, ...)`.

    It gives an Optuna sampler. What it proposes must depend only on the seed, the trial's number
    and the finished trials, so that a resumed search goes on as if it had never stopped
    (`nas.searching.samplers` has two adapters).
    `OBJECTIVES` names what it can pursue: "reward", "pareto". A `make` with a keyword
    `constraint_violation` (or `excess`, its name of before) is given a function that tells how far
    a point is above the hard limits, to propose feasible points; one with `draw`, a function that
    draws a random point that meets the target, to begin with; one with `goal`, the
    `nas.searching.objective.Goal` of the search; one with `prior`, the prior mean of accuracies.
    """

    @property
    def OBJECTIVES(self) -> tuple[str, ...]: ...

    @property
    def make(self) -> Callable[..., BaseSampler]: ...


@dataclass(frozen=True)
class Timing:
    """The time of one batch on a device, in ms, and `throughput` in images per second.

    `n`: timed runs, after the warm-up; 0: computed, not measured. `load`: load average of the last
    minute per core, None where the system does not tell. `unrest`: the larger of (p75 - p25) /
    median and of the share of the time in which the core worked for somebody else; a number is
    `steady` up to 0.10. `notes`: one line for each thing to know about this number.
    """

    median_ms: float
    p10_ms: float
    p90_ms: float
    n: int
    load: float | None
    unrest: float
    steady: bool
    batch: int
    throughput: float
    notes: tuple[str, ...] = ()


class Device(Protocol):
    """Device on which the latency of archs is measured.

    A file of nas/hardware/devices exports `make(**options)`.

    `title`: one line for the screen. `fingerprint`: one line with all that a time depends on
    beside the arch (machine, library, batch, threads): equal lines, comparable times.
    """

    @property
    def title(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    def measure(self, arch: Arch) -> Timing:
        """Return the time of a batch of `arch` at its own resolution, with fresh weights.

        It takes a bounded time, and leaves the process as it was: threads, cores, random numbers,
        memory.

        Raises:
            NasError: this device cannot run the arch.
        """


class Tracker(Protocol):
    """A file of nas/training/trackers exports `make(folder, name, config) -> Tracker`.

    `folder` is the run's, `config` plain JSON. Made again in the same folder it goes on with the
    same curves, as a resumed training does.
    """

    title: str  # one line for the screen: where to look

    def row(self, step: int, numbers: Mapping[str, float]) -> None:
        """Show the numbers of one epoch."""

    def close(self) -> None:
        """Write what is left."""


class Exporter(Protocol):
    """A file format of networks. A file of nas/exporting/formats has these names.

    `request`: the network, images at once, what is known.
    """

    @property
    def FILE(self) -> str:
        """Return the name of the file, as model.onnx, or of the folder."""

    def check(self, request: ExportRequest) -> None:
        """Do nothing, at once, if the format can hold it.

        Raises:
            OptionError, ArchError: it cannot.
            MissingError: a package is not installed.
        """

    def write(self, request: ExportRequest, path: Path) -> None:
        """Write it as a new file or folder."""

    def run(self, path: Path, batches: Sequence[Any], request: ExportRequest) -> list[list[Any]]:
        """Return what the written file answers to batches of images, as another program has it."""

    def hint(self, path: Path, request: ExportRequest) -> list[str]:
        """Return the lines that use the file."""


@dataclass(frozen=True)
class Task:
    """One evaluation, as it travels to a worker. `arch` is `Arch.to_dict()`.

    `epochs` and `folder` are a Trainer's: how far to train, and where its checkpoint lies.
    `timeout_s`: seconds after which it is stopped; 0: none. `gpus`: whole GPUs of its own, which it
    sees as CUDA_VISIBLE_DEVICES; 0: the executor's share.
    """

    number: int
    arch: dict[str, Any]
    seed: int
    epochs: int = 0
    folder: str = ""
    timeout_s: float = 0.0
    gpus: int = 0

    @property
    def limit(self) -> float:
        """Return `timeout_s` by the name of before, which users' executors read."""
        return self.timeout_s


@dataclass(frozen=True)
class EvaluatorSpec:
    """An evaluator for workers: names and options, plain JSON; a `device` measures latencies."""

    evaluator: str
    options: dict[str, Any] = field(default_factory=dict)
    device: str | None = None
    device_options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """Result of a task: metrics, or the reason of a failure.

    `node`: the node that evaluated and its GPU, "" for this machine; `place` is its name of before,
    which users' executors give. `retries`: how often it was begun again because a worker or its
    node was lost.
    """

    number: int
    metrics: Metrics
    error: str = ""
    seconds: float = 0.0
    node: str = ""
    retries: int = 0
    place: InitVar[str] = ""

    def __post_init__(self, place: str) -> None:
        if place:
            object.__setattr__(self, "node", place)


@dataclass(frozen=True)
class ExecutorStatus:
    """Status of an executor: its workers and nodes at this moment.

    `dashboard_url`: where more can be seen. `message`: one line that must be known to read its
    figures, as that its seconds are virtual.
    """

    workers: int
    busy: int
    nodes: int = 1
    gpus: float = 0.0
    retries: int = 0
    dashboard_url: str = field(default="", metadata={"key": "link"})
    message: str = field(default="", metadata={"key": "note"})


class Executor(Protocol):
    """Runs evaluations. A file of nas/evaluation/executors exports `make(spec, ...)`.

    `spec` is an EvaluatorSpec. `make` may take `workers` (0: as many as it thinks right), `isolate`
    (whether a task needs a process of its own), `folder` (the run's, which every worker must see)
    and `seconds` (what a task has taken so far, 0: unknown).
    """

    @property
    def slots(self) -> int:
        """Return how many tasks it works on at once, now; at least 1."""

    def status(self) -> ExecutorStatus:
        """Return its workers and nodes."""

    def submit(self, task: Task) -> None:
        """Start or queue a task."""

    def wait(self) -> list[Outcome]:
        """Return the outcomes that are ready; block until there is one.

        It may return none after some seconds, where `slots` may have changed meanwhile.

        Raises:
            OptionError, RunError, MissingError: nothing can be evaluated, as on a full disk.
        """

    def close(self) -> None:
        """Stop the workers; what is running is abandoned."""


@dataclass(frozen=True)
class Rung:
    """Intermediate result of a training after some epochs: its reward and metrics there."""

    epochs: int
    reward: float
    metrics: Metrics
    seconds: float


@dataclass(frozen=True)
class Trial:
    """One finished proposal.

    `state`: done, duplicate, stopped (early, by a pruner), rejected or failed (see `reason`). In a
    study that drivers share also dropped (superseded): its driver died, or others came first. After
    a warm start also earlier (warm-started): evaluated in another search. `node` is `place` in the
    files of a run.
    """

    number: int
    state: str
    choices: Choices
    arch_id: str
    metrics: Metrics
    values: tuple[float, ...] = ()  # the reward, or one value per objective
    reason: str = ""
    seconds: float = 0.0
    rungs: tuple[Rung, ...] = ()  # of a training: what it showed on the way
    node: str = field(default="", metadata={"key": "place"})  # of the last task
    retries: int = 0


# names of before, which users' executors import: to be removed together with `nas.core.moved`
Work = EvaluatorSpec
Fleet = ExecutorStatus
