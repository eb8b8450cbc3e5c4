"""Every shipped part against the protocol of its kind, by the type checker."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from nas.core import registry
from nas.interfaces import Outcome, Task

ROOT = Path(__file__).parents[2]
# what the `make` of a part of each kind returns
MADE = {
    "devices": "Device",
    "evaluators": "Evaluator",
    "executors": "Executor",
    "trackers": "Tracker",
    "pruners": "BasePruner",
}
HEAD = """
from collections.abc import Callable
from typing import Any

from optuna.pruners import BasePruner

from nas.evaluation.evaluators.training import Training
from nas.interfaces import (
    Controller, Device, Evaluator, Executor, Exporter, Tracker, Trainer, TrainingEvaluator
)

def training(evaluator: Training) -> TrainingEvaluator:
    return evaluator

"""


def statements() -> list[str]:
    """Return one assignment for each shipped part, which holds if it keeps the protocol."""
    found = []
    for kind, wanted in MADE.items():
        for name in registry.names(kind):
            module = f"{registry.PACKAGES[kind]}.{name}"
            found += [
                f"import {module}",
                f"{kind}_{name}: Callable[..., {wanted}] = {module}.make",
            ]
    for kind, wanted in (("controllers", "Controller"), ("exporters", "Exporter")):
        for name in registry.names(kind):
            module = f"{registry.PACKAGES[kind]}.{name}"
            found += [f"import {module}", f"{kind}_{name}: {wanted} = {module}"]
    return found


@pytest.mark.slow
def test_every_part_keeps_its_protocol(tmp_path: Path) -> None:
    path = tmp_path / "parts.py"
    path.write_text(HEAD + "\n".join(statements()))
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
    done = subprocess.run(
        [*command, "--cache-dir", str(ROOT / ".mypy_cache"), str(path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_names_of_before_still_work_in_users_executors() -> None:
    outcome = Outcome(1, {"accuracy": 50.0}, place="host gpu 0")
    assert outcome.node == "host gpu 0" == dataclasses.replace(outcome, retries=1).node
    assert Task(1, {}, 0, timeout_s=9.0).limit == 9.0
