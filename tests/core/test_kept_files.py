"""What a training and an export leave: readable as the files beside it, and nothing else there."""

import os
import stat
import time
from pathlib import Path

import torch
from conftest import Cli

from nas.training.checkpoint import write_weights


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_weights_have_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_weights(tmp_path / "a.safetensors", {"a": torch.zeros(3)})
    assert permissions(tmp_path / "a.safetensors") == permissions(tmp_path / "plain")


def test_an_export_holds_no_byte_code_and_sweeps_what_killed_ones_left(
    folder: Path, cli: Cli
) -> None:
    left = folder / ".new-nas-export-killed"
    (left / "deep").mkdir(parents=True)
    old = time.time() - 2 * 24 * 3600
    os.utime(left, (old, old))
    fresh, other = folder / ".new-nas-export-running", folder / ".new-other"
    fresh.mkdir()
    other.mkdir()
    os.utime(other, (old, old))
    cli(
        "export", "mobilenet_v3_small", "--format", "standalone", "--output", "net", "--imgsz", "32"
    )
    assert sorted(p.name for p in (folder / "net").rglob("*")) == [
        "README.md",
        "model.py",
        "model.safetensors",
    ]
    assert len({permissions(p) for p in (folder / "net").iterdir()}) == 1
    assert not left.exists() and fresh.exists() and other.exists()
