"""The layers of the house (docs/design.md): what each room may import, read from the source.

Not to be confused with nas/models/layers.py, whose tests are in test_cost.py.
"""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = (
    "nas.interfaces nas.models.arch nas.core.errors nas.core.units nas.core.processes nas.models.published nas.core.quoting "
    "nas.settings.*",
    "nas.searching.gp.acquisition nas.searching.gp.surrogate nas.core.registry nas.core.checksums nas.evaluation.cluster.* nas.models.compound nas.models.cost "
    "nas.models.crosscheck nas.data.* nas.models.designs nas.evaluation.durations nas.evaluation.evaluate nas.models.cam "
    "nas.exporting.request nas.searching.gp.features nas.scaling.fit.coefficients nas.searching.gp.gaussian nas.scaling.fit.grid nas.models.layers nas.core.locks "
    "nas.machines.* nas.models.build nas.models.modules nas.evaluation.naswot nas.searching.objective nas.models.onnx_graph nas.models.ops.* "
    "nas.exporting.plain nas.core.plain_yaml nas.searching.points nas.searching.gp.posterior nas.searching.ranking nas.models.rounding nas.core.run_folder "
    "nas.searching.samplers nas.searching.sampling.* nas.evaluation.skeleton nas.searching.studies.* nas.core.tables nas.training.* "
    "nas.evaluation.retries nas.evaluation.workers",
    "nas.searching.controllers.* nas.data.datasets.* nas.hardware.devices.* nas.exporting.formats.* nas.searching.pruners.* "
    "nas.training.recipes.* nas.training.trackers.* search_spaces.*",
    "baselines.* nas.evaluation.evaluators.* nas.evaluation.executors.*",
    "nas.training.model_card nas.searching.outcome.curves nas.searching.engine nas.searching.outcome.finalists nas.searching.outcome.finals nas.data.checks nas.scaling.fit.results "
    "nas.scaling.fit.setup nas.scaling.fit.fitting nas.searching.outcome.selection nas.models.load nas.scaling.member_setup nas.scaling.members nas.evaluation.packing "
    "nas.reporting.html.* nas.searching.setup nas.searching.start.priors nas.scaling.progress nas.searching.fidelity.proxies nas.searching.fidelity.study nas.searching.feasibility "
    "nas.reporting.report nas.searching.outcome.results nas.searching.start.resumption nas.scaling.setup nas.searching.start.zero_cost nas.reporting.terminal.* nas.searching.start.provenance "
    "nas.training.results nas.training.setup nas.verbs.* nas.searching.outcome.explanation nas.searching.start.warm_start nas.searching.evaluator_spec",
    "nas.__main__ nas.cli.program nas.cli.commands.* nas.cli.flags",
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
    "ray": {"nas.evaluation.executors.ray", *(f"nas.evaluation.cluster.{name}" for name in RAY)},
    "thop": {"nas.models.crosscheck"},
    "plotly": set(),  # of the tests alone: they check that our figures are plotly's
    "matplotlib": {"nas.reporting.pictures"},
    "timm": {"nas.exporting.formats.timm", "nas.exporting.formats._effnet"},
    "torchvision": {"nas.data.policies", "nas.data.datasets.torchvision"},
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
    assert not parts, f"{name} imports {sorted(parts)}; go through nas.core.registry"


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


@pytest.mark.parametrize("name", ["nas", "nas.cli.program"])
def test_import_is_light(name: str) -> None:
    if name not in SOURCES:
        pytest.skip(f"{name} does not exist yet")
    light = HEAVY - {"rich"}
    code = f"import sys, {name}; print(*sorted({light!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
