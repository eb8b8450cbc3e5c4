"""Data sets: what a folder, parquet files and names give, and one clear line for what cannot be."""

import contextlib
import io
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from nas.core.errors import MissingError, NasError, OptionError, install
from nas.data.dataset import Dataset, Split, open_dataset, settle, subset
from nas.data.images import decode

Image = pytest.importorskip("PIL.Image")
ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"


def image_bytes(shade: int, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (6, 4), (shade, shade, shade)).save(file, kind)
    return file.getvalue()


def tree(root: Path, *paths: str) -> Path:
    """Write images whose shade is their number."""
    for shade, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(image_bytes(shade) if Path(path).suffix else b"text")
    return root


def contents(dataset: Dataset) -> dict[str, dict[str, list[int]]]:
    """Return the shades of each class of each split."""
    found: dict[str, dict[str, list[int]]] = {}
    for name, split in dataset.splits.items():
        for i, label in enumerate(split.labels):
            shade = int(decode(split.read(i))[0, 0, 0])
            found.setdefault(name, {}).setdefault(dataset.classes[label], []).append(shade)
    return found


def shared(name: str) -> Path:
    if not (SHARED / name).exists():
        pytest.skip(f"{SHARED / name} is not here")
    return SHARED / name


# --- folders


def test_one_tree_of_class_folders(tmp_path: Path) -> None:
    found = open_dataset(str(tree(tmp_path / "pets", "cat/1.png", "cat/2.png", "ant/3.png")))
    assert found.name == "pets" and found.classes == ("ant", "cat")
    assert contents(found) == {"train": {"ant": [2], "cat": [0, 1]}}
    assert found.splits["train"].names == ["ant/3.png", "cat/1.png", "cat/2.png"]
    assert found.notes == ("one training image only: ant",)


@pytest.mark.parametrize(
    "folders, splits",
    [
        (("train", "val"), ("train", "val")),
        (("train", "valid", "test"), ("train", "val", "test")),
        (("Train", "Validation", "TEST"), ("train", "val", "test")),
        (("training", "testing"), ("train", "test")),
        (("train", "eval"), ("train", "test")),
        (("train", "test", "eval"), ("train", "test", "val")),
        (("train", "val", "eval"), ("train", "val", "test")),
    ],
)
def test_split_folders(tmp_path: Path, folders: tuple[str, ...], splits: tuple[str, ...]) -> None:
    tree(tmp_path, *(f"{folder}/{label}/1.png" for folder in folders for label in "ab"))
    found = contents(open_dataset(str(tmp_path)))
    assert found == {s: {"a": [2 * i], "b": [2 * i + 1]} for i, s in enumerate(splits)}


def test_eval_beside_val_and_test_is_left_out(tmp_path: Path) -> None:
    folders = ("train", "val", "test", "eval", "labels")
    tree(tmp_path, *(f"{folder}/{label}/1.png" for folder in folders for label in "ab"))
    found = open_dataset(str(tmp_path))
    assert set(found.splits) == {"train", "val", "test"}
    tree(tmp_path, "README", "0.png", ".hidden")
    assert set(open_dataset(str(tmp_path)).notes) - set(found.notes) == {
        "left out 1 files that are no images (1 no suffix)",
        "left out 1 hidden files or folders",
        "left out 1 images outside of class folders: they have no label",
    }
    assert "left out folders beside the splits: eval, labels" in found.notes


def test_two_folders_for_one_split_are_refused(tmp_path: Path) -> None:
    tree(tmp_path, *(f"{f}/{label}/1.png" for f in ("train", "val", "valid") for label in "ab"))
    with pytest.raises(OptionError, match="both val and valid for the val split: keep one"):
        open_dataset(str(tmp_path))


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    found = open_dataset(str(tree(tmp_path, "train/1.png", "car/1.png", "bus/1.png")))
    assert found.classes == ("bus", "car", "train") and set(found.splits) == {"train"}


