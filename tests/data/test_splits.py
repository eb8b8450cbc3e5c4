"""Splits: stratified, seeded, disjoint; the test split is never chosen from."""

import numpy as np
import pytest

from nas.core.errors import OptionError
from nas.data.dataset import Dataset, Split
from nas.data.splits import fraction, make_splits


def split(counts: list[int], word: str = "train") -> Split:
    labels = np.repeat(np.arange(len(counts)), counts)
    names = [f"{word}/{i}" for i in range(len(labels))]
    return Split(labels, names, lambda i: names[i].encode(), word)


def dataset(**counts: list[int]) -> Dataset:
    splits = {name: split(found, name) for name, found in counts.items()}
    return Dataset("d", tuple("abc"), splits, "f", ("as read",))


def per_class(found: Split) -> list[int]:
    return np.bincount(found.labels, minlength=3).tolist()


def test_one_tree_gives_20_percent_test_then_20_percent_val() -> None:
    found = make_splits(dataset(train=[100, 50, 10]))
    assert list(found.splits) == ["train", "val", "test"]
    assert [per_class(s) for s in found.splits.values()] == [[64, 32, 6], [16, 8, 2], [20, 10, 2]]
    everything = [name for s in found.splits.values() for name in s.names]
    assert sorted(everything) == sorted(split([100, 50, 10]).names)
    assert found.notes[0] == "as read" and "test: 32 of 160 training images" in found.notes[1]
    assert "val: 26 of 128" in found.notes[2] and "seed 0" in found.notes[2]


def test_labels_names_and_bytes_stay_together() -> None:
    source = split([40, 20, 10])
    label_of = dict(zip(source.names, source.labels.tolist(), strict=True))
    for found in make_splits(dataset(train=[40, 20, 10])).splits.values():
        assert [label_of[name] for name in found.names] == found.labels.tolist()
        assert [found.read(i).decode() for i in range(len(found))] == found.names


@pytest.mark.parametrize("images, share", [(2400, 0.2), (2500, 0.1)])
def test_a_large_split_gives_a_tenth_to_val(images: int, share: float) -> None:
    found = make_splits(dataset(train=[images, images], test=[5, 5]))
    assert per_class(found.splits["val"]) == [images * share, images * share, 0]
    assert found.splits["test"].names == split([5, 5], "test").names
    assert "test: the source's own" in found.notes


def test_a_source_with_all_three_is_left_alone() -> None:
    source = dataset(train=[9, 9, 9], val=[3, 3, 3], test=[2, 2, 2])
    found = make_splits(source)
    assert found.splits == source.splits
    assert "as the source has them (27, 9, 6)" in found.notes[-1]


def test_a_val_split_alone_is_kept_for_the_final_number() -> None:
    source = dataset(train=[50, 50, 50], val=[5, 5, 5])
    found = make_splits(source)
    assert found.splits["test"] is source.splits["val"]
    assert per_class(found.splits["val"]) == [10, 10, 10]
    assert any("kept for the final number" in note for note in found.notes)


def test_small_classes_keep_one_for_training() -> None:
    found = make_splits(dataset(train=[1, 2, 3]))
    assert [per_class(s) for s in found.splits.values()] == [[1, 1, 1], [0, 0, 1], [0, 1, 1]]
    assert any("none of a, b" in note for note in found.notes)


@pytest.mark.parametrize("counts", [[1, 1, 1], [2, 2, 0]])
def test_too_few_images_are_refused(counts: list[int]) -> None:
    with pytest.raises(OptionError, match=r"none can be held out for (test|val)"):
        make_splits(dataset(train=counts))


def test_an_empty_split_of_the_source_is_refused() -> None:
    with pytest.raises(OptionError, match="split test holds no images"):
        make_splits(dataset(train=[9, 9], test=[]))


def test_the_split_is_a_function_of_seed_and_names() -> None:
    source = dataset(train=[100, 50, 10])
    first, again, other = make_splits(source), make_splits(source), make_splits(source, seed=1)
    assert first.splits["val"].names == again.splits["val"].names
    assert first.splits["val"].names != other.splits["val"].names
    assert first.splits["val"].fingerprint == again.splits["val"].fingerprint
    fingerprints = {s.fingerprint for d in (first, other) for s in d.splits.values()}
    assert len(fingerprints) == 6 and "" not in fingerprints


def test_golden_split() -> None:
    # a change here moves the test images of every user
    assert make_splits(dataset(train=[6, 6, 6])).splits["test"].names == GOLDEN


GOLDEN = ["train/1", "train/7", "train/14"]


def test_one_more_image_moves_no_other() -> None:
    small, large = split([100, 50, 10]), split([100, 50, 11])
    before = set(
        make_splits(Dataset("d", tuple("abc"), {"train": small}, "f")).splits["test"].names
    )
    after = set(make_splits(Dataset("d", tuple("abc"), {"train": large}, "f")).splits["test"].names)
    assert len(before ^ after) <= 2


def test_a_fraction_is_stratified_nested_and_in_order() -> None:
    source = split([1000, 100, 3])
    tenth, half = fraction(source, 0.1, 0), fraction(source, 0.5, 0)
    assert per_class(tenth) == [100, 10, 1] and per_class(half) == [500, 50, 2]
    assert set(tenth.names) < set(half.names)
    assert (np.diff(half.labels) >= 0).all()
    assert fraction(source, 1, 0) is source
    assert fraction(source, 0.1, 1).names != tenth.names
    assert tenth.fingerprint != half.fingerprint != source.fingerprint


@pytest.mark.parametrize("share", [0, -0.1, 1.01, float("nan")])
def test_a_fraction_outside_of_0_1_is_refused(share: float) -> None:
    with pytest.raises(OptionError, match="above 0 and at most 1"):
        fraction(split([9, 9]), share, 0)
