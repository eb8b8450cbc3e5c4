"""What several test modules share: small user files, and `nas` in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

START = [sys.executable, "-c", "from nas.cli import main; main()"]

# 36 points, 24 networks: at one layer the second kernel is a dead gene
SPACE = """
from nas.arch import Arch, Head, Stage, Stem
from nas.interfaces import Space

def decode(choices):
    kernel = choices["kernel"] if choices["layers"] > 1 else 3
    stages = (
        Stage("mbconv", 16, stride=2, expansion=choices["expansion"]),
        Stage("conv", choices["channels"], choices["layers"], kernel, stride=2),
    )
    return Arch("small", stages, Stem(8), Head(32, classes=10), resolution=32)

SPACE = Space(
    "small",
    {"expansion": (1, 3, 6), "channels": (16, 24, 32), "layers": (1, 2), "kernel": (3, 5)},
    decode,
)
"""
# appends each arch it is asked about to a file, and fails where it is told to
LEDGER = """
import os, time
from nas.cost import count

def make(*, ledger: str = "ledger.txt", fail: str = "", sleep: float = 0.0):
    return Ledger(ledger, fail, sleep)

class Ledger:
    title = "ledger"

    def __init__(self, ledger, fail, sleep):
        self.ledger, self.fail, self.sleep = ledger, fail, sleep

    def check(self, arch):
        pass

    def evaluate(self, arch, *, seed=0):
        with open(self.ledger, "a") as file:
            file.write(arch.id + "\\n")
        time.sleep(self.sleep)
        if self.fail == "all" or (self.fail == "some" and int(arch.id, 16) % 3 == 0):
            raise ValueError("no luck today")
        if self.fail == "kill" and int(arch.id, 16) % 8 == 0:
            os.kill(os.getpid(), 9)
        return {"accuracy": 50 + count(arch).params % 1000 / 100}
"""

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with space.py and ledger.py in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.py").write_text(SPACE)
    (tmp_path / "ledger.py").write_text(LEDGER)
    return tmp_path


@pytest.fixture
def cli(folder: Path) -> Cli:
    """Run `nas` with these arguments in that directory."""

    def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*START, *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, **environment},
        )

    return call


def parse(words: list[str]) -> dict[str, Any]:
    """Parse a nas command as the command line does, without running it; return its parameters."""
    assert words[0] == "nas", words
    import typer

    from nas.cli import app

    command: Any = typer.main.get_command(app)
    return dict(command.commands[words[1]].make_context(words[1], list(words[2:])).params)
