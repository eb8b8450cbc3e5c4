"""No private name of another package is used: what begins with an underscore may go any day."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("nas", "search_spaces", "baselines", "scripts", "tests")
FILES = sorted(path for folder in OURS for path in (ROOT / folder).rglob("*.py"))
# names with an underscore that Python's own manual documents: of namedtuple, os and typeshed
DOCUMENTED = {"_replace", "_asdict", "_fields", "_exit", "_typeshed"}
# docs/design.md, section 4, says why of each
EXCEPTIONS = {
    # PyTorch's manual documents both: "Foreach operations", "Extending PyTorch"
    ("", r"torch\._foreach_\w+|torch\.utils\._python_dispatch\.TorchDispatchMode"),
    # torchvision keeps the files of its sets in no other place
    ("nas/data/datasets/torchvision.py", r"_samples|_image_files|_images|_labels"),
}


def private(name: str) -> bool:
    """Tell whether a part of a dotted name is private."""
    parts = (part for part in name.split(".") if part not in DOCUMENTED)
    return any(part.startswith("_") and not part.endswith("__") for part in parts)


def own_names(tree: ast.Module) -> set[str]:
    """Return the names by which a file knows our modules and what it took from them."""
    found = {"self", "cls"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None)
            for alias in node.names:
                origin = (module or alias.name).partition(".")[0]
                if not is_foreign(origin):
                    found.add(alias.asname or alias.name)
    return found


def is_foreign(package: str) -> bool:
    scripts = {path.stem for path in (ROOT / "scripts").iterdir()} | {"conftest"}
    return package not in OURS and package not in scripts


def is_super(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "super"


def uses(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines and private names that a file takes from what is not ours.

    A file of tests may look into our own objects: there a name is foreign that none of our files
    defines, or that hangs on a foreign module.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = own_names(tree)
    ours = DEFINED if "tests" in path.relative_to(ROOT).parts else set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            module = node.module or ""
            for alias in node.names:
                full = f"{module}.{alias.name}"
                if is_foreign(module.partition(".")[0]) and private(full):
                    yield node.lineno, full
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if is_foreign(alias.name.partition(".")[0]) and private(alias.name):
                    yield node.lineno, alias.name
        elif isinstance(node, ast.Attribute) and private(node.attr):
            base = node.value
            known = (isinstance(base, ast.Name) and base.id in own) or is_super(base)
            if not known and node.attr not in ours:
                yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr"):
            name = node.args[1]
            if isinstance(name, ast.Constant) and private(str(name.value)):
                yield node.lineno, str(name.value)


def defined(path: Path) -> Iterator[str]:
    """Yield the private names that a file of ours defines."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.attr if isinstance(node, ast.Attribute) else node.id


DEFINED = {name for path in FILES if "tests" not in path.parts for name in defined(path)}


def test_no_private_name_of_another_package_is_used() -> None:
    found = []
    for path in FILES:
        where = path.relative_to(ROOT).as_posix()
        for line, name in uses(path):
            excused = any(
                where.startswith(file) and re.fullmatch(pattern, name)
                for file, pattern in EXCEPTIONS
            )
            if not excused:
                found.append(f"{where}:{line}: {name}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "import ray._private.worker",
        "from optuna.storages._rdb import models",
        "from timm.models.efficientnet import _create_effnet",
        "import optuna\n\noptuna.pruners._filter_study(1, 2)",
        "def f(study):\n    return study._storage",
        "def f(part):\n    return getattr(part, '_samples', None)",
    ],
)
def test_it_sees_them(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda path, **_: text)
    assert [line for line, _ in uses(ROOT / "nas" / "never_written.py")]


def test_it_leaves_ours_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "import os\nfrom nas.models import cost\n\ncost._parts\nrow._replace(a=1)\nos._exit(1)"
    monkeypatch.setattr(Path, "read_text", lambda path, **_: text)
    assert not list(uses(ROOT / "nas" / "never_written.py"))
