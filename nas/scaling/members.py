"""Training of the members of a family: one task each, largest first, each result filed at once."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nas.core import run_folder
from nas.core.errors import NasError, RunError
from nas.core.units import format_seconds
from nas.data.identity import unchanged, way_back
from nas.evaluation.run_all import run_all
from nas.interfaces import Outcome, Task
from nas.models.arch import Arch
from nas.scaling.epoch_watcher import EpochWatcher
from nas.scaling.family_card import placed
from nas.scaling.member_setup import (
    ARCH,
    MemberPlan,
    begin,
    memory_needed,
    opening,
    plan_of,
    spec_of,
    warnings,
)
from nas.scaling.progress import ScalingProgress
from nas.scaling.result import Member, MemberTraining, ScaleResult, TrainedOn
from nas.scaling.setup import INTERRUPTED, ScaleSetup, Stop, open_executor

MEMBER, RESULT, LATENCY, CARD, SCHEMA = "member.json", "result.json", "latency.json", "README.md", 1
DATA = "data.json"  # of a training: the images that it is of
# numbers that every member.json holds, and what it tells beside them
METRICS = (
    *("accuracy", "accuracy_std", "test_accuracy", "test_accuracy_std"),
    *("latency_ms", "latency_p10_ms", "latency_p90_ms", "latency_unrest"),
    *("images_per_second", "training_seconds"),
)
WHERE = ("device", "latency_device", "place", "retries", "member", "memory_estimate")
# of a member that was trained, beside what scaling alone tells
COLUMNS = (
    "accuracy",
    "accuracy_std",
    "test_accuracy",
    "test_accuracy_std",
    "latency_ms",
    "latency_p10_ms",
    "latency_p90_ms",
    "latency_unrest",
    "latency_device",
    "memory_bytes",
    "memory_estimate",
    "images_per_second",
    "training_seconds",
    "device",
    "place",
    "problem",
)


def train_members(
    setup: ScaleSetup, folder: Path, result: ScaleResult, screen: ScalingProgress, stop: Stop
) -> tuple[ScaleResult, NasError | None]:
    """Train every member that is not on file; return the result of a scaling with their accuracies.

    Beside it comes a fatal error (such as a full disk), to be raised once the results are written,
    or None.

    Raises:
        RunError: members on file were trained on other images.
    """
    rows = result.members
    plan = plan_of(setup, folder, rows)
    _check_images(plan)
    twins = _twins(rows)
    for name, first in twins.items():
        screen.say(f"{name} is the same network as {first}: trained once")
    kept = _Members(plan, screen)
    due = [row for row in rows if row.name not in twins and not kept.has(row)]
    due.sort(key=lambda row: -row.flops)
    reason, error = "", None
    try:
        reason = _train(plan, due, kept, stop) if due else ""
    except NasError as caught:
        reason, error = str(caught), caught
    told = replace(
        result,
        members=tuple(_with_training(plan, row, twins.get(row.name, row.name)) for row in rows),
        missing=kept.missing,
        stopped=reason,
        trained_on=_alike(plan),
    )
    return told, error


def _alike(plan: MemberPlan) -> TrainedOn:
    """Return what two families must share for their accuracies to be comparable."""
    dataset, chosen = plan.dataset, plan.setup.settings
    return TrainedOn(
        data=dataset.name,
        fingerprint=dataset.fingerprint,
        splits={name: len(split) for name, split in dataset.splits.items()},
        recipe=plan.recipe.name,
        recipe_options=dict(chosen.recipe_options),
        epochs=plan.epochs,
        batch_size=plan.batch,
        seed=chosen.seed,
        init=plan.setup.weights.told if plan.setup.weights else "",
        teacher=chosen.teacher or "",
    )


def _check_images(plan: MemberPlan) -> None:
    """Check that what is on file was trained on these images.

    Raises:
        RunError: it was not.
    """
    for path in (plan.folder / row.name / name for row in plan.rows for name in (MEMBER, DATA)):
        before = _object(path).get("fingerprint")
        if not unchanged(before, plan.dataset):
            raise RunError(
                f"the images of {plan.setup.settings.data} are not those that {path.parent} was "
                f"trained on: {way_back(before, plan.dataset, path)}"
            )


def _object(path: Path) -> dict[str, Any]:
    """Return what a JSON file holds, {} where there is none or it is damaged."""
    try:
        found = run_folder.read_object(path) if path.exists() else {}
    except NasError:
        return {}
    return found if isinstance(found, dict) else {}


def _twins(rows: Sequence[Member]) -> dict[str, str]:
    """Return for each member that an earlier one equals in all but its name, that one's name."""
    first: dict[Arch, str] = {}
    twins = {}
    for row in rows:
        key = replace(row.arch, name="")
        if key in first:
            twins[row.name] = first[key]
        first.setdefault(key, row.name)
    return twins


@dataclass(frozen=True)
class _Members:
    """The members on file, a member.json in each one's folder; `missing`: why others failed."""

    plan: MemberPlan
    screen: ScalingProgress
    missing: dict[str, str] = field(default_factory=dict)

    def has(self, row: Member) -> bool:
        """Tell whether a member is trained and measured."""
        found = _object(self.plan.folder / row.name / MEMBER)
        return _valid(found) and found["arch_id"] == row.arch.id

    def __contains__(self, item: tuple[Member, Task]) -> bool:
        return self.has(item[0])

    def finish(self, row: Member, task: Task, outcome: Outcome) -> None:
        """Write the outcome of a member to file, and report it."""
        if outcome.error:
            self.missing[row.name] = outcome.error.removeprefix("NasError: ")
        else:
            _keep(self.plan, row, outcome)
        self.screen.say(_ending(row.name, outcome))


