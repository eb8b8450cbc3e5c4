"""The run that is gone on with: by name, by settings, past what is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas.core import run_folder
from nas.core.errors import RunError
from nas.core.resume import find_run, opening


def _run(project: Path, name: str, **settings: object) -> Path:
    return run_folder.create("search", name, project, settings)


def test_the_latest_of_these_settings_is_found_past_a_damaged_one(tmp_path: Path) -> None:
    _run(tmp_path, "a", seed=0, space="mbconv")
    wanted = _run(tmp_path, "b", seed=0, space="mbconv")
    _run(tmp_path, "c", seed=1, space="mbconv")
    broken = _run(tmp_path, "d", seed=0, space="mbconv")
    (broken / run_folder.ARGS).write_text("seed: [")
    assert find_run("search", tmp_path, None, {"seed": 0}) == wanted
    assert find_run("search", tmp_path, None, {"seed": 7}) is None
    with pytest.raises(RunError, match="not YAML"):
        find_run("search", tmp_path, "d", {"seed": 0})


def test_a_name_of_other_settings_is_refused_with_the_first_that_differs(tmp_path: Path) -> None:
    _run(tmp_path, "a", seed=0, space="mbconv")
    with pytest.raises(RunError, match="a was started with seed 0, not 3: resume it with its own"):
        find_run("search", tmp_path, "a", {"space": "mbconv", "seed": 3})
    assert find_run("search", tmp_path, "other", {"seed": 3}) is None


def test_a_run_of_another_network_is_none_to_go_on_with(tmp_path: Path) -> None:
    first, second = _run(tmp_path, "a", seed=0), _run(tmp_path, "b", seed=0)

    def foreign(folder: Path) -> str:
        return f"{folder} is of another network" if folder == second else ""

    assert find_run("search", tmp_path, None, {}, foreign=foreign) == first
    with pytest.raises(RunError, match="b is of another network"):
        find_run("search", tmp_path, "b", {"seed": 0}, foreign=foreign)


def test_a_verb_says_what_it_goes_on_with(tmp_path: Path) -> None:
    assert opening(tmp_path, True) == f"going on with {tmp_path}"
    assert opening(None, True).endswith("starting a new one")
    assert opening(None, False) == ""
