"""What a training tells while it runs: the events that a screen shows. Light: no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Row = Mapping[str, float]


class TrainingProgress:
    """Listens to a training; this one shows nothing, a screen overrides what it shows.

    `running`: whether a training has begun and not ended.
    """

    running = False

    def say(self, text: str) -> None:
        """Show one line; "" shows nothing."""

    def begin(self, name: str, epochs: int, earlier: Sequence[Row]) -> None:
        """Start showing a training; `earlier` epochs are those of before a resumption."""

    def part(self, share: float) -> None:
        """Note which share of the running epoch has gone by."""

    def epoch(self, row: Row) -> None:
        """Show a finished epoch."""

    def notice(self, text: str) -> bool:
        """Show a line below what is live; tell whether there is one. Safe in a signal handler."""
        return False

    def end(self) -> None:
        """Stop showing it."""


def best(rows: Sequence[Row]) -> Row:
    """Return the row of the best validation top-1, the first of equals."""
    return max(rows, key=lambda row: row.get("val_top1", -1.0))
