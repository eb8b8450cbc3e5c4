"""Command lines that are to be refused, as tables: what is typed, on which files, what is said.

`ROWS` has them all, of one file a verb; tests/cli/test_bad_inputs.py runs them.
"""

import importlib
import pkgutil

from bad_inputs.row import Row

__all__ = ["ROWS", "Row"]

ROWS: list[tuple[str, Row]] = [
    (module.name, row)
    for module in pkgutil.iter_modules(__path__)
    if module.name not in ("row", "world")
    for row in importlib.import_module(f"bad_inputs.{module.name}").ROWS
]
