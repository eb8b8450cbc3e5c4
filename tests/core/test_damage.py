"""A file of a run that a disk has changed, cut or lost costs an epoch, or one line: no traceback.

What is gone on with equals a training that nothing happened to, bit for bit.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from digits import digits, equal, files, job, last, same

from nas.core import run_folder
from nas.core.errors import RunError
from nas.training.checkpoint import read_weights
from nas.training.loop import RESULTS, fit
from nas.training.mending import BEST
from nas.training.trained import CONFIG

EPOCHS = 4


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    # of text the first byte: a letter inside of it may become another that is as good
    data[0 if path.suffix == ".json" else len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], None]] = {"flip": flip, "cut": cut, "delete": Path.unlink}


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nothing happens to, and beside it the same after all epochs but one."""
    home = tmp_path_factory.mktemp("damage")
    fit(job(EPOCHS, lr=0.5), digits(), home / "part", until=EPOCHS - 1)
    shutil.copytree(home / "part", home / "calm")
    fit(job(EPOCHS, lr=0.5), digits(), home / "calm")
    return home / "calm"


NEWEST = f"checkpoints/epoch-{EPOCHS - 1}"


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["weights.safetensors", "state.pt"])
def test_damage_to_the_last_checkpoint_costs_an_epoch(
    calm: Path, tmp_path: Path, name: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(calm.with_name("part"), tmp_path / "run")
    DAMAGE[damage](tmp_path / "run" / NEWEST / name)
    fit(job(EPOCHS, lr=0.5), digits(), tmp_path / "run")
    assert same(calm, tmp_path / "run")
    assert f"going on from the one of epoch {EPOCHS - 2}" in caplog.text


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_to_both_is_told_in_one_line(calm: Path, tmp_path: Path, damage: str) -> None:
    shutil.copytree(calm.with_name("part"), tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").glob("*/state.pt"):
        DAMAGE[damage](path)
    with pytest.raises(
        RunError, match=r"cannot read the checkpoint .*; delete the folder"
    ) as error:
        fit(job(EPOCHS, lr=0.5), digits(), tmp_path / "run")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", DAMAGE)
def test_lost_best_weights_are_those_of_the_checkpoint(
    calm: Path, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(calm.with_name("part"), tmp_path / "run")
    DAMAGE[damage](tmp_path / "run" / BEST)
    fit(job(EPOCHS, lr=0.5), digits(), tmp_path / "run")
    assert f"those of epoch {EPOCHS - 1} take their place" in caplog.text
    assert read_weights(tmp_path / "run" / BEST)
    assert equal(last(calm)[0], last(tmp_path / "run")[0])


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", [RESULTS, CONFIG])
def test_what_is_made_from_a_checkpoint_is_made_again(
    calm: Path, tmp_path: Path, name: str, damage: str
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(calm.with_name("part"), folder)
    DAMAGE[damage](folder / name)
    fit(job(EPOCHS, lr=0.5), digits(), folder)
    assert same(calm, folder) and files(calm) == files(folder)
    if name == CONFIG:
        assert (
            run_folder.read_json(folder / CONFIG)["arch"]
            == run_folder.read_json(calm / CONFIG)["arch"]
        )
