"""Sizes as people type them: 400M, 12ms, 20m, 1..7. Pure functions, both ways."""

from __future__ import annotations

import math
import re

from nas.core.errors import OptionError

_COUNT = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}
_MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)


def parse_count(text: str | float, flag: str = "size") -> int:
    """Return a positive whole number: 400M, 0.39B, 5.3e6, 400000000.

    Raises:
        OptionError: the text is no size, or is not positive; the message gives examples.
    """
    value = _parse(text, _COUNT, flag, "a size such as 400M, 0.39G or 5.3e6")
    if value < 1:
        raise OptionError(f"{flag} must be at least 1, not {text!r}")
    return round(value)


def parse_milliseconds(text: str | float, flag: str = "time") -> float:
    """Return milliseconds from 12ms, 800us or 0.5s; a bare number is refused as ambiguous.

    Raises:
        OptionError: the text is no time with a unit, or is not positive.
    """
    if isinstance(text, int | float):
        text = f"{text}ms"
    return _parse(text, _MILLISECONDS, flag, "a time with its unit such as 12ms, 800us or 0.5s")


def parse_seconds(text: str | float, flag: str = "duration") -> float:
    """Return seconds from 90, 90s, 20m, 8h or 2d.

    Raises:
        OptionError: the text is no duration, or is not positive.
    """
    return _parse(text, _SECONDS, flag, "a duration such as 90s, 20m or 8h")


def parse_number(text: str | float, flag: str = "number") -> float:
    """Return a finite number.

    Raises:
        OptionError: the text is none.
    """
    try:
        value = math.nan if isinstance(text, bool) else float(text)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise OptionError(f"{flag} takes a number such as -0.07, not {text!r}")
    return value


def parse_phis(text: str | float, flag: str = "--phi") -> tuple[float, ...]:
    """Return the compound coefficients named by 3, 1..7, -1..2, 0.5,1,2 or 1..3,5.

    Raises:
        OptionError: a part is neither a number nor a range of whole numbers.
    """
    phis: list[float] = []
    for part in str(text).split(","):
        first, dots, last = part.strip().partition("..")
        try:
            # a range one longer than what is allowed is refused below
            phis += range(int(first), int(last) + 1)[:50] if dots else [float(first)]
        except (ValueError, OverflowError):
            raise OptionError(_not_phi(flag, text)) from None
    if not phis or not all(math.isfinite(phi) and abs(phi) <= 20 for phi in phis):
        raise OptionError(_not_phi(flag, text))
    return tuple(dict.fromkeys(phis))


def _not_phi(flag: str, text: object) -> str:
    return f"{flag} takes numbers and ranges such as 1..7 or 0.5,1,2 within -20..20, not {text!r}"


def _parse(text: str | float, units: dict[str, float], flag: str, wanted: str) -> float:
    match = _NUMBER.fullmatch(str(text))
    unit = match.group(2).lower() if match else ""
    if not match or unit not in units:
        raise OptionError(f"{flag} takes {wanted}, not {text!r}")
    value = float(match.group(1)) * units[unit]
    if not (math.isfinite(value) and value > 0):
        raise OptionError(f"{flag} must be positive: {wanted}, not {text!r}")
    return value


def format_count(value: float) -> str:
    """Return 385.8M, 5.29M, 37.7G: three or four significant digits."""
    for factor, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            scaled = value / factor
            return f"{scaled:.1f}{letter}" if scaled >= 100 else f"{scaled:.2f}{letter}"
    return f"{value:g}"


def amount(metric: str, value: float) -> str:
    """Return a cost with its unit."""
    if metric == "flops":
        return f"{format_count(value)} multiply-adds"
    if metric == "params":
        return f"{format_count(value)} parameters"
    return f"{value:.2f} ms" if metric == "latency_ms" else f"{metric} {value:.4g}"


def format_bytes(value: float) -> str:
    """Return 12.3 MiB or 1.20 GiB."""
    return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.1f} MiB"


def about_seconds(value: float) -> str:
    """Return an estimate of some seconds: 3 s, 4m10s or 2h05m."""
    return f"{max(1, round(value))} s" if value < 59.5 else format_seconds(round(value))


def format_seconds(value: float) -> str:
    """Return 850 ms, 12.3 s, 4m10s or 2h05m."""
    if value < 1:
        return f"{value * 1e3:.3g} ms"
    if value < 60:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s"
