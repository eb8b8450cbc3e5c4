"""nas: search a baseline architecture, scale it to a family.

The verbs of the command line as functions; nothing heavy is imported before one is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.arch import Arch
    from nas.cost import count
    from nas.load import load_arch
    from nas.model import build_model
    from nas.verbs.explain import explain
    from nas.verbs.export import export
    from nas.verbs.predict import predict
    from nas.verbs.scale import scale
    from nas.verbs.search import search
    from nas.verbs.train import train

__version__ = "0.1.0"
__all__ = [
    "Arch",
    "build_model",
    "count",
    "explain",
    "export",
    "load_arch",
    "predict",
    "scale",
    "search",
    "train",
]

_HOMES = {
    "Arch": "nas.arch",
    "build_model": "nas.model",
    "count": "nas.cost",
    "explain": "nas.verbs.explain",
    "export": "nas.verbs.export",
    "load_arch": "nas.load",
    "predict": "nas.verbs.predict",
    "scale": "nas.verbs.scale",
    "search": "nas.verbs.search",
    "train": "nas.verbs.train",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nas' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
