"""Layouts of folders as people have them: which folders are splits, which classes, what is said."""

import io
from pathlib import Path

import pytest

from nas.core.errors import OptionError
from nas.data.dataset import Dataset, open_dataset
from nas.data.split_names import is_plain, split_name, without_split
from nas.data.walk import images_below
from nas.training.predict import image_files

Image = pytest.importorskip("PIL.Image")


def tree(root: Path, *paths: str) -> Path:
    """Write images of different shades; a path like a/b/3 is three of them in a/b."""
    shade = 0
    for path in paths:
        folder, _, last = path.rpartition("/")
        names = [f"{i}.jpg" for i in range(int(last))] if last.isdigit() else [last]
        for name in names:
            shade += 1
            file = io.BytesIO()
            Image.new("RGB", (6, 4), (shade, shade, shade)).save(file, "PNG")
            (root / folder).mkdir(parents=True, exist_ok=True)
            text = Path(name).suffix in (".txt", ".csv", ".yaml", ".json")
            (root / folder / name).write_bytes(b"text" if text else file.getvalue())
    return root


def shape(found: Dataset) -> dict[str, dict[str, int]]:
    """Return the number of images of each class of each split."""
    return {
        name: {label: int((split.labels == i).sum()) for i, label in enumerate(found.classes)}
        for name, split in found.splits.items()
    }


def read(root: Path, *paths: str) -> Dataset:
    return open_dataset(str(tree(root, *paths)))


BOTH = {"train": {"a": 2, "b": 2}, "test": {"a": 1, "b": 1}}


@pytest.mark.parametrize(
    "train, test",
    [
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("training_set", "test_set"),
        ("training_set/training_set", "test_set/test_set"),
        ("TRAIN", "TEST"),
        ("Training", "Testing"),
        ("train_images", "test_images"),
        ("Train Images", "Test Images"),
        ("train-set", "hold-out"),
        ("train", "holdout"),
        ("trainset", "testset"),
        ("TrainingData", "TestData"),
        ("train2017", "test2017"),
        ("asl_alphabet_train/asl_alphabet_train", "asl_alphabet_test/asl_alphabet_test"),
        ("images/train", "images/test"),
        ("dataset/train", "dataset/test"),
        ("my_flowers/data/train", "my_flowers/data/test"),
        ("train/images", "test/images"),
        ("raw-img/Train", "raw-img/Test"),
    ],
)
def test_splits_under_names_people_use(tmp_path: Path, train: str, test: str) -> None:
    found = read(tmp_path, f"{train}/a/2", f"{train}/b/2", f"{test}/a/1", f"{test}/b/1")
    assert shape(found) == BOTH


def test_what_was_read_is_said(tmp_path: Path) -> None:
    parts = ("x/seg_train/seg_train/a/2", "x/seg_train/seg_train/b/2", "x/seg_test/a/1")
    found = read(tmp_path, *parts, "x/seg_test/b/1", "x/seg_pred/seg_pred/6")
    assert shape(found) == BOTH
    assert (
        found.notes
        == (
            "read from x",
            "splits by the names of their folders: train is seg_train, test is seg_test",
            "left out x/seg_pred: its 6 images have no labels (they lie in no class folders); "
            "nas predict takes them",
            "one test image only: a, b",
        )[: len(found.notes)]
    )


def test_val_has_many_names(tmp_path: Path) -> None:
    for name in ("dev", "validation_set", "Valid", "val2017", "Validation Images"):
        paths = (f"{s}/{label}/1" for s in ("train", name, "test") for label in "ab")
        assert set(read(tmp_path / name, *paths).splits) == {"train", "val", "test"}, name


def test_of_two_names_for_one_split_the_exact_one_is_taken(tmp_path: Path) -> None:
    names = ("TRAIN", "TEST", "TEST_SIMPLE")  # as in Kaggle's blood cells
    found = read(tmp_path, *(f"{name}/{label}/1" for name in names for label in "ab"))
    assert set(found.splits) == {"train", "test"}
    assert "left out folders beside the splits: TEST_SIMPLE" in found.notes


