"""What can go wrong, as a tree. The command line prints one line and leaves with the exit code.

NasError            1   a run failed
├── OptionError     2   a flag, a name, a size or an option is wrong
├── ArchError       2   an arch, or what a space decodes to, is impossible
├── EvaluatorError  2   an evaluator cannot answer for this arch
├── RunError        2   a run folder is in use, damaged, foreign or cannot be written
└── MissingError    4   an optional dependency is not installed

Every message is one line: the rule, the value, the way out.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import nas

PACKAGE = Path(nas.__file__).parent
# the name under which pip knows us: `nas` is another's there
DISTRIBUTION = "nas-search-scale"


class NasError(Exception):
    """A run failed. `run`: its folder, where what it has found by then can be reported, or ""."""

    exit_code = 1
    run = ""


class OptionError(NasError):
    """A flag, a name, a size or an option is wrong."""

    exit_code = 2


class ArchError(NasError):
    """An arch, or what a space decodes to, is impossible."""

    exit_code = 2


class EvaluatorError(NasError):
    """An evaluator cannot answer for this arch."""

    exit_code = 2


class RunError(NasError):
    """A run folder is in use, damaged, foreign or cannot be written."""

    exit_code = 2


class MissingError(NasError):
    """An optional dependency is not installed; the message holds the pip line."""

    exit_code = 4


def first_line(error: object, most: int = 200) -> str:
    """Return the first line of an exception's message, or its kind where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:most]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the nearest of `known`, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def install(extra: str) -> str:
    """Return the pip line for what one of our extras needs, as pyproject.toml names it.

    It names these packages, not the extra: that holds wherever this package came from.
    """
    try:
        declared = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:  # a checkout that is run without being installed
        return f'pip install -e "{PACKAGE.parent}[{extra}]"'
    found = [line.partition(";") for line in declared]
    wanted = [what.strip() for what, _, when in found if re.search(rf"""['"]{extra}['"]""", when)]
    return "pip install " + " ".join(f'"{what}"' for what in wanted)
