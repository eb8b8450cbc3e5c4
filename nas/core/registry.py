"""Find a part by name: the folder is the registry. Or by the path of the user's own .py file."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, TypeVar, overload

from nas.core.errors import PACKAGE, NasError, OptionError, did_you_mean
from nas.core.moved import let_old_names_be_imported

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

    from nas.interfaces import Device, Evaluator, Executor, Tracker

T = TypeVar("T")
# the package of each kind of part
PACKAGES = {
    "spaces": "nas.search_spaces",
    "baselines": "nas.baselines",
    "controllers": "nas.searching.controllers",
    "evaluators": "nas.evaluation.evaluators",
    "executors": "nas.evaluation.executors",
    "datasets": "nas.data.datasets",
    "recipes": "nas.training.recipes",
    "devices": "nas.hardware.devices",
    "exporters": "nas.exporting.formats",
    "pruners": "nas.searching.pruners",
    "trackers": "nas.training.trackers",
    "ops": "nas.models.ops",
}

# the flags that take the path of a part, where they are not called after its kind
_FLAGS = {"datasets": "data", "exporters": "format"}
# members that a part may call by the name of before, for one version more
_FORMER = {"executors": {"status": "fleet"}}
# what the parts that `make` gives are asked for at least
_OFFERS = {
    "controllers": ("before_trial", "sample_independent"),
    "evaluators": ("title", "check"),
    "executors": ("slots", "submit", "wait", "close"),
    "devices": ("title", "fingerprint", "measure"),
    "pruners": ("prune",),
    "trackers": ("title", "row", "close"),
}
_TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}


@cache
def names(kind: str) -> tuple[str, ...]:
    """Return the names of the shipped parts of a kind, sorted: the files of its package."""
    files = _folder(kind).glob("*.py")
    return tuple(sorted(file.stem for file in files if not file.stem.startswith("_")))


def load(kind: str, name: str) -> ModuleType:
    """Return the module of a shipped part, or of the user's file when `name` is a path to a .py.

    A user's file is read again when it has changed, as it does between the cells of a notebook.

    Raises:
        OptionError: no such part (the message lists the known ones and the folder searched), or
            the user's file cannot be imported (the message gives its first error).
    """
    if name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            flag = _FLAGS.get(kind, kind[:-1])
            raise OptionError(f"no file {path} for --{flag}; known names: {', '.join(names(kind))}")
        return _load_file(path.resolve(), path.stat().st_mtime_ns)
    return _load_shipped(kind, name)


@cache
def _load_shipped(kind: str, name: str) -> ModuleType:
    if name not in names(kind):
        raise OptionError(
            f"no {kind[:-1]} named {name!r}{did_you_mean(name, names(kind))}; "
            f"known: {', '.join(names(kind))} (files of {_folder(kind)}), or a path to a .py file"
        )
    if importlib.util.find_spec(PACKAGES[kind]) is None:
        return _load_file(_folder(kind) / f"{name}.py", 0)
    return importlib.import_module(f"{PACKAGES[kind]}.{name}")


def export(kind: str, name: str, what: str) -> Any:
    """Return the object `what` of a part.

    Raises:
        OptionError: no such part, or its file does not define `what`.
    """
    module = load(kind, name)
    if not hasattr(module, what):
        raise OptionError(f"{name} does not define {what}, which every {kind[:-1]} file must")
    return getattr(module, what)


@overload
def make(
    kind: Literal["evaluators"], name: str, *given: Any, options: Mapping[str, Any], **fixed: Any
) -> Evaluator: ...
@overload
def make(
    kind: Literal["executors"], name: str, *given: Any, options: Mapping[str, Any], **fixed: Any
) -> Executor: ...
@overload
def make(
    kind: Literal["devices"], name: str, *given: Any, options: Mapping[str, Any], **fixed: Any
) -> Device: ...
@overload
def make(
    kind: Literal["controllers"], name: str, *given: Any, options: Mapping[str, Any], **fixed: Any
) -> BaseSampler: ...
@overload
def make(
    kind: Literal["pruners"], name: str, *given: Any, options: Mapping[str, Any], **fixed: Any
) -> BasePruner: ...
@overload
def make(
    kind: Literal["trackers"], name: str, *given: Any, options: Mapping[str, Any], **fixed: Any
) -> Tracker: ...
@overload
def make(kind: str, name: str, *given: Any, options: Mapping[str, Any], **fixed: Any) -> Any: ...
def make(kind: str, name: str, *given: Any, options: Mapping[str, Any], **fixed: Any) -> Any:
    """Call a part's `make` with the user's options, checked against its signature.

    Raises:
        OptionError: an option that `make` does not take, in name or in type; or it fails.
    """
    return part(kind, name, options, fixed).make(*given, **fixed)


@dataclass(frozen=True)
class Part(Generic[T]):
    """A part that was looked up and its options checked; `make` may be called again and again.

    Where a user's file has changed since, it still makes what the file said then.
    """

    kind: str
    name: str
    options: Mapping[str, Any]
    function: Callable[..., T]

    @property
    def keywords(self) -> tuple[str, ...]:
        """Return all keywords of its `make`, the engine's too."""
        return _keywords(self.function)

    def make(self, *given: Any, **fixed: Any) -> T:
        """Return a new one; of `fixed` it is given what it takes.

        Raises:
            OptionError: it fails, or gives something else.
        """
        parameters = inspect.signature(self.function).parameters
        accepted = {key: value for key, value in fixed.items() if key in parameters}
        one, offers = self.kind[:-1], _OFFERS.get(self.kind, ())
        with guard(f"{one} {self.name} cannot be made"):
            made = self.function(*given, **accepted, **self.options)
        for today, before in _FORMER.get(self.kind, {}).items():
            if hasattr(made, before) and not hasattr(made, today):
                vars(made)[today] = getattr(made, before)
        if lacks := [what for what in offers if not hasattr(made, what)]:
            raise OptionError(
                f"make of {self.name} gives {made!r:.60}, which has no {lacks[0]}: a {one} must "
                f"have {', '.join(offers)}"
            )
        return made


