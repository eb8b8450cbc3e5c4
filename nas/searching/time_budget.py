"""The time limit of a search, shared by its stages."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

TIME_LIMIT = "time limit"


@dataclass(frozen=True)
class TimeBudget:
    """A time limit in seconds (None: none) that `stages` share evenly, one after another.

    A stage ends by its part of the whole since the start, so what one leaves the next ones have,
    and what one takes beyond its share they lack.
    """

    limit: float | None
    stages: int
    clock: Callable[[], float] = time.monotonic
    start: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", self.clock())

    def left(self, stage: int) -> float | None:
        """Return the seconds that a stage, counted from 1, has left; None: as many as it takes."""
        if self.limit is None:
            return None
        return self.start + self.limit * stage / self.stages - self.clock()

    def late(self, stage: int, needed: float = 0.0) -> Callable[[], str]:
        """Return what tells that a stage is to end, as a reason or an empty string.

        needed: seconds of what would be begun next; where they are not left the stage ends too.
        """

        def reason() -> str:
            left = self.left(stage)
            return TIME_LIMIT if left is not None and left <= needed else ""

        return reason
