"""HTML of the pages: the templates of the folder `templates` filled in, and marked-up text.

Everything is escaped on its way into a template; `Markup` is text that is HTML already.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import markupsafe
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from nas.core import quoting

HERE = Path(__file__).parent
# the browser itself refuses every request to another place
POLICY = Markup(
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
)


@dataclass(frozen=True)
class Page:
    """What a page is made of: its template, and what the template speaks of."""

    template: str
    title: str
    context: Mapping[str, Any]


@dataclass(frozen=True)
class MarkupTable:
    """A table: the columns in `left` are text, the rows in `marked` are set in bold."""

    head: Sequence[object]
    rows: Sequence[Sequence[object]]
    left: Collection[int] = (0,)
    marked: Collection[int] = ()
    label: str = ""


@functools.cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        finalize=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.globals |= {"policy": POLICY, "asset": _asset, "library": _library}
    return made


def _asset(name: str) -> Markup:
    return Markup((HERE / name).read_text(encoding="utf-8"))


def _library() -> Markup:
    """Return plotly.js as its authors packed it for charts with two axes (see plotly/)."""
    return packed((HERE / "plotly" / "plotly-cartesian.min.js.gz").read_bytes(), id="plotly")


def packed(data: bytes, **attributes: str) -> Markup:
    """Return gzipped text as a data block of a page; the browser unpacks it."""
    text = Markup(base64.b64encode(data).decode("ascii"))
    return tag("script", text, type="application/gzip", **attributes)


def render(template: str, **context: object) -> str:
    """Return a template filled in."""
    return _environment().get_template(template).render(context)


def escape(value: object) -> Markup:
    """Return a value as HTML; what is HTML already stays. No line breaks before a per cent sign."""
    if isinstance(value, Markup):
        return value
    text = str(markupsafe.escape(quoting.visible(str(value))))
    return Markup(text.replace(" %", "\u00a0%"))


def join(parts: Iterable[object], between: str = "") -> Markup:
    """Return the escaped parts as one text."""
    return Markup(between.join(escape(part) for part in parts))


def tag(name: str, *content: object, **attributes: object) -> Markup:
    """Return an element within a line; `class_` is the attribute class, underscores are hyphens."""
    named = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}
    text = "".join(f' {key}="{escape(value)}"' for key, value in named.items() if value != "")
    return Markup(f"<{name}{text}>{join(content)}</{name}>")


def code(text: object) -> Markup:
    """Return text set as code."""
    return tag("code", text)


def command(*words: str) -> Markup:
    """Return a command as a shell reads it."""
    return tag("code", join((tag("span", quoting.command(word)) for word in words), " "))


def power(value: float) -> Markup:
    """Return 432, or 1.04 × 10¹¹ from a million on."""
    if value < 1e6:
        return escape(f"{value:,.0f}")
    # a space may have more points than a float can hold
    digits = len(str(int(value))) - 1
    return Markup(f"{int(value) // 10 ** (digits - 2) / 100:.2f} × 10<sup>{digits}</sup>")


def raised(text: str) -> Markup:
    """Return text with 2^φ written as a book would."""
    return Markup(escape(text).replace("2^φ", Markup("2<sup>φ</sup>")))


def date(environment: Mapping[str, Any]) -> str:
    """Return when a run started, by its env.json."""
    try:
        return f"{datetime.fromisoformat(environment['time']):%Y-%m-%d %H:%M %Z}"
    except (KeyError, TypeError, ValueError):
        return "unknown"


def signed(value: float, digits: int = 2) -> str:
    """Return +1.20 or −0.35, with a true minus."""
    return f"{value:+.{digits}f}".replace("-", "−")
