"""Arch in, metrics out: evaluators, executors and their workers."""

from typing import Any


def __getattr__(name: str) -> Any:
    from nas.core.moved import former

    return former("nas.evaluation", name)
