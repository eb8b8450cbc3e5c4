"""The evaluator `table`: what it tells of a user's own table, and which tables it refuses."""

import csv
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from nas.core import registry
from nas.core.errors import EvaluatorError, OptionError
from nas.evaluation.evaluate import perform
from nas.interfaces import Space, Task
from nas.models.arch import Arch
from nas.searching.search import search
from nas.searching.settings import SearchSettings
from nas.searching.setup import prepare
from nas.searching.start.warm_start import read_source, with_source_path

Lines = list[list[Any]]


def lines(space: Space) -> Lines:
    """Return a whole table of a space: two seeds, true values, a metric and words."""
    found: Lines = [[*space.choices, "accuracy_1", "accuracy_0", "true", "latency_ms", "source"]]
    for number, options in enumerate(product(*space.choices.values())):
        found.append([*options, 10.5 + number / 2, 9.5 + number / 2, 10 + number / 2, number, "x"])
    return found


def write(path: Path, found: Lines) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(found)
    return path


@pytest.fixture
def space(folder: Path) -> Space:
    found: Space = registry.export("spaces", "./space.py", "SPACE")
    return found


@pytest.fixture
def path(space: Space, folder: Path) -> Path:
    return write(folder / "table.csv", lines(space))


def made(path: Path, **options: str) -> Any:
    given = {"path": str(path), "space": "./space.py"} | options
    return registry.make("evaluators", "table", options=given)


def archs(space: Space) -> list[Arch]:
    points = product(*space.choices.values())
    return [space.decode(dict(zip(space.choices, point, strict=True))) for point in points]


def test_the_seed_picks_a_training_and_the_truth_is_not_shown(space: Space, path: Path) -> None:
    # with one layer the kernel does not matter: row 4, counted from 0, is the same network
    table, arch = made(path), archs(space)[5]
    shown = [table.evaluate(arch, seed=seed) for seed in range(4)]
    assert shown[0] == {"accuracy": 11.5, "latency_ms": 4.0} == shown[2]
    assert shown[1] == {"accuracy": 12.5, "latency_ms": 4.0} == shown[3]
    assert table.truth(arch) == 12.0
    assert table.title == (
        "table table.csv: 36 rows, 27 networks, 2 trainings of each, true values known"
    )
    assert table.notes == (f"{path}: no metrics are in source",)
    assert perform(table, Task(3, arch.to_dict(), 1)).metrics == shown[1]


def test_without_true_values_the_mean_of_the_trainings_counts(space: Space, path: Path) -> None:
    table, arch = made(path, true="none"), archs(space)[7]
    assert table.truth(arch) == 13.5
    assert table.evaluate(arch)["true"] == 13.5  # a column like any other
    assert made(path, observed="true", true="none").evaluate(arch, seed=5)["accuracy"] == 13.5


def test_an_arch_of_another_resolution_is_refused(space: Space, path: Path) -> None:
    strange = registry.export("baselines", "resnet", "ARCHS")["resnet18"]
    with pytest.raises(EvaluatorError, match=r"resnet18 .* is in no row of table table.csv"):
        made(path).check(strange)
    assert "EvaluatorError" in perform(made(path), Task(0, strange.to_dict(), 0)).error


