"""YAML of plain values: numbers as on the command line, no aliases, not nested without end."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from nas.core.errors import NasError, RunError, first_line

DEEPEST = 100  # brackets inside of each other


class _Loader(yaml.SafeLoader):
    """YAML whose numbers are those of YAML 1.2 and of the command line: 1e-3 is one, 1:30 none."""


class _Dumper(yaml.SafeDumper):
    """What quotes the words that `_Loader` would take for numbers."""


_INT = re.compile(r"[-+]?\d+(_\d+)*$")
_FLOAT = re.compile(
    r"([-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
)
for _kind in (_Loader, _Dumper):
    _kind.yaml_implicit_resolvers = {
        first: [(tag, rule) for tag, rule in rules if not tag.endswith((":int", ":float"))]
        for first, rules in _kind.yaml_implicit_resolvers.items()
    }
    _kind.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
    _kind.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
_Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))


def dump(values: Mapping[str, Any]) -> str:
    """Return values as YAML text, which `parse` reads back as they were."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def parse(text: str, file: Path) -> dict[str, Any]:
    """Return the values that the text of a file holds, by their names.

    Raises:
        RunError: it holds none, or does not parse.
    """
    if _depth(text) > DEEPEST:  # the parser takes hours
        raise RunError(f"{file} is nested too deeply to be arguments")
    try:
        # a few of them that name each other make a value of a billion parts
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise RunError(f"{file} holds an alias such as *name: write the value out")
        data = yaml.load(text, Loader=_Loader)
    except NasError:
        raise
    except Exception as error:  # of dates and numbers that cannot be it lets Python's own through
        raise RunError(f"{file} is not YAML: {first_line(error)}") from error
    if not isinstance(data, dict) or not all(isinstance(name, str) for name in data):
        raise RunError(f"{file} holds no arguments: a mapping of names to values is expected")
    return data


def _depth(text: str) -> int:
    """Return how many brackets are open at once, or dashes in one line, at most."""
    steps = ((letter in "[{") - (letter in "]}") for letter in text)
    dashes = (line.count("- ") for line in text.splitlines())
    return max(itertools.chain(itertools.accumulate(steps, initial=0), dashes))
