"""Arguments of the functions of `nas`, checked as the command line checks its flags. Light."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, Union

from nas.core.errors import OptionError

Function = TypeVar("Function", bound=Callable[..., Any])
_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a word",
    Path: "a path",
    types.NoneType: "None",
}


def checked(function: Function) -> Function:
    """Return a function that refuses arguments of another kind than it is annotated with.

    Raises:
        OptionError: of that function, where an argument is of no kind that it takes.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        try:
            bound = signature.bind(*given, **named)
        except TypeError:  # too many, too few or unknown ones: Python tells which
            return function(*given, **named)
        for name, hint in _hints(function).items():
            if name in bound.arguments and not _fits(bound.arguments[name], hint):
                value = bound.arguments[name]
                raise OptionError(
                    f"{function.__name__} takes {name} as {_words(hint)}, not {value!r:.80}"
                )
        return function(*given, **named)

    return typing.cast(Function, call)


@functools.cache
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return what the arguments that a function names may be, as far as that is known here."""
    known, found, code = vars(inspect.getmodule(function)), {}, function.__code__
    for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]:
        hint = function.__annotations__.get(name, Any)
        try:  # the annotations of our own functions, which are kept as text
            found[name] = eval(hint, dict(known)) if isinstance(hint, str) else hint
        except NameError:  # what only a type checker imports
            continue
    return found


def _fits(value: Any, hint: Any) -> bool:
    kind, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind in (Union, types.UnionType):
        return any(_fits(value, each) for each in inner)
    if hint is None:
        return value is None
    if kind is Sequence:
        many = isinstance(value, Sequence) and not isinstance(value, str | bytes)
        return many and all(_fits(each, inner[0]) for each in value)
    # a protocol cannot be asked, nor a variable of a type
    if not isinstance(kind, type) or typing.Protocol in kind.__mro__:
        return True
    if isinstance(value, bool):
        return kind in (bool, object)
    return isinstance(value, int | float if kind is float else kind)


def _words(hint: Any) -> str:
    """Return a kind in words, alternatives joined by "or"."""
    kind, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_words, inner)))
    if kind is Sequence:
        return f"a list of {_words(inner[0])}"
    if kind is Mapping:
        return "a mapping"
    return _WORDS.get(kind) or f"{'an' if kind.__name__[0] in 'AEIO' else 'a'} {kind.__name__}"