def test_parquet_tells_the_same(space: Space, path: Path, folder: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    names, *rows = lines(space)
    columns = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    parquet.write_table(pyarrow.table(columns), folder / "table.parquet")
    one, other = made(path), made(folder / "table.parquet")
    for arch in archs(space):
        assert one.evaluate(arch, seed=1) == other.evaluate(arch, seed=1)


def test_words_and_switches_are_found_by_their_text(folder: Path) -> None:
    source = (folder / "space.py").read_text()
    switch = '"residual": (False, True), "kind": ("a", "b"), "expansion"'
    (folder / "words.py").write_text(source.replace('"expansion": (1', switch + ": (1"))
    found: Space = registry.export("spaces", "./words.py", "SPACE")
    text = [[str(cell).lower() for cell in line] for line in lines(found)]
    assert "144 rows, 27 networks" in made(write(folder / "w.csv", text), space="./words.py").title


def test_a_part_of_a_space_is_a_table_where_the_rest_is_not_valid(
    space: Space, folder: Path
) -> None:
    names, *rows = lines(space)
    some = [row for row in rows if row[2] == 2 or row[3] == 5]  # all networks, not all points
    assert "27 rows, 27 networks" in made(write(folder / "some.csv", [names, *some])).title
    few = [row for row in some if row[0] != 6]
    path = write(folder / "few.csv", [names, *few])
    with pytest.raises(OptionError, match=r"few.csv lacks 12 of the 36 points \(expansion=6, "):
        made(path)
    source = (folder / "space.py").read_text().rstrip().removesuffix(")")
    valid = source + '    valid=lambda choices: choices["expansion"] != 6,\n)\n'
    (folder / "valid.py").write_text(valid)
    given: dict[str, Any] = {"space": "./valid.py", "evaluator": "table"}
    given["evaluator_options"] = {"path": str(path)}
    setup = prepare(SearchSettings.model_validate(given))
    assert setup.spec.options == {"space": "./valid.py", "path": str(path)}
    assert setup.evaluator.title.startswith("table few.csv: 18 rows, 18 networks")


@pytest.mark.parametrize(
    ("row", "column", "cell", "message"),
    [
        (3, 0, "2", "row 4: expansion is '2', which is none of the options 1, 3, 6 of space small"),
        (3, 0, "", "row 4: expansion is ''"),
        (0, 0, "expand", "has no column 'expansion' .did you mean 'expand'"),
        (5, 3, "5", "row 7 is the point of row 6 again: .* accuracy_0, accuracy_1"),
        (2, 4, "nan", "row 3: accuracy_1 is 'nan', where an accuracy in percent is expected"),
        (2, 5, "101", "row 3: accuracy_0 is '101'"),
        (2, 6, "", "row 3: true is ''"),
        (0, 4, "accuracy", "has accuracies in both accuracy and accuracy_0"),
    ],
)
def test_a_table_with_a_wrong_cell_is_refused(
    space: Space, folder: Path, row: int, column: int, cell: str, message: str
) -> None:
    found = lines(space)
    found[row][column] = cell
    with pytest.raises(OptionError, match=message) as error:
        made(write(folder / "wrong.csv", found))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([], "wrong.csv has no rows"),
        ([["a", "b"]], "wrong.csv has no rows"),
        ([["a"], [1, 2]], "row 2 has more cells than there are columns"),
    ],
)
def test_what_is_no_table_is_refused(folder: Path, found: Lines, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        made(write(folder / "wrong.csv", found))


def test_files_that_cannot_be_read_are_one_line(path: Path, folder: Path) -> None:
    (folder / "torn.parquet").write_bytes(b"PAR1")
    (folder / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    for file in ("torn.parquet", "bytes.csv", "."):
        with pytest.raises(OptionError) as error:
            made(folder / file)
        assert "\n" not in str(error.value)
    with pytest.raises(OptionError, match="--evaluator-option path="):
        registry.make("evaluators", "table", options={})
    with pytest.raises(OptionError, match="no accuracies in acc or acc_0"):
        made(path, observed="acc")


def test_fractions_are_no_percents(space: Space, folder: Path) -> None:
    names, *rows = lines(space)
    small = [[*row[:4], *(value / 100 for value in row[4:7]), *row[7:]] for row in rows]
    with pytest.raises(OptionError, match="percents are expected: multiply by 100"):
        made(write(folder / "small.csv", [names, *small]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"observed": "expansion"}, "expansion is a choice of space small.* observed=NAME$"),
        ({"true": "kernel"}, "kernel is a choice of space small.* true=NAME$"),
        ({"observed": "true"}, "true cannot be both what a search sees and .* or true=none$"),
        ({"true": "accuracy_1"}, "accuracy_1 cannot be both"),
    ],
)
def test_a_column_is_one_thing(path: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        made(path, **options)


def test_two_columns_of_one_name_are_refused(space: Space, folder: Path) -> None:
    found = lines(space)
    found[0][7:] = ["latency_ms", "latency_ms"]
    with pytest.raises(OptionError, match=r"twice.csv has two columns 'latency_ms': rename"):
        made(write(folder / "twice.csv", found))
    found[0][7:] = ["", ""]  # as spreadsheets write
    assert "36 rows" in made(write(folder / "blank.csv", found)).title


def test_a_table_in_the_home_folder_is_found(
    path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(folder))
    assert made(Path("~/table.csv")).title == made(path).title
    with pytest.raises(OptionError, match=r"no table ~nobody-here/table.csv"):
        made(Path("~nobody-here/table.csv"))


def test_the_same_table_under_another_path_is_taken_over(path: Path, folder: Path) -> None:
    given = {"space": "space.py", "evaluator": "table", "random_search": False}
    search(**given, evaluator_options={"path": "table.csv"}, trials=3, name="own")

    def kind(space: str, file: str) -> tuple[str, str]:
        options = {"evaluator_options": {"path": file}, "controller": "predictor"}
        settings = {**given, **options, "space": space, "warm_start": "own"}
        found = read_source(
            prepare(
                SearchSettings.model_validate(with_source_path(settings, Path("runs"))),
                strict=False,
            )
        )
        return found["kind"], found.get("reason", "")

    for space in ("space.py", "./space.py", str(folder / "space.py")):
        for file in ("table.csv", "./table.csv", str(path)):
            assert kind(space, file) == ("trials", "")
    (folder / "other.csv").write_text(path.read_text().replace("10.5", "10.25"))
    assert kind("space.py", "other.csv") == ("prior", "another table")
