"""What `nas.scale` returns: a family, its costs, and the accuracies of its members. Light."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from nas.core.records import Record, Table, optional
from nas.models.arch import Arch
from nas.models.compound import Multipliers
from nas.scaling.fit.coefficients import Coefficients
from nas.scaling.fit.result import FitResult


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class FamilyBase(Record):
    """The net that a family is scaled from, and its costs."""

    name: str
    arch: Arch
    params: int
    flops: int
    flops_ratio: float = 1.0
    activations: int
    training_bytes_per_image: int
    training_bytes: int


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class MemberTraining(Record):
    """Result of the training of a member; accuracies in percent, of the val and the test split.

    `member`: whose training it is, where two members are one network. `memory_estimate` in bytes.
    """

    accuracy: float
    accuracy_std: float
    test_accuracy: float
    test_accuracy_std: float
    epochs: float | None = optional(None)
    training_seconds: float
    images_per_second: float
    training_flops: float | None = optional(None)
    memory_bytes: float | None = optional(None)
    latency_ms: float
    latency_p10_ms: float
    latency_p90_ms: float
    latency_unrest: float
    device: str
    latency_device: str
    place: str
    retries: int
    member: str
    memory_estimate: int


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Member(Record):
    """One arch of a family: multipliers as asked for and as rounded, resolution in pixels.

    `training`: None where it was not trained.
    """

    name: str
    phi: float
    depth: float
    width: float
    resolution: int
    requested_resolution: float
    rounded_depth: float
    rounded_width: float
    rounded_resolution: float
    two_to_phi: float
    params: int
    flops: int
    flops_ratio: float
    activations: int
    training_bytes_per_image: int
    training_bytes: int
    arch: Arch
    training: MemberTraining | None = optional(None)

    @property
    def requested(self) -> Multipliers:
        """Return the multipliers that the rule asked for."""
        return Multipliers(self.depth, self.width, self.requested_resolution)

    @property
    def rounded(self) -> Multipliers:
        """Return the multipliers that rounding left."""
        return Multipliers(self.rounded_depth, self.rounded_width, self.rounded_resolution)

    def _summary(self) -> dict[str, object]:
        told: dict[str, object] = {"name": self.name, "phi": self.phi, "flops": self.flops}
        trained = {"test_accuracy": self.training.test_accuracy} if self.training else {}
        return {**told, "resolution": self.resolution, **trained}


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class TrainedOn(Record):
    """What two families must share for their accuracies to be comparable.

    `init`: the weights that members start from, in words; "": from nothing. `teacher`: of all.
    """

    data: str
    fingerprint: str
    splits: dict[str, int]
    recipe: str
    recipe_options: dict[str, object] = field(default_factory=dict)
    epochs: int
    batch_size: int
    seed: int
    init: str = ""
    teacher: str = ""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ScaleResult(Record):
    """A family; `members` in the order of phi, none where a fit was stopped.

    `missing`: why members failed, by name, and `trained_on`; both None where nothing was trained.
    `stopped`: why it ended early, "" where it did not.
    """

    schema: int = 1
    run: Path
    base: str
    phi: str
    rule: str
    alpha: float
    beta: float
    gamma: float
    coefficients: Coefficients | None = None
    fit: FitResult | None = None
    fixed_ends: bool = False
    stopped: str = ""
    baseline: FamilyBase
    members: tuple[Member, ...]
    missing: dict[str, str] | None = optional(None)
    trained_on: TrainedOn | None = optional(None)

    def _summary(self) -> dict[str, object]:
        told: dict[str, object] = {"base": self.baseline.name, "rule": self.rule}
        told |= {"members": [each.name for each in self.members]}
        told |= {"stopped": self.stopped} if self.stopped else {}
        return {**told, "run": self.run}

    def _table(self) -> Table:
        head = ("member", "phi", "pixels", "FLOPs", "x base", "params", "test accuracy")
        return Table(head, [_cells(each) for each in self.members])


def _cells(each: Member) -> tuple[object, ...]:
    accuracy = f"{each.training.test_accuracy:.2f}" if each.training else ""
    costs = (f"{each.flops:,}", f"{each.flops_ratio:.2f}", f"{each.params:,}")
    return (each.name, f"{each.phi:g}", each.resolution, *costs, accuracy)
