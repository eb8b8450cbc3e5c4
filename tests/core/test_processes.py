"""What a process that another has started tells it in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas.core.errors import MissingError, NasError, OptionError, RunError
from nas.core.processes import expect_error, tell_error, told_error


@pytest.mark.parametrize("kind", [NasError, RunError, OptionError, MissingError])
def test_an_error_is_told_with_its_kind(tmp_path: Path, kind: type[NasError]) -> None:
    path = tmp_path / "error.json"
    expect_error(path)
    assert told_error(path) is None
    size = path.stat().st_size
    tell_error(path, kind("größer\n als \udc80 " + "x" * 5000))
    told = told_error(path)
    assert type(told) is kind and str(told).startswith("größer als \udc80 xxx")
    assert path.stat().st_size == size  # that a full disk still has
    tell_error(path, NasError("a consequence"))
    assert str(told_error(path)) == str(told)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"kind": "Path", "message": ""}', '{"kind": 3}'])
def test_what_tells_no_error_of_ours_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "error.json"
    assert told_error(path) is None
    tell_error(path, NasError("nobody asked"))
    assert not path.exists()
    path.write_text(text)
    assert told_error(path) is None
