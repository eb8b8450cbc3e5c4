"""nas: search a baseline architecture, scale it to a family.

The verbs of the command line as functions; nothing heavy is imported before one is called. What is
of the wrong kind is refused as on the command line, by an error of `nas.NasError` in one line.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.arch import Arch
    from nas.errors import NasError
    from nas.load import build_model, count, load_arch, load_weights
    from nas.verbs.bench import bench
    from nas.verbs.doctor import doctor
    from nas.verbs.explain import explain
    from nas.verbs.export import export
    from nas.verbs.plan import plan
    from nas.verbs.predict import predict
    from nas.verbs.proxy_check import proxy_check
    from nas.verbs.scale import scale
    from nas.verbs.search import search
    from nas.verbs.train import train
    from nas.verbs.val import val

__version__ = "0.1.0"
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

# the module of each name; what is not here is the verb of that name
_HOMES = {"Arch": "nas.arch", "NasError": "nas.errors"} | dict.fromkeys(
    ("build_model", "count", "load_arch", "load_weights"), "nas.load"
)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'nas' has no attribute {name!r}")
    return _found(name)


@functools.cache
def _found(name: str) -> Any:
    import importlib

    from nas.settings.arguments import checked

    found = getattr(importlib.import_module(_HOMES.get(name, f"nas.verbs.{name}")), name)
    return found if isinstance(found, type) else checked(found)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
