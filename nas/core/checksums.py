"""Checksums of what a run resumes from, each within the file that it is of.

They detect bit rot that still parses, as a changed digit does.
A file without one, of an earlier version or another program, is taken as it is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.core.errors import RunError

FIELD = "checksum"
_LAST_LINE = re.compile(rf"# {FIELD}: ([0-9a-f]+)\n?\Z")


def of_text(text: str) -> str:
    """Return the checksum of a text."""
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def with_checksum(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return JSON data with its checksum as the last key."""
    own = {key: value for key, value in data.items() if key != FIELD}
    return {**own, FIELD: _of_data(own)}


def without_checksum(data: Any, path: Path) -> Any:
    """Return the JSON data of a file without its checksum, which is compared if there is one.

    Raises:
        RunError: it differs.
    """
    if not isinstance(data, dict) or FIELD not in data:
        return data
    own = {key: value for key, value in data.items() if key != FIELD}
    if data[FIELD] != _of_data(own):
        raise RunError(
            f"{path} is damaged: its checksum differs; restore it, or delete it and --resume "
            f'where it can be made again; if you changed it yourself, remove its "{FIELD}"'
        )
    return own


def lined(text: str) -> str:
    """Return YAML text with its checksum as a comment in the last line."""
    return f"{text}# {FIELD}: {of_text(text)}\n"


def check_lined(text: str, path: Path) -> None:
    """Compare YAML text with the checksum in its last line, if any.

    Raises:
        RunError: it differs.
    """
    found = _LAST_LINE.search(text)
    if found and found[1] != of_text(text[: found.start()]):
        raise RunError(
            f"{path} is damaged: its checksum differs; restore it, or start a new run; if you "
            "changed it yourself, remove its last line"
        )


def of_row(header: Sequence[str], cells: Sequence[object]) -> str:
    """Return the checksum of a row of a table, as it is written."""
    return of_text(json.dumps([*header, *("" if cell is None else str(cell) for cell in cells)]))


def without_row_checksum(row: Mapping[str, Any], path: Path, line: int) -> dict[str, str]:
    """Return a row of a table without its checksum, which is compared if there is one.

    Raises:
        RunError: it differs.
    """
    own = {name: cell for name, cell in row.items() if name != FIELD}
    if row[FIELD] and (None in own or row[FIELD] != of_row([*own], [*own.values()])):
        raise RunError(
            f"{path} row {line} is damaged: its checksum differs; delete the row, and what it "
            "tells of is done again; if you changed it yourself, remove its checksum"
        )
    return own


def _of_data(data: Mapping[str, Any]) -> str:
    return of_text(json.dumps(data))
