"""Coefficients on file: of which fit they are taken, and what is not taken for them."""

import json
from pathlib import Path
from typing import Any

import pytest
from digits import TINY

import nas
from nas.core import run_folder
from nas.models.arch import Arch
from nas.scaling.fit import coefficients
from nas.scaling.fit.coefficients import Coefficients, find, fitted, former_place, network

FOUND = Coefficients(1.3, 1.1, 1.0, "mine")
MORE = Arch.from_dict({**TINY.to_dict(), "head": {**TINY.to_dict()["head"], "classes": 3}})
KEPT = {"schema": coefficients.SCHEMA, "arch_id": network(TINY), **FOUND._asdict()}
NONE = [{"alpha": 0.5}, {"beta": "x"}, {"gamma": None}]


def _fit(project: Path, arch: Arch, chosen: Any, **changed: Any) -> Path:
    folder = run_folder.create("scale", None, project, {})
    run_folder.write_json(folder / "fit.json", {"arch_id": network(arch), "chosen": chosen})
    run_folder.write_json(folder / "coefficients.json", {**FOUND._asdict(), **changed})
    return folder


def test_the_latest_fit_of_a_network_is_taken(tmp_path: Path) -> None:
    assert fitted(tmp_path, TINY) == (None, "")
    _fit(tmp_path, TINY, {"alpha": 1.3}, alpha=1.1)
    _fit(tmp_path, TINY, {"alpha": 1.3})
    _fit(tmp_path, nas.load_arch("resnet18"), {"alpha": 9}, alpha=9)
    _fit(tmp_path, TINY, None, alpha=2)  # not finished; those of the paper, say
    (_fit(tmp_path, TINY, {}, alpha=3) / "fit.json").unlink()  # a family that was not fitted
    assert fitted(tmp_path, TINY) == fitted(tmp_path, MORE) == (FOUND, "")


@pytest.mark.parametrize("wrong", NONE)
def test_a_damaged_fit_is_passed_over_with_a_line(tmp_path: Path, wrong: dict[str, Any]) -> None:
    _fit(tmp_path, TINY, {"alpha": 1.3})
    folder = _fit(tmp_path, TINY, {"alpha": 1.3}, **wrong)
    assert fitted(tmp_path, TINY) == (
        FOUND,
        f"{folder} holds no fit that can be read, and is passed over",
    )
    (folder / "fit.json").write_text("[")
    assert fitted(tmp_path, TINY)[0] == FOUND


def test_earlier_versions_kept_them_with_the_base(tmp_path: Path) -> None:
    project = tmp_path / "runs"
    (tmp_path / "small.json").write_text("{}")
    (tmp_path / "found" / "best").mkdir(parents=True)
    (tmp_path / "found" / "best" / "arch.json").write_text("{}")
    home = tmp_path / "found" / "best" / "coefficients.json"
    for base in ("found", "found/best", "found/best/arch.json"):
        assert former_place(tmp_path / base, project, "x") == home
    assert former_place(tmp_path / "small.json", project, "x").name == "small.coefficients.json"
    assert former_place(None, project, "a/b") == project / "coefficients" / "a-b.json"


def test_what_is_no_coefficients_of_this_base_is_ignored_with_a_line(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    assert find(path, TINY) == (None, "")
    path.write_text(json.dumps(KEPT))
    assert find(path, TINY) == find(path, MORE) == (FOUND, "")
    none, note = find(path, nas.load_arch("resnet18"))
    assert none is None and "fitted to another network" in note
    for wrong in (*({**KEPT, **each} for each in NONE), {}, []):
        path.write_text(json.dumps(wrong))
        assert find(path, TINY)[0] is None and "holds no" in find(path, TINY)[1]
    path.write_text(json.dumps({**KEPT, "schema": 9}))
    assert "schema 9" in find(path, TINY)[1]


def test_a_file_of_an_earlier_version_is_still_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "small.json").write_text(TINY.to_json())
    (folder / "small.coefficients.json").write_text(json.dumps(KEPT))
    before = sorted(path.name for path in folder.iterdir())
    found = nas.scale(str(folder / "small.json"), phi="1")
    assert found["coefficients"] == FOUND._asdict()
    assert sorted(path.name for path in folder.iterdir()) == sorted([*before, "runs"])
