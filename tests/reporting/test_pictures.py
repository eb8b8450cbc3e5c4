"""Pictures: what is drawn, read back from the figure, and files that are PNGs."""

import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas.core.errors import MissingError, OptionError, RunError
from nas.reporting import pictures

pytest.importorskip("matplotlib")

Row = dict[str, Any]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that were saved, as they were saved."""
    figures: list[Any] = []
    save = pictures._save

    def keep(figure: Any, path: Path) -> None:
        save(figure, path)
        figures.append(figure)

    monkeypatch.setattr(pictures, "_save", keep)
    return figures


def size(path: Path) -> tuple[int, int]:
    """Return width and height of a PNG, from its header."""
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n") and data.endswith(b"IEND\xaeB`\x82")
    return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])


def row(epoch: int, **more: Any) -> Row:
    return {"epoch": epoch, "lr": 0.1, "train_loss": 2 / epoch, "seconds": 1.0, **more}


def validated(epoch: int, **more: float) -> Row:
    scores = {"val_loss": 2.5 / epoch, "val_top1": 50.0 + epoch, "val_top5": 80.0 + epoch}
    return row(epoch, **scores, val_top1_raw=49.0 + epoch, **more)


def lines(axes: Any) -> dict[str, tuple[list[float], list[float]]]:
    return {
        line.get_label(): (line.get_xdata().tolist(), line.get_ydata().tolist())
        for line in axes.get_lines()
    }


def test_curves_show_losses_and_accuracies_by_epoch(tmp_path: Path, drawn: list[Any]) -> None:
    rows = [validated(epoch, val_top1_ema=50.0 + epoch) for epoch in (1, 2, 3)]
    pictures.curves(rows, tmp_path / "results.png")
    loss, accuracy = drawn[0].axes
    assert lines(loss) == {
        "training": ([1, 2, 3], [2, 1, 2 / 3]),
        "validation": ([1, 2, 3], [2.5, 1.25, 2.5 / 3]),
    }
    assert lines(accuracy) == {
        "top-1, averaged weights": ([1, 2, 3], [51, 52, 53]),
        "top-1, raw weights": ([1, 2, 3], [50, 51, 52]),
        "top-5": ([1, 2, 3], [81, 82, 83]),
    }
    assert accuracy.get_title() == "best top-1 53.00 % in epoch 3"
    assert loss.get_xlabel() == "epoch" and accuracy.get_ylabel() == "validation accuracy (%)"
    width, height = size(tmp_path / "results.png")
    assert 1000 < width < 2000 and 400 < height < 1000


def test_curves_leave_out_what_a_row_lacks(tmp_path: Path, drawn: list[Any]) -> None:
    rows = [row(1), validated(2), row(3, val_loss="", val_top1="", val_top1_raw=None), validated(4)]
    rows.append(row(5) | {"train_loss": math.nan, "val_loss": math.inf})
    pictures.curves(rows, tmp_path / "results.png")
    loss, accuracy = drawn[0].axes
    assert lines(loss)["training"][0] == [1, 2, 3, 4] and lines(loss)["validation"][0] == [2, 4]
    assert set(lines(accuracy)) == {"top-1, raw weights", "top-5"}


def test_curves_without_raw_and_averaged_show_the_one_there_is(
    tmp_path: Path, drawn: list[Any]
) -> None:
    pictures.curves([row(1, val_top1=7.0), row(2, val_top1=8.0)], tmp_path / "results.png")
    assert lines(drawn[0].axes[1]) == {"top-1": ([1, 2], [7, 8])}


@pytest.mark.parametrize("rows", [[], [row(1)], [validated(1)]])
def test_curves_of_nearly_nothing_are_a_picture_too(
    rows: list[Row], tmp_path: Path, drawn: list[Any]
) -> None:
    pictures.curves(rows, tmp_path / "results.png")
    assert size(tmp_path / "results.png")[0] > 1000
    if rows:  # one epoch is a point with one tick
        axes = drawn[0].axes[0]
        assert axes.get_lines()[0].get_marker() == "o"
        low, high = axes.get_xlim()
        assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]


def counts(classes: int, images: int = 20) -> list[list[int]]:
    rng = np.random.default_rng(0)
    matrix = np.eye(classes, dtype=int) * images
    for _ in range(5 * classes):
        matrix[rng.integers(classes), rng.integers(classes)] += 1
    return matrix.tolist()


def words(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


def ticks(axes: Any) -> tuple[list[str], list[str]]:
    both = axes.get_xticklabels(), axes.get_yticklabels()
    return tuple([label.get_text() for label in labels] for labels in both)  # type: ignore[return-value]


def test_a_matrix_has_true_classes_down_and_predicted_ones_across(
    tmp_path: Path, drawn: list[Any]
) -> None:
    names = ["cat", "dog", "emu"]
    pictures.confusion([[8, 2, 0], [0, 10, 0], [1, 0, 4]], names, tmp_path / "a.png")
    axes = drawn[0].axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    assert ticks(axes) == (names, names)
    np.testing.assert_allclose(
        axes.images[0].get_array(), [[0.8, 0.2, 0], [0, 1, 0], [0.2, 0, 0.8]]
    )
    cells = {tuple(map(int, text.get_position())): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "8", (1, 0): "2", (1, 1): "10", (0, 2): "1", (2, 2): "4"}
    assert axes.get_title() == "25 images, 88.00 % right"


@pytest.mark.parametrize("classes", [1, 2, 30, 102])
def test_every_class_is_named_and_no_name_hides_another(
    classes: int, tmp_path: Path, drawn: list[Any]
) -> None:
    names = [f"class {index}" for index in range(classes)]
    pictures.confusion(counts(classes), names, tmp_path / "a.png")
    figure, axes = drawn[0], drawn[0].axes[0]
    assert ticks(axes) == (names, names)
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert all(a.y0 >= b.y1 for a, b in pairwise(boxes))
    boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert all(a.x1 <= b.x0 for a, b in pairwise(boxes))
    assert bool(words(axes)) == (classes <= 30)
    assert bool(figure.texts) == (classes > 30)
    assert max(size(tmp_path / "a.png")) < 3500


def test_a_large_matrix_lists_what_is_confused_most(tmp_path: Path, drawn: list[Any]) -> None:
    matrix = np.eye(121, dtype=int) * 10
    matrix[7, 9], matrix[100, 3] = 30, 20
    names = [f"n{index:03d}" for index in range(121)]
    pictures.confusion(matrix.tolist(), names, tmp_path / "a.png")
    listed = drawn[0].texts[0].get_text().splitlines()
    assert listed == [
        "confused most",
        "(true → predicted)",
        "",
        "n007 → n009  30",
        "n100 → n003  20",
    ]
    assert ticks(drawn[0].axes[0])[0] == names[::2], "as many as can be read"


def test_names_are_taken_as_they_are(tmp_path: Path, drawn: list[Any]) -> None:
    names = ["$a$ $", r"\frac_{x}", "日本語 😀", "", "two\nlines", "a" * 30 + "b" * 30, "%s{0}"]
    pictures.confusion(counts(7), names, tmp_path / "a.png")
    shown = ticks(drawn[0].axes[0])[0]
    assert shown[:5] == ["$a$ $", r"\frac_{x}", "日本語 😀", "(no name)", "two lines"]
    assert shown[5] == "a" * 11 + "…" + "b" * 11
    pictures.confusion(counts(40), names + ["$"] * 33, tmp_path / "b.png")  # listed beside


def test_a_class_without_images_and_a_test_without_any(tmp_path: Path, drawn: list[Any]) -> None:
    pictures.confusion([[5, 0], [0, 0]], ["a", "b"], tmp_path / "a.png")
    pictures.confusion([[0, 0], [0, 0]], ["a", "b"], tmp_path / "b.png")
    assert drawn[0].axes[0].get_title() == "5 images, 100.00 % right"
    assert drawn[1].axes[0].get_title() == "0 images"


def test_large_counts_are_shortened(tmp_path: Path, drawn: list[Any]) -> None:
    pictures.confusion([[9_999, 12_345], [3_400_000, 1]], ["a", "b"], tmp_path / "a.png")
    assert words(drawn[0].axes[0]) == ["9999", "12k", "3M", "1"]


@pytest.mark.parametrize(
    "matrix",
    [[[1, 2]], [[1, 2], [3]], [[1, 2, 3]] * 3, [], [["a", "b"], ["c", "d"]], [[1, -1], [0, 1]]],
)
def test_a_matrix_of_other_classes_is_refused(matrix: Any, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="a confusion matrix") as caught:
        pictures.confusion(matrix, ["a", "b"], tmp_path / "a.png")
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot write .*results\.png: No such file"):
        pictures.curves([row(1)], tmp_path / "gone" / "results.png")


def test_without_matplotlib_the_pip_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingError, match="pip install matplotlib"):
        pictures.curves([row(1)], tmp_path / "a.png")


def test_matplotlib_is_loaded_late() -> None:
    code = "import sys, nas.reporting.pictures; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
