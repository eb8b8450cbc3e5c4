"""Bad input of every verb: one line, the right exit code, no traceback, no run left behind."""

import os
import shlex
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bad_inputs import ROWS, Row
from bad_inputs.world import copy, make_world

from nas.cli.program import app, main

LEAST = 600
Call = Callable[[str], int]


@pytest.fixture(scope="module", autouse=True)
def _signals() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def run_here(line: str) -> int:
    """Run `nas` in this process and folder; return the exit code."""
    before = sys.argv
    sys.argv = ["nas", *shlex.split(line)]
    try:
        main()
    except SystemExit as end:
        assert isinstance(end.code, int)
        return end.code
    finally:
        sys.argv = before
    raise AssertionError("main returned")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    before = Path.cwd()
    os.chdir(folder)
    try:
        make_world(folder, run_here)
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
    capsys: pytest.CaptureFixture[str],
) -> None:
    row = case[1]
    monkeypatch.chdir(tmp_path)
    copy(world, row.world, tmp_path)
    row.lay_out(tmp_path)
    if row.special[0]:
        special(tmp_path / row.special[0], row.special[1])
    before = run_folders(tmp_path)
    code = run_here(row.line)
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    errors = [line for line in lines if line.startswith("nas: ")]
    assert code == row.code, shown.err
    if row.printed:
        assert not lines
        said = shown.out
    else:
        assert len(errors) == 1 and lines[-1] == errors[0], shown.err
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
