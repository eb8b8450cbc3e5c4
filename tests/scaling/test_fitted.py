"""Coefficients on file: where they lie, and what is not taken for them."""

import json
from pathlib import Path

from digits import TINY

import nas
from nas.core import run_folder
from nas.models.arch import Arch
from nas.scaling.fit import coefficients


def test_coefficients_lie_with_their_base(tmp_path: Path) -> None:
    project = tmp_path / "runs"
    (tmp_path / "small.json").write_text("{}")
    (tmp_path / "found" / "best").mkdir(parents=True)
    (tmp_path / "found" / "best" / "arch.json").write_text("{}")
    home = tmp_path / "found" / "best" / "coefficients.json"
    for base in ("found", "found/best", "found/best/arch.json"):
        assert coefficients.place(tmp_path / base, project, "x") == home
    assert (
        coefficients.place(tmp_path / "small.json", project, "x").name == "small.coefficients.json"
    )
    assert coefficients.place(None, project, "a/b") == project / "coefficients" / "a-b.json"


def test_what_is_no_coefficients_of_this_base_is_ignored_with_a_line(tmp_path: Path) -> None:
    path, found = tmp_path / "c.json", coefficients.Coefficients(1.3, 1.1, 1.0, "mine")
    assert coefficients.find(path, TINY) == (None, "")
    coefficients.store(path, TINY, found, {})
    assert coefficients.find(path, TINY) == (found, "")
    more = Arch.from_dict({**TINY.to_dict(), "head": {**TINY.to_dict()["head"], "classes": 3}})
    assert coefficients.find(path, more) == (found, "")
    none, note = coefficients.find(path, nas.load_arch("resnet18"))
    assert none is None and "fitted to another network" in note
    good = run_folder.read_json(path)
    for wrong in ({**good, "alpha": 0.5}, {**good, "beta": "x"}, {}, [], {**good, "gamma": None}):
        path.write_text(json.dumps(wrong))
        assert (
            coefficients.find(path, TINY)[0] is None
            and "holds no" in coefficients.find(path, TINY)[1]
        )
    path.write_text(json.dumps({**good, "schema": 9}))
    assert "schema 9" in coefficients.find(path, TINY)[1]
