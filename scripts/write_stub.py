#!/usr/bin/env python
"""Write nas/__init__.pyi, the types of `import nas`: each verb with each of its settings.

    python scripts/write_stub.py
    python scripts/write_stub.py --check

`nas` imports its verbs when they are asked for, and a verb takes its settings as keywords; a type
checker and an editor see neither. So this writes down what `inspect.signature` says. With --check
nothing is written, and the exit code is 1 where the file is not what this would write.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import importlib
import inspect
import itertools
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any

import nas

STUB = Path(nas.__file__).with_suffix(".pyi")
HEAD = '"""Types of `import nas`, written by scripts/write_stub.py."""\n'
# of the types of settings, which no verb has to import
STANDARD = {
    "Any": "typing",
    "Mapping": "collections.abc",
    "Path": "pathlib",
    "Sequence": "collections.abc",
}


def main(words: Sequence[str] | None = None) -> None:
    """Write the file, or check it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; 1 where it is stale")
    given, text = parser.parse_args(words), stub()
    if not given.check:
        STUB.write_text(text, encoding="utf-8")
    elif not STUB.exists() or STUB.read_text(encoding="utf-8") != text:
        sys.exit(f"{STUB} is stale: run python scripts/write_stub.py")
    print(f"{STUB} has the types of {len(nas.__all__)} names")


def stub() -> str:
    """Return the text of the file."""
    verbs = [name for name in nas.__all__ if _has_settings(getattr(nas, name))]
    needed = {each for name in verbs for each in _imports(getattr(nas, name))}
    again = {(nas.HOMES[name], f"{name} as {name}") for name in nas.__all__ if name not in verbs}
    needed = {(module, name) for module, name in needed if nas.HOMES.get(name) != module}
    exported = "".join(f'    "{name}",\n' for name in nas.__all__)
    defined = "\n".join(_definition(getattr(nas, name)) for name in verbs)
    standard = {(module, name) for module, name in needed if not module.startswith("nas")}
    imports = f"{_lines(standard)}\n{_lines((needed - standard) | again)}"
    return f"{HEAD}\n{imports}\n__version__: str\n__all__ = [\n{exported}]\n\n{defined}"


def _lines(imports: set[tuple[str, str]]) -> str:
    """Return imports in the order of isort, those of one module in a line where none is renamed."""
    lines = []
    for module, found in itertools.groupby(sorted(imports), lambda each: each[0]):
        names = [name for _, name in found]
        plain = [name for name in names if " as " not in name]
        lines += [f"from {module} import {', '.join(plain)}\n"] if plain else []
        lines += [f"from {module} import {name}\n" for name in names if " as " in name]
    return "".join(lines)


def _has_settings(found: Any) -> bool:
    return isinstance(found, FunctionType) and hasattr(inspect.unwrap(found), "__signature__")


def _imports(verb: FunctionType) -> Iterator[tuple[str, str]]:
    """Yield module and name of all that a verb's annotations need."""
    signature = inspect.signature(verb)
    texts = [p.annotation for p in signature.parameters.values()] + [signature.return_annotation]
    tree = ast.parse("\n".join(texts))
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    known = STANDARD | _imported(verb.__module__)
    for name in used - set(dir(builtins)):
        yield known.get(name, verb.__module__), name


def _imported(module: str) -> dict[str, str]:
    """Return where the names come from that a module imports, those for a type checker too."""
    tree = ast.parse(inspect.getsource(importlib.import_module(module)))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def _definition(verb: FunctionType) -> str:
    signature = inspect.signature(verb)
    parameters, star = [], False
    for each in signature.parameters.values():
        if each.kind is each.KEYWORD_ONLY and not star:
            parameters.append("*")
            star = True
        parameters.append(_parameter(each))
    listed = "".join(f"    {parameter},\n" for parameter in parameters)
    told = textwrap.indent(f'"""{inspect.getdoc(verb)}\n"""', "    ")
    return f"def {verb.__name__}(\n{listed}) -> {signature.return_annotation}:\n{told}\n"


def _parameter(each: inspect.Parameter) -> str:
    if each.default is each.empty:
        return f"{each.name}: {each.annotation}"
    plain = each.default is None or isinstance(each.default, bool | int | float | str)
    default = repr(each.default).replace("'", '"') if plain else "..."
    return f"{each.name}: {each.annotation} = {default}"


if __name__ == "__main__":
    main()
