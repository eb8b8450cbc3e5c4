"""The layers of the house (docs/design.md): what each room may import, read from the source.

Not to be confused with nas/layers.py, whose tests are in test_cost.py.
"""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROWS = (
    "nas.interfaces nas.arch nas.errors nas.units nas.published",
    "nas.catalog nas.objective nas.compound nas.run nas.journal nas.evaluation nas.study nas.cost "
    "nas.model nas.modules nas.layers nas.rounding nas.samplers nas.engine nas.ops.*",
    "nas.controllers.* nas.devices.* search_spaces.* nas.train nas.data",
    "nas.evaluators.* nas.executors.* nas.exporters.* baselines.*",
    "nas.search nas.scale nas.report",
    "nas.cli nas.__main__",
)
ROOMS = {name: row for row, names in enumerate(ROWS) for name in names.split()}
# rooms whose files may be read by their siblings: none of them; ops read layers and rounding
PARTS = tuple(name[:-1] for name in ROOMS if name.endswith(".*"))
HEAVY = {"torch", "optuna", "ray", "numpy", "plotly", "scipy", "rich", "thop"}
ONLY = {"ray": "nas.executors.ray", "thop": "nas.cost", "plotly": "nas.report"}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


SOURCES = {
    module_name(path): path
    for folder in ("nas", "search_spaces", "baselines")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
PACKAGES = {name for name, path in SOURCES.items() if path.name == "__init__.py"}


def imports(name: str) -> set[str]:
    """Return the modules a module imports anywhere, ours down to the module, others whole."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(SOURCES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            whole = f"{node.module}."
            found |= {
                whole + alias.name if whole + alias.name in SOURCES else node.module or ""
                for alias in node.names
            }
    return found


def ours(name: str) -> set[str]:
    return {other for other in imports(name) if other in SOURCES and other not in PACKAGES}


def row(name: str) -> int:
    part = next((part for part in PARTS if name.startswith(part)), None)
    return ROOMS[f"{part}*" if part else name]


MODULES = sorted(set(SOURCES) - PACKAGES)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_has_a_row(name: str) -> None:
    assert name in ROOMS or any(name.startswith(part) for part in PARTS), (
        f"{name} is in no row: add it to ROWS here and to docs/design.md"
    )


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_lower_rows_only(name: str) -> None:
    higher = {other for other in ours(name) if row(other) > row(name)}
    level = {other for other in ours(name) if row(other) == row(name)}
    assert not higher, f"{name} (row {row(name)}) imports higher rows: {sorted(higher)}"
    assert not level or row(name) in (0, 1, 4), f"{name} imports its own row: {sorted(level)}"


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith(PARTS)])
def test_a_part_never_imports_its_siblings(name: str) -> None:
    room = name.rpartition(".")[0]
    siblings = {other for other in ours(name) if other.startswith(f"{room}.")}
    assert not siblings


@pytest.mark.parametrize("name", MODULES)
def test_only_the_catalog_reaches_parts(name: str) -> None:
    parts = {other for other in ours(name) if other.startswith(PARTS)}
    assert not parts, f"{name} imports {sorted(parts)}; go through nas.catalog"


def test_imports_are_acyclic() -> None:
    list(TopologicalSorter({name: ours(name) for name in MODULES}).static_order())


@pytest.mark.parametrize("name", MODULES)
def test_the_lowest_row_is_the_standard_library_only(name: str) -> None:
    outer = {other.partition(".")[0] for other in imports(name)}
    if row(name) == 0:
        assert outer <= set(sys.stdlib_module_names) | {"nas"}


@pytest.mark.parametrize("name", MODULES)
def test_fenced_packages_stay_in_their_file(name: str) -> None:
    outer = {other.partition(".")[0] for other in imports(name)}
    assert all(name == ONLY[package] for package in outer & set(ONLY))


@pytest.mark.parametrize("package", ["search_spaces", "baselines"])
def test_the_rooms_of_the_user_have_an_empty_init(package: str) -> None:
    assert not SOURCES[package].read_text().strip()


@pytest.mark.parametrize("name", ["nas", "nas.cli"])
def test_import_is_light(name: str) -> None:
    if name not in SOURCES:
        pytest.skip(f"{name} does not exist yet")
    light = HEAVY - {"rich"}
    code = f"import sys, {name}; print(*sorted({light!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