@pytest.mark.parametrize(
    "paths, classes",
    [
        (("train_station/2", "bus_station/2"), ("bus_station", "train_station")),
        (("bullet_train/2", "test_tube/2"), ("bullet_train", "test_tube")),
        (("train/2", "car/2"), ("car", "train")),
        (("bullet_train/x/2", "bullet_train/y/2", "car/2"), ("bullet_train", "car")),
        (("cats/in/2", "cats/out/2", "dogs/2"), ("cats", "dogs")),
        (("images/2", "sketches/2"), ("images", "sketches")),
        (("data/data/cat/2", "data/data/dog/2"), ("cat", "dog")),
        (("flowers/rose/2", "flowers/lily/2", "notes.txt"), ("lily", "rose")),
        (("images/a/2", "images/b/2", "segmentations/a/2", "segmentations/b/2"), ("a", "b")),
        (("images/Images/a/2", "images/Images/b/2", "lists/x.txt"), ("a", "b")),
        (("dataset/a/2", "dataset/b/2", "figures/3"), ("a", "b")),
        (
            ("CUB/images/a/2", "CUB/images/b/2", "segmentations/a/2", "segmentations/b/2"),
            ("a", "b"),
        ),
        (("x_train/x_train/a/2", "x_train/x_train/b/2", "x_test/x_test/3"), ("a", "b")),
        (("Train/2", "TRAIN_x/2"), ("TRAIN_x", "Train")),
    ],
)
def test_one_tree(tmp_path: Path, paths: tuple[str, ...], classes: tuple[str, ...]) -> None:
    found = read(tmp_path, *paths)
    assert found.classes == classes and set(found.splits) == {"train"}


def test_split_and_class_in_one_name(tmp_path: Path) -> None:
    names = ("train_Red Fox", "train_Wolf", "test_Red Fox", "test_Wolf")
    found = read(tmp_path, *(f"{name}/2" for name in names))
    assert shape(found) == {s: {"Red Fox": 2, "Wolf": 2} for s in ("train", "test")}


def test_splits_inside_of_each_class(tmp_path: Path) -> None:
    paths = ("cat/train/3", "cat/val/1", "dog/train/2", "dog/val/1")
    found = read(tmp_path, *paths)
    assert shape(found) == {"train": {"cat": 3, "dog": 2}, "val": {"cat": 1, "dog": 1}}
    assert "splits are read inside of each class: cat, dog" in found.notes


@pytest.mark.parametrize(
    "names", [("fold_1", "fold_2"), ("Original Data", "Augmented Data"), ("color", "grayscale")]
)
def test_parts_of_a_data_set_are_no_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(OptionError, match=r"each hold folders of the same names \(a, b\).*--data"):
        read(tmp_path, *(f"{name}/{label}/2" for name in names for label in "ab"))


def test_many_folders_of_the_same_names_are_no_classes(tmp_path: Path) -> None:
    names = [f"{d}/{label}/1" for d in ("amazon", "dslr", "webcam") for label in "abcde"]
    with pytest.raises(OptionError, match="parts or kinds of one data set"):
        read(tmp_path / "office", *names)
    few = [f"{d}/{state}/1" for d in ("apple", "pear") for state in ("fresh", "rotten")]
    found = read(tmp_path / "fruit", *few)
    assert found.classes == ("apple", "pear")
    assert found.warnings and found.warnings[0] in found.notes
    assert "if those are the classes, give one of the folders above them" in found.warnings[0]


@pytest.mark.parametrize("inner", ["PlantVillage", "x/copy", "a/again", "deep/er/still"])
def test_a_copy_of_the_data_in_a_class_is_left_out(tmp_path: Path, inner: str) -> None:
    copy = (f"{inner}/{label}/2" for label in "abc")
    found = read(tmp_path, "a/2", "b/2", "c/2", *copy)
    assert shape(found) == {"train": {"a": 2, "b": 2, "c": 2}}
    assert f"left out {inner}/a, {inner}/b, {inner}/c: " in found.warnings[0]


