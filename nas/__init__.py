"""nas: search a baseline architecture, scale it to a family.

The verbs of the command line as functions, and what a file of one's own is made of: `from nas
import Arch, Head, Space, Stage, Stem, count`. Nothing heavy is imported before it is asked for.
What is of the wrong kind is refused as on the command line, by a `nas.NasError` in one line.

The types are in `__init__.pyi`, which scripts/write_stub.py writes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from nas.core.moved import let_old_names_be_imported

__version__ = "0.1.0"
let_old_names_be_imported()

# what `import nas` offers, by the module that has it
_MODULES: dict[str, tuple[str, ...]] = {
    "nas.core.errors": (
        *("ArchError", "EvaluatorError", "MissingError", "NasError", "OptionError", "RunError"),
    ),
    "nas.data.augment_settings": ("Augment",),
    "nas.data.dataset": ("Dataset", "Split"),
    "nas.exporting.export": ("export",),
    "nas.exporting.result": ("ExportResult",),
    "nas.hardware.bench": ("BenchResult", "bench"),
    "nas.interfaces": ("Choices", "Metrics", "Space", "Timing"),
    "nas.models.arch": ("Arch", "Head", "Norm", "Squeeze", "Stage", "Stem"),
    "nas.models.load": ("build_model", "count", "load_arch"),
    "nas.models.published": ("Published",),
    "nas.reporting.explain": ("explain",),
    "nas.reporting.explained": ("ExplainResult",),
    "nas.scaling.fit.result": ("FitResult",),
    "nas.scaling.result": ("ScaleResult",),
    "nas.scaling.scale": ("scale",),
    "nas.searching.fidelity.proxy_check": ("proxy_check",),
    "nas.searching.fidelity.result": ("ProxyCheckResult",),
    "nas.searching.plan": ("plan",),
    "nas.searching.result": ("PlanResult", "SearchResult"),
    "nas.searching.samplers": ("Proposer", "Reseeded"),
    "nas.searching.search": ("search",),
    "nas.training.doctor": ("doctor",),
    "nas.training.predict": ("predict",),
    "nas.training.recipe": ("Recipe",),
    "nas.training.result": ("DoctorResult", "PredictResult", "TrainResult", "ValResult"),
    "nas.training.train": ("train",),
    "nas.training.val": ("val",),
    "nas.training.weights.inherit": ("inherit",),
    "nas.training.weights.load": ("load_weights",),
}
HOMES = {name: module for module, names in _MODULES.items() for name in names}
_REPORTED = ("scale", "search", "train")
__all__ = sorted(HOMES)


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'nas' has no attribute {name!r}")
    return _found(name)


@functools.cache
def _found(name: str) -> Any:
    import importlib
    from types import FunctionType

    from nas.core.arguments import checked

    found = getattr(importlib.import_module(HOMES[name]), name)
    if not isinstance(found, FunctionType):
        return found
    return _reporting(checked(found)) if name in _REPORTED else checked(found)


def _reporting(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Return a verb that writes the report of its run, too."""

    @functools.wraps(verb)
    def call(*given: Any, **named: Any) -> Any:
        from nas.reporting.report import reported

        return reported(lambda: verb(*given, **named))

    return call


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
