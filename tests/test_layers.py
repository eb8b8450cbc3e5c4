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
    "nas.interfaces nas.arch nas.errors nas.units nas.processes nas.published nas.quoting "
    "nas.settings.*",
    "nas.acquisition nas.belief nas.catalog nas.checksums nas.cluster.* nas.compound nas.cost "
    "nas.crosscheck nas.data.* nas.designs nas.durations nas.evaluation nas.explaining "
    "nas.exporting nas.features nas.fitted nas.gaussian nas.grid nas.layers nas.locks "
    "nas.machines.* nas.model nas.modules nas.naswot nas.objective nas.onnx_graph nas.ops.* "
    "nas.plain nas.plain_yaml nas.points nas.posterior nas.ranking nas.rounding nas.run "
    "nas.samplers nas.sampling.* nas.skeleton nas.studies.* nas.tables nas.training.* "
    "nas.tries nas.workers",
    "nas.controllers.* nas.datasets.* nas.devices.* nas.exporters.* nas.pruners.* "
    "nas.recipes.* nas.trackers.* search_spaces.*",
    "baselines.* nas.evaluators.* nas.executors.*",
    "nas.card nas.curves nas.engine nas.finalists nas.finals nas.findings nas.fit_results "
    "nas.fit_setup nas.fitting nas.handover nas.load nas.member_setup nas.members nas.packing "
    "nas.pages.* nas.prepare nas.priors nas.progress nas.proxies nas.proxy_lab nas.reach "
    "nas.report nas.results nas.resumption nas.scaling nas.scored nas.screens.* nas.sources "
    "nas.train_results nas.train_setup nas.verbs.* nas.verdict nas.warm_start nas.work",
    "nas.__main__ nas.cli nas.commands.* nas.flags",
)
ROOMS = {name: row for row, names in enumerate(ROWS) for name in names.split()}
FOLDERS = tuple(name[:-1] for name in ROOMS if name.endswith(".*"))
# a part is what the catalog finds by name; the other folders are rooms of our own
OWN = {
    *("cluster", "commands", "data", "machines", "pages", "sampling", "screens", "settings"),
    *("studies", "training", "verbs"),
}
PARTS = tuple(name for name in FOLDERS if name not in {f"nas.{room}." for room in OWN})
# rows in which modules may build on each other, without a cycle
SOCIABLE = {0, 1, 4, 5}
HEAVY = {
    *("matplotlib", "numpy", "onnx", "optuna", "PIL", "plotly", "pyarrow", "ray", "rich"),
    *("safetensors", "scipy", "sklearn", "sqlalchemy", "thop", "timm", "torch", "torchvision"),
}
# the room of the Ray executor
RAY = ("connection", "tasks", "tuned", "worker")
ONLY = {
    "ray": {"nas.executors.ray", *(f"nas.cluster.{name}" for name in RAY)},
    "thop": {"nas.crosscheck"},
    "plotly": set(),  # of the tests alone: they check that our figures are plotly's
    "matplotlib": {"nas.training.pictures"},
    "timm": {"nas.exporters.timm", "nas.exporters._effnet"},
    "torchvision": {"nas.data.policies", "nas.datasets.torchvision"},
}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


SOURCES = {
    module_name(path): path
    for folder in ("nas", "search_spaces", "baselines")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
PACKAGES = {name for name, path in SOURCES.items() if path.name == "__init__.py"}


def imports(name: str, loaded: bool = False) -> set[str]:
    """Return the modules a module imports anywhere, ours down to the module, others whole.

    With `loaded`, only what is imported when the module itself is: nothing inside of functions,
    nothing that only the type checker sees.
    """
    tree = ast.parse(SOURCES[name].read_text(encoding="utf-8"))
    late: set[ast.AST] = set()
    for node in ast.walk(tree):
        checking = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if loaded and (checking or isinstance(node, ast.FunctionDef)):
            late |= {inner for statement in node.body for inner in ast.walk(statement)}
    return {other for node in ast.walk(tree) if node not in late for other in _names(name, node)}


def _names(name: str, node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if not isinstance(node, ast.ImportFrom):
        return set()
    assert node.level == 0, f"{name} imports relatively"
    full = {f"{node.module}.{alias.name}" for alias in node.names}
    return full & set(SOURCES) if full & set(SOURCES) else {node.module or ""}


def ours(name: str, loaded: bool = False) -> set[str]:
    found = imports(name, loaded)
    return {other for other in found if other in SOURCES and other not in PACKAGES}


def row(name: str) -> int:
    folder = next((folder for folder in FOLDERS if name.startswith(folder)), None)
    return ROOMS[f"{folder}*" if folder else name]


MODULES = sorted(set(SOURCES) - PACKAGES)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_has_a_row(name: str) -> None:
    assert name in ROOMS or name.startswith(FOLDERS), (
        f"{name} is in no row: add it to ROWS here and to docs/design.md"
    )


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_lower_rows_only(name: str) -> None:
    higher = {other for other in ours(name) if row(other) > row(name)}
    level = {other for other in ours(name) if row(other) == row(name)}
    assert not higher, f"{name} (row {row(name)}) imports higher rows: {sorted(higher)}"
    assert not level or row(name) in SOCIABLE, f"{name} imports its own row: {sorted(level)}"


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
    graph = {name: ours(name) for name in MODULES}
    list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("name", MODULES)
def test_the_lowest_row_is_the_standard_library_only(name: str) -> None:
    outer = {other.partition(".")[0] for other in imports(name, loaded=True)}
    if row(name) == 0:
        assert outer <= set(sys.stdlib_module_names) | {"nas"}


@pytest.mark.parametrize("name", MODULES)
def test_fenced_packages_stay_in_their_file(name: str) -> None:
    outer = {other.partition(".")[0] for other in imports(name)}
    assert all(name in ONLY[package] for package in outer & set(ONLY))


@pytest.mark.parametrize("package", ["search_spaces", "baselines"])
def test_the_rooms_of_the_user_have_an_empty_init(package: str) -> None:
    assert not SOURCES[package].read_text(encoding="utf-8").strip()


@pytest.mark.parametrize("name", ["nas", "nas.cli"])
def test_import_is_light(name: str) -> None:
    if name not in SOURCES:
        pytest.skip(f"{name} does not exist yet")
    light = HEAVY - {"rich"}
    code = f"import sys, {name}; print(*sorted({light!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
