"""Parquet as people have it: which files, splits and columns, and what labels are called."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nas.core.errors import OptionError
from nas.data.dataset import Dataset, open_dataset
from nas.data.images import decode

pa: Any = pytest.importorskip("pyarrow")
pq: Any = pytest.importorskip("pyarrow.parquet")
PETS = ["cat", "dog", "bird"]
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def picture(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (6, 4), (shade, shade, shade)).save(file, "PNG")
    return file.getvalue()


def pictures(count: int, first: int = 0) -> Any:
    """Return the image column of the hub, with these shades."""
    return pa.array(
        [{"bytes": picture(first + i), "path": f"{i}.png"} for i in range(count)], STRUCT
    )


def write(path: Path, columns: dict[str, Any], features: dict[str, Any] | None = None) -> None:
    table = pa.table(columns)
    if features is not None:
        text = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({b"huggingface": text.encode()})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def shard(path: Path, labels: Any = (0, 1, 2), first: int = 0, names: Any = None) -> None:
    known = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    columns = {"image": pictures(len(labels), first), "label": labels}
    write(path, columns, known if names else None)


def shades(dataset: Dataset, split: str = "train") -> dict[str, list[int]]:
    """Return the shades of each class of a split."""
    part, found = dataset.splits[split], dict[str, list[int]]()
    for i, label in enumerate(part.labels):
        shade = int(decode(part.read(i))[0, 0, 0])
        found.setdefault(dataset.classes[label], []).append(shade)
    return found


@pytest.mark.parametrize("named", [0, 1])
def test_a_shard_that_lost_its_names_takes_those_of_another(tmp_path: Path, named: int) -> None:
    for i in (0, 1):
        shard(tmp_path / f"data/train-{i}.parquet", first=3 * i, names=PETS if i == named else None)
    found = open_dataset(str(tmp_path))
    assert found.classes == tuple(PETS)
    assert shades(found) == {"cat": [0, 3], "dog": [1, 4], "bird": [2, 5]}


README = """---
dataset_info:
  features:
  - name: image
    dtype: image
  - name: label
    dtype:
      class_label:
        names:
          '0': cat
          '1': dog
          '2': bird
