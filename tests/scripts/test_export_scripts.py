"""What export_family.py and export_parity.py do with ordinary mistakes, and with what fails."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from digits import TINY

from nas.exporting.request import make_facts
from nas.models.build import Model
from nas.training.checkpoint import write_weights

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import export_family
import export_parity


@pytest.fixture
def run(tmp_path: Path) -> str:
    """A folder of a net as a training leaves it."""
    torch.manual_seed(0)
    write_weights(tmp_path / "run/model.safetensors", Model(TINY).state_dict())
    config = {"schema": 1, "arch": TINY.to_dict(), **make_facts(TINY, None)}
    (tmp_path / "run/config.json").write_text(json.dumps(config | {"arch": TINY.to_dict()}))
    return str(tmp_path / "run")


@pytest.mark.parametrize(
    ("flags", "message"),
    [(["no_such_net"], "no_such_net"), (["--rule", "relesed"], "relesed"),
     (["--phi", "x"], "phi"), (["--format", "onxx"], "did you mean 'onnx'")],
)  # fmt: skip
def test_a_family_is_refused_in_one_line(flags: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=r"^export_family: ") as refusal:
        export_family.main(flags)
    assert message in str(refusal.value) and len(str(refusal.value).splitlines()) == 1


def test_a_member_that_fails_is_a_line_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    failing = tmp_path / "python"
    failing.write_text("#!/bin/sh\necho words >&2\necho 'export_family: a | b' >&2\nexit 1\n")
    failing.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(failing))
    assert export_family.main(["--phi", "0,1", "--format", "pt2"]) == 1
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert [line.split(" | ")[:2] for line in lines] == [["| b0", "a / b"], ["| b1", "a / b"]]
    assert {line.count("|") for line in lines} == {11}


@pytest.mark.parametrize("text", ["timm", "onxx=/bin/sh", "timm=/no/python"])
def test_an_interpreter_that_is_none_is_one_line(text: str, run: str) -> None:
    with pytest.raises(SystemExit, match="export_parity: --interpreter takes FORMAT=PYTHON"):
        export_parity.main([run, "--interpreter", text])
    with pytest.raises(SystemExit, match="export_parity: no trained model"):
        export_parity.main([run + "x"])


def test_a_format_that_fails_or_differs_is_told(
    run: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def exported(_: str, format: str, folder: Path) -> dict[str, Any]:
        if format == "onnx":
            raise subprocess.CalledProcessError(4, "nas", stderr="words\nnas: no onnx\n")
        return {"output": "net", "bytes": 9, "tolerance": 1e-4}

    wrong = {str(n): np.zeros((n, 10), np.float32) for n in export_parity.BATCHES}
    monkeypatch.setattr(export_parity, "exported", exported)
    monkeypatch.setattr(export_parity, "fresh", lambda *_: "python")
    monkeypatch.setattr(export_parity, "answers", lambda *_: wrong)
    assert export_parity.main([run, "--format", "onnx", "--format", "pt2"]) == 1
    first, second = capsys.readouterr().out.splitlines()[-2:]
    assert first == "| onnx | no onnx | | | | |" and second.startswith("| pt2 | fresh | ")
    assert export_parity.main([run, "--format", "pt2"]) == 1
    monkeypatch.setattr(export_parity, "near", lambda *_: True)
    assert export_parity.main([run, "--format", "pt2"]) == 0


def test_nan_is_not_near() -> None:
    ones, result = np.ones((1, 2)), {"tolerance": 1e-4}
    assert export_parity.near(ones, ones + 5e-5, result)
    assert not export_parity.near(ones, ones + 2e-4, result)
    assert not export_parity.near(ones, ones * np.nan, result)


def test_the_nets_of_libraries_are_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("timm")
    assert export_parity.main(["--libraries", "--net", "tf_mobilenetv3_small_100"]) == 0
    row = capsys.readouterr().out.splitlines()[-1].split(" | ")
    assert row[1:5] == ["tf_mobilenetv3_small_100", "mobilenet_v3_small", "same", "1e-03"]
    assert all(float(share.strip(" |")) <= 1e-5 for share in row[5:])
    with pytest.raises(SystemExit, match=r"export_parity: resnet19 is no such net \(did you mean"):
        export_parity.main(["--libraries", "--net", "resnet19"])