def test_what_is_no_image_is_counted(tmp_path: Path) -> None:
    tree(tmp_path, "a/1.png", "a/.2.png", "a/notes", "a/x.txt", "a/y.heic", "a/z.HEIC", "b/1.png")
    tree(tmp_path, "__MACOSX/a/1.png", ".git/a/1.png", "loose.png", "b/deep/er/2.png", "c/x.txt")
    found = open_dataset(str(tmp_path))
    assert found.classes == ("a", "b")
    assert [list(map(len, c.values())) for c in contents(found).values()] == [[1, 2]]
    assert set(found.notes) == {
        "left out 5 files that are no images (2 .txt, 2 .heic, 1 no suffix)",
        "left out 2 hidden files or folders",
        "left out folders of the system or of other programs: __MACOSX",
        "left out 1 images outside of class folders: they have no label",
        "left out class folders without images: c",
        "1 images lie deeper than their class folder and count for it",
        "one training image only: a",
    }


@pytest.mark.parametrize("name", ["1.jpg", "1.JPEG", "1.Png", "1.webp", "1.tiff", "1.bmp", "1.gif"])
def test_the_suffix_may_lie_and_has_no_case(tmp_path: Path, name: str) -> None:
    tree(tmp_path, f"a/{name}", f"b/{name}")
    assert contents(open_dataset(str(tmp_path))) == {"train": {"a": [0], "b": [1]}}


@pytest.mark.parametrize(
    "paths, message",
    [
        ((), "holds no images: one folder per class is expected"),
        (("1.png", "2.png"), "holds 2 images but no class folders: one folder per class"),
        (("a/x.txt", "b/y.csv"), "holds no images, only 1 .txt, 1 .csv"),
        (("a/1.png", "a/2.png"), r"has one class with images \(a\)"),
        (("a/1.png", "b/x.txt"), r"has one class with images \(a\)"),
        (("train/1.png", "train/2.png"), "train holds 2 images but no class folders"),
        (("train/1.png", "test/2.png"), "train holds 1 images but no class folders"),
        (("test/a/1.png", "val/b/2.png"), "has test, val but no train folder"),
        (
            ("train/a/1.png", "train/b/1.png", "test/c/1.png"),
            "test has classes that train lacks: c",
        ),
        (("train/a/1.png", "test/b/1.png"), "test has classes that train lacks: b"),
        (("train/a/x.txt", "test/a/1.png"), "train holds no images, only 1 .txt"),
    ],
)
def test_a_folder_that_cannot_be_used(tmp_path: Path, paths: tuple[str, ...], message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        open_dataset(str(tree(tmp_path, *paths)))
    assert "\n" not in str(caught.value)


def test_a_test_folder_without_labels_is_left_out(tmp_path: Path) -> None:
    found = open_dataset(str(tree(tmp_path, "train/a/1.png", "train/b/1.png", "test/1.png")))
    assert set(found.splits) == {"train"}
    assert (
        "left out test: its 1 images have no labels (they lie in no class folders); "
        "nas predict takes them"
    ) in found.notes


def test_a_class_that_test_lacks_is_noted(tmp_path: Path) -> None:
    found = open_dataset(str(tree(tmp_path, "train/a/1.png", "train/b/1.png", "test/a/1.png")))
    assert "no image in test: b" in found.notes


def test_links_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    root, store = tree(tmp_path / "data", "a/1.png", "b/1.png"), tree(tmp_path, "store/x/2.png")
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "self").symlink_to(root / "a" / "self")
    (root / "a" / "here").symlink_to(root / "a")
    (root / "c").symlink_to(store / "store")
    found = open_dataset(str(root))
    assert found.classes == ("a", "b", "c")
    assert contents(found)["train"]["c"] == [0]
    # the link to the root would put the images of b under a
    assert np.bincount(found.splits["train"].labels).tolist() == [1, 1, 1]
    assert "left out links to a folder above them: a/here, a/up" in found.notes


def test_pipes_are_left_alone_and_dead_links_are_broken_images(tmp_path: Path) -> None:
    tree(tmp_path, "a/1.png", "b/1.png")
    os.mkfifo(tmp_path / "a" / "pipe.jpg")
    (tmp_path / "a" / "gone.jpg").symlink_to(tmp_path / "nowhere")
    split = open_dataset(str(tmp_path)).splits["train"]
    assert split.names == ["a/1.png", "a/gone.jpg", "b/1.png"]
    with pytest.raises(FileNotFoundError):
        split.read(1)


