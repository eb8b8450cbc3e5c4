"""Settings as fields of a dataclass, each a flag of the command line, and the checks they share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import Field, field
from typing import Any

from nas.core.errors import OptionError, did_you_mean
from nas.core.units import parse_number


def flag(default: Any, group: str, text: str) -> Any:
    """Return a field that the command line offers as a flag with this help."""
    metadata = {"group": group, "help": text}
    if isinstance(default, dict | list):
        return field(default_factory=type(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def flag_name(key: str) -> str:
    """Return the flag of a setting."""
    return "--" + key.replace("_", "-").replace("-options", "-option")


def check_known(verb: str, given: Mapping[str, Any], known: Iterable[str]) -> None:
    """Check that a verb has all the settings that are given.

    Raises:
        OptionError: it has not.
    """
    names = sorted(known)
    for key in given:
        if key not in names:
            raise OptionError(
                f"{verb} has no setting {key!r}{did_you_mean(key, names)}; "
                f"it has {', '.join(names)}"
            )


# what a value must be, which may come from a file; sizes and times are parsed instead
_KINDS: dict[str, tuple[type, str]] = {
    "str": (str, "a word"),
    "str | None": (str, "a word"),
    "int": (int, "a whole number"),
    "bool": (bool, "true or false"),
    "dict[str, Any]": (dict, "a mapping of names to values"),
}


def check_empty(key: str, value: object) -> None:
    """Refuse an empty word, which a variable of a shell that is not set gives.

    Raises:
        OptionError: it is one.
    """
    if isinstance(value, str) and not value.strip():
        raise OptionError(f"{flag_name(key)} is empty, {value!r}: give a value, or leave it out")


def check_kinds(values: Mapping[str, Any], known: Mapping[str, Field[Any]]) -> None:
    """Check that each value is of its field's kind.

    Raises:
        OptionError: one is not.
    """
    for key, value in values.items():
        check_empty(key, value)
        kind, words = _KINDS.get(str(known[key].type), (object, ""))
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise OptionError(f"{flag_name(key)} takes {words}, not {value!r}")


def share(key: str, value: str | float) -> float:
    """Return a setting that is a share above 0 and up to 1, from text or a number.

    Raises:
        OptionError: it is none.
    """
    found = parse_number(value, flag_name(key))
    if not 0 < found <= 1:
        raise OptionError(f"{flag_name(key)} takes a share above 0 and up to 1, not {value!r}")
    return found


def whole(key: str, value: object, least: int) -> int:
    """Return a setting that is a whole number, from text or a number.

    Raises:
        OptionError: it is none, or too small or too large.
    """
    text = str(value)
    if isinstance(value, bool) or not text.isdecimal() or not least <= int(text) < 2**32 - 1:
        raise OptionError(
            f"{flag_name(key)} takes a whole number of at least {least}, not {value!r}"
        )
    return int(text)
