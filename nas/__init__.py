"""nas: search a baseline architecture, scale it to a family.

The verbs of the command line as functions; nothing heavy is imported before one is called. What is
of the wrong kind is refused as on the command line, by an error of `nas.NasError` in one line.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nas.core.moved import let_old_names_be_imported

if TYPE_CHECKING:
    from nas.core.errors import NasError
    from nas.exporting.export import export
    from nas.hardware.bench import bench
    from nas.models.arch import Arch
    from nas.models.load import build_model, count, load_arch
    from nas.reporting.explain import explain
    from nas.scaling.scale import scale
    from nas.searching.fidelity.proxy_check import proxy_check
    from nas.searching.plan import plan
    from nas.searching.search import search
    from nas.training.doctor import doctor
    from nas.training.predict import predict
    from nas.training.train import train
    from nas.training.val import val
    from nas.training.weights import load_weights

__version__ = "0.1.0"
let_old_names_be_imported()
__all__ = [
    "Arch",
    "NasError",
    "bench",
    "build_model",
    "count",
    "doctor",
    "explain",
    "export",
    "load_arch",
    "load_weights",
    "plan",
    "predict",
    "proxy_check",
    "scale",
    "search",
    "train",
    "val",
]

# the module of each name
_HOMES = {
    "Arch": "nas.models.arch",
    "NasError": "nas.core.errors",
    "bench": "nas.hardware.bench",
    "build_model": "nas.models.load",
    "count": "nas.models.load",
    "doctor": "nas.training.doctor",
    "explain": "nas.reporting.explain",
    "export": "nas.exporting.export",
    "load_arch": "nas.models.load",
    "load_weights": "nas.training.weights",
    "plan": "nas.searching.plan",
    "predict": "nas.training.predict",
    "proxy_check": "nas.searching.fidelity.proxy_check",
    "scale": "nas.scaling.scale",
    "search": "nas.searching.search",
    "train": "nas.training.train",
    "val": "nas.training.val",
}


_REPORTED = ("scale", "search", "train")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'nas' has no attribute {name!r}")
    return _found(name)


@functools.cache
def _found(name: str) -> Any:
    import importlib

    from nas.core.arguments import checked

    found = getattr(importlib.import_module(_HOMES[name]), name)
    if isinstance(found, type):
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
