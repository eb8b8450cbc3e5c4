"""Checkpoints: what is saved comes back, and no kill, damage or full disk takes the last one."""

import contextlib
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from digits import equal, files
from safetensors.torch import save_file
from torch import Tensor, nn

from nas.core.errors import RunError
from nas.training import checkpoint

Limit = Callable[[], contextlib.AbstractContextManager[None]]


def weights(value: float, size: int = 1000) -> dict[str, Tensor]:
    return {"a": torch.full((size,), float(value)), "b.count": torch.tensor(7)}


def epoch_of(folder: Path) -> int:
    """Return the epoch of the checkpoint that is loaded, whose weights must be its own."""
    found = checkpoint.load(folder)
    assert found
    assert equal(found[0], weights(found[1]["epoch"], len(found[0]["a"])))
    return int(found[1]["epoch"])


def save(folder: Path, epoch: int, size: int = 1000, **state: Any) -> None:
    checkpoint.save(folder, epoch, weights(epoch, size), {"epoch": epoch, **state})


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_what_is_saved_comes_back_bit_for_bit(tmp_path: Path, kind: Any) -> None:
    model = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = kind(model.parameters(), 0.1)
    model(torch.rand(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    own = {"first": model.weight, "second": model.weight, "half": model.weight[:4].bfloat16()}
    checkpoint.save(tmp_path, 3, own, {"optimizer": optimizer.state_dict(), "text": "déjà"})
    found = checkpoint.load(tmp_path)
    assert found and equal(found[0], own)
    assert found[1]["text"] == "déjà"
    mine, its = optimizer.state_dict()["state"], found[1]["optimizer"]["state"]
    for number, values in mine.items():
        for name, value in values.items():
            same = torch.equal(value, its[number][name]) if value is not None else True
            assert same, name


def test_a_folder_without_a_checkpoint_has_none(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path) is None
    assert checkpoint.load(tmp_path / "nothing") is None
    checkpoint.clear(tmp_path / "nothing")


def test_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    (tmp_path / "epoch-x").mkdir()  # somebody else's
    for epoch in (1, 2, 10):
        save(tmp_path, epoch)
        assert epoch_of(tmp_path) == epoch
    both = [f"epoch-{n}/{name}" for n in (10, 2) for name in ("state.pt", "weights.safetensors")]
    assert files(tmp_path) == both
    save(tmp_path, 10)  # the same again
    assert epoch_of(tmp_path) == 10 and files(tmp_path) == both
    checkpoint.save(tmp_path, 10, weights(10), {"epoch": 10}, steps=3)
    assert files(tmp_path) == [*both, *(f.replace("epoch-10", "middle-10-3") for f in both[:2])]
    checkpoint.clear(tmp_path)
    assert checkpoint.load(tmp_path) is None


def test_a_kill_at_any_line_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    """Look at the folder before each line of the code that writes it, as a kill there would."""
    place, seen = tmp_path / "place", list[int]()
    save(place, 1, size=10)

    def look() -> None:
        left = tmp_path / "left"
        shutil.rmtree(left, ignore_errors=True)
        shutil.copytree(place, left)
        sys.settrace(None)
        seen.append(epoch_of(left))
        save(left, 3, size=10)  # and the next one is written, and sweeps
        names = ("state.pt", checkpoint.WEIGHTS)
        assert files(left) == [f"epoch-{n}/{name}" for n in (seen[-1], 3) for name in names]
        sys.settrace(trace)

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename != checkpoint.__file__:
            return None
        if event == "line":
            look()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        save(place, 2, size=10)
    finally:
        sys.settrace(before)
    assert len(seen) > 20 and set(seen) == {1, 2} and seen == sorted(seen)


def each(path: Path, act: Callable[[Path], object]) -> None:
    for file in path.iterdir():
        act(file)


def flip(path: Path, share: float) -> None:
    """Change one bit of a file at this share of its length."""
    data = bytearray(path.read_bytes())
    data[int(share * (len(data) - 1))] ^= 4
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "no weights": lambda path: (path / checkpoint.WEIGHTS).unlink(),
    "no state": lambda path: (path / checkpoint.STATE).unlink(),
    "half of the weights": lambda path: os.truncate(path / checkpoint.WEIGHTS, 2000),
    "half of the state": lambda path: os.truncate(path / checkpoint.STATE, 300),
    "empty files": lambda path: each(path, lambda file: os.truncate(file, 0)),
    "zeros": lambda path: each(path, lambda file: file.write_bytes(bytes(5000))),
    "an empty folder": lambda path: each(path, Path.unlink),
    **{
        f"a bit of {name} at {share}": lambda path, name=name, share=share: flip(path / name, share)  # type: ignore[misc]
        for name in (checkpoint.WEIGHTS, checkpoint.STATE)
        for share in (0, 0.001, 0.1, 0.5, 0.9, 1)
    },
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_torn_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path, damage: str) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    DAMAGE[damage](tmp_path / "epoch-2")
    assert epoch_of(tmp_path) == 1
    save(tmp_path, 2)
    assert epoch_of(tmp_path) == 2


@pytest.mark.parametrize("damage", DAMAGE)
def test_where_no_checkpoint_can_be_read_one_line_says_what_to_do(
    tmp_path: Path, damage: str
) -> None:
    save(tmp_path, 4)
    DAMAGE[damage](tmp_path / "epoch-4")
    with pytest.raises(RunError, match=r"cannot read .*; delete the folder .* to start") as error:
        checkpoint.load(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("share", [0, 0.1, 0.3, 0.5, 0.99])
def test_a_changed_bit_in_kept_weights_is_told(tmp_path: Path, share: float) -> None:
    path = tmp_path / "best.safetensors"
    checkpoint.write_weights(path, weights(1.0))
    flip(path, share)
    with pytest.raises(RunError, match=r"cannot read the weights .*|are damaged: their checksum"):
        checkpoint.read_weights(path)


def test_checkpoints_and_weights_without_checksums_are_read(tmp_path: Path) -> None:
    """As earlier versions wrote them, and other programs do."""
    save(tmp_path, 4)
    folder = tmp_path / "epoch-4"
    save_file(weights(4), folder / checkpoint.WEIGHTS)
    assert epoch_of(tmp_path) == 4


class Shell:
    """What a pickle of somebody else's may hold: a call."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    save(tmp_path, 1)
    torch.save({"epoch": Shell(tmp_path / "executed")}, tmp_path / "epoch-1" / checkpoint.STATE)
    with pytest.raises(RunError, match="cannot read"):
        checkpoint.load(tmp_path)
    assert not (tmp_path / "executed").exists()


@contextlib.contextmanager
def small_files() -> Iterator[None]:
    """Let no file grow beyond 20 kB."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def no_space() -> Iterator[None]:
    """Have every write to the disk itself say that it is full."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", full)
        yield


@pytest.mark.parametrize("limit", [small_files, no_space])
@pytest.mark.parametrize(("size", "more"), [(10_000, 10), (10, 10_000)])
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, limit: Limit, size: int, more: int
) -> None:
    save(tmp_path, 1, size, more=torch.zeros(more))
    before = files(tmp_path)
    with limit(), pytest.raises(RunError, match="go on with --resume") as error:
        save(tmp_path, 2, size, more=torch.zeros(more))
    assert "File too large" in str(error.value) or "No space left" in str(error.value)
    assert "\n" not in str(error.value)
    assert files(tmp_path) == before and epoch_of(tmp_path) == 1
    save(tmp_path, 2, size, more=torch.zeros(more))
    assert epoch_of(tmp_path) == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(place)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a file system can be mounted by root only")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize(("size", "more"), [(30_000, 10), (10, 30_000)])
def test_a_disk_that_is_full_keeps_the_checkpoint(small_disk: Path, size: int, more: int) -> None:
    save(small_disk / "run", 1, size, more=torch.zeros(more))
    with pytest.raises(RunError, match=r"No space left on device.*; the checkpoint before it"):
        save(small_disk / "run", 2, size, more=torch.zeros(more))
    assert len(files(small_disk)) == 2 and epoch_of(small_disk / "run") == 1
    save(small_disk / "run", 2, 10)
    assert epoch_of(small_disk / "run") == 2


@pytest.mark.parametrize("limit", [small_files, no_space])
def test_weights_that_cannot_be_written_leave_those_before(tmp_path: Path, limit: Limit) -> None:
    path = tmp_path / "weights" / "best.safetensors"
    checkpoint.write_weights(path, weights(1.0, 10_000))
    with limit(), pytest.raises(RunError, match="cannot write"):
        checkpoint.write_weights(path, weights(2.0, 10_000))
    assert files(tmp_path) == ["weights/best.safetensors"]
    assert equal(checkpoint.read_weights(path), weights(1.0, 10_000))


def test_a_file_in_the_way_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot write"):
        checkpoint.write_weights(tmp_path / "file" / "best.safetensors", weights(1.0))
    with pytest.raises(RunError, match="cannot write"):
        checkpoint.save(tmp_path / "file", 1, weights(1.0), {})
    with pytest.raises(RunError, match="cannot read the weights"):
        checkpoint.read_weights(tmp_path / "none.safetensors")
