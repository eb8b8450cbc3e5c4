"""The wheel: one top-level package, whose parts are found outside the repository too."""

import os
import subprocess
import sys
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


def test_an_install_line_names_what_the_extra_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = ["rich>=13", "ray[tune]>=2.50; extra == 'ray'", "pyarrow>=17; extra == 'parquet'"]
    monkeypatch.setattr(metadata, "requires", {DISTRIBUTION: declared}.get)
    assert install("ray") == 'pip install "ray[tune]>=2.50"'


def test_a_checkout_that_is_not_installed_names_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", absent)
    assert install("ray") == f'pip install -e "{ROOT}[ray]"'
