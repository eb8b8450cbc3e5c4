"""How often a task is begun again after its worker or its node was lost."""

from __future__ import annotations

from collections import Counter

from nas.interfaces import Outcome
from nas.workers import PREEMPTED, lost

# a node that leaves is no fault of the task, but a task must not go round for ever
LOSSES = 100
# what Ray says of it, and what a worker says that was told to end
GONE = (
    *("NodeDiedError", "TaskUnschedulableError", "ActorUnavailableError"),
    *("node died", "node has died", "is unavailable", PREEMPTED),
)


class Tries:
    """Counts, for each task that is not done, the workers that died under it and the nodes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._crashes: Counter[int] = Counter()
        self._losses: Counter[int] = Counter()
        self.total = 0  # of all tasks

    def again(self, number: int, cause: str) -> bool:
        """Count a death, of the node or of the worker alone; tell whether to try once more."""
        gone = any(words in cause for words in GONE)
        counted, most = (self._losses, LOSSES) if gone else (self._crashes, self._most)
        counted[number] += 1
        again = counted[number] <= most if gone else counted[number] < most
        self.total += again
        return again

    def done(self, number: int) -> int:
        """Forget a task; return how often it was begun again."""
        return self._crashes.pop(number, 0) + self._losses.pop(number, 0)

    def failed(self, number: int, cause: str) -> Outcome:
        """Forget a task and return its failure."""
        return lost(number, self.done(number), cause)