@pytest.mark.parametrize("names", [("class 0", "class 1"), ("c0", "c1"), ("Class_A", "Class_B")])
def test_folders_that_call_themselves_classes_are_classes(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    assert read(tmp_path, *(f"{name}/3" for name in names)).classes == names


@pytest.mark.parametrize(
    "names",
    [
        ("DATASET/train", "dataset/train"),
        ("images_part_1", "images_part_2"),
        ("dataset-master/x", "dataset2-master/y"),
        ("FOLDS/fold1/Train/a", "FOLDS/fold2/Train/a"),
    ],
)
def test_names_of_data_and_counted_parts_are_no_classes(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    with pytest.raises(OptionError, match=r"are called like data or parts of it.*give one"):
        read(tmp_path, *(f"{name}/2" for name in names))


def test_a_copy_inside_of_a_split_is_left_out(tmp_path: Path) -> None:
    paths = [f"{s}{i}/{c}/2" for s in ("train", "test") for i in ("", "/more") for c in "ab"]
    assert shape(read(tmp_path, *paths)) == {s: {"a": 2, "b": 2} for s in ("train", "test")}


def test_runs_are_no_data(tmp_path: Path) -> None:
    tree(tmp_path, "rose/2", "tulip/2")
    first = open_dataset(str(tmp_path))
    tree(tmp_path, "runs/train/train/args.yaml", "runs/train/train/results.png")
    tree(tmp_path, "rose/exp/args.yaml", "rose/exp/val_batch0.jpg", "train/train/args.yaml")
    tree(tmp_path, "wandb/run-1/media/1.png", "@eaDir/rose/SYNO_THUMB_XL.jpg", "lost+found/1.png")
    tree(tmp_path, "rose/._0.jpg", "tulip/.ipynb_checkpoints/0.jpg", "$RECYCLE.BIN/x/1.png")
    second = open_dataset(str(tmp_path))
    assert second.classes == ("rose", "tulip") and second.fingerprint == first.fingerprint
    assert "left out runs, which are no data: rose/exp, runs/train/train, train/train" in (
        second.notes
    )
    assert (
        "left out folders of the system or of other programs: "
        "$RECYCLE.BIN, @eaDir, lost+found, wandb" in second.notes
    )
    assert "left out 2 hidden files or folders" in second.notes


def test_val_and_test_without_labels_are_left_out(tmp_path: Path) -> None:
    paths = ("train/n1/images/4", "train/n2/images/4", "val/images/3", "test/images/2")
    found = read(tmp_path, *paths, "test/README.txt")
    assert shape(found) == {"train": {"n1": 4, "n2": 4}}
    assert any(note.startswith("left out val: its 3 images have no labels") for note in found.notes)
    assert any(note.startswith("left out test: its 2 images") for note in found.notes)


def test_names_of_classes_may_differ_in_case_and_spaces(tmp_path: Path) -> None:
    found = read(tmp_path, "train/Red Fox/2", "train/Wolf/2", "test/red_fox/1", "test/wolf/1")
    assert shape(found)["test"] == {"Red Fox": 1, "Wolf": 1}
    with pytest.raises(OptionError, match="has classes that train lacks: W, red_fox"):
        read(tmp_path / "2", "train/Red Fox/2", "train/RED FOX/2", "test/red_fox/1", "test/W/1")


@pytest.mark.parametrize(
    "paths, message",
    [
        (("train/a/1", "train/b/1", "val/c/1", "val/d/1"), r"lacks: c, d \(it has none of train's"),
        (("x_train/a/1", "x_train/b/1", "y_train/a/1", "y_train/b/1"), "each hold folders of the"),
        (("train/a/1", "train/b/1", "training/a/1", "training/b/1"), "has both train and training"),
        (("train/images/4", "train/labels/0.txt"), "train holds 4 images but no class folders"),
        (("images/9", "labels.csv"), r"if labels.csv has their labels, sort them by it"),
        (("a/cat.0.jpg", "a/dog.1.jpg", "a/cat.2.jpg", "a/dog.3.jpg"), "one class"),
        (
            ("train/cat.0.jpg", "train/dog.1.jpg", "train/cat.2.jpg", "train/dog.3.jpg"),
            "the files' names begin with cat, dog: sort them into folders called so",
        ),
        (("train/4", "submission.csv"), r"or \S+/train/cat/1.jpg$"),
        (("4", "train.csv"), r"holds 4 images but no class folders: .*if train.csv has"),
    ],
)
def test_what_is_ambiguous_is_refused(tmp_path: Path, paths: tuple[str, ...], message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        read(tmp_path, *paths)
    assert "\n" not in str(caught.value)


# --- one walk


def test_predict_finds_what_training_finds(tmp_path: Path) -> None:
    real = tree(tmp_path / "real", "a/3", "b/x/3", "b/UPPER.JPEG", "a/.hidden.jpg", "b/notes.txt")
    links = tmp_path / "links"
    links.mkdir()
    for name in "ab":
        (links / name).symlink_to(real / name)
    (links / "a" / "loop").symlink_to(links)
    tree(links, "runs/train/train/args.yaml", "runs/train/train/results.png", "__MACOSX/a/1")
    trained = open_dataset(str(links)).splits["train"].names
    found = [str(path.relative_to(links)) for path in image_files([links])]
    assert found == sorted(trained) and len(found) == 7
    assert image_files([links / "runs" / "train" / "train"]) != []  # asked for by name
    assert len(images_below(real)) == 7


# --- names


@pytest.mark.parametrize(
    "name, split, rest",
    [
        ("train", "train", ()),
        ("Training Data", "train", ()),
        ("seg_test", "test", ("seg",)),
        ("hold_out", "test", ()),
        ("val2017", "val", ()),
        ("Validation-Set", "val", ()),
        ("testX", "test", ("x",)),
        ("evaluation", "eval", ()),
    ],
)
def test_split_names(name: str, split: str, rest: tuple[str, ...]) -> None:
    found = split_name(name)
    assert found is not None and (found.split, found.rest) == (split, rest)


@pytest.mark.parametrize(
    "name", ["restraint", "latest", "trainer", "devil", "value", "", "1", "日"]
)
def test_no_split_names(name: str) -> None:
    assert split_name(name) is None


def test_words_of_names() -> None:
    assert is_plain("Images_2") and is_plain("dataset") and not is_plain("cats")
    assert not is_plain("1") and not is_plain("")
    assert without_split("Red_Fox_train") == "Red_Fox" and without_split("test-wolf") == "wolf"
