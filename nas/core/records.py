"""What verbs return: dataclasses that come from plain JSON and go back to it. Light."""

from __future__ import annotations

import dataclasses
import functools
import html
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, Union

SHOWN = 10  # rows of a table in a notebook


def optional(default: Any = None, key: str = "") -> Any:
    """Return a field that JSON may lack: it is left out where it is the default.

    `key`: its name in JSON, where Python reserves that.
    """
    return dataclasses.field(default=default, metadata={"optional": True, "key": key})


def named(key: str) -> Any:
    """Return a field that has another name in JSON, as `class`."""
    return dataclasses.field(metadata={"key": key})


class Table(typing.NamedTuple):
    """Rows that a notebook shows of a result."""

    head: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclasses.dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Record(dict[str, Any]):
    """A result: attributes that are called as the keys of its JSON.

    For one version more it is the dictionary that verbs returned before, too, so that scripts which
    read `result["best"]` or write `json.dumps(result)` still run.
    """

    def __post_init__(self) -> None:
        super().update(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON data, as `--json` prints it."""
        known = {key: (f, getattr(self, f.name)) for key, f in _fields(type(self)).items()}
        shown = {key: value for key, (f, value) in known.items() if not _left_out(f, value)}
        return {key: plain(value) for key, value in shown.items() if not self._omits(key)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the record that JSON data tells of; what it has beyond that is left out.

        Raises:
            LookupError, TypeError, ValueError: it is not of this kind.
        """
        return typing.cast(Self, _record(cls, data))

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={_short(value)}" for name, value in self._summary().items())
        return f"{type(self).__name__}({told})"

    def _repr_html_(self) -> str:
        facts = [(name, _short(value)) for name, value in self._summary().items()]
        table = self._table()
        parts = [f"<b>{html.escape(type(self).__name__)}</b>", _html_table((), facts)]
        if table.rows:
            parts.append(_html_table(table.head, table.rows[:SHOWN]))
        if len(table.rows) > SHOWN:
            parts.append(f"<p>and {len(table.rows) - SHOWN:,} more</p>")
        return "".join(parts)

    def _omits(self, key: str) -> bool:
        """Tell whether the JSON of this record lacks a key; of most it lacks none."""
        return False

    def _summary(self) -> dict[str, object]:
        """Return what is shown of the record, by name: by default all that is one value."""
        known = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        simple = (str, int, float, Path)
        return {k: v for k, v in known.items() if isinstance(v, simple) and k != "schema"}

    def _table(self) -> Table:
        """Return the rows that a notebook shows, none by default."""
        return Table((), ())


def plain(value: Any) -> Any:
    """Return a value as JSON data."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if dataclasses.is_dataclass(value):
        return {key: plain(getattr(value, f.name)) for key, f in _fields(value.__class__).items()}
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value


def typed(hint: Any, value: Any) -> Any:
    """Return JSON data as a value of an annotated type."""
    kind, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind in (Union, types.UnionType):
        known = next((each for each in inner if each is not types.NoneType), Any)
        return None if value is None else typed(known, value)
    if kind is tuple and inner:
        return _tuple(inner, value)
    if isinstance(kind, type) and issubclass(kind, Mapping) and not issubclass(kind, Record):
        each = inner[1] if inner else Any
        return {key: typed(each, found) for key, found in value.items()}
    if hasattr(kind, "from_dict") and not isinstance(value, kind):
        return kind.from_dict(value)
    if dataclasses.is_dataclass(kind):
        return _record(kind, value)
    return kind(**value) if hasattr(kind, "_fields") else Path(value) if kind is Path else value


def _tuple(inner: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError(f"a list is expected, not {value!r:.40}")
    hints = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
    return tuple(typed(hint, each) for hint, each in zip(hints, value, strict=True))


def _record(kind: Any, data: Any) -> Any:
    """Return the dataclass that JSON data tells of."""
    if not isinstance(data, Mapping):
        raise TypeError(f"{kind.__name__} is expected as an object, not {data!r:.40}")
    hints, given = _hints(kind), {}
    for key, field in _fields(kind).items():
        if key in data:
            given[field.name] = typed(hints[field.name], data[key])
        elif not _has_default(field):
            raise KeyError(key)
    return kind(**given)


@functools.cache
def _fields(kind: type) -> dict[str, dataclasses.Field[Any]]:
    """Return the fields of a dataclass by their keys in JSON."""
    return {f.metadata.get("key") or f.name: f for f in dataclasses.fields(kind)}


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _has_default(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.default is not missing or field.default_factory is not missing


def _left_out(field: dataclasses.Field[Any], value: Any) -> bool:
    return bool(field.metadata.get("optional")) and value is field.default


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Record):
        return repr(value)
    text = repr(str(value) if isinstance(value, Path) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _html_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return an HTML table, everything in it escaped."""
    first = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    cells = ("".join(f"<td>{html.escape(str(c))}</td>" for c in row) for row in rows)
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    return f"<table>{f'<tr>{first}</tr>' if head else ''}{body}</table>"
