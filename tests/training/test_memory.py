"""A step goes through the device in parts that fit its free memory, and never as a single image
where batch norm needs two."""

import dataclasses
from pathlib import Path

import pytest
import torch
from digits import TINY, digits, job

from nas.core.errors import NasError, OptionError
from nas.models.build import Model
from nas.models.cost import count
from nas.models.load import baselines
from nas.training import loop, memory
from nas.training.loop import fit, fitting, stalled
from nas.training.memory import check_images, least_images, more_parts, parts_that_fit

pytestmark = pytest.mark.usefixtures("one_thread")
B0, SMALL = baselines()["efficientnet_b0"], baselines()["mobilenet_v3_small"]
NARROW = dataclasses.replace(SMALL, resolution=32)  # its last map is 1x1


def have(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: free)


@pytest.mark.parametrize("gigabytes", [0.5, 1, 2, 8, 24, 500])
@pytest.mark.parametrize("batch", [1, 2, 16, 255, 256])
def test_the_parts_of_a_step_fit(
    monkeypatch: pytest.MonkeyPatch, gigabytes: float, batch: int
) -> None:
    have(monkeypatch, gigabytes * 1e9)
    parts = parts_that_fit(B0, batch, 1, "cpu")
    assert 1 <= parts <= batch
    cost, most = count(B0), -(-batch // parts)
    assert cost.training_bytes + most * cost.training_bytes_per_image <= 0.8 * gigabytes * 1e9
    assert parts_that_fit(B0, batch, batch, "cpu") == batch  # as asked for
    if parts > 1:  # and fewer parts would not
        less = -(-batch // (parts - 1))
        needed = 1.3 * less * cost.training_bytes_per_image + cost.training_bytes
        assert needed > 0.8 * gigabytes * 1e9


def test_what_cannot_fit_is_refused_with_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, 100e6)
    with pytest.raises(
        NasError, match=r"needs about .* MiB to train with 1 images at a time"
    ) as error:
        parts_that_fit(B0, 32, 1, "cpu")
    assert "95.4 MiB are free on cpu" in str(error.value)
    have(monkeypatch, float("inf"))
    assert parts_that_fit(B0, 32, 1, "cpu") == 1


def test_a_training_is_split_before_its_first_step_and_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cost = count(TINY)
    have(monkeypatch, (cost.training_bytes + 14 * cost.training_bytes_per_image) / 0.8)
    said: list[str] = []
    asked = job(1)
    assert fitting(asked, digits(), said.append).accumulate == 4
    assert said == [
        "a step of 32 images goes through cpu in 4 parts of up to 8, which is what fits into the "
        "memory that is free"
    ]
    split = fit(asked, digits(), tmp_path / "split")
    have(monkeypatch, 1e12)
    whole = fit(dataclasses.replace(asked, accumulate=4), digits(), tmp_path / "asked")
    assert split[-1]["train_loss"] == whole[-1]["train_loss"]


@pytest.mark.parametrize("name", baselines())
def test_a_single_image_is_enough_where_the_last_map_is_larger(name: str) -> None:
    arch = baselines()[name]
    assert least_images(arch) == 1
    assert least_images(dataclasses.replace(arch, resolution=32)) == 2


def test_batch_norm_agrees_on_the_fewest_images() -> None:
    model = Model(NARROW).train()
    with pytest.raises(ValueError, match="more than 1 value"):
        model(torch.zeros(1, 3, 32, 32))
    model(torch.zeros(1, 3, 64, 64))
    model(torch.zeros(2, 3, 32, 32))


@pytest.mark.parametrize(
    ("mine", "images", "said"), [(1, 20, "--batch-size"), (2, 1, "add images")]
)
def test_a_batch_of_one_is_refused_before_the_start(mine: int, images: int, said: str) -> None:
    with pytest.raises(OptionError, match="two images at a time") as error:
        check_images(NARROW, mine, images)
    assert said in str(error.value) and "--imgsz" in str(error.value)
    check_images(NARROW, 2, 2)
    check_images(dataclasses.replace(NARROW, resolution=64), 1, 1)


@pytest.mark.parametrize("batch", [3, 5, 7, 9])
def test_no_part_of_a_batch_is_a_single_image(
    batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arch = dataclasses.replace(NARROW, head=dataclasses.replace(NARROW.head, classes=10))
    asked = job(1, batch, arch, accumulate=batch)
    sizes: list[int] = []
    monkeypatch.setattr(Model, "forward", _counting(sizes))
    loop.images_per_second(asked, digits())
    assert min(sizes) >= 2 and max(sizes) - min(sizes) <= 1
    with pytest.raises(NasError, match="two images of 32 pixels"):
        more_parts(3, 1, "cpu", NARROW)


def _counting(sizes: list[int]) -> object:
    plain = Model.forward

    def forward(self: Model, x: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        return plain(self, x)

    return forward


@pytest.mark.parametrize(
    ("top1", "patience", "ends"),
    [
        ([10, 20, 20, 20], 2, True),
        ([10, 20, 20], 2, False),
        ([10, 20, 20, 21], 2, False),
        ([50] + 20 * [10], 0, False),
        ([], 1, False),
    ],
)
def test_a_training_ends_when_its_validation_stalls(
    top1: list[float], patience: int, ends: bool
) -> None:
    rows = [{"epoch": n, "val_top1": x, "val_loss": 1.0 + (n > 2)} for n, x in enumerate(top1, 1)]
    assert stalled(rows, patience) == ends
    unscored = [{"epoch": float(n)} for n in range(100)]
    assert not stalled(unscored, 1)


def test_a_loss_that_still_falls_is_progress() -> None:
    rows = [{"epoch": n, "val_top1": 50.0, "val_loss": 2 - n / 10} for n in range(1, 9)]
    assert not stalled(rows, 3)


def test_patience_ends_a_training_and_a_resumed_one_at_the_same_epoch(tmp_path: Path) -> None:
    still = job(12, lr=1e-9, norm_momentum=1e-4, patience=3, interval=2)
    rows = fit(still, digits(), tmp_path / "whole")
    assert 4 <= len(rows) < 12 and "val_top1" not in rows[0] and "val_top1" in rows[1]
    fit(still, digits(), tmp_path / "parts", until=3)
    again = fit(still, digits(), tmp_path / "parts")
    assert len(again) == len(rows) and again[-1]["train_loss"] == rows[-1]["train_loss"]
    assert fit(still, digits(), tmp_path / "parts") == again  # nothing is left to do
