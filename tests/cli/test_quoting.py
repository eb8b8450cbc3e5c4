"""The user's text on screens, in cards and in commands: names as they are, and no markup."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bad_inputs.world import write_images
from conftest import run_here

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


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Train on classes of such names in a project of such a name; yield what was printed."""
    folder = tmp_path_factory.mktemp("quoting")
    write_images(folder / "my data [1]", CLASSES, 8)
    arch: dict[str, Any] = {
        "schema": 1,
        "name": "net [bold]",
        "stages": [{"op": "conv", "channels": 8, "stride": 2}],
        "stem": {"channels": 8},
        "head": {"classes": 4},
        "resolution": 32,
    }
    (folder / "a.json").write_text(json.dumps(arch), encoding="utf-8")
    line = "train a.json --data 'my data [1]' --epochs 1 --recipe proxy --batch-size 4"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        line += " --tracker none --project 'p [x]' --name 'r [y]'"
        done = run_here(*shlex.split(line))
        assert done.returncode == 0, done.stderr
        yield done.stdout


@pytest.mark.usefixtures("trained")
def test_names_in_brackets_are_names_everywhere() -> None:
    for line in (
        "doctor --data 'my data [1]'",
        "val 'p [x]/train/r [y]'",
        "predict 'p [x]/train/r [y]' 'my data [1]/[unknown]'",
        "ls runs --project 'p [x]'",
    ):
        done = run_here(*shlex.split(line))
        assert done.returncode in (0, 1)
        assert "\x1b" not in done.stdout + done.stderr and "Traceback" not in done.stderr
        if line.startswith("doctor"):
            assert all(name in done.stdout for name in SHOWN)
        assert "[y]" in done.stdout or "[1]" in done.stdout or "[unknown]" in done.stdout


def test_the_next_command_and_the_card_are_quoted(trained: str) -> None:
    following = next(line for line in trained.splitlines() if line.startswith("next"))
    assert shlex.split(following)[1:4] == ["nas", "predict", "p [x]/train/r [y]"]
    card = Path("p [x]/train/r [y]/README.md").read_text(encoding="utf-8")
    assert "net \\[bold\\]" in card and "car \\[bold\\]" in card
    assert "\x1b" not in card and "'p [x]/train/r [y]'" in card
