"""Tables of the user's, .csv or .parquet, as rows of column → value; nothing is unpickled."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas.core.errors import MissingError, OptionError, first_line, install

Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a .csv or .parquet file; the values of a .csv are text.

    Raises:
        OptionError: no such file, or it cannot be read as a table; two columns have one name.
        MissingError: a .parquet file without pyarrow.
    """
    if not path.is_file():
        raise OptionError(f"no table {path}: give a .csv or .parquet file")
    try:
        if path.suffix == ".parquet":
            return _parquet(path)
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            _check_names(path, reader.fieldnames or ())
            return list(reader)
    except (OSError, ValueError, NotImplementedError, csv.Error) as error:
        raise OptionError(f"{path} is no table that can be read: {first_line(error)}") from error


def _parquet(path: Path) -> list[Row]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingError(f"{path} needs pyarrow: {install('parquet')}") from error
    table = parquet.read_table(path)
    _check_names(path, table.column_names)
    rows: list[Row] = table.to_pylist()
    return rows


def _check_names(path: Path, names: Sequence[str]) -> None:
    """Refuse two columns of one name, of which only the last would be read."""
    if doubled := [name for name, count in Counter(names).items() if name and count > 1]:
        raise OptionError(f"{path} has two columns {doubled[0]!r}: rename or remove one")


def number(value: object) -> float | None:
    """Return the finite number that a cell holds, or None."""
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None
