"""Kills: a search that is killed and resumed equals one that was not; see the script."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "kill_search.py"


def _script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("kill_search", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up
    monkeypatch.setitem(sys.modules, "kill_search", module)
    spec.loader.exec_module(module)
    return module


def test_three_kills_change_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = "--kills 3 --trials 40 --controller tpe --objective pareto"
    code = _script(monkeypatch).main(flags.split())
    shown = capsys.readouterr().out
    assert code == 0, shown
    rows = {line[:38].strip(): line[38:] for line in shown.splitlines()}
    assert rows["results lost or changed"] == rows["evaluated again after its result"] == "0"
