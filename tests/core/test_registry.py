"""Catalog: names from the folders, the user's own files, options checked against `make`."""

from pathlib import Path

import pytest

import nas
from nas.core import registry
from nas.core.errors import NasError, OptionError


def test_the_folder_is_the_registry() -> None:
    for kind, package in registry.PACKAGES.items():
        root = Path(nas.__file__).parents[1]
        inside, beside = root / package.replace(".", "/"), root / package.rpartition(".")[2]
        files = (inside if inside.is_dir() else beside).glob("[!_]*.py")
        assert registry.names(kind) == tuple(sorted(file.stem for file in files))
        assert registry.names(kind)


def test_an_unknown_name_gets_the_nearest_one_and_the_folder_searched() -> None:
    with pytest.raises(OptionError) as error:
        registry.load("spaces", "mbcnv")
    text = str(error.value)
    assert "no space named 'mbcnv' (did you mean 'mbconv'?)" in text
    assert "mnasnet" in text and "search_spaces" in text and "\n" not in text


def test_a_users_file_is_found_by_its_path(folder: Path) -> None:
    assert registry.export("spaces", "./space.py", "SPACE").size == 36
    assert registry.load("spaces", "./space.py") is registry.load("spaces", "./space.py")


def test_a_changed_file_is_read_again(folder: Path) -> None:
    assert registry.export("spaces", "space.py", "SPACE").size == 36
    text = (folder / "space.py").read_text()
    (folder / "space.py").write_text(text.replace("(1, 3, 6)", "(1, 6)"))
    assert registry.export("spaces", "space.py", "SPACE").size == 24


def test_two_files_of_one_name_stay_apart(folder: Path) -> None:
    for name, number in (("a", 1), ("b", 2)):
        (folder / name).mkdir()
        (folder / name / "mine.py").write_text(f"WHAT = {number}\n")
    assert [registry.export("spaces", f"{n}/mine.py", "WHAT") for n in "ab"] == [1, 2]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero"),
        ("def (", "cannot be imported: SyntaxError"),
        ("import not_there_at_all", "cannot be imported: ModuleNotFoundError"),
        ("from nas.models.arch import Arch\nArch('x', ())", "an arch needs at least one stage"),
        ("", "does not define SPACE, which every space file must"),
    ],
)
def test_a_broken_user_file_is_told_in_one_line(folder: Path, source: str, message: str) -> None:
    path = folder / "broken.py"
    path.write_text(source)
    with pytest.raises(OptionError, match=r"broken") as error:
        registry.export("spaces", str(path), "SPACE")
    assert message in str(error.value)


def test_a_missing_file_is_told_with_the_known_names() -> None:
    with pytest.raises(OptionError, match=r"no file nowhere\.py for --space; known names: mbconv"):
        registry.load("spaces", "nowhere.py")


def test_options_are_those_of_make() -> None:
    assert registry.option_defaults("evaluators", "synthetic") == {
        "landscape": 0,
        "noise": 0.0,
        "epochs": 0,
    }
    made = registry.make("evaluators", "synthetic", options={"noise": 1})
    assert made.title.startswith("synthetic")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nois": 1}, "no option 'nois' \\(did you mean 'noise'\\?\\); it takes landscape=0"),
        ({"noise": "abc"}, "option noise takes a number \\(default 0.0\\), not 'abc'"),
        ({"landscape": 1.5}, "option landscape takes a whole number"),
        ({"landscape": True}, "option landscape takes a whole number"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        registry.make("evaluators", "synthetic", options=options)


def test_a_fixed_option_is_not_the_users() -> None:
    space = registry.export("spaces", "mbconv", "SPACE")
    with pytest.raises(OptionError, match="no option 'seed'"):
        registry.make("controllers", "random", space, options={"seed": 3}, seed=1)


def test_a_make_that_fails_is_told_in_one_line(folder: Path) -> None:
    path = folder / "fails.py"
    path.write_text("def make(*, data: str = ''):\n    raise FileNotFoundError('no data here')\n")
    with pytest.raises(NasError, match=r"cannot be made: FileNotFoundError: no data here"):
        registry.make("evaluators", str(path), options={})


def test_a_part_that_was_looked_up_stays_what_it_was(folder: Path) -> None:
    own = "import optuna\n\ndef make(*, rungs, depth: int = 1):\n"
    (folder / "own.py").write_text(f"{own}    return optuna.pruners.PatientPruner(None, depth)\n")
    part = registry.part("pruners", "own.py", {"depth": 2}, ("rungs",))
    assert part.keywords == ("rungs", "depth")
    (folder / "own.py").write_text("raise ValueError('changed meanwhile')\n")
    with pytest.raises(OptionError, match="changed meanwhile"):
        registry.part("pruners", "own.py", {}, ("rungs",))
    assert part.make(rungs=(1,), space=None) is not part.make(rungs=(1,), space=None)
    with pytest.raises(OptionError, match="has no option 'rungs'"):
        registry.part("pruners", "median", {"rungs": 3}, ("rungs",))
