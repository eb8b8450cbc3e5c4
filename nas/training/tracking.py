"""Show the numbers of a training while it runs, in the programs that the user names."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.core import registry, run_folder
from nas.core.errors import MissingError, NasError, OptionError, first_line
from nas.interfaces import Tracker

DEFAULT, NONE = "tensorboard", "none"


def open_trackers(
    names: Sequence[str] | None,
    folder: Path,
    name: str,
    config: Mapping[str, Any],
    *,
    say: Callable[[str], None] = lambda text: None,
) -> list[Tracker]:
    """Return the trackers of these names, once each; None: TensorBoard if it is installed.

    One that fails later is left out from then on; training goes on. `say` gets a line for each:
    where to look, or why not.

    Raises:
        OptionError: no such tracker, `none` beside another, or one that cannot start.
        MissingError: its package is not installed.
    """
    if names is None:
        return _default(folder, name, config, say)
    if NONE in names and len(set(names)) > 1:
        raise OptionError(f"--tracker none leaves no room for others, not {', '.join(names)}")
    opened: list[Tracker] = []
    try:
        for each in dict.fromkeys(names):
            if each != NONE:
                opened.append(_open(each, folder, name, config, say))
    except NasError:
        for tracker in opened:
            tracker.close()
        raise
    return opened


def _default(
    folder: Path, name: str, config: Mapping[str, Any], say: Callable[[str], None]
) -> list[Tracker]:
    """Return TensorBoard if it is there and works: nobody has asked for it."""
    if importlib.util.find_spec(DEFAULT) is None:
        return []
    try:
        return [_open(DEFAULT, folder, name, config, say)]
    except NasError as error:
        say(f"no TensorBoard: {error}")
        return []


def _open(
    tracker: str, folder: Path, name: str, config: Mapping[str, Any], say: Callable[[str], None]
) -> Tracker:
    try:
        made = registry.make("trackers", tracker, folder, name, dict(config), options={})
    except OptionError as error:
        raise OptionError(" ".join(str(error).split())) from error  # theirs may have many lines
    say(f"{tracker}: {made.title}")
    return _Guarded(tracker, made, say)


class _Guarded:
    """A tracker that is left out after its first error: no curve is worth a training."""

    def __init__(self, name: str, tracker: Tracker, say: Callable[[str], None]) -> None:
        self.title = tracker.title
        self._name, self._tracker, self._say = name, tracker, say
        self._works = True

    def row(self, step: int, numbers: Mapping[str, float]) -> None:
        shown = {k: float(v) for k, v in numbers.items() if isinstance(v, int | float)}
        self._try(lambda: self._tracker.row(step, shown))

    def close(self) -> None:
        self._try(self._tracker.close)
        self._works = False

    def _try(self, call: Callable[[], None]) -> None:
        if not self._works:
            return
        try:
            call()
        except Exception as error:  # a network, a disk, a foreign program
            self._works = False
            reason = f"{type(error).__name__}: {first_line(error)}"
            self._say(f"{self._name} is left out from now on: {reason}")


def need(package: str) -> Any:
    """Return a package of a tracker.

    Raises:
        MissingError: it is not installed, or its own packages do not fit.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingError(
            f"--tracker needs {package} ({error}): pip install {package.partition('.')[0]}"
        ) from None


def remembered(folder: Path, tracker: str) -> str:
    """Return the id under which a tracker knows this run, or an empty string before its first."""
    path = folder / f"{tracker}.id"
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def remember(folder: Path, tracker: str, run_id: str) -> None:
    """Keep that id for a resumption.

    Raises:
        RunError: the disk is full or the folder is read-only.
    """
    run_folder.write_text(folder / f"{tracker}.id", f"{run_id}\n")
