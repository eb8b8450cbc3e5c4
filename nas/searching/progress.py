"""What a search tells while it runs: the events that a screen shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from nas.interfaces import ExecutorStatus, Trial
from nas.searching.objective import Goal


class SearchProgress:
    """Listens to a search; this one shows nothing, a screen overrides what it shows."""

    def say(self, text: str) -> None:
        """Show one line; "" shows nothing."""

    def begin(
        self,
        name: str,
        total: int,
        goal: Goal,
        references: Mapping[str, str],
        earlier: Sequence[Trial],
        fleet: Callable[[], ExecutorStatus],
    ) -> None:
        """Start showing one study; `earlier` trials are those of before a resumption.

        `references`: names of reference designs by arch id.
        """

    def trial(self, trial: Trial) -> None:
        """Show a finished trial."""

    def end(self) -> None:
        """Stop showing it."""