def test_odd_names(tmp_path: Path) -> None:
    tree(tmp_path, "train/caf\N{COMBINING ACUTE ACCENT}/a b.png", "train/Ünïcode/1.png")
    tree(tmp_path, "val/caf\N{COMBINING ACUTE ACCENT}/1.png")
    bad = os.fsencode(tmp_path / "train") + b"/n\xff\xfe"
    os.mkdir(bad)
    with open(bad + b"/\xe9.png", "wb") as file:
        file.write(image_bytes(9))
    found = open_dataset(str(tmp_path))
    json.dumps([found.classes, found.splits["train"].names], ensure_ascii=False).encode()
    assert contents(found)["train"][found.classes[1]] == [9]


def test_accents_are_one_letter_or_two(tmp_path: Path) -> None:
    tree(tmp_path, "train/caf\u00e9/1.png", "train/b/1.png", "test/cafe\u0301/1.png")
    assert open_dataset(str(tmp_path)).classes == ("b", "caf\u00e9")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, unlike tmp_path."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Be a user whose permissions count, which root's do not."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="no permissions of this kind")
@pytest.mark.parametrize("closed", ["", "train", "train/a", "train/a/deep"])
def test_an_unreadable_folder_is_named(open_folder: Path, closed: str) -> None:
    root = tree(open_folder / "data", "train/a/1.png", "train/a/deep/2.png", "train/b/1.png")
    (root / closed).chmod(0)
    try:
        with nobody(), pytest.raises(OptionError, match=r"cannot read .*: Permission denied") as e:
            open_dataset(str(root))
        assert str(root / closed) in str(e.value)
    finally:
        (root / closed).chmod(0o755)


def test_a_folder_can_be_given_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path / "here", "a/1.png", "b/1.png")
    monkeypatch.chdir(tmp_path / "here")
    found = open_dataset(".")
    monkeypatch.chdir(tmp_path)
    assert found.name == "here" and contents(found)["train"]["a"] == [0]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_dataset("~/here").name == "here"


def test_real_folder(tmp_path: Path) -> None:
    zipfile.ZipFile(shared("cifar10-mini") / "cifar10-mini.zip").extractall(tmp_path)
    found = open_dataset(str(tmp_path / "cifar10-mini"))
    assert len(found.classes) == 10 and found.classes[0] == "airplane"
    assert {name: len(s) for name, s in found.splits.items()} == {"train": 2000, "test": 500}
    assert decode(found.splits["test"].read(499)).shape == (32, 32, 3)
    wrapped = open_dataset(str(tmp_path))
    assert wrapped.classes == found.classes and "read from cifar10-mini" in wrapped.notes


# --- what no reader knows


@pytest.mark.parametrize(
    "data, message",
    [
        ("./nowhere", r"no data './nowhere': give a folder of class folders"),
        ("cifar11", r"did you mean 'cifar10'"),
        ("digit", r"did you mean 'digits'"),
        ("", "no data ''"),
        ("a\0b", "no data"),
        ("x" * 5000, "no data"),
        ("data.zip", "data.zip is a file of no known kind"),
        ("gone.parquet", "cannot read gone.parquet: "),
        ("gone.py", "no file gone.py"),
    ],
)
def test_unknown_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.zip").write_bytes(b"PK")
    with pytest.raises(OptionError, match=message) as caught:
        open_dataset(data)
    assert "\n" not in str(caught.value)


def test_asking_for_the_readers_is_light() -> None:
    code = (
        "import sys; from nas.core import registry\n"
        "for n in registry.names('datasets'): registry.export('datasets', n, 'matches')('x/y')\n"
        "heavy = {'torch', 'PIL', 'sklearn', 'pyarrow', 'torchvision'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_reader_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "from nas.data.dataset import Dataset, Split\n"
        "def read(data, *, download):\n"
        "    images = np.zeros((4, 8, 8), np.uint8)\n"
        "    split = Split(np.arange(4) % 2, [f'{i}' for i in range(4)], lambda i: images[i])\n"
        "    return Dataset('mine', ('a', 'b'), {'train': split}, 'v1')\n"
    )
    found = open_dataset(str(tmp_path / "mine.py"))
    assert found.name == "mine" and found.splits["train"].fingerprint


