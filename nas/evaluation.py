"""Do one Task with an evaluator: an exception becomes a failed outcome with its reason."""

from __future__ import annotations

import math
import time

from nas.arch import Arch
from nas.interfaces import RECORD, Evaluator, Metrics, Outcome, Task


def perform(evaluator: Evaluator, task: Task) -> Outcome:
    """Return the outcome of a task; whatever the evaluator raises is recorded, not passed on."""
    start = time.perf_counter()
    try:
        found = evaluator.evaluate(Arch.from_dict(task.arch), seed=task.seed)
        # plain floats: numpy's and torch's scalars are no JSON
        metrics = {str(name): float(value) for name, value in found.items()}
        problem = _problem(metrics)
    except Exception as error:
        metrics, problem = {}, f"{type(error).__name__}: {error}"
    seconds = time.perf_counter() - start
    return Outcome(task.number, {} if problem else metrics, problem, seconds)


def _problem(metrics: Metrics) -> str:
    if "accuracy" not in metrics:
        return "the evaluator gave no accuracy"
    taken = [name for name in metrics if name in RECORD]
    if taken:
        return f"the evaluator calls a metric {taken[0]!r}, a name that the journal needs"
    bad = [name for name, value in metrics.items() if not math.isfinite(value)]
    return f"{bad[0]} is {metrics[bad[0]]}" if bad else ""
