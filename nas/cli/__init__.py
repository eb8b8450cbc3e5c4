"""The command line."""

from nas.cli.program import app, main

__all__ = ["app", "main"]