@pytest.mark.parametrize("result", ["None", "1 / 0", "Dataset('x', (), {'train': 1}, '')"])
def test_a_reader_of_the_user_that_fails_is_named(tmp_path: Path, result: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        f"from nas.data.dataset import Dataset\ndef read(data, *, download):\n    return {result}\n"
    )
    with pytest.raises(OptionError, match=r"read of .*mine\.py gave no Dataset: \w+Error: "):
        open_dataset(str(path))


def made(labels: list[int], classes: str = "ab", **more: Split) -> Dataset:
    split = Split(np.array(labels, np.int64), [str(i) for i in range(len(labels))], bytes)
    return Dataset("made", tuple(classes), {"train": split, **more}, "f")


@pytest.mark.parametrize(
    "dataset, message",
    [
        (made([]), "no images to train on"),
        (made([0, 0]), "1 class with training images"),
        (made([0, 1, 2]), r"labels of split train are 0..2, but there are 2 classes"),
        (made([0, -1]), r"labels of split train are -1..0"),
        (made([0, 1], val=Split(np.zeros(1, np.int64), [], bytes)), "0 names for 1 labels"),
    ],
)
def test_what_a_reader_gives_is_checked(dataset: Dataset, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        settle(dataset)


def test_a_subset_reads_its_own() -> None:
    source = Split(np.array([0, 1, 0]), ["x", "y", "z"], lambda i: b"xyz"[i : i + 1], "f")
    part = subset(source, np.array([2, 0]))
    assert (part.names, part.read(0), part.labels.tolist()) == (["z", "x"], b"z", [0, 0])
    assert part.fingerprint not in ("", "f", subset(source, np.array([0, 2])).fingerprint)
    assert subset(Split(source.labels, source.names, source.read), np.array([0])).fingerprint == ""


# --- digits


def test_digits() -> None:
    pytest.importorskip("sklearn")
    found = open_dataset("digits")
    split = found.splits["train"]
    assert len(split) == 1797 and found.classes == tuple("0123456789")
    zero = decode(split.read(0))
    assert zero.shape == (8, 8, 3) and zero.max() == 239 and zero.min() == 0  # 15 of 16
    assert split.labels[:4].tolist() == [0, 1, 2, 3]


def test_a_folder_called_digits_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "cifar10"):
        tree(tmp_path / name, "a/1.png", "b/1.png")
        assert open_dataset(name).classes == ("a", "b")


@pytest.mark.parametrize(
    "module, data, message",
    [
        ("sklearn.datasets", "digits", "pip install scikit-learn"),
        ("pyarrow", "x.parquet", re.escape(install("parquet"))),
        ("torchvision.transforms", "cifar10", "--data cifar10 needs torchvision.*pip install"),
    ],
)
def test_a_missing_package_has_a_pip_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, data: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingError, match=message) as caught:
        open_dataset(data)
    assert "\n" not in str(caught.value)


# --- parquet


@pytest.fixture
def pa() -> ModuleType:
    pytest.importorskip("pyarrow.parquet")
    return pytest.importorskip("pyarrow")


def shard(
    path: Path,
    labels: list[object],
    shades: list[int] | None = None,
    *,
    names: list[str] | None = None,
    binary: bool = False,
    label: str = "label",
    group: int = 2,
) -> Path:
    """Write images of these shades, by default of their row number, and their labels."""
    import pyarrow as pa
    from pyarrow import parquet as pq

    data = [image_bytes(shade) for shade in shades or range(len(labels))]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array(data if binary else [{"bytes": d, "path": "x"} for d in data])
    table = pa.table({"image": images if binary else images.cast(kind), label: pa.array(labels)})
    if names is not None:
        features = {"image": {"_type": "Image"}, label: {"_type": "ClassLabel", "names": names}}
        text = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({b"huggingface": text.encode()})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group)
    return path


def test_one_parquet_file_is_a_train_split(tmp_path: Path, pa: ModuleType) -> None:
    path = shard(tmp_path / "pets.parquet", [1, 0, 1, 1, 0], names=["cat", "dog"])
    found = open_dataset(str(path))
    assert (found.name, found.classes) == ("pets", ("cat", "dog"))
    assert contents(found) == {"train": {"cat": [1, 4], "dog": [0, 2, 3]}}
    assert found.splits["train"].names[4] == "pets.parquet row 4"


