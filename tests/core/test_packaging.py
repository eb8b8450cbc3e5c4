"""The wheel: one top-level package, whose parts are found outside the repository too."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import nas
from nas.core.errors import DISTRIBUTION, install

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the wheel unpacked, as pip would."""
    built, site = tmp_path_factory.mktemp("built"), tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(built)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = built.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    return site


def test_the_wheel_claims_no_name_but_its_own(site: Path) -> None:
    info = f"{DISTRIBUTION.replace('-', '_')}-{nas.__version__}.dist-info"
    assert {path.name for path in site.iterdir()} == {"nas", info}


def test_the_wheels_command_searches_and_scales_beside_a_users_folders(
    site: Path, tmp_path: Path
) -> None:
    (tmp_path / "baselines").mkdir()
    (tmp_path / "search_spaces").mkdir()

    def command(line: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "nas", *line.split()],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = [sys.executable, "-c", "import nas; print(nas.__file__)"]
    env = {**os.environ, "PYTHONPATH": str(site)}
    found = subprocess.check_output(where, cwd=tmp_path, env=env, text=True)
    assert Path(found.strip()) == site / "nas" / "__init__.py"
    assert "mnasnet" in command("ls spaces") and "resnet50" in command("ls baselines")
    command("search --target-flops 400M --trials 3 --name tried")
    assert "b1" in command("scale tried --phi 1")
    assert "4dd759701d18" in command("show efficientnet_b0")


USER = """
from collections.abc import Mapping
from typing import Any

import nas
from nas import Arch, Head, Space, Stage, Stem, count

found = nas.search(space="mbconv", target_flops="400M")
reveal_type(found)
reveal_type(count("efficientnet_b0").flops)
nas.search(target_flosp="400M")
nas.search(trials=[3])
nas.predict("run", "a.png", top="3")
nas.train("efficientnet_b0", data=5)


def decode(choices: Mapping[str, Any]) -> Arch:
    return Arch("mine", (Stage("mbconv", 16, 1),), Stem(16), Head(64, classes=10), resolution=96)


reveal_type(Space("mine", {"kernel": (3, 5)}, decode).size)
"""
TOLD = [
    (9, 'Revealed type is "nas.searching.result.SearchResult"'),
    (10, 'Revealed type is "int"'),
    (11, 'Unexpected keyword argument "target_flosp" for "search"; did you mean "target_flops"?'),
    (11, '"search" defined in "nas"'),
    (12, 'Argument "trials" to "search" has incompatible type "list[int]"; expected "int | str'),
    (13, 'Argument "top" to "predict" has incompatible type "str"; expected "int"'),
    (14, 'Argument "data" to "train" has incompatible type "int"; expected "str | Path'),
    (21, 'Revealed type is "int"'),
]


def test_a_type_checker_knows_the_verbs_of_an_install(site: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=False)
    (packages,) = (tmp_path / "env").glob("lib/python*/site-packages")
    shutil.copytree(site / "nas", packages / "nas")
    assert (packages / "nas" / "py.typed").exists()
    (tmp_path / "user.py").write_text(USER, encoding="utf-8")
    words = ["-m", "mypy", "--strict", "--python-executable", "env/bin/python", "user.py"]
    env = {key: value for key, value in os.environ.items() if key not in ("MYPYPATH", "PYTHONPATH")}
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    told = [line.split(":", 3)[1:] for line in done.stdout.splitlines() if "user.py:" in line]
    assert len(told) == len(TOLD), done.stdout + done.stderr
    for (line, _, text), (wanted, words_of_it) in zip(told, TOLD, strict=True):
        assert int(line) == wanted and words_of_it in text, done.stdout


def test_an_install_line_names_what_the_extra_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = ["rich>=13", "ray[tune]>=2.50; extra == 'ray'", "pyarrow>=17; extra == 'parquet'"]
    monkeypatch.setattr(metadata, "requires", {DISTRIBUTION: declared}.get)
    assert install("ray") == 'pip install "ray[tune]>=2.50"'


def test_a_checkout_that_is_not_installed_names_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", absent)
    assert install("ray") == f'pip install -e "{ROOT}[ray]"'
