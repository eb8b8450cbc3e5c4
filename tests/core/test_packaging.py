"""The wheel: one top-level package, whose parts are found outside the repository too."""

import os
import re
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

found = nas.search(space="mbconv", target_flops="400M")  # is: nas.searching.result.SearchResult
assert found.best  # nothing was evaluated, else
found.best.arch  # is: nas.models.arch.Arch
nas.scale(found.run, phi=[1, 2])  # is: nas.scaling.result.ScaleResult
nas.train(found.best.arch, data="digits", epochs=1)  # is: nas.training.result.TrainResult
nas.predict("run", "a.png")  # is: nas.training.result.PredictResult
nas.export("run", format="onnx")  # is: nas.exporting.result.ExportResult
nas.explain("a.png", models="run")  # is: nas.reporting.explained.ExplainResult
count("efficientnet_b0").flops  # is: int

nas.search(target_flosp="400M")  # no: keyword argument "target_flosp" for "search"; did you mean
nas.search(trials=[3])  # no: "trials" to "search" has incompatible type "list[int]"; expected "int
nas.predict("run", "a.png", top="3")  # no: "top" to "predict" has incompatible type "str"
nas.train("efficientnet_b0", data=5)  # no: "data" to "train" has incompatible type "int"


def decode(choices: Mapping[str, Any]) -> Arch:
    return Arch("mine", (Stage("mbconv", 16, 1),), Stem(16), Head(64, classes=10), resolution=96)


Space("mine", {"kernel": (3, 5)}, decode).size  # is: int
"""


def test_a_type_checker_knows_the_verbs_of_an_install(site: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=False)
    (packages,) = (tmp_path / "env").glob("lib/python*/site-packages")
    shutil.copytree(site / "nas", packages / "nas")
    assert (packages / "nas" / "py.typed").exists()
    asked = re.sub(r"^(?:found = )?(.*?)  # is: .*", r"reveal_type(\1)", USER, flags=re.M)
    asked = asked.replace("reveal_type(nas.search", "found = reveal_type(nas.search", 1)
    (tmp_path / "user.py").write_text(asked, encoding="utf-8")
    words = ["-m", "mypy", "--strict", "--python-executable", "env/bin/python", "user.py"]
    env = {key: value for key, value in os.environ.items() if key not in ("MYPYPATH", "PYTHONPATH")}
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    told = dict(re.findall(r"user.py:(\d+): (?:error: |note: Rev)(.*)", done.stdout))
    wanted = {
        str(number): f'ealed type is "{text}"' if kind == "is" else text
        for number, line in enumerate(USER.splitlines(), start=1)
        for kind, text in re.findall("# (is|no): (.*)", line)
    }
    assert told.keys() == wanted.keys(), done.stdout + done.stderr
    for number, text in wanted.items():
        assert text in told[number], done.stdout


def test_an_install_line_names_what_the_extra_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = ["rich>=13", "ray[tune]>=2.50; extra == 'ray'", "pyarrow>=17; extra == 'parquet'"]
    monkeypatch.setattr(metadata, "requires", {DISTRIBUTION: declared}.get)
    assert install("ray") == 'pip install "ray[tune]>=2.50"'


def test_a_checkout_that_is_not_installed_names_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", absent)
    assert install("ray") == f'pip install -e "{ROOT}[ray]"'
