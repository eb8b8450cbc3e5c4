"""Settings of a verb: a pydantic model whose fields are the flags.

A field's type says what a value may be and reads it as typed: `Count` takes 400M. `setting` holds
the default, the group and the help. The flags (`nas.cli.flags`), what `--config` may hold, the
signatures of the Python functions (`takes`) and every check follow from the model.
"""

from __future__ import annotations

import inspect
import textwrap
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from nas.core import units
from nas.core.errors import OptionError, did_you_mean

Verb = TypeVar("Verb", bound=Callable[..., Any])


@dataclass(frozen=True)
class Reader:
    """How a value is read: of a flag, of a file or of Python.

    `read(value, flag)` returns the value as it is kept, or raises OptionError. `takes` is what
    Python may pass, as an annotation; `typed` what the command line hands over.
    """

    read: Callable[[Any, str], Any]
    takes: str
    typed: Any = str
    metavar: str | None = "<number>"

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Return pydantic's schema of what this reads."""
        flag = flag_name(handler.field_name or "")

        return core_schema.no_info_plain_validator_function(
            lambda value: self.read(check_filled(value, flag), flag)
        )


def check_filled(value: Any, flag: str) -> Any:
    """Return a value that is not empty; a variable of a shell that is not set gives an empty word.

    Raises:
        OptionError: it is empty.
    """
    if isinstance(value, str) and not value.strip():
        raise OptionError(f"{flag} is empty, {value!r}: give a value, or leave it out")
    return value


def refuse(flag: str, wanted: str, value: object) -> OptionError:
    """Return the refusal of a value."""
    return OptionError(f"{flag} takes {wanted}, not {value!r}")


def _word(value: Any, flag: str) -> str:
    if not isinstance(value, str):
        raise refuse(flag, "a word", value)
    return value


def _place(value: Any, flag: str) -> str:
    return str(value) if isinstance(value, Path) else _word(value, flag)


def _switch(value: Any, flag: str) -> bool:
    if not isinstance(value, bool):
        raise refuse(flag, "true or false", value)
    return value


def _share(value: Any, flag: str) -> float:
    found = units.parse_number(value, flag)
    if not 0 < found <= 1:
        raise refuse(flag, "a share above 0 and up to 1", value)
    return found


def _options(value: Any, flag: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise refuse(flag, "a mapping of names to values", value)
    for name in value:
        if not isinstance(name, str):
            raise refuse(flag, "a mapping of names to values", value)
    return dict(value)


def _words(value: Any, flag: str) -> list[str]:
    if not isinstance(value, list | tuple) or not all(isinstance(word, str) for word in value):
        raise refuse(flag, "a list of names", value)
    return list(value)


def whole(least: int) -> Reader:
    """Return the reader of whole numbers from `least` on; they fit into 32 bits, as seeds must."""

    def read(value: Any, flag: str) -> int:
        text = str(value)
        fits = text.isdecimal() and least <= int(text) < 2**32 - 1
        if isinstance(value, bool) or not fits:
            raise refuse(flag, f"a whole number of at least {least}", value)
        return int(text)

    return Reader(read, "int | str")


Word = Annotated[str, Reader(_word, "str", metavar=None)]
Place = Annotated[str, Reader(_place, "str | Path", metavar=None)]  # a name, or a path
Switch = Annotated[bool, Reader(_switch, "bool", bool, None)]
Number = Annotated[float, Reader(units.parse_number, "float | str")]
Share = Annotated[float, Reader(_share, "float | str")]
Count = Annotated[int, Reader(units.parse_count, "str | float")]  # 400M
Milliseconds = Annotated[float, Reader(units.parse_milliseconds, "str | float")]  # 12ms
Seconds = Annotated[float, Reader(units.parse_seconds, "str | float")]  # 20m
Natural = Annotated[int, whole(0)]
Positive = Annotated[int, whole(1)]
Pixels = Annotated[int, whole(32)]  # at least 32 a side: the networks stride by 32
Options = Annotated[
    dict[str, Any], Reader(_options, "Mapping[str, Any]", list[str], "<name=value>")
]
Words = Annotated[list[str], Reader(_words, "Sequence[str]", list[str], "<text>")]


def setting(default: Any, group: str, text: str, *also: str) -> Any:
    """Return a field with the group it is shown in and its help; `also`: its flag's other names."""
    return Field(default, description=text, json_schema_extra={"group": group, "also": [*also]})


class Settings(BaseModel):
    """What decides a run of a verb; `args.yaml` holds it. None of a value means the default."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)
    VERB: ClassVar[str]

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        names = sorted(cls.model_fields)
        for key in given:
            if key not in names:
                raise OptionError(
                    f"{cls.VERB} has no setting {key!r}{did_you_mean(key, names)}; "
                    f"it has {', '.join(names)}"
                )
        return {key: value for key, value in given.items() if value is not None}


def flag_name(key: str) -> str:
    """Return the flag of a setting."""
    return "--" + key.replace("_", "-").replace("-options", "-option")


def reader_of(field: FieldInfo) -> Reader:
    """Return how a field's value is read."""
    inner = (part for kind in typing.get_args(field.annotation) for part in typing.get_args(kind))
    return next(part for part in (*field.metadata, *inner) if isinstance(part, Reader))


def shown(field: FieldInfo) -> tuple[str, str, list[str]]:
    """Return the group of a setting, its help, and the other names of its flag."""
    extra: Any = field.json_schema_extra
    return extra["group"], field.description or "", extra["also"]


def takes(model: type[Settings]) -> Callable[[Verb], Verb]:
    """Let a verb, which has its settings as **keywords, show each of them and its help."""

    def change(verb: Verb) -> Verb:
        signature = inspect.signature(verb)
        own = signature.parameters.values()
        more = {k: f for k, f in model.model_fields.items() if k not in signature.parameters}
        parameters = [
            *(p for p in own if p.kind is p.POSITIONAL_OR_KEYWORD),
            *(_parameter(key, field) for key, field in more.items()),
            *(p for p in own if p.kind is p.KEYWORD_ONLY),
        ]
        vars(verb)["__signature__"] = signature.replace(parameters=parameters)
        told = [_line(key, field) for key, field in more.items()]
        verb.__doc__ = "\n".join(
            [inspect.getdoc(verb) or "", "", f"Settings, flags of `nas {model.VERB}`:", *told]
        )
        return verb

    return change


def _line(name: str, field: FieldInfo) -> str:
    """Return a setting with its help, for a docstring."""
    indent = " " * 4
    text = f"{name}: {field.description}"
    wrapper = textwrap.TextWrapper(
        92, initial_indent=indent, subsequent_indent=indent * 2, break_on_hyphens=False
    )
    return wrapper.fill(text)


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    """Return a setting as a keyword of a Python function."""
    kind = reader_of(field).takes + (" | None" if field.default is None else "")
    only = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, only, default=field.default, annotation=kind)
