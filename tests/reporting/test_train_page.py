"""The page of a training: finished, unfinished, diverged, of many classes, damaged."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from digits import TINY
from test_report import Page, sound

from nas.core.errors import RunError
from nas.reporting import html, report
from nas.training import history

NASTY = "</script><b>[red]\"&'"


def row(epoch: int, **more: Any) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "train_loss": 2.3 / epoch,
        "val_loss": 2.2 / epoch,
        "val_top1": 20.0 + epoch,
        "val_top5": 70.0 + epoch,
        "val_top1_raw": 20.0,
        "val_top1_ema": 20.0 + epoch,
        "seconds": 60.0,
    } | more


def training(
    folder: Path, rows: list[dict[str, Any]], classes: int = 10, finished: bool = True, **more: Any
) -> Path:
    """Write the files of a training and return its folder."""
    place = folder / "runs" / "train" / "mine"
    place.mkdir(parents=True)
    args = {"arch": "tiny.json", "data": "photos", "recipe": "proxy", "epochs": 8, "seed": 3}
    (place / "args.yaml").write_text(yaml.safe_dump(args))
    (place / "arch.json").write_text(TINY.to_json())
    data = {"name": "photos", "splits": {"train": 1151, "val": 287}, "notes": ["val: held out"]}
    (place / "data.json").write_text(json.dumps(data))
    with (place / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, row(1))
        writer.writeheader()
        writer.writerows(rows)
    score = {"top1": 91.25, "top5": 99.0, "n": 359, "standard_error": 1.49, "loss": 0.4}
    result = {"schema": 1, "run": "runs/train/mine", "test": score, "val": score, "best_epoch": 2}
    result |= {"classes": [f"class {n}" for n in range(classes)], "epochs": len(rows)}
    if finished:
        (place / "result.json").write_text(json.dumps(result | more))
    return place


def test_a_training_is_told_with_its_errors(tmp_path: Path) -> None:
    folder = training(tmp_path, [row(n) for n in range(1, 5)], classes=30)
    page = Page(report.write(folder))
    sound(page)
    assert "tiny on photos: 91.25 % of the test images right" in page.text
    assert page.text.count("91.25 ± 1.49 %") == 2 and "of 359 images, read once" in page.text
    assert "30: class 0, class 1" in page.text and "and 17 more" in page.text
    assert "val: held out" in page.text and "seed 3" in page.text and "4m" in page.text
    assert page.trace("validation")["y"] == [2.2, 1.1, 0.73333, 0.55]
    assert page.trace("top-5")["y"][0] == 71
    assert page.figures[1]["layout"]["annotations"][0]["text"] == "best, epoch 2"
    assert "nas predict runs/train/mine IMAGE" in page.text
    assert "stage 2" in page.text and "results.csv" in page.loads


def test_an_unfinished_training_says_so_and_how_to_go_on(tmp_path: Path) -> None:
    folder = training(tmp_path, [row(1), row(2)], finished=False)
    page = Page(report.write(folder))
    sound(page)
    assert "not finished, 2 of 8 epochs, best so far 22.00 % of the validation images" in page.text
    assert f"nas resume {folder}" in page.text and "The test images are not read yet." in page.text


def test_a_diverged_loss_is_cut_and_what_is_hidden_is_said(tmp_path: Path) -> None:
    rows = [row(1), row(2, val_loss=3.4e14), row(3, train_loss="nan", val_loss="inf")]
    page = Page(report.write(training(tmp_path, rows)))
    sound(page)
    low, high = page.figures[0]["layout"]["yaxis"]["range"]
    assert low == 0 and 2.3 < high < 10
    assert "the loss went up to 3.4e+14 in epoch 2; not a finite number in epoch 3" in page.text


def test_what_its_user_must_know_comes_first(tmp_path: Path) -> None:
    folder = training(tmp_path, [row(1)], classes=0, warning="this training diverged")
    page = Page(report.write(folder))
    assert "This training diverged." in page.text
    assert page.text.index("This training diverged.") < page.text.index("How it was learnt")


def test_five_classes_have_no_top5_and_names_no_markup(tmp_path: Path) -> None:
    rows = [row(n, val_top5=100.0) for n in (1, 2)]
    folder = training(tmp_path, rows, classes=2, data=NASTY, device=NASTY)
    page = Page(report.write(folder))
    sound(page)
    assert NASTY in page.text and "top-5" not in page.text
    assert "top-5" not in [trace["name"] for trace in page.figures[1]["data"]]


def test_epochs_without_a_validation_are_left_out_of_its_curves(tmp_path: Path) -> None:
    empty = {key: "" for key in row(1) if key.startswith("val_")}
    page = Page(report.write(training(tmp_path, [row(1, **empty), row(2), row(3, **empty)])))
    assert page.trace("training")["x"] == [1, 2, 3] and page.trace("validation")["x"] == [2]


@pytest.mark.parametrize("size, inside", [(1_000, True), (html.train.LARGEST + 1, False)])
def test_the_confusion_matrix_is_in_the_page_unless_it_is_large(
    tmp_path: Path, size: int, inside: bool
) -> None:
    folder = training(tmp_path, [row(1)])
    (folder / "confusion_matrix.png").write_bytes(b"x" * size)
    text = report.write(folder).read_text()
    assert ("data:image/png;base64," in text) == inside and "confusion_matrix.png" in text
    assert len(text) < 1_000_000


@pytest.mark.parametrize("name, content", [("arch.json", "{}"), ("result.json", "{")])
def test_a_damaged_training_is_refused_in_one_line(tmp_path: Path, name: str, content: str) -> None:
    folder = training(tmp_path, [row(1)])
    (folder / name).write_text(content)
    with pytest.raises(RunError, match=re.escape(name)) as error:
        report.write(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "curves, cut",
    [
        ([[2.3, 1.0, 0.01], [2.2, 1.0, 0.5]], None),
        ([[6.1, 20.3, 18.0], [7.0, 3.4e14, 9.0]], 18.3),
        ([[2.3], [30.0]], 6.9),
        ([[float("nan")], []], None),
        ([[], []], None),
        ([[0.0, 0.0], [0.0, 5.0]], None),
    ],
)
def test_where_a_loss_is_cut(curves: list[list[float]], cut: float | None) -> None:
    points = [list(enumerate(curve, 1)) for curve in curves]
    found = history.ceiling(points)
    assert found == (cut and pytest.approx(cut))
    assert ("cut at" in history.curve_notes(points)) == bool(cut)
