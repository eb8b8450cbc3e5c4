"""Networks written for other programs."""

from typing import Any


def __getattr__(name: str) -> Any:
    from nas.core.moved import former

    return former("nas.exporting", name)
