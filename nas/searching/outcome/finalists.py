"""The finalists of a search, and the length of their trainings."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from nas.core import run_folder
from nas.interfaces import EvaluatorSpec, Trial
from nas.searching.evaluator_spec import of_length
from nas.searching.final_length import Length
from nas.searching.outcome import selection
from nas.searching.outcome.finals import Finalist
from nas.searching.setup import Setup
from nas.searching.studies.study import Log

FINALS = "finals.json"  # the length of the finals, of a run


def select_finalists(
    setup: Setup, studies: selection.Studies, left: float | None, slots: int
) -> list[Finalist]:
    """Return the finalists: as many as can be trained once in the seconds that are left.

    At least two, so that there is a comparison. Of a search from weights fewer are trained rather
    than shorter: the parent, fine-tuned in full, is what the others are compared with. left: None:
    any time. slots: trainings at once.
    """
    all_finalists = selection.finalists(setup, *studies)
    if left is None or not (each := _candidate_seconds(setup, studies.search.trials)):
        return all_finalists
    if setup.parent:
        each *= setup.final_length().ratio * setup.final_seeds
    most = max(2, math.floor(left * slots / each))
    return selection.limit_finalists(all_finalists, most, setup.parents)


def length(
    setup: Setup, folder: Path, log: Log, nets: int, left: float | None, slots: int
) -> Length:
    """Return how long each training of the finals is, the same in a run however often resumed.

    What is not asked for is shortened to the seconds that are left, but not below a candidate's.
    """
    path, chosen, full = folder / FINALS, setup.settings, setup.final_length()
    if chosen.final_epochs or chosen.final_fraction or not nets:
        return full
    if path.exists():
        kept = run_folder.read_json(path)
        return setup.final_length(int(kept["epochs"]), float(kept["fraction"]))
    if left and (each := _candidate_seconds(setup, log.trials())) and full.ratio > 1:
        turns = math.ceil(nets * setup.final_seeds / slots)
        share = left / (turns * each * full.ratio)
        least = math.ceil(full.epochs / full.ratio)
        fewer = max(least, min(full.epochs, int(full.epochs * share)))
        full = setup.final_length(fewer, full.fraction)
    run_folder.write_json(path, {"epochs": full.epochs, "fraction": full.fraction})
    return full


def seconds(setup: Setup, log: Log, chosen: Length) -> float:
    """Return an estimate of the seconds of one training of the finals, 0 if there is none."""
    return _candidate_seconds(setup, log.trials()) * chosen.ratio


def spec_of_length(setup: Setup, chosen: Length) -> EvaluatorSpec:
    """Return the evaluator spec of the finals: the search's, with trainings of another length."""
    return of_length(setup.spec, chosen.epochs, chosen.fraction)


def _candidate_seconds(setup: Setup, trials: Sequence[Trial]) -> float:
    """Return the median seconds of a candidate's whole training, 0 if none has ended."""
    done = [trial for trial in trials if trial.state == "done" and trial.seconds]
    last = setup.rungs[-1] if setup.rungs else 1
    return statistics.median(_whole_seconds(trial, last) for trial in done) if done else 0.0


def _whole_seconds(trial: Trial, last: int) -> float:
    """Return the seconds that a training takes up to its last rung, `last`.

    The first of a run is counted where its share of the time ended, with the reason: it has come
    to an earlier rung.
    """
    if not (trial.reason and trial.rungs):
        return trial.seconds
    return trial.seconds * max(1.0, last / trial.rungs[-1].epochs)