---
# Pets
"""
INFO = {"features": {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": PETS}}}


@pytest.mark.parametrize(
    "name, text",
    [
        ("README.md", README),
        ("README.md", README.replace("  features", "- config_name: default\n  features")),
        ("dataset_info.json", json.dumps(INFO)),
        ("dataset_infos.json", json.dumps({"default": INFO})),
    ],
)
def test_names_may_stand_beside_the_files(tmp_path: Path, name: str, text: str) -> None:
    shard(tmp_path / "data/train-00000-of-00001-0123456789abcdef.parquet")
    (tmp_path / name).write_text(text)
    assert open_dataset(str(tmp_path)).classes == tuple(PETS)


@pytest.mark.parametrize(
    "text", ["", "---\n", "---\na: [\n---\n", "---\n- 1\n---\n", "\0", README[:60]]
)
def test_a_readme_that_tells_nothing_does_no_harm(tmp_path: Path, text: str) -> None:
    shard(tmp_path / "train-0.parquet")
    (tmp_path / "README.md").write_text(text)
    assert open_dataset(str(tmp_path)).classes == ("0", "1", "2")


def test_words_and_numbers_of_one_data_set_are_joined_by_names_or_refused(tmp_path: Path) -> None:
    shard(tmp_path / "train-0.parquet", ["dog", "cat", "bird"])
    shard(tmp_path / "train-1.parquet", first=3)
    with pytest.raises(OptionError, match=r"whole numbers in .*train-1.parquet and words in "):
        open_dataset(str(tmp_path))
    shard(tmp_path / "train-2.parquet", ["2", "1", "0"], 6, PETS)
    found = {"cat": [1, 3, 8], "dog": [0, 4, 7], "bird": [2, 5, 6]}
    assert shades(open_dataset(str(tmp_path))) == found
    assert open_dataset(str(tmp_path)).classes == tuple(PETS)


def test_shards_that_name_classes_differently_name_none_for_others(tmp_path: Path) -> None:
    shard(tmp_path / "train-0.parquet", names=PETS)
    shard(tmp_path / "train-1.parquet", names=PETS[::-1])
    assert shades(open_dataset(str(tmp_path)))["cat"] == [0, 2]
    shard(tmp_path / "train-2.parquet")
    with pytest.raises(OptionError, match="which number is which class is not told"):
        open_dataset(str(tmp_path))


def test_numbers_beside_missing_ones_are_whole_though_stored_as_floats(tmp_path: Path) -> None:
    shard(tmp_path / "train-0.parquet", [0.0, 1.0, None, 1.0], names=PETS)
    assert shades(open_dataset(str(tmp_path))) == {"cat": [0], "dog": [1, 3]}


# --- columns


def columns(**more: Any) -> dict[str, Any]:
    digests = pa.array([bytes([k]) * 16 for k in range(3)])
    return {"md5": digests, "id": [7, 8, 9], **more, "label": ["a", "b", "a"]}


IMAGES = [picture(i) for i in range(3)]


@pytest.mark.parametrize("name", ["image", "img", "Image", "jpg", "scan"])
def test_a_binary_column_before_the_image_is_no_image(tmp_path: Path, name: str) -> None:
    """By its name; that of no usual name by what is inside."""
    write(tmp_path / "train-0.parquet", columns(**{name: pa.array(IMAGES)}))
    found = open_dataset(str(tmp_path))
    assert shades(found) == {"a": [0, 2], "b": [1]}
    assert f"images from column {name}, labels from column label" in found.notes


def test_of_several_image_columns_the_usual_or_the_named_one_is_read(tmp_path: Path) -> None:
    left, right = pa.array(IMAGES), pa.array([picture(9 + i) for i in range(3)])
    write(tmp_path / "a.parquet", columns(left=left, right=right))
    with pytest.raises(OptionError, match=r"md5, left, right may all hold .*--image-column"):
        open_dataset(str(tmp_path / "a.parquet"))
    chosen = open_dataset(str(tmp_path / "a.parquet"), image_column="right")
    assert shades(chosen) == {"a": [9, 11], "b": [10]}
    features = {name: {"_type": "Image"} for name in ("mask", "image")}
    write(tmp_path / "b.parquet", columns(mask=left, image=right), features)
    found = open_dataset(str(tmp_path / "b.parquet"))
    assert shades(found) == {"a": [9, 11], "b": [10]}
    assert "also there: mask (--image-column)" in found.notes[0]


def test_the_label_column_can_be_named(tmp_path: Path) -> None:
    more = {"image": pa.array(IMAGES), "coarse": ["x", "y", "y"]}
    write(tmp_path / "a.parquet", columns(**more))
    assert open_dataset(str(tmp_path / "a.parquet")).classes == ("a", "b")
    found = open_dataset(str(tmp_path / "a.parquet"), label_column="coarse")
    assert found.classes == ("x", "y") and "also there: label (--label-column)" in found.notes[0]
    kinds = {name: {"_type": "ClassLabel", "names": ["n", "y"]} for name in ("hat", "beard")}
    table = {"image": pa.array(IMAGES), "hat": [0, 1, 1], "beard": [0, 0, 1]}
    write(tmp_path / "b.parquet", table, kinds)
    with pytest.raises(OptionError, match="hat, beard are all labels: name one with --label-col"):
        open_dataset(str(tmp_path / "b.parquet"))
    assert shades(open_dataset(str(tmp_path / "b.parquet"), label_column="beard"))["y"] == [2]


@pytest.mark.parametrize(
    "asked, message",
    [
        ({"image_column": "nope"}, "--image-column nope: there is no such column in .*a.parquet"),
        ({"image_column": "id"}, "--image-column id: it holds int64"),
        ({"label_column": "md6"}, "--label-column md6: there is no such column.* md5, id, image"),
    ],
)
def test_a_column_that_is_not_there_is_told_in_one_line(
    tmp_path: Path, asked: dict[str, str], message: str
) -> None:
    write(tmp_path / "a.parquet", columns(image=pa.array(IMAGES)))
    with pytest.raises(OptionError, match=message):
        open_dataset(str(tmp_path / "a.parquet"), **asked)  # type: ignore[arg-type]


def test_columns_are_of_parquet() -> None:
    with pytest.raises(OptionError, match="--label-column names a column of a parquet file"):
        open_dataset("digits", label_column="x")


@pytest.mark.parametrize("kind", ["text", "struct", "text from the root", "absolute"])
def test_images_may_lie_in_files_beside_the_table(tmp_path: Path, kind: str) -> None:
    home = tmp_path if kind == "text from the root" else tmp_path / "data"
    paths = [f"pictures/{i}.png" for i in range(3)]
    for path, image in zip(paths, IMAGES, strict=True):
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_bytes(image)
    named = [str(home / path) for path in paths] if kind == "absolute" else paths
    column = pa.array(named)
    if kind == "struct":
        column = pa.array([{"bytes": None, "path": path} for path in named], STRUCT)
    write(tmp_path / "data/train-0.parquet", {"image": column, "label": ["a", "b", "a"]})
    found = open_dataset(str(tmp_path))
    assert shades(found) == {"a": [0, 2], "b": [1]}
    (home / paths[1]).write_bytes(picture(77))
    assert open_dataset(str(tmp_path)).fingerprint != found.fingerprint or kind == "struct"
    (home / paths[1]).unlink()
    with pytest.raises(OSError, match=r"pictures/1.png cannot be read: No such file"):
        found.splits["train"].read(1)


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3), (3, 4, 6), (4, 6, 1)])
def test_images_may_be_nested_lists_of_numbers(tmp_path: Path, shape: tuple[int, ...]) -> None:
    lists = [np.full(shape, 10 * i).tolist() for i in range(3)]
    write(tmp_path / "train.parquet", {"image": lists, "label": ["a", "b", "a"]})
    found = open_dataset(str(tmp_path))
    assert shades(found) == {"a": [0, 20], "b": [10]}
    assert decode(found.splits["train"].read(0)).shape == (4, 6, 3)


@pytest.mark.parametrize("value", [[[0, 300]], [[0.5, 1.0]], [[1], [1, 2]], []])
def test_other_lists_are_broken_images(tmp_path: Path, value: Any) -> None:
    write(tmp_path / "train.parquet", {"image": pa.array([value, value]), "label": ["a", "b"]})
    try:
        split = open_dataset(str(tmp_path)).splits["train"]
    except OptionError as error:  # the type of an empty list
        assert "no column of images" in str(error)
        return
    with pytest.raises(OSError, match="nested lists of whole numbers"):
        split.read(0)


# --- files, splits, configurations


@pytest.mark.parametrize(
    "part", ["train_small-0", "train-clean-100", "small_train", "train/x_train"]
)
def test_a_part_of_a_split_beside_it_is_left_out(tmp_path: Path, part: str) -> None:
    shard(tmp_path / "train-00000-of-00001.parquet")
    shard(tmp_path / f"{part}.parquet", first=9)
    found = open_dataset(str(tmp_path))
    if part == "train/x_train":  # its folder says what it is
        assert len(found.splits["train"]) == 6
        return
    assert len(found.splits["train"]) == 3
    assert f"left out {part}.parquet: parts or variants of a split" in found.notes


@pytest.mark.parametrize("odd", ["unsupervised-0", "test_small-0", "0000"])
def test_a_file_of_no_plain_split_is_asked_about(tmp_path: Path, odd: str) -> None:
    shard(tmp_path / "train-0.parquet")
    shard(tmp_path / f"{odd}.parquet")
    with pytest.raises(OptionError, match=rf"which split {odd}.parquet belongs to: name it train-"):
        open_dataset(str(tmp_path))


def test_one_word_around_the_splits_of_all_files_is_the_name_of_the_set(tmp_path: Path) -> None:
    shard(tmp_path / "pets_train.parquet")
    shard(tmp_path / "pets_test.parquet", first=5)
    found = open_dataset(str(tmp_path))
    assert {name: len(split) for name, split in found.splits.items()} == {"train": 3, "test": 3}
    shard(tmp_path / "birds_train.parquet", first=5)
    with pytest.raises(OptionError, match="it is not plain which split"):
        open_dataset(str(tmp_path))


@pytest.mark.parametrize("below", ["train-00000-of-00001", "train/0000", "data/train-0"])
def test_a_folder_of_the_one_configuration_is_read(tmp_path: Path, below: str) -> None:
    shard(tmp_path / f"plain_text/{below}.parquet", names=PETS)
    (tmp_path / "README.md").write_text("x")
    (tmp_path / ".git").mkdir()
    found = open_dataset(str(tmp_path))
    assert found.classes == tuple(PETS) and len(found.splits["train"]) == 3
    assert "read from plain_text, the only configuration" in found.notes


def test_of_several_configurations_one_must_be_named(tmp_path: Path) -> None:
    shard(tmp_path / "full/train-0.parquet")
    shard(tmp_path / "small/train-0.parquet", first=5)
    with pytest.raises(OptionError, match=r"2 configurations of a data set, full, small: give one"):
        open_dataset(str(tmp_path))
    assert shades(open_dataset(str(tmp_path / "small")))["0"] == [5]
    shard(tmp_path / "data/train-0.parquet", first=9)
    found = open_dataset(str(tmp_path))
    assert shades(found)["0"] == [9] and "left out full, small: other config" in found.notes[0]


def test_class_folders_with_a_table_among_the_images_stay_class_folders(tmp_path: Path) -> None:
    for name in ("a", "b"):
        shard(tmp_path / name / "table.parquet")
        (tmp_path / name / "1.png").write_bytes(picture(1))
    assert open_dataset(str(tmp_path)).classes == ("a", "b")
