"""A function fits a screen and a file can be read in one sitting (docs/design.md, house rules)."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
FUNCTION, FILE = 60, 400
FILES = [
    path
    for folder in ("nas", "search_spaces", "baselines", "scripts")
    for path in sorted((ROOT / folder).rglob("*.py"))
]


def test_functions_fit_a_screen() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= FUNCTION
    ]
    assert not long


def test_files_have_at_most_400_lines() -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert not [str(path.relative_to(ROOT)) for path, count in lines.items() if count > FILE]