@pytest.mark.parametrize(
    "files",
    [
        ("train-00000-of-00002", "train-00001-of-00002", "validation-0", "test-0"),
        ("data/train-0", "data/train-1", "data/valid-0", "data/test-0"),
        ("train/0000", "train/0001", "val/0000", "test/0000"),
    ],
)
def test_shards_are_found_by_name(tmp_path: Path, pa: ModuleType, files: tuple[str, ...]) -> None:
    for i, name in enumerate(files):
        shard(tmp_path / f"{name}.parquet", [0, 1], [2 * i, 2 * i + 1], names=["a", "b"])
    (tmp_path / "README.md").write_text("text")
    assert contents(open_dataset(str(tmp_path))) == {
        "train": {"a": [0, 2], "b": [1, 3]},
        "val": {"a": [4], "b": [5]},
        "test": {"a": [6], "b": [7]},
    }


def test_labels_of_other_kinds(tmp_path: Path, pa: ModuleType) -> None:
    words = shard(tmp_path / "w.parquet", ["dog", "cat", "dog"], binary=True, label="category")
    assert contents(open_dataset(str(words))) == {"train": {"dog": [0, 2], "cat": [1]}}
    assert open_dataset(str(words)).classes == ("cat", "dog")
    numbers = shard(tmp_path / "n.parquet", [10, 9, 10, -1])
    assert open_dataset(str(numbers)).classes == ("-1", "9", "10")
    assert contents(open_dataset(str(numbers)))["train"]["10"] == [0, 2]
    boxed = shard(tmp_path / "d.parquet", pa.array(["x", "y", None]).dictionary_encode())
    assert contents(open_dataset(str(boxed))) == {"train": {"x": [0], "y": [1]}}
    assert "left out 1 rows without a label" in open_dataset(str(boxed)).notes


def test_each_file_has_its_own_order_of_classes(tmp_path: Path, pa: ModuleType) -> None:
    shard(tmp_path / "train-0.parquet", [0, 1, 2], names=["a", "b", "c"])
    shard(tmp_path / "test-0.parquet", [0, 1, 2], names=["c", "a", "b"])
    found = contents(open_dataset(str(tmp_path)))
    assert found["test"] == {"c": [0], "a": [1], "b": [2]}


def test_hidden_labels_are_left_out(tmp_path: Path, pa: ModuleType) -> None:
    shard(tmp_path / "train-0.parquet", [0, 1, -1, None], names=["a", "b"])
    shard(tmp_path / "test-0.parquet", [-1, -1], names=["a", "b"])
    shard(tmp_path / "val-0.parquet", [0], names=["a", "b"], label="other")
    found = open_dataset(str(tmp_path))
    assert {name: len(split) for name, split in found.splits.items()} == {"train": 2}
    assert [note for note in found.notes if note.startswith("left out")] == [
        "left out val: val-0.parquet has no column label",
        "left out 2 rows without a label",
        "left out 2 rows without a label",
    ]


def test_of_two_label_columns_the_usual_one_is_read(tmp_path: Path, pa: ModuleType) -> None:
    from pyarrow import parquet as pq

    path = shard(tmp_path / "c.parquet", [0, 1], names=["x", "y"], label="fine_label")
    table = pq.read_table(path)
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    coarse = {"_type": "ClassLabel", "names": ["all"]}
    text = json.dumps({"info": {"features": {"coarse_label": coarse, **features}}})
    table = table.add_column(0, "coarse_label", pa.array([0, 0]))
    pq.write_table(table.replace_schema_metadata({b"huggingface": text.encode()}), path)
    assert open_dataset(str(path)).classes == ("x", "y")


@pytest.mark.parametrize(
    "labels, options, message",
    [
        ([0, 2], {"names": ["a", "b"]}, r"labels are 0..2, but 2 classes have names"),
        ([0, 0], {"names": ["a", "b"]}, "1 class with training images"),
        ([0.5, 1.5], {}, "column label holds double, but one whole number or word"),
        ([[0], [1]], {}, "column label holds list"),
        ([0, 1], {"label": "weight"}, "no column of labels among image, weight"),
    ],
)
def test_parquet_that_cannot_be_used(
    tmp_path: Path, pa: ModuleType, labels: list[object], options: dict[str, object], message: str
) -> None:
    path = shard(tmp_path / "x.parquet", labels, **options)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=message):
        open_dataset(str(path))


