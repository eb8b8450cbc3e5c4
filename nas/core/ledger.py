"""Append-only CSV of finished tasks, so that a resumed run repeats none."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_type_hints

from nas.core import run_folder
from nas.core.errors import RunError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


class Ledger(Generic[T]):
    """Finished tasks, a row of a CSV file each, with its checksum.

    `kind`: the dataclass of a row; its fields are the columns, of type str, int, float or
    `float | None`. None and nan are empty cells. A column that files of earlier versions lack has a
    default.
    """

    def __init__(self, path: Path, kind: type[T]) -> None:
        """Read the file, if there is one.

        Raises:
            RunError: it is damaged.
        """
        self.path, self._columns = path, columns(kind)
        kinds = get_type_hints(kind)
        table = enumerate(run_folder.read_csv(path), 1)
        self.rows = [_row(kind, kinds, cells, f"{path} row {number}") for number, cells in table]

    def append(self, row: T) -> None:
        """Put a finished task on file.

        Raises:
            RunError: the file cannot be written; the rows before are kept.
        """
        self.rows.append(row)
        table = [[_cell(getattr(each, name)) for name in self._columns] for each in self.rows]
        run_folder.write_csv(self.path, self._columns, table, checked=True)

    def forget(self, when: Callable[[T], bool]) -> None:
        """Leave out some rows: their tasks are due again. The file follows with the next row."""
        self.rows = [row for row in self.rows if not when(row)]


def columns(kind: type[DataclassInstance]) -> tuple[str, ...]:
    """Return the columns of a row."""
    return tuple(field.name for field in dataclasses.fields(kind))


def _cell(value: Any) -> Any:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value


def _row(kind: type[T], kinds: Mapping[str, Any], cells: Mapping[str, str], where: str) -> T:
    """Return a row as it was appended.

    Raises:
        RunError: a cell is missing, or is no number where one belongs.
    """
    try:
        known = (field for field in dataclasses.fields(kind) if field.name in cells)
        return kind(**{field.name: _value(kinds[field.name], cells[field.name]) for field in known})
    except (TypeError, ValueError) as error:
        raise RunError(
            f"{where} is damaged ({error}): delete the row, or the file, and what it tells of is "
            "done again"
        ) from error


def _value(kind: Any, cell: str | None) -> Any:
    """Return the value of a cell.

    Raises:
        TypeError, ValueError: it has none of that kind.
    """
    if cell is None:
        raise ValueError("it is cut short")
    if kind is str or kind is int:
        return kind(cell)
    return float(cell) if cell else (math.nan if kind is float else None)
