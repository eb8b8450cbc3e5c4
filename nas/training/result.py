"""What the verbs on trained models return: train, val, predict; and doctor. Light."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nas.core.records import Record, Table, named, optional
from nas.data.checks import Finding
from nas.training.scores import TeacherScore

# what there is to tell of a training that was stopped: nothing is saved of it, the test not read
STOPPED = ("schema", "run", "stopped", "epochs", "epochs_done", "best_epoch", "val", "probe")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ValScore(Record):
    """Accuracies in percent on the val split, at the best epoch; `top1_raw` without averaging.

    `loss`: None where it is not finite. `standard_error` in points, from the number of images `n`.
    """

    loss: float | None = None
    top1: float
    top5: float = 100.0
    top1_raw: float | None = optional(None)
    top1_ema: float | None = optional(None)
    n: int = 0
    standard_error: float = 0.0

    def _omits(self, key: str) -> bool:
        return not self.n and key != "top1"  # of a training that was stopped


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class HeldOutScore(Record):
    """Accuracies in percent on the test split, which is read once, at the end."""

    top1: float
    top5: float = 100.0
    loss: float | None = None
    n: int
    standard_error: float


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ProbeScore(Record):
    """What a linear probe gave on the val split: accuracies in percent; `n` images.

    `strength`: of the penalty on the squared weights, beside the mean loss. `statistics` of the
    norms: `own`, as the weights came with them, or `recalibrated` on these images.
    """

    top1: float
    top5: float = 100.0
    loss: float
    n: int = 0
    strength: float = 0.0
    statistics: str = "own"
    seconds: float = 0.0


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class TrainResult(Record):
    """A training; `test` is None where it was stopped, with the reason in `stopped`.

    `probe`: what the linear probe gave that a fine-tuning starts with. Of the probe alone, and
    where no epoch was better on val, `best_epoch` is 0.

    Of several processes under torchrun all but the first get one that is empty: `epochs` is 0.
    `warning`: why the weights are hardly of use, "" where nothing is wrong.
    """

    schema: int = 1
    run: Path
    stopped: str = ""
    arch: str = ""
    arch_id: str = ""
    params: int = 0
    flops: int = 0
    recipe: str = ""
    epochs: int = 0
    epochs_done: int = 0
    best_epoch: int = 0
    val: ValScore | None = None
    test: HeldOutScore | None = None
    classes: tuple[str, ...] = ()
    data: str = ""
    splits: dict[str, int] = field(default_factory=dict)
    imgsz: int = 0
    device: str = ""
    seconds: float = 0.0
    images_per_second: float = 0.0
    notes: tuple[str, ...] = ()
    warning: str = ""
    probe: ProbeScore | None = optional(None)
    teacher: TeacherScore | None = optional(None)

    @property
    def done(self) -> int:
        """Return the number of epochs that were trained; older versions told the planned ones."""
        return self.epochs_done or self.epochs

    @property
    def scores(self) -> list[tuple[str, ValScore | HeldOutScore]]:
        """Return the splits that were scored, by name."""
        both = (("val", self.val), ("test", self.test))
        return [(name, found) for name, found in both if found]

    def _omits(self, key: str) -> bool:
        nothing = not self.epochs and not self.probe
        return nothing or (self.test is None and key not in STOPPED)

    def _summary(self) -> dict[str, object]:
        told: dict[str, object] = {"arch": self.arch, "data": self.data} if self.test else {}
        told |= {"stopped": self.stopped} if self.stopped else {}
        told |= {"val_top1": self.val.top1} if self.val else {}
        told |= {"test_top1": self.test.top1} if self.test else {}
        return {**told, "epochs": self.done, "run": self.run}


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ClassScore(Record):
    """Of the images of one class: how many, how many were told, what most others were taken for.

    `top1`: None of a class without images.
    """

    name: str = named("class")
    n: int
    top1: float | None
    confused_with: str | None
    confused: int


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ValResult(Record):
    """The score of a trained model: `n` of `images` were scored, accuracies in percent.

    `confusion`: rows are the true classes; None of too many classes to count.
    """

    schema: int = 1
    run: Path
    data: str
    split: str
    n: int
    images: int
    top1: float
    top5: float
    loss: float | None
    standard_error: float
    classes: tuple[str, ...]
    per_class: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...] | None
    notes: tuple[str, ...]

    def _summary(self) -> dict[str, object]:
        told: dict[str, object] = {"data": self.data, "split": self.split, "n": self.n}
        return {**told, "top1": self.top1, "standard_error": self.standard_error, "run": self.run}

    def _table(self) -> Table:
        head = ("class", "images", "top-1 %", "taken for")
        rows = [(e.name, e.n, _two(e.top1), e.confused_with or "") for e in self.per_class]
        return Table(head, rows)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Likelihood(Record):
    """A class, and the probability that a model gives it."""

    name: str = named("class")
    probability: float


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Prediction(Record):
    """The likeliest classes of an image, or the `error` that kept it from being read."""

    path: Path
    error: str = optional("")
    top: tuple[Likelihood, ...] = optional(())


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class PredictResult(Record):
    """The likeliest classes of images; `failed` of them could not be read."""

    schema: int = 1
    run: Path
    images: tuple[Prediction, ...]
    failed: int
    warning: str

    def _summary(self) -> dict[str, object]:
        told: dict[str, object] = {"images": len(self.images), "failed": self.failed}
        return {**told, "run": self.run}

    def _table(self) -> Table:
        likeliest = [(each, each.top[0] if each.top else None) for each in self.images]
        rows = [
            (each.path, best.name, f"{best.probability:.3f}") if best else (each.path, each.error)
            for each, best in likeliest
        ]
        return Table(("image", "class", "probability"), rows)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class DoctorResult(Record):
    """What is known of data and machine; `data`: None where there is none that can be read.

    `findings`: what is wrong or remarkable, the worst first, each with an advice.
    """

    schema: int = 1
    data: dict[str, Any] | None
    machine: dict[str, Any]
    findings: tuple[Finding, ...]

    def _summary(self) -> dict[str, object]:
        told: dict[str, object] = {"data": self.data["name"]} if self.data else {}
        levels = Counter(each.level for each in self.findings)
        return {**told, "findings": dict(levels)}

    def _table(self) -> Table:
        rows = [(each.level, each.finding, each.advice) for each in self.findings]
        return Table(("level", "finding", "advice"), rows)


def _two(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
