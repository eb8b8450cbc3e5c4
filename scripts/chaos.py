"""Kill what runs with SIGKILL at random moments, have it resumed, and look for what went wrong.

    search   a search, compared with one that nobody disturbed
    fit      a fit of alpha, beta and gamma that trains on digits
    family   a family that is trained: its driver, worker or training
    drivers  drivers that share a study, some of them suspended
    cluster  searches on a Ray cluster of this machine: workers, nodes or the driver

    python scripts/chaos.py search --kills 20 --trials 300 --controller evolution
    python scripts/chaos.py drivers --drivers 4 --trials 300 --kills 12 --stops 4 --storage URL

Exit code 1 if a result is lost, something is computed again after its result was on file, or the
end differs from that of an undisturbed run. `TARGET --help` says what is counted.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from lib import flags

TARGETS = ("search", "fit", "family", "drivers", "cluster")


@flags.in_one_line
def main(words: Sequence[str] | None) -> int:
    """Disturb one target and print what was counted; return 1 if something is wrong."""
    given = arguments(words)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nas-chaos-") as folder:
        found = given.disturb(given, Path(folder))
    rows = {**found.shown, **found.faults, "seconds": f"{time.monotonic() - start:.0f}"}
    width = max(map(len, rows)) + 2
    for name, value in rows.items():
        print(f"{name:<{width}}{value}")
    return int(any(found.faults.values()))


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = flags.parser(__doc__)
    targets = parser.add_subparsers(required=True, metavar=", ".join(TARGETS))
    for name in TARGETS:
        target = importlib.import_module(f"targets.{name}")
        shown = argparse.RawDescriptionHelpFormatter
        one = targets.add_parser(name, description=target.__doc__, formatter_class=shown)
        one.add_argument("--seed", type=int, default=0, help="of the kills")
        target.add_flags(one)
        one.set_defaults(disturb=target.disturb)
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
