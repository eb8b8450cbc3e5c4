"""Pixels: decoded once, the same with and without a cache, whatever happens to the cache."""

import contextlib
import errno
import io
import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas.core import system as places
from nas.core.errors import OptionError
from nas.core.system import cache_folder
from nas.data import pixels as module
from nas.data.dataset import Split, open_dataset
from nas.data.images import decode, shrink
from nas.data.pixels import Pixels, check_broken, decode_split, typical_side

Image = pytest.importorskip("PIL.Image")
ROOT = Path(__file__).parents[2]
CIFAR = ROOT.parent / "shared" / "data" / "cifar10"


def encoded(height: int, width: int, seed: int, kind: str = "PNG") -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, kind)
    return file.getvalue()


def split(files: list[bytes], fingerprint: str = "f") -> Split:
    labels = np.arange(len(files)) % 3
    names = [f"{i}.png" for i in range(len(files))]
    return Split(labels, names, lambda i: files[i], fingerprint)


SIZES = [(8, 8), (20, 10), (10, 30), (5, 5), (12, 12)] * 8
FILES = [encoded(h, w, i) for i, (h, w) in enumerate(SIZES)]


def same(a: Pixels, b: Pixels) -> bool:
    arrays = ("values", "starts", "heights", "widths", "labels")
    return (a.names, a.broken) == (b.names, b.broken) and all(
        np.array_equal(getattr(a, name), getattr(b, name))
        and getattr(a, name).dtype == getattr(b, name).dtype
        for name in arrays
    )


def counted(source: Split) -> tuple[Split, list[int]]:
    """Return the split and the list to which it appends what is read of it."""
    seen: list[int] = []

    def read(i: int) -> bytes:
        seen.append(i)
        return source.read(i)  # type: ignore[return-value]

    return Split(source.labels, source.names, read, source.fingerprint), seen


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("side", [None, 6])
def test_images_lie_one_after_the_other(side: int | None, threads: int, tmp_path: Path) -> None:
    found = decode_split(split(FILES), side, cache=tmp_path, workers=threads)
    assert len(found) == 40 and not found.uniform and found.broken == ()
    for i, data in enumerate(FILES):
        image = decode(data)
        assert (found.image(i) == (shrink(image, side) if side else image)).all()
        assert found.labels[i] == i % 3 and found.names[i] == f"{i}.png"
    assert found.values.dtype == np.uint8 and found.values.shape[1] == 3
    assert (found.starts.dtype, found.heights.dtype) == (np.int64, np.int32)
    shorts = np.minimum(found.heights, found.widths)
    assert shorts.max() == (6 if side else 12) and shorts.min() == 5  # never enlarged


def test_one_size_is_uniform() -> None:
    assert decode_split(split(FILES[:1] * 3), None).uniform
    assert not decode_split(split(FILES[:2]), None).uniform
    assert decode_split(split([b""]), None).uniform


def test_arrays_are_read_as_images_are() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 9, 7), dtype=np.uint8)
    found = decode_split(Split(np.zeros(5, np.int64), list("abcde"), lambda i: images[i]), None)
    assert (found.values.reshape(5, 9, 7, 3) == images[..., None]).all()


def test_a_cache_gives_the_same_and_reads_nothing(tmp_path: Path) -> None:
    source, seen = counted(split(FILES))
    plain = decode_split(source, 6)
    assert sorted(seen) == list(range(40))
    first = decode_split(source, 6, cache=tmp_path / "new" / "cache")
    seen.clear()
    again = decode_split(source, 6, cache=tmp_path / "new" / "cache")
    assert seen == [] and same(plain, first) and same(plain, again)
    assert not [p for p in (tmp_path / "new" / "cache").iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("resident", [0, 1 << 30])
def test_a_large_cache_is_mapped_and_may_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resident: int
) -> None:
    monkeypatch.setattr(module, "RESIDENT", resident)
    found = decode_split(split(FILES), None, cache=tmp_path)
    assert isinstance(found.values, np.memmap) == (resident == 0)
    before = found.values.copy()
    found.values[:] = 7  # torch warns of arrays that are read-only
    assert (decode_split(split(FILES), None, cache=tmp_path).values == before).all()


def test_a_cache_is_for_one_fingerprint_and_one_side(tmp_path: Path) -> None:
    decode_split(split(FILES), 6, cache=tmp_path)
    for other, side in ((split(FILES, "g"), 6), (split(FILES), 5), (split(FILES), None)):
        source, seen = counted(other)
        found = decode_split(source, side, cache=tmp_path)
        assert len(seen) == 40 and same(found, decode_split(source, side))
    assert len(list(tmp_path.iterdir())) == 4


