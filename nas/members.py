"""Train the members of a family: one task each, the largest first, every result on file at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas import card, run
from nas.data.dataset import open_dataset
from nas.data.splits import carve
from nas.errors import NasError
from nas.interfaces import Executor, Outcome, Task
from nas.member_setup import Plan, Row, begin, memory_needed, opening, warnings, work_of
from nas.progress import Progress
from nas.scaling import INTERRUPTED, Screen, Setup, Stop, open_executor
from nas.units import format_seconds

MEMBER, RESULT, LATENCY, CARD, SCHEMA = "member.json", "result.json", "latency.json", "README.md", 1
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
    setup: Setup, folder: Path, rows: Sequence[Row], screen: Screen, stop: Stop
) -> dict[str, Any]:
    """Train every member that is not on file; return what the result of a scaling gains.

    `members`: the rows, each with `training` where it is trained; `missing`: the reasons of those
    that failed, by name; `stopped`: the reason to stop before the end, or ""; `trained_on`: what
    makes accuracies of two families comparable.

    Raises:
        OptionError, RunError, MissingError: none can be trained, as on a full disk.
    """
    chosen = setup.settings
    dataset = carve(open_dataset(chosen.data or "", download=chosen.download))
    plan = Plan(setup, folder, rows, dataset)
    twins = _twins(rows)
    for name, first in twins.items():
        screen.say(f"{name} is the same network as {first}: trained once")
    due = [row for row in rows if row["name"] not in twins and not _kept(plan, row, screen)]
    due.sort(key=lambda row: -row["flops"])
    missing, reason = _train(plan, due, screen, stop) if due else ({}, "")
    found = [
        _with_training(plan, row, twins.get(str(row["name"]), str(row["name"]))) for row in rows
    ]
    return {
        "members": found,
        "missing": missing,
        "stopped": reason,
        "trained_on": {
            "data": dataset.name,
            "fingerprint": dataset.fingerprint,
            "splits": {name: len(split) for name, split in dataset.splits.items()},
            "recipe": plan.recipe.name,
            "epochs": plan.epochs,
            "batch_size": plan.batch,
            "seed": chosen.seed,
        },
    }


def _twins(rows: Sequence[Row]) -> dict[str, str]:
    """Return for each member that an earlier one equals in all but its name, that one's name."""
    first: dict[str, str] = {}
    twins = {}
    for row in rows:
        key = repr({k: v for k, v in row["arch"].items() if k != "name"})
        if key in first:
            twins[row["name"]] = first[key]
        first.setdefault(key, row["name"])
    return twins


def _kept(plan: Plan, row: Row, screen: Screen) -> dict[str, Any]:
    """Return what is on file of a member that is trained, {} if it is not."""
    path = plan.folder / row["name"] / MEMBER
    if not path.exists():
        return {}
    try:
        found = run.read_json(path)
        if found["schema"] == SCHEMA and found["metrics"]["test_accuracy"] >= 0:
            return dict(found)
    except (NasError, LookupError, TypeError):
        pass
    screen.say(f"{path} is damaged: measured again; what was trained stays")
    return {}


def _with_training(plan: Plan, row: Row, name: str) -> dict[str, Any]:
    """Return a row with what the training of the member of this name gave, if it is on file."""
    path = plan.folder / name / MEMBER
    if not path.exists():
        return dict(row)
    found = run.read_json(path)
    return {**row, "training": {**found["metrics"], **_where(found)}}


def _where(found: Row) -> dict[str, Any]:
    return {
        key: found[key]
        for key in ("device", "latency_device", "place", "retries", "member", "memory_estimate")
    }


def _train(
    plan: Plan, due: Sequence[Row], screen: Screen, stop: Stop
) -> tuple[dict[str, str], str]:
    """Train members; return the reasons of those that failed, and of a stop."""
    names = {number: row for number, row in enumerate(due)}
    missing: dict[str, str] = {}
    reason = stop()
    if reason:
        return missing, reason
    for row in due:
        begin(plan, row)
    screen.say(opening(plan, due))
    for line in warnings(plan, due):
        screen.say(line)
    executor = open_executor(plan.setup, work_of(plan), plan.folder)
    screen.patient = False  # a training keeps what it has done when it is told to end
    try:
        with Progress([plan.folder / row["name"] for row in due], plan.epochs, screen.say):
            for number, row in names.items():
                executor.submit(_task(plan, number, row))
            while names and not reason:
                for outcome in executor.wait():
                    row = names.pop(outcome.number)
                    if outcome.error:
                        missing[row["name"]] = outcome.error.removeprefix("NasError: ")
                    else:
                        _keep(plan, row, outcome)
                    screen.say(_ending(row["name"], outcome))
                reason = stop() if names else ""
    except KeyboardInterrupt:
        reason = INTERRUPTED
    finally:
        _close(executor, screen)
    return missing, reason


def _close(executor: Executor, screen: Screen) -> None:
    executor.close()
    screen.patient = True


def _task(plan: Plan, number: int, row: Row) -> Task:
    chosen = plan.setup.settings
    return Task(
        number,
        dict(row["arch"]),
        chosen.seed,
        plan.epochs,
        str((plan.folder / row["name"]).resolve()),
        chosen.trial_time_limit or 0.0,
        plan.gpus(row["name"]),
    )


def _keep(plan: Plan, row: Row, outcome: Outcome) -> None:
    """Write what came of a member, which says that it is trained and measured."""
    folder = plan.folder / row["name"]
    gpus = plan.gpus(row["name"])
    run.write_json(
        folder / MEMBER,
        {
            "schema": SCHEMA,
            "member": row["name"],
            "metrics": outcome.metrics,
            "memory_estimate": memory_needed(row, plan.batch, gpus),
            "device": run.read_json(folder / RESULT)["device"],
            "latency_device": run.read_json(folder / LATENCY)["device"],
            "place": outcome.place,
            "retries": outcome.retries,
        },
    )


def cells(result: Row, member: Row) -> list[Any]:
    """Return a member's cells of COLUMNS, empty ones where it is not trained."""
    problem = {"problem": result["missing"].get(member["name"], "")}
    found = {**member.get("training", {}), **problem}
    return [found.get(column, "") for column in COLUMNS]


def describe(folder: Path, result: Row) -> None:
    """Write each trained member's place in the family into its model card."""
    for member in result["members"]:
        path = folder / member["name"] / CARD
        if "training" in member and path.exists():
            run.write_text(path, card.placed(path.read_text(encoding="utf-8"), result, member))


def _ending(name: str, outcome: Outcome) -> str:
    """Return the line on a member that has ended."""
    if outcome.error:
        return f"{name} failed: {outcome.error}"
    found = outcome.metrics
    where = f" on {outcome.place}" if outcome.place else ""
    return (
        f"{name} done{where}: val {found['accuracy']:.2f} %, test {found['test_accuracy']:.2f} % "
        f"±{found['test_accuracy_std']:.2f}, {format_seconds(found['training_seconds'])} of "
        f"training, latency {found['latency_ms']:.1f} ms"
    )
