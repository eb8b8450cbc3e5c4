"""The user's text on screens, in cards and in commands: names as they are, and no markup."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from bad_inputs.world import write_images
from test_bad_inputs import run_here

from nas.core.quoting import command, markdown, visible

# brackets that rich takes for markup, dollars for mathematics, what Markdown and terminals act on
CLASSES = ("car [bold]", "[unknown]", ":smile: *b* |$x^$", "red\x1b[31m\nline")
SHOWN = tuple(visible(name) for name in CLASSES)


def test_what_a_terminal_acts_on_is_written_out() -> None:
    assert visible("a\x1b[31m\n\u202eb\udcff [x] é") == "a\\x1b[31m\\n\\u202eb\\xff [x] é"
    assert visible("naïve 写真 👩‍🔬") == "naïve 写真 👩‍🔬"


def test_markdown_is_literal() -> None:
    assert markdown("[a](b) *c* |d|") == "\\[a\\](b) \\*c\\* \\|d\\|"


def test_a_command_is_quoted() -> None:
    assert command("nas", "train", "my run/x", "--data", "it's") == (
        "nas train 'my run/x' --data 'it'\"'\"'s'"
    )


@pytest.fixture
def trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[str, str]:
    """Train on classes of such names in a project of such a name; return what was printed."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "my data [1]", CLASSES, 8)
    arch: dict[str, Any] = {
        "schema": 1,
        "name": "net [bold]",
        "stages": [{"op": "conv", "channels": 8, "stride": 2}],
        "stem": {"channels": 8},
        "head": {"classes": 4},
        "resolution": 32,
    }
    (tmp_path / "a.json").write_text(json.dumps(arch), encoding="utf-8")
    line = "train a.json --data 'my data [1]' --epochs 1 --recipe proxy --batch-size 4"
    assert run_here(f"{line} --tracker none --project 'p [x]' --name 'r [y]'") == 0
    shown = capsys.readouterr()
    return shown.out, shown.err


@pytest.mark.usefixtures("trained")
def test_names_in_brackets_are_names_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    for line in (
        "doctor --data 'my data [1]'",
        "val 'p [x]/train/r [y]'",
        "predict 'p [x]/train/r [y]' 'my data [1]/[unknown]'",
        "ls runs --project 'p [x]'",
    ):
        assert run_here(line) in (0, 1)
        shown = capsys.readouterr()
        assert "\x1b" not in shown.out + shown.err and "Traceback" not in shown.err
        if line.startswith("doctor"):
            assert all(name in shown.out for name in SHOWN)
        assert "[y]" in shown.out or "[1]" in shown.out or "[unknown]" in shown.out


def test_the_next_command_and_the_card_are_quoted(trained: tuple[str, str], tmp_path: Path) -> None:
    out, _ = trained
    following = next(line for line in out.splitlines() if line.startswith("next"))
    assert shlex.split(following)[1:4] == ["nas", "predict", "p [x]/train/r [y]"]
    card = (tmp_path / "p [x]/train/r [y]/README.md").read_text(encoding="utf-8")
    assert "net \\[bold\\]" in card and "car \\[bold\\]" in card
    assert "\x1b" not in card and "'p [x]/train/r [y]'" in card
