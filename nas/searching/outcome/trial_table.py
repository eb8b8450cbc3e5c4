"""The trials of a study as a CSV file: trials.csv, random.csv."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas.core import run_folder
from nas.core.errors import RunError
from nas.interfaces import SCORED, Trial
from nas.searching.objective import Goal
from nas.searching.studies.study import RANDOM, SEARCH

FILES = {SEARCH: "trials.csv", RANDOM: "random.csv"}
LAST = ("reason", "place", "retries")  # the last columns


class TrialTable:
    """The trials of one study as a CSV file, one row more with each finished trial.

    It is written anew from the journal when a run is opened, so it never disagrees with it.
    """

    def __init__(self, path: Path, trials: Sequence[Trial], goal: Goal) -> None:
        self._path, self._goal, self._waiting = path, goal, list(trials)
        self._columns: list[str] = []
        try:
            self._file = path.open("w", newline="", encoding="utf-8")
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror}") from error
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._write()

    def append(self, trial: Trial) -> None:
        """Add a finished trial."""
        self._waiting.append(trial)
        self._write()

    def close(self) -> None:
        """Write what still waits for a first evaluated trial to name the columns."""
        try:
            self._write(final=True)
        finally:
            with contextlib.suppress(OSError):
                self._file.close()

    def _write(self, *, final: bool = False) -> None:
        try:
            self._write_rows(final)
        except OSError as error:
            raise RunError(f"cannot write {self._path}: {error.strerror}") from error

    def _write_rows(self, final: bool) -> None:
        if final and not (self._columns or self._waiting):  # no trial at all: a table all the same
            self._writer.writerow(["number", "state", "reward", "seconds", "arch_id", *LAST])
        named = next((t for t in self._waiting if t.state in SCORED), None)
        if not self._columns and self._waiting and (named or final):
            first = named or self._waiting[0]
            self._columns = [*first.metrics, *first.choices]
            self._writer.writerow(
                ["number", "state", "reward", "seconds", *self._columns, "arch_id", *LAST]
            )
        if self._columns:
            self._writer.writerows(run_folder.cells(self._row(trial)) for trial in self._waiting)
            self._waiting = []
            self._file.flush()

    def _row(self, trial: Trial) -> list[Any]:
        cells = {**trial.choices, **trial.metrics}
        value = self._goal.reward_of(trial) if trial.values else ""
        named = [cells.get(column, "") for column in self._columns]
        seconds = f"{trial.seconds:.3g}"
        last = [trial.reason, trial.node, trial.retries]
        return [trial.number, trial.state, value, seconds, *named, trial.arch_id, *last]
