"""Coefficients on file: where they lie, and what is not taken for them."""

import json
from pathlib import Path

from digits import TINY

import nas
from nas import fitted, run
from nas.arch import Arch


def test_coefficients_lie_with_their_base(tmp_path: Path) -> None:
    project = tmp_path / "runs"
    (tmp_path / "small.json").write_text("{}")
    (tmp_path / "found" / "best").mkdir(parents=True)
    (tmp_path / "found" / "best" / "arch.json").write_text("{}")
    home = tmp_path / "found" / "best" / "coefficients.json"
    for base in ("found", "found/best", "found/best/arch.json"):
        assert fitted.place(tmp_path / base, project, "x") == home
    assert fitted.place(tmp_path / "small.json", project, "x").name == "small.coefficients.json"
    assert fitted.place(None, project, "a/b") == project / "coefficients" / "a-b.json"


def test_what_is_no_coefficients_of_this_base_is_ignored_with_a_line(tmp_path: Path) -> None:
    path, found = tmp_path / "c.json", fitted.Coefficients(1.3, 1.1, 1.0, "mine")
    assert fitted.find(path, TINY) == (None, "")
    fitted.store(path, TINY, found, {})
    assert fitted.find(path, TINY) == (found, "")
    more = Arch.from_dict({**TINY.to_dict(), "head": {**TINY.to_dict()["head"], "classes": 3}})
    assert fitted.find(path, more) == (found, "")
    none, note = fitted.find(path, nas.load_arch("resnet18"))
    assert none is None and "fitted to another network" in note
    good = run.read_json(path)
    for wrong in ({**good, "alpha": 0.5}, {**good, "beta": "x"}, {}, [], {**good, "gamma": None}):
        path.write_text(json.dumps(wrong))
        assert fitted.find(path, TINY)[0] is None and "holds no" in fitted.find(path, TINY)[1]
    path.write_text(json.dumps({**good, "schema": 9}))
    assert "schema 9" in fitted.find(path, TINY)[1]
