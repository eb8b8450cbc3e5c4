"""Bad input of every verb: one line, the right exit code, no traceback, no run left behind."""

import os
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from bad_inputs import ROWS, Row
from bad_inputs.world import copy, make_world
from conftest import run_here

from nas.cli.program import app

LEAST = 600


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    before = Path.cwd()
    os.chdir(folder)
    try:
        make_world(folder, lambda line: run_here(*shlex.split(line)).returncode)
    finally:
        os.chdir(before)
    return folder


def special(path: Path, kind: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(kind)  # a device


def run_folders(folder: Path) -> set[Path]:
    return {path for path in folder.glob("runs/*/*")}


def name_of(case: tuple[str, Row]) -> str:
    return f"{case[0]}: nas {case[1].line}"[:120]


@pytest.mark.parametrize("case", ROWS, ids=name_of)
def test_it_is_refused_in_one_line(
    case: tuple[str, Row],
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = case[1]
    monkeypatch.chdir(tmp_path)
    copy(world, row.world, tmp_path)
    row.lay_out(tmp_path)
    if row.special[0]:
        special(tmp_path / row.special[0], row.special[1])
    before = run_folders(tmp_path)
    shown = run_here(*shlex.split(row.line))
    lines = shown.stderr.splitlines()
    errors = [line for line in lines if line.startswith("nas: ")]
    assert shown.returncode == row.code, shown.stderr
    if row.printed:
        assert not lines
        said = shown.stdout
    else:
        assert len(errors) == 1 and lines[-1] == errors[0], shown.stderr
        said = errors[0]
        assert said.isprintable() and len(said) < 2100
    assert not [text for text in row.says if text not in said], said
    assert not row.keeps or run_folders(tmp_path) == before


def test_there_are_enough_of_them_and_no_two_alike() -> None:
    assert len(ROWS) >= LEAST
    seen = Counter((row.line, tuple(row.files.items()), row.special) for _, row in ROWS)
    assert not [key for key, count in seen.items() if count > 1]


def test_every_verb_has_some() -> None:
    import typer

    command: Any = typer.main.get_command(app)
    verbs = Counter(shlex.split(row.line)[0] for _, row in ROWS if row.line)
    assert not [verb for verb in command.commands if verbs[verb] < 5]