def part(
    kind: str, name: str, options: Mapping[str, Any], fixed: Collection[str] = ()
) -> Part[Any]:
    """Return a part with the user's options; `fixed` names those that are not the user's to set.

    Raises:
        OptionError: no such part, or an option that it does not take, in name or in type.
    """
    check_options(kind, name, options, fixed)
    return Part(kind, name, options, _make_of(kind, name))


def _make_of(kind: str, name: str) -> Callable[..., Any]:
    """Return the `make` of a part.

    Raises:
        OptionError: no such part, or its file does not define it as a function.
    """
    function = export(kind, name, "make")
    if not callable(function):
        raise OptionError(f"make of {name} must be a function, not {function!r:.60}")
    found: Callable[..., Any] = function
    return found


def check_options(kind: str, name: str, options: Mapping[str, Any], fixed: Collection[str]) -> None:
    """Check the user's options of a part; those of `fixed` are not the user's.

    Raises:
        OptionError: one that its `make` does not take, in name or in type.
    """
    known = option_defaults(kind, name)
    for option in options:
        if option not in known or option in fixed:
            free = ", ".join(f"{k}={v}" for k, v in known.items() if k not in fixed) or "none"
            raise OptionError(
                f"{kind[:-1]} {name} has no option {option!r}{did_you_mean(option, known)}; "
                f"it takes {free}"
            )
        _check_type(f"{kind[:-1]} {name}: option {option}", options[option], known[option])


def _check_type(what: str, value: object, default: object) -> None:
    """Check that an option is of its default's type; a whole number passes for a fraction."""
    wanted = type(default)
    fits = isinstance(value, int | float if wanted is float else wanted)
    if wanted not in _TYPES or (fits and isinstance(value, bool) == (wanted is bool)):
        return
    raise OptionError(f"{what} takes {_TYPES[wanted]} (default {default!r}), not {value!r}")


def option_defaults(kind: str, name: str) -> dict[str, Any]:
    """Return the options of a part's `make` that a user may set, with their defaults.

    A keyword without a default, or with a function as its default, is the engine's to fill.
    """
    parameters = inspect.signature(_make_of(kind, name)).parameters.values()
    keywords = (p for p in parameters if p.kind is p.KEYWORD_ONLY)
    return {
        p.name: p.default for p in keywords if p.default is not p.empty and not callable(p.default)
    }


def keywords(kind: str, name: str) -> tuple[str, ...]:
    """Return all keywords of a part's `make`, the engine's too."""
    return _keywords(_make_of(kind, name))


def _keywords(function: Callable[..., Any]) -> tuple[str, ...]:
    parameters = inspect.signature(function).parameters.values()
    return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


def _folder(kind: str) -> Path:
    """Return the folder of a kind: in the package or, of a checkout, at the repository's root."""
    spec = importlib.util.find_spec(PACKAGES[kind])
    if spec and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    beside = PACKAGE.parent / PACKAGES[kind].rpartition(".")[2]
    if not beside.is_dir():
        raise OptionError(f"there is neither {PACKAGES[kind]} nor {beside}; install nas again")
    return beside


@cache
def _load_file(path: Path, changed: int) -> ModuleType:
    digest = hashlib.blake2b(f"{path}:{changed}".encode(), digest_size=4).hexdigest()
    name = f"nas_user_{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    # registered first, as dataclasses in the user's file look themselves up there
    sys.modules[name] = module
    let_old_names_be_imported()
    try:
        with guard(f"{path} cannot be imported"):
            spec.loader.exec_module(module)
    except NasError as error:
        del sys.modules[name]
        raise OptionError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    return module


@contextlib.contextmanager
def guard(what: str, error_type: type[NasError] = OptionError) -> Iterator[None]:
    """Turn what a user's code raises in here into one line that begins with `what`.

    That it ends the process is an error too, and what it prints goes to stderr: stdout is for
    results.

    Raises:
        NasError: of that kind, or as it was raised.
    """
    try:
        with user_code():
            yield
    except NasError:
        raise
    except Exception as error:
        raise error_type(f"{what}: {error_text(error)}") from error
    except SystemExit as error:
        if type(error) is not SystemExit:  # a training's, for a notice
            raise
        raise error_type(f"{what}: {error_text(error)}") from error


def error_text(error: BaseException) -> str:
    """Return an exception's type and message in one text."""
    if isinstance(error, SystemExit):
        return f"it ends the process (exit code {error.code!r}); let it raise an error instead"
    return f"{type(error).__name__}: {error}".rstrip(": ")


@contextlib.contextmanager
def user_code() -> Iterator[None]:
    """Run a user's code in here: it prints to stderr, and os._exit raises SystemExit."""
    real, here = os._exit, os.getpid()

    def leave(status: int) -> NoReturn:
        if os.getpid() != here:  # a child that was forked in here
            real(status)
        raise SystemExit(status)

    os._exit = leave
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os._exit = real
