"""What a data set is, is its content: copies resume and share a cache, changes never do."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.data import identity
from nas.data.dataset import Dataset, open_dataset
from nas.data.identity import File, of_files, unchanged, way_back
from nas.data.loader import open_data
from nas.data.splits import make_splits


def folder(root: Path, shade: int = 0) -> Path:
    """Write two classes of six images; their colours, not their sizes, depend on `shade`."""
    for label in (0, 1):
        for i in range(6):
            path = root / f"{'ab'[label]}" / f"{i}.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (shade, 100 * label, i)).save(path)
            os.utime(path, (1, 1))
    return root


def parquet(root: Path, shade: int = 0) -> Path:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    files = sorted(folder(root.with_name(f"{root.name}-images"), shade).rglob("*.bmp"))
    root.mkdir()
    columns = {"image": [file.read_bytes() for file in files], "label": [0] * 6 + [1] * 6}
    pq.write_table(pa.table(columns), root / "train-0.parquet", compression="none")
    os.utime(root / "train-0.parquet", (1, 1))
    return root


def reader(root: Path, shade: int = 0) -> Path:
    root.mkdir()
    (root / "mine.py").write_text(
        "import numpy as np\n"
        "from nas.data.dataset import Dataset, Split\n"
        "def read(data, *, download):\n"
        f"    images = np.full((12, 32, 32, 3), {shade}, np.uint8)\n"
        "    split = Split(np.arange(12) % 2, list(map(str, range(12))), lambda i: images[i])\n"
        "    return Dataset('mine', ('a', 'b'), {'train': split}, '')\n"
    )
    return root / "mine.py"


KINDS: dict[str, Callable[..., Path]] = {"folder": folder, "parquet": parquet, "own .py": reader}


@pytest.mark.parametrize("kind", KINDS)
def test_content_tells_data_apart_and_place_and_time_do_not(tmp_path: Path, kind: str) -> None:
    make = KINDS[kind]
    first, same, other = make(tmp_path / "x"), make(tmp_path / "y"), make(tmp_path / "z", 9)
    os.utime(same, (5, 5))
    known, again, differs = (open_dataset(str(path)) for path in (first, same, other))
    assert known.fingerprint == again.fingerprint != differs.fingerprint
    splits = [found.splits["train"].fingerprint for found in (known, again, differs)]
    assert splits[0] == splits[1] != splits[2] and all(splits)


@pytest.mark.parametrize("kind", KINDS)
def test_data_of_equal_names_sizes_and_times_shares_no_cache(tmp_path: Path, kind: str) -> None:
    make = KINDS[kind]
    for name, shade in (("x", 0), ("y", 200)):
        dataset = make_splits(open_dataset(str(make(tmp_path / name, shade))))
        data = open_data(dataset, imgsz=32, cache=tmp_path / "cache", workers=1)
        assert round(255 * data.mean[0]) == shade


def test_the_fingerprint_of_a_users_reader_is_trusted_but_shared_with_no_other(
    tmp_path: Path,
) -> None:
    """Its images are not read for it, which may take long; the cache is of one reader alone."""
    found = []
    for name, shade in (("x", 0), ("y", 9)):
        path = reader(tmp_path / name, shade)
        text = path.read_text().replace("'')", "'v1')").replace("lambda i: images[i]", "print")
        path.write_text(text)
        found.append(open_dataset(str(path)))
    assert found[0].fingerprint == found[1].fingerprint
    assert found[0].splits["train"].fingerprint != found[1].splits["train"].fingerprint


def test_names_labels_and_splits_count(tmp_path: Path) -> None:
    root = folder(tmp_path / "data")
    seen = [open_dataset(str(root)).fingerprint]
    (root / "a/1.bmp").rename(root / "a/7.bmp")
    seen.append(open_dataset(str(root)).fingerprint)
    (root / "a/7.bmp").rename(root / "b/7.bmp")
    seen.append(open_dataset(str(root)).fingerprint)
    shutil.copytree(root, tmp_path / "split" / "train")
    seen.append(open_dataset(str(tmp_path / "split")).fingerprint)
    assert len(set(seen)) == 4


def flip(path: Path, place: int) -> None:
    """Change one bit of a file, and nothing else of it."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("place", [0, 1_000, 30_000, 59_999])
def test_a_bit_anywhere_in_a_photograph_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(np.random.default_rng(0).bytes(60_000))
    for whole_set in (identity.WHOLE_SET, 0):  # 0: as in a set that is too large to hash whole
        monkeypatch.setattr(identity, "WHOLE_SET", whole_set)
        before = of_files([File(path, "a")])
        flip(path, place)
        assert of_files([File(path, "a")]) != before


def test_of_a_large_set_pieces_of_large_files_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the module says: its ends, its size, 16 pieces; what lies between is not seen."""
    path = tmp_path / "shard"
    path.write_bytes(bytes(1 << 20))
    monkeypatch.setattr(identity, "WHOLE_SET", 1 << 19)
    before = of_files([File(path, "a")])
    for place, seen in ((4095, True), (5000, False), ((1 << 20) - 4096, True)):
        flip(path, place)
        assert (of_files([File(path, "a")]) != before) == seen
        flip(path, place)
    assert of_files([File(path, "a")]) == before


def test_what_cannot_be_opened_is_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "nowhere")
    paths = ("pipe.jpg", "link.jpg", "gone.jpg")
    assert len({of_files([File(tmp_path / name, name)]) for name in paths}) == 3


def test_what_runs_of_before_have_noted_still_counts_while_times_are_the_same(
    tmp_path: Path,
) -> None:
    root = folder(tmp_path / "data")
    now = open_dataset(str(root))
    noted = now.former_fingerprint
    assert unchanged(noted, now) and unchanged(now.fingerprint, now) and unchanged(None, now)
    os.utime(root / "a/1.bmp", (2, 2))
    touched = open_dataset(str(root))
    assert unchanged(now.fingerprint, touched) and not unchanged(noted, touched)
    file = tmp_path / "data.json"
    assert f'remove "fingerprint" from {file}' in way_back(noted, touched, file)
    assert "put the data back" in way_back(now.fingerprint, touched, file)


def test_the_fingerprint_of_earlier_versions(tmp_path: Path) -> None:
    """As the version before content wrote it into data.json, for these names, sizes and times."""
    for name in ("a/1.png", "b/2.png"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"xyz")
        os.utime(path, ns=(1_000, 1_000))
    assert open_dataset(str(tmp_path / "data")).former_fingerprint == "274075cd444386845563f0c6"


def test_a_data_set_without_a_former_fingerprint_is_known_by_its_own_alone() -> None:
    plain = Dataset("x", ("a", "b"), {}, "now")
    assert unchanged("now", plain) and not unchanged("", plain)
