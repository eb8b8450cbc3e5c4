"""What the commands of the scripts have in common."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Main = Callable[[Sequence[str] | None], Any]


def in_one_line(main: Main) -> Callable[..., Any]:
    """Have what is refused end a script with one line that begins with its name."""

    @functools.wraps(main)
    def told(words: Sequence[str] | None = None) -> Any:
        from nas.core.errors import NasError  # the GPU suite starts without nas

        try:
            return main(words)
        except NasError as error:
            raise SystemExit(f"{Path(main.__code__.co_filename).stem}: {error}") from None

    return told


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser that shows a script's docstring as it is written."""
    shown = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=doc, formatter_class=shown)


def positive(text: str) -> int:
    """Return a whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"takes a whole number from 1, not {text}")
    return int(text)