def test_parquet_without_images(tmp_path: Path, pa: ModuleType) -> None:
    from pyarrow import parquet as pq

    pq.write_table(pa.table({"label": [0, 1], "text": ["a", "b"]}), tmp_path / "x.parquet")
    with pytest.raises(OptionError, match="no column of images among label, text"):
        open_dataset(str(tmp_path / "x.parquet"))


def test_classes_of_the_test_shard_must_be_known(tmp_path: Path, pa: ModuleType) -> None:
    shard(tmp_path / "train-0.parquet", ["a", "b"])
    shard(tmp_path / "test-0.parquet", ["a", "c"])
    with pytest.raises(OptionError, match="test has classes that train lacks: c"):
        open_dataset(str(tmp_path))
    (tmp_path / "test-0.parquet").rename(tmp_path / "more.parquet")
    with pytest.raises(OptionError, match=r"which split more.parquet belongs to"):
        open_dataset(str(tmp_path))
    (tmp_path / "train-0.parquet").rename(tmp_path / "val-0.parquet")
    (tmp_path / "more.parquet").unlink()
    with pytest.raises(OptionError, match=r"none called train-\*.parquet"):
        open_dataset(str(tmp_path))


@pytest.mark.parametrize("damage", ["empty", "cut", "text"])
def test_damaged_parquet_is_named(tmp_path: Path, pa: ModuleType, damage: str) -> None:
    path = shard(tmp_path / "x.parquet", [0, 1])
    data = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": data[:-20], "text": b"a,b\n1,2\n"}[damage])
    with pytest.raises(OptionError, match=r"cannot read .*x\.parquet: ") as caught:
        open_dataset(str(path))
    assert "\n" not in str(caught.value)


def test_a_damaged_row_group_breaks_its_images_only(tmp_path: Path, pa: ModuleType) -> None:
    from pyarrow import parquet as pq

    path = shard(tmp_path / "x.parquet", [0, 1, 0, 1])
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    assert column.path_in_schema == "image.bytes"
    data = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + 40] = b"\xff" * 40
    path.write_bytes(data)
    split = open_dataset(str(path)).splits["train"]
    assert decode(split.read(1))[0, 0, 0] == 1
    with pytest.raises(OSError, match=r"\w") as caught:
        split.read(2)
    assert "\n" not in str(caught.value)


def test_a_row_without_bytes_is_a_broken_image(tmp_path: Path, pa: ModuleType) -> None:
    from pyarrow import parquet as pq

    path = shard(tmp_path / "x.parquet", [0, 1, 1])
    table = pq.read_table(path)
    rows = table.column("image").to_pylist()
    rows[1]["bytes"] = None
    pq.write_table(table.set_column(0, "image", pa.array(rows)), path)
    with pytest.raises(OSError, match="holds no image bytes"):
        open_dataset(str(path)).splits["train"].read(1)


