"""Progress of a scaling: the lines that a screen shows."""

from __future__ import annotations


class ScalingProgress:
    """Listens to a scaling; this one shows nothing, a screen overrides what it shows.

    `patient`: whether a request to stop waits for what is running. `run`: the folder that it works
    in, "" before there is one.
    """

    patient, run = True, ""

    def say(self, text: str) -> None:
        """Show one line; "" shows nothing."""