def _valid(found: Mapping[str, Any]) -> bool:
    """Tell whether a member.json holds all that is read of it."""
    metrics = found.get("metrics")
    return (
        found.get("schema") == SCHEMA
        and all(key in found for key in (*WHERE, "arch_id", "fingerprint"))
        and isinstance(metrics, dict)
        and all(isinstance(metrics.get(key), int | float) for key in METRICS)
    )


def _with_training(plan: MemberPlan, row: Member, name: str) -> Member:
    """Return a row with what the training of the member of this name gave, if it is on file."""
    found = _object(plan.folder / name / MEMBER)
    if not _valid(found) or found["arch_id"] != row.arch.id:
        return row
    told = {**found["metrics"], **{key: found[key] for key in WHERE}}
    return replace(row, training=MemberTraining.from_dict(told))


def _train(plan: MemberPlan, due: Sequence[Member], kept: _Members, stop: Stop) -> str:
    """Train members; return why some are left undone, "" for none."""
    screen = kept.screen
    if reason := stop():
        return reason
    for row in due:
        path = plan.folder / row.name / MEMBER
        if path.exists() and not _valid(_object(path)):
            screen.say(f"{path} is damaged: measured again; what was trained stays")
        if aside := put_aside(plan.folder / row.name, row.arch.id):
            screen.say(f"{row.name} is another network than before, which is kept as {aside}")
        begin(plan, row)
    for line in (opening(plan, due), *warnings(plan, due)):
        screen.say(line)
    tasks = [(row, _task(plan, number, row)) for number, row in enumerate(due)]
    executor = open_executor(plan.setup, spec_of(plan), plan.folder)
    screen.patient = False  # a training keeps what it has done when it is told to end
    try:
        with EpochWatcher([plan.folder / row.name for row in due], plan.epochs, screen.say):
            return run_all(tasks, executor, kept, stop, patient=False)
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        executor.close()
        screen.patient = True


def put_aside(folder: Path, arch_id: str) -> str:
    """Rename the folder of a member that was trained as another network; return the new name."""
    before = _trained_as(folder)
    if before in ("", arch_id):
        return ""
    other = folder.with_name(f"{folder.name}-{before}")
    while other.exists():
        other = other.with_name(f"{other.name}-2")
    folder.rename(other)
    return other.name


def _task(plan: MemberPlan, number: int, row: Member) -> Task:
    chosen = plan.setup.settings
    return Task(
        number,
        row.arch.to_dict(),
        chosen.seed,
        plan.epochs,
        str((plan.folder / row.name).resolve()),
        chosen.trial_time_limit or 0.0,
        plan.gpus(row.name),
    )


def _trained_as(folder: Path) -> str:
    """Return the id of the network that was or is being trained there, "" for none."""
    if not (folder / run_folder.ARGS).exists():
        return ""
    with contextlib.suppress(NasError):
        found = _object(folder / MEMBER).get("arch_id")
        return str(found or Arch.from_dict(_object(folder / ARCH)).id)
    return ""


def _keep(plan: MemberPlan, row: Member, outcome: Outcome) -> None:
    """Write the result of a member, which marks it as trained and measured."""
    folder = plan.folder / row.name
    run_folder.write_json(
        folder / MEMBER,
        {
            "schema": SCHEMA,
            "member": row.name,
            "arch_id": row.arch.id,
            "fingerprint": plan.dataset.fingerprint,
            "metrics": outcome.metrics,
            "memory_estimate": memory_needed(row, plan.per_step(row.name)),
            "device": run_folder.read_object(folder / RESULT, "device")["device"],
            "latency_device": run_folder.read_object(folder / LATENCY, "device")["device"],
            "place": outcome.node,
            "retries": outcome.retries,
        },
    )


def cells(result: ScaleResult, member: Member) -> list[Any]:
    """Return a member's cells of COLUMNS, empty ones where it is not trained."""
    problem = {"problem": (result.missing or {}).get(member.name, "")}
    found = {**(member.training or {}), **problem}
    return [found.get(column, "") for column in COLUMNS]


def describe(folder: Path, result: ScaleResult) -> None:
    """Write each trained member's place in the family into its model card."""
    for member in result.members:
        path = folder / member.name / CARD
        if member.training and path.exists():
            text = path.read_text(encoding="utf-8")
            run_folder.write_text(path, placed(text, result, member, member.training))


def _ending(name: str, outcome: Outcome) -> str:
    """Return the line on a member that has ended."""
    if outcome.error:
        return f"{name} failed: {outcome.error}"
    found = outcome.metrics
    where = f" on {outcome.node}" if outcome.node else ""
    return (
        f"{name} done{where}: val {found['accuracy']:.2f} %, test {found['test_accuracy']:.2f} % "
        f"±{found['test_accuracy_std']:.2f}, {format_seconds(found['training_seconds'])} of "
        f"training, latency {found['latency_ms']:.1f} ms"
    )