def test_images_too_many_for_memory_are_read_again(
    tmp_path: Path, pa: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nas.data.datasets import parquet

    path = shard(tmp_path / "x.parquet", [0, 1] * 10)
    monkeypatch.setattr(parquet, "_KEPT", 0)
    split = open_dataset(str(path)).splits["train"]
    shades = [int(decode(split.read(i))[0, 0, 0]) for i in [*range(20), 0, 19, 7]]
    assert shades == [*range(20), 0, 19, 7]


def test_real_parquet() -> None:
    pytest.importorskip("pyarrow")
    found = open_dataset(str(shared("clothing_small")))
    assert {n: len(s) for n, s in found.splits.items()} == {"train": 3068, "val": 341, "test": 372}
    assert len(found.classes) == 10 and found.classes[0] == "dress"
    assert np.bincount(found.splits["train"].labels).max() == 795
    assert min(decode(found.splits["test"].read(371)).shape[:2]) == 160


# --- torchvision


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that data sets by name lie in."""
    try:
        import torchvision  # noqa: F401, TID251
    except Exception as error:
        pytest.skip(f"torchvision: {error}")
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache" / "torchvision"


@pytest.mark.parametrize("name", ["cifar10", "CIFAR-10", "Flowers102", "oxford-iiit-pet"])
def test_nothing_is_downloaded_unasked(sets: Path, name: str) -> None:
    with pytest.raises(OptionError, match=r"is not in .*: add --download to fetch it"):
        open_dataset(name)
    assert not sets.exists()


def test_a_failed_download_is_one_line_and_leaves_nothing(
    sets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import urllib.error
    import urllib.request

    def fail(*args: object, **options: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", fail)
    for name in ("cifar10", "flowers102", "mnist"):
        with pytest.raises(NasError, match=f"cannot download {name}: .*copy it to") as caught:
            open_dataset(name, download=True)
        assert "\n" not in str(caught.value)
    assert list(sets.iterdir()) == []


def test_cifar10_as_it_lies_and_damaged(sets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR10  # noqa: TID251

    folder = sets / "cifar10" / CIFAR10.base_folder
    folder.mkdir(parents=True)
    rng, known = np.random.default_rng(0), {}
    for file, _ in [*CIFAR10.train_list, *CIFAR10.test_list]:
        rows = rng.integers(0, 256, (4, 3072), dtype=np.uint8)
        known[file] = rows
        (folder / file).write_bytes(pickle.dumps({"data": rows, "labels": [0, 1, 2, 3]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    with pytest.raises(OptionError, match=r"cifar10 in .* cannot be read .*delete that folder"):
        open_dataset("cifar10")  # the checksums are those of other files
    for name in ("train_list", "test_list"):
        monkeypatch.setattr(CIFAR10, name, [[file, None] for file, _ in getattr(CIFAR10, name)])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": None})
    found = open_dataset("CIFAR-10")
    assert {name: len(split) for name, split in found.splits.items()} == {"train": 20, "test": 4}
    assert found.classes == tuple("abcdefghij") and found.splits["test"].labels.tolist() == [
        *range(4)
    ]
    first = decode(found.splits["test"].read(1))
    assert (first == known["test_batch"][1].reshape(3, 32, 32).transpose(1, 2, 0)).all()


def test_arrays_of_gray_images(sets: Path) -> None:
    raw = sets / "fashion_mnist" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for word, count in (("train", 6), ("t10k", 2)):
        pixels = (np.arange(count * 784) % 256).astype(np.uint8)
        head = struct.pack(">4i", 0x803, count, 28, 28)
        (raw / f"{word}-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
        labels = bytes(i % 3 for i in range(count))
        (raw / f"{word}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, count) + labels)
    found = open_dataset("fashion_mnist")
    assert found.splits["train"].labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert found.classes[1] == "Trouser"
    pixels = decode(found.splits["train"].read(1))
    assert pixels.shape == (28, 28, 3) and pixels[0, 0, 0] == 784 % 256


def test_files_of_a_set(sets: Path) -> None:
    tree(sets / "eurosat" / "eurosat" / "2750", "Forest/1.jpg", "River/1.jpg", "River/2.jpg")
    found = open_dataset("eurosat")
    assert contents(found) == {"train": {"Forest": [0], "River": [1, 2]}}
    assert found.splits["train"].names[0] == "eurosat/2750/Forest/1.jpg"


def test_a_set_with_lists_of_files(sets: Path) -> None:
    root = tree(
        sets / "oxford_iiit_pet" / "oxford-iiit-pet", "images/Pug_1.jpg", "images/Abe_2.jpg"
    )
    lists = root / "annotations"
    lists.mkdir()
    (lists / "trainval.txt").write_text("Abe_2 1 1 1\nPug_1 2 2 1\n")
    (lists / "test.txt").write_text("Pug_1 2 2 1\nAbe_2 1 1 1\n")
    found = open_dataset("oxford_iiit_pet")
    assert contents(found) == {"train": {"Abe": [1], "Pug": [0]}, "test": {"Pug": [0], "Abe": [1]}}


def test_every_name_is_torchvisions(sets: Path) -> None:
    from torchvision import datasets  # noqa: TID251

    from nas.data.datasets.torchvision import NAMES, SETS

    assert len(NAMES) >= 15
    for kind, options in SETS.values():
        assert hasattr(datasets, kind) and "train" in options
