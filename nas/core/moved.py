"""Names that modules had before they moved into rooms: users' files import some of them.

`from nas.arch import Arch` still works, with a DeprecationWarning that names `nas.models.arch`. To
be removed with the version after the next.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED = {
    "nas.arch": "nas.models.arch",
    "nas.catalog": "nas.core.registry",
    "nas.compound": "nas.models.compound",
    "nas.cost": "nas.models.cost",
    "nas.designs": "nas.models.designs",
    "nas.errors": "nas.core.errors",
    "nas.layers": "nas.models.layers",
    "nas.load": "nas.models.load",
    "nas.model": "nas.models.build",
    "nas.modules": "nas.models.modules",
    "nas.objective": "nas.searching.objective",
    "nas.points": "nas.models.points",
    "nas.published": "nas.models.published",
    "nas.rounding": "nas.models.rounding",
    "nas.samplers": "nas.searching.samplers",
    "nas.tries": "nas.evaluation.retries",
    "nas.units": "nas.core.units",
    "nas.workers": "nas.evaluation.workers",
}
# modules of before whose names are rooms now, and what users' files took from them
TAKEN = {
    "nas.evaluation": {"make_evaluator": "evaluate", "perform": "evaluate"},
    "nas.exporting": {"Subject": "request.ExportRequest", "listed": "request"},
}


def former(room: str, name: str) -> Any:
    """Return what a module of before had, of which a room has the name now.

    Raises:
        AttributeError: it had no such name.
    """
    if name not in TAKEN[room]:
        raise AttributeError(f"module {room!r} has no attribute {name!r}")
    module, _, today = TAKEN[room][name].partition(".")
    warnings.warn(f"{room}.{name} is in {room}.{module} now", DeprecationWarning, stacklevel=3)
    return getattr(importlib.import_module(f"{room}.{module}"), today or name)


class _OldNames:
    """A finder of MOVED's names, and the loader of what it finds."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec for an old name, None for every other."""
        return ModuleSpec(name, self) if name in MOVED else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """Let an empty module be made."""

    def exec_module(self, module: ModuleType) -> None:
        """Fill the module with what the one of today holds."""
        name = MOVED[module.__name__]
        warnings.warn(f"{module.__name__} is {name} now", DeprecationWarning, stacklevel=2)
        held = vars(importlib.import_module(name))
        vars(module).update({k: v for k, v in held.items() if not k.startswith("__")})


def let_old_names_be_imported() -> None:
    """Let the old names be imported from now on in this process."""
    if not any(isinstance(finder, _OldNames) for finder in sys.meta_path):
        sys.meta_path.append(_OldNames())