def test_a_split_of_unknown_fingerprint_is_not_cached(tmp_path: Path) -> None:
    decode_split(split(FILES, ""), 6, cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


def damage(folder: Path, how: str) -> None:
    values, sizes, facts = (folder / n for n in ("values.npy", "sizes.npy", "pixels.json"))
    data = json.loads(facts.read_text())
    if how == "cut":
        values.write_bytes(values.read_bytes()[:-5])
    elif how == "flipped":
        values.write_bytes(values.read_bytes()[:-1] + b"\x01")
    elif how == "longer":
        values.write_bytes(values.read_bytes() + b"more")
        data["checksums"][0] += 1
    elif how == "fortran":
        np.save(values, np.asfortranarray(np.load(values)))
    elif how == "pickle":
        np.save(sizes, np.array([object()] * 40), allow_pickle=True)
    elif how == "sizes":
        np.save(sizes, np.load(sizes)[::-1])
    elif how == "kind":
        np.save(sizes, np.load(sizes).astype(np.float64))
    elif how == "foreign":
        data["split"] = "another"
    elif how == "old":
        del data["checksums"]
    elif how == "broken":
        data["broken"] = [[0, "was not read"]]
    elif how == "list":
        data = []
    facts.write_text("{" if how == "half" else json.dumps(data))
    if how == "file":
        shutil.rmtree(folder)
        folder.write_text("in the way")


@pytest.mark.parametrize(
    "how",
    [
        *("cut", "flipped", "longer", "fortran", "pickle", "sizes", "kind", "foreign"),
        *("old", "broken", "list", "half"),
    ],
)
def test_a_damaged_or_foreign_cache_is_made_again(tmp_path: Path, how: str) -> None:
    first = decode_split(split(FILES), 6, cache=tmp_path)
    damage(next(tmp_path.iterdir()), how)
    source, seen = counted(split(FILES))
    assert same(decode_split(source, 6, cache=tmp_path), first)
    assert len(set(seen)) == 40
    seen.clear()
    assert same(decode_split(source, 6, cache=tmp_path), first)
    assert seen == [] and len(list(tmp_path.iterdir())) == 1


def warned(caplog: pytest.LogCaptureFixture) -> str:
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and "\n" not in record.getMessage()
    return record.getMessage()


@pytest.mark.parametrize("where", ["open", "write", "save", "replace"])
def test_a_full_disk_is_survived(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    where: str,
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "write":
        with limited(4000):
            found = decode_split(split(FILES), None, cache=tmp_path)
        assert "File too large" in warned(caplog)
    else:
        target = {"open": (module.tempfile, "mkdtemp"), "save": (np, "save")}
        monkeypatch.setattr(*target.get(where, (os, "replace")), full)
        found = decode_split(split(FILES), None, cache=tmp_path)
        assert (
            warned(caplog) == f"no cache in {tmp_path}: No space left on device; going on without"
        )
    assert same(found, decode_split(split(FILES), None))
    assert list(tmp_path.iterdir()) == []


@contextlib.contextmanager
def limited(size: int) -> Iterator[None]:
    """Refuse to write files beyond this size, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_cache_that_cannot_be_made_is_survived(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    found = decode_split(split(FILES), 6, cache=tmp_path / "file")
    assert same(found, decode_split(split(FILES), 6)) and "no cache in" in warned(caplog)


def test_a_file_in_place_of_a_cache_is_survived(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = decode_split(split(FILES), 6, cache=tmp_path)
    damage(next(tmp_path.iterdir()), "file")
    assert same(decode_split(split(FILES), 6, cache=tmp_path), first)
    assert "no cache in" in warned(caplog)


def test_several_may_make_a_cache_at_once(tmp_path: Path) -> None:
    meet = threading.Barrier(4)

    def one(_: int) -> Pixels:
        meet.wait()
        return decode_split(split(FILES), 6, cache=tmp_path, workers=1)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(one, range(4)))
    assert all(same(found[0], other) for other in found)
    assert len(list(tmp_path.iterdir())) == 1


def test_what_a_kill_leaves_is_no_cache_and_swept(tmp_path: Path) -> None:
    code = f"""
import os, sys, threading, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_pixels import FILES, split, decode_split, Split
from pathlib import Path
def read(i):
    if i == 30:
        os.kill(os.getpid(), 9)
    return FILES[i]
s = split(FILES)
decode_split(Split(s.labels, s.names, read, "f"), 6, cache=Path({str(tmp_path)!r}), workers=1)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=600)
    assert done.returncode == -signal.SIGKILL
    left, lock = sorted(tmp_path.iterdir(), key=lambda path: path.suffix)
    assert left.name.startswith(".new-") and lock.suffix == ".lock"
    source, seen = counted(split(FILES))
    decode_split(source, 6, cache=tmp_path)
    assert len(seen) == 40 and left.exists()  # it might be another's, at work
    assert not lock.exists()  # it was nobody's any more
    os.utime(left, (time.time() - 90_000,) * 2)
    decode_split(split(FILES, "g"), 6, cache=tmp_path)
    assert not left.exists() and len(list(tmp_path.iterdir())) == 2


# writes down each image that it reads; `last` waits before it until a file is there
GATHER = f"""
import os, sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_pixels import FILES, split, decode_split, Split
from pathlib import Path

def read(i):
    with open("reads.txt", "a") as file:
        file.write(f"{{os.getpid()}} {{i}}\\n")
    while i == 30 and not Path("go").exists():
        time.sleep(0.01)
    return FILES[i]

Path(f"{{os.getpid()}}.started").touch()
s = split(FILES)
found = decode_split(Split(s.labels, s.names, read, "f"), 6, cache=Path("cache"), workers=1)
print(len(found))
"""


def gathering(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", GATHER], cwd=folder, stdout=subprocess.PIPE)


def until(true: Callable[[], bool]) -> None:
    """Wait for something that comes soon on a quiet machine."""
    end = time.monotonic() + 600
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def readers(folder: Path) -> dict[int, list[int]]:
    """Return which process read which images."""
    found: dict[int, list[int]] = {}
    path = folder / "reads.txt"
    for line in path.read_text().splitlines() if path.exists() else ():
        found.setdefault(int(line.split()[0]), []).append(int(line.split()[1]))
    return found


@pytest.fixture
def together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Four processes that make one cache: one is in the middle of it, and the others wait."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *sys.path]))
    processes = [gathering(tmp_path)]
    try:
        until(lambda: 30 in readers(tmp_path).get(processes[0].pid, []))
        processes += [gathering(tmp_path) for _ in range(3)]
        until(lambda: len(list(tmp_path.glob("*.started"))) == 4)
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_of_several_processes_one_decodes(tmp_path: Path, together: list[Any]) -> None:
    (tmp_path / "go").touch()
    assert [process.communicate(timeout=600)[0] for process in together] == [b"40\n"] * 4
    assert readers(tmp_path) == {together[0].pid: list(range(40))}
    (cache,) = (tmp_path / "cache").iterdir()  # no lock is left
    assert cache.is_dir()


def test_who_waits_for_one_that_is_killed_decodes(tmp_path: Path, together: list[Any]) -> None:
    together[0].kill()
    until(lambda: len(readers(tmp_path)) == 2)
    (tmp_path / "go").touch()
    assert [process.communicate(timeout=600)[0] for process in together[1:]] == [b"40\n"] * 3
    found = readers(tmp_path)
    assert len(found.pop(together[0].pid)) < 40
    assert list(found.values()) == [list(range(40))]  # one of the three, and once


class Going(logging.Handler):
    """Makes a file when something is told."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def emit(self, record: logging.LogRecord) -> None:
        self.path.touch()


def test_a_wait_is_told_of_once(
    tmp_path: Path,
    together: list[Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nas.core.locks.TELL_SECONDS", 0.0)
    caplog.set_level(logging.INFO, "nas")
    logging.getLogger("nas").addHandler(go := Going(tmp_path / "go"))
    source, seen = counted(split(FILES))
    decode_split(source, 6, cache=tmp_path / "cache")
    logging.getLogger("nas").removeHandler(go)
    (record,) = caplog.records
    assert record.getMessage().startswith("waiting for another process that decodes") and not seen


def test_where_nothing_can_be_locked_nobody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no(file: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("nas.core.locks.lock", no)
    source, seen = counted(split(FILES))
    decode_split(source, 6, cache=tmp_path)
    assert len(seen) == 40 and len(list(tmp_path.iterdir())) == 1


def test_broken_images_are_left_out_and_named(tmp_path: Path) -> None:
    files = [b"", FILES[1][:60], *FILES[2:], b"GIF89a"]
    for cache in (None, tmp_path, tmp_path):
        found = decode_split(split(files), 6, cache=cache)
        assert len(found) == 38 and found.names[0] == "2.png" and found.labels[0] == 2
        assert (found.image(0) == shrink(decode(FILES[2]), 6)).all()
        assert [line.partition(": ")[0] for line in found.broken] == ["0.png", "1.png", "40.png"]
        assert found.broken[0] == "0.png: empty file"


def test_a_reader_that_fails_has_a_broken_image() -> None:
    def read(i: int) -> bytes:
        raise (PermissionError(13, "Permission denied", "x"), KeyError("no such row"))[i]

    found = decode_split(Split(np.zeros(2, np.int64), ["a", "b"], read), 6)
    assert found.broken == ("a: Permission denied", "b: KeyError: 'no such row'")
    assert len(found) == 0 and found.values.shape == (0, 3)


def test_an_image_that_can_be_read_again_comes_back(tmp_path: Path) -> None:
    files = [*FILES]
    files[3] = b""
    assert len(decode_split(split(files), 6, cache=tmp_path)) == 39
    # the fingerprint is the same: permissions, or a share that was away
    assert len(decode_split(split(FILES), 6, cache=tmp_path)) == 40
    assert len(list(tmp_path.iterdir())) == 1


def some_broken(good: int, bad: int) -> Pixels:
    zeros = np.zeros(good, np.int64)
    small = zeros.astype(np.int32)
    names = tuple(f"{i}.png: truncated" for i in range(bad))
    return Pixels(np.zeros((0, 3), np.uint8), zeros, small, small, zeros, ("x",) * good, names)


def test_up_to_one_percent_may_be_broken() -> None:
    assert check_broken(some_broken(100, 0)) == ""
    assert check_broken(some_broken(99, 1)) == (
        "1 of 100 images is broken and left out: 0.png: truncated"
    )
    assert "10 of 1,000 images are broken" in check_broken(some_broken(990, 10))
    for good, bad in ((98, 1), (989, 11), (0, 1), (1, 200)):
        with pytest.raises(OptionError, match=f"{bad} of .* broken, more than 1%: 0.png: trunc"):
            check_broken(some_broken(good, bad))
    with pytest.raises(OptionError, match="and 195 more; repair or delete them"):
        check_broken(some_broken(1, 200))


def test_without_a_home_the_cache_is_temporary_and_of_this_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As of a user of a container who has no entry of its own."""

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("NAS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    places._homeless.cache_clear()
    found = cache_folder()
    assert found == tmp_path / f"nas-{os.getuid()}" and found.stat().st_mode & 0o777 == 0o700
    assert cache_folder() == found and caplog.text.count("no home directory") == 1
    found.rmdir()
    (tmp_path / "theirs").mkdir()
    found.symlink_to(tmp_path / "theirs")  # laid there by another user
    places._homeless.cache_clear()
    assert cache_folder() not in (found, tmp_path / "theirs")
    places._homeless.cache_clear()


@pytest.mark.parametrize(
    "variables, folder",
    [
        ({"NAS_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/nas"),
        ({"HOME": "/h"}, "/h/.cache/nas"),
        ({"NAS_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "/h"}, "/h/.cache/nas"),
    ],
)
def test_the_cache_folder(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], folder: str
) -> None:
    for name in ("NAS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(folder)


def test_the_typical_side_is_the_median_of_the_short_ones() -> None:
    assert typical_side(split(FILES)) == 10
    with pytest.raises(OptionError, match="no image can be decoded"):
        typical_side(split([b"", b"x"]))


def test_an_interrupt_does_not_decode_the_rest() -> None:
    source, seen = counted(split(FILES * 50))

    def read(i: int) -> bytes:
        if i == 40:
            raise KeyboardInterrupt
        return source.read(i)  # type: ignore[return-value]

    with pytest.raises(KeyboardInterrupt):
        decode_split(Split(source.labels, source.names, read), 6, workers=2)
    assert len(seen) < 400


def test_real_images_have_the_published_mean(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    if not CIFAR.exists():
        pytest.skip(f"{CIFAR} is not here")
    test = open_dataset(str(CIFAR)).splits["test"]
    part = Split(test.labels[:2000], test.names[:2000], test.read, "part")
    found = decode_split(part, 32, cache=tmp_path)
    assert found.uniform and found.broken == () and len(found) == 2000
    mean = found.values.mean(axis=0) / 255
    assert np.abs(mean - (0.4913, 0.4821, 0.4465)).max() < 0.02  # its README, of train
    assert same(found, decode_split(part, 32, cache=tmp_path))
