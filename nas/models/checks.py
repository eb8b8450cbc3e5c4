"""Checks of one value of an arch: each raises an ArchError that names the field and the value."""

from __future__ import annotations

from nas.core.errors import ArchError


def whole(what: str, value: object, least: int) -> None:
    """Refuse what is no whole number of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ArchError(f"{what} must be a whole number of at least {least}, not {value!r}")


def odd(what: str, value: object) -> None:
    """Refuse what is no odd whole number of at least 1."""
    whole(what, value, 1)
    if value % 2 == 0:  # type: ignore[operator]
        raise ArchError(f"{what} must be odd, for symmetric padding, not {value!r}")


def fraction(what: str, value: object) -> None:
    """Refuse what does not lie in 0 <= x < 1."""
    if not isinstance(value, int | float) or not 0 <= value < 1:
        raise ArchError(f"{what} must lie in 0 <= x < 1, not {value!r}")


def one_of(what: str, value: object, allowed: tuple[str, ...]) -> None:
    """Refuse what is not among the allowed words."""
    if value not in allowed:
        raise ArchError(f"{what} must be one of {', '.join(allowed)}, not {value!r}")
