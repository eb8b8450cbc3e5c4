"""Views against plain references: slices, and torch's own bilinear resize, one image at a time."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from views import train_crops

from nas.data import augment
from nas.data.augment import Boxes, Store
from nas.training.recipe import Augment

Image = npt.NDArray[np.uint8]


def noise(height: int, width: int, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def ragged(*sizes: tuple[int, int]) -> tuple[list[Image], Store]:
    images = [noise(*size, seed) for seed, size in enumerate(sizes)]
    return images, augment.store_images(images)


def tensor(image: Image) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)


def resized(image: Image, height: int, width: int) -> Tensor:
    """Return torch's bilinear resize, in floats."""
    return functional.interpolate(
        tensor(image)[None].float(), (height, width), mode="bilinear", align_corners=False
    )[0]


def drawn(count: int, seed: int = 0) -> Tensor:
    return augment.draw(count, torch.Generator().manual_seed(seed))


def everything(store: Store) -> Tensor:
    return torch.arange(len(store))


def test_an_image_of_the_size_of_the_view_is_the_view() -> None:
    images, store = ragged((32, 32), (32, 32), (32, 32))
    views = augment.plain_crops(store, torch.tensor([2, 0, 2]), 32)
    assert views.dtype == torch.uint8
    assert views.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(views, torch.stack([tensor(images[i]) for i in (2, 0, 2)]))


@pytest.mark.parametrize("size", [(64, 64), (64, 90), (101, 64), (64, 64 * 7)])
def test_an_image_stored_at_the_right_side_is_only_cut(size: tuple[int, int]) -> None:
    images, store = ragged(size)
    views = augment.plain_crops(store, everything(store), 56, crop_pct=0.875)
    top, left = (size[0] - 56) // 2, (size[1] - 56) // 2
    assert torch.equal(views[0], tensor(images[0][top : top + 56, left : left + 56]))


def test_smaller_images_are_enlarged_to_the_whole_view() -> None:
    images, store = ragged((8, 8), (20, 20), (31, 31), (1, 1))
    views = augment.plain_crops(store, everything(store), 32)
    for view, image in zip(views, images, strict=True):
        assert (view.float() - resized(image, 32, 32)).abs().max() <= 0.5 + 1e-3


@pytest.mark.parametrize(
    ("size", "crop_pct", "target"), [((16, 24), 1.0, 32), ((48, 32), 0.5, 64), ((40, 60), 0.4, 80)]
)
def test_resize_and_middle_crop_as_a_whole_image_resized(
    size: tuple[int, int], crop_pct: float, target: int
) -> None:
    images, store = ragged(size)
    views = augment.plain_crops(store, everything(store), 32, crop_pct=crop_pct)
    height, width = (side * target // min(size) for side in size)
    top, left = (height - 32) // 2, (width - 32) // 2
    whole = resized(images[0], height, width)[:, top : top + 32, left : left + 32]
    assert (views[0].float() - whole).abs().max() <= 0.5 + 1e-3


def test_a_batch_of_many_sizes_is_what_each_image_gives_alone() -> None:
    sizes = ((8, 8), (64, 90), (1, 50), (33, 32), (300, 20), (32, 32), (37, 37))
    _, store = ragged(*sizes)
    together = augment.plain_crops(store, everything(store), 32, crop_pct=0.875)
    alone = [augment.plain_crops(store, torch.tensor([i]), 32, crop_pct=0.875)[0] for i in range(7)]
    assert torch.equal(together, torch.stack(alone))


def test_shift_moves_by_whole_pixels_with_black_around() -> None:
    images, store = ragged(*[(32, 32)] * 64)
    recipe, draws = Augment(crop="shift", shift=0.125, flip=False), drawn(64)
    boxes = augment.train_boxes(store.heights, store.widths, 32, recipe, draws)
    views = augment.crop(store, everything(store), boxes, 32)
    for view, image, top, left in zip(views, images, boxes.top, boxes.left, strict=True):
        padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
        row, column = 4 + int(top), 4 + int(left)
        assert torch.equal(view, tensor(padded[row : row + 32, column : column + 32]))


def test_shifts_are_uniform_and_independent() -> None:
    sides = torch.full((20_000,), 32)
    boxes = augment.train_boxes(sides, sides, 32, Augment(crop="shift"), drawn(20_000))
    counts = torch.bincount(((boxes.top + 4) * 9 + boxes.left + 4).long(), minlength=81)
    assert len(counts) == 81
    assert counts.min() > 0.7 * 20_000 / 81 and counts.max() < 1.3 * 20_000 / 81


def test_shift_of_an_enlarged_image_moves_the_enlarged_one() -> None:
    images, store = ragged(*[(8, 8)] * 32)
    recipe = Augment(crop="shift", shift=0.125, flip=False)
    boxes = augment.train_boxes(store.heights, store.widths, 32, recipe, drawn(32))
    views = augment.crop(store, everything(store), boxes, 32)
    assert len({(float(t), float(s)) for t, s in zip(boxes.top, boxes.left, strict=True)}) > 20
    for view, image, top, left in zip(views, images, boxes.top, boxes.left, strict=True):
        padded = functional.pad(resized(image, 32, 32), (4, 4, 4, 4))
        row, column = 4 + round(4 * float(top)), 4 + round(4 * float(left))
        wanted = padded[:, row : row + 32, column : column + 32]
        assert (view.float() - wanted).abs().max() <= 0.5 + 1e-3


def test_shift_of_a_larger_image_shows_more_of_it() -> None:
    images, store = ragged(*[(73, 73)] * 16)
    recipe = Augment(crop="shift", shift=0.05, flip=False)
    boxes = augment.train_boxes(
        store.heights, store.widths, 64, recipe, drawn(16), crop_pct=augment.CROP_PCT
    )
    views = augment.crop(store, everything(store), boxes, 64)
    for view, image, top, left in zip(views, images, boxes.top, boxes.left, strict=True):
        row, column = int(top), int(left)
        assert torch.equal(view, tensor(image[row : row + 64, column : column + 64]))


@pytest.mark.parametrize("size", [(32, 32), (20, 31)])
def test_flip_is_exact_and_of_half_the_images(size: tuple[int, int]) -> None:
    _, store = ragged(size)
    index = torch.zeros(400, dtype=torch.long)
    generator = torch.Generator().manual_seed(1)
    views = train_crops(store, index, 32, Augment(crop="none"), generator)
    plain = augment.plain_crops(store, index[:1], 32)[0]
    same = [torch.equal(view, plain) for view in views]
    mirrored = [torch.equal(view, plain.flip(-1)) for view in views]
    assert all(a != b for a, b in zip(same, mirrored, strict=True))
    assert 160 < sum(mirrored) < 240
    still = train_crops(store, index, 32, Augment(crop="none", flip=False), generator)
    assert all(torch.equal(view, plain) for view in still)


def test_random_parts_are_cut_out_then_resized() -> None:
    sizes = [(40, 40), (30, 55), (70, 33), (9, 9)] * 8
    images, store = ragged(*sizes)
    recipe = Augment(crop="resized")
    boxes = augment.train_boxes(store.heights, store.widths, 32, recipe, drawn(32, seed=3))
    views = augment.crop(store, everything(store), boxes, 32)
    assert 0 < int(boxes.flip.sum()) < 32
    for i, (view, image) in enumerate(zip(views, images, strict=True)):
        top, left = int(boxes.top[i]), int(boxes.left[i])
        height, width = int(boxes.height[i]), int(boxes.width[i])
        part = image[top : top + height, left : left + width]
        assert part.shape[:2] == (height, width)
        wanted = resized(part, 32, 32)
        wanted = wanted.flip(-1) if boxes.flip[i] else wanted
        assert (view.float() - wanted).abs().max() <= 0.5 + 1e-3


def test_areas_and_aspects_of_random_parts() -> None:
    rows, columns = torch.full((20_000,), 300), torch.full((20_000,), 400)
    recipe = Augment(crop="resized", scale=(0.08, 1.0))
    boxes = augment.train_boxes(rows, columns, 224, recipe, drawn(20_000))
    share = boxes.height * boxes.width / (300 * 400)
    aspect = boxes.width / boxes.height
    assert share.min() > 0.078 and share.max() <= 1
    assert aspect.min() > 0.74 and aspect.max() < 1.35
    assert (boxes.top >= 0).all() and (boxes.top + boxes.height <= 300).all()
    assert (boxes.left >= 0).all() and (boxes.left + boxes.width <= 400).all()
    # parts of up to 0.56 of this image fit at every aspect, so none of them is drawn again
    small = share < 0.56
    assert share[small].mean() == pytest.approx((0.08 + 0.56) / 2, abs=0.01)
    assert aspect[small].log().mean().abs() < 0.01
    assert aspect[small].log().std() == pytest.approx(math.log(16 / 9) / math.sqrt(12), abs=0.01)


def test_random_parts_are_spread_as_torchvisions() -> None:
    transforms = pytest.importorskip(
        "torchvision.transforms.v2", reason="no torchvision beside this torch", exc_type=ImportError
    )
    theirs = transforms.RandomResizedCrop(32, (0.2, 1.0))
    image = torch.zeros(3, 60, 100, dtype=torch.uint8)
    torch.manual_seed(0)
    made = [theirs.make_params([image]) for _ in range(3_000)]
    sides = torch.full((3_000,), 60), torch.full((3_000,), 100)
    recipe = Augment(crop="resized", scale=(0.2, 1.0))
    boxes = augment.train_boxes(*sides, 32, recipe, drawn(3_000))
    for name in ("height", "width", "top", "left"):
        own = np.quantile(getattr(boxes, name).numpy(), np.linspace(0, 1, 11))
        other = np.quantile([float(params[name]) for params in made], np.linspace(0, 1, 11))
        assert np.abs(own - other).max() <= 4, name


@pytest.mark.parametrize(("height", "width"), [(10, 1000), (1000, 10), (1, 1), (1, 9), (2, 1)])
def test_parts_of_odd_images_lie_inside(height: int, width: int) -> None:
    rows, columns = torch.full((200,), height), torch.full((200,), width)
    boxes = augment.train_boxes(rows, columns, 8, Augment(crop="resized"), drawn(200))
    assert (boxes.height >= 1).all() and (boxes.top + boxes.height <= height).all()
    assert (boxes.width >= 1).all() and (boxes.left + boxes.width <= width).all()
    assert (boxes.top >= 0).all() and (boxes.left >= 0).all()
    _, store = ragged((height, width))
    views = augment.crop(store, torch.zeros(200, dtype=torch.long), boxes, 8)
    assert views.shape == (200, 3, 8, 8)


def test_where_no_part_fits_the_middle_of_the_nearest_aspect_is_taken() -> None:
    rows, columns = torch.tensor([30, 900]), torch.tensor([900, 30])
    whole = Augment(crop="resized", scale=(1.0, 1.0), flip=False)
    boxes = augment.train_boxes(rows, columns, 8, whole, drawn(2))
    assert boxes.height.tolist() == [30, 40] and boxes.width.tolist() == [40, 30]
    assert boxes.top.tolist() == [0, 430] and boxes.left.tolist() == [430, 0]


@pytest.mark.parametrize("crop", ["resized", "shift"])
def test_each_view_of_one_image_is_its_own(crop: str) -> None:
    _, store = ragged((40, 40))
    index = torch.zeros(64, dtype=torch.long)
    generator = torch.Generator().manual_seed(0)
    views = train_crops(store, index, 40, Augment(crop=crop), generator)
    assert len({view.numpy().tobytes() for view in views}) > 45


def test_equal_generators_give_equal_views() -> None:
    _, store = ragged(*[(20, 30)] * 8)
    made = [
        train_crops(
            store, everything(store), 16, Augment(crop="resized"), torch.Generator().manual_seed(5)
        )
        for _ in range(2)
    ]
    assert torch.equal(*made)


def test_the_size_of_a_piece_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    _, store = ragged(*[(20, 30), (64, 40), (8, 8)] * 5)
    boxes = augment.train_boxes(store.heights, store.widths, 24, Augment(crop="resized"), drawn(15))
    whole = augment.crop(store, everything(store), boxes, 24)
    monkeypatch.setattr(augment, "PIECE", {"cpu": 1})
    assert torch.equal(augment.crop(store, everything(store), boxes, 24), whole)


def test_what_lies_wholly_outside_is_black() -> None:
    _, store = ragged((8, 8))
    far, side, flip = (
        torch.tensor([50.0]).double(),
        torch.tensor([8.0]).double(),
        torch.tensor([True]),
    )
    for top in (far, -far):
        views = augment.crop(store, torch.tensor([0]), Boxes(top, far, side, side, flip), 8)
        assert not views.any()


def test_holes_have_the_side_asked_for_and_may_reach_over_the_edge() -> None:
    rows, columns = augment.holes(drawn(4_000), 32, 0.25)
    heights, widths = rows.sum(1), columns.sum(1)
    assert heights.max() == widths.max() == 8 and heights.min() == widths.min() == 4
    # the middles are uniform, so each pixel is covered by 8 of 32, less at the edges
    assert rows.float().mean(0)[8:24].mean() == pytest.approx(0.25, abs=0.02)
    first = rows.int().argmax(1)
    assert all(
        rows[i, f : f + h].all() for i, (f, h) in enumerate(zip(first, heights, strict=True))
    )
    assert not torch.equal(rows, columns)


def test_finish_scales_and_sets_holes_to_the_mean() -> None:
    _, store = ragged(*[(16, 16)] * 4)
    views = augment.plain_crops(store, everything(store), 16)
    mean, std = torch.tensor([0.1, 0.5, 0.9]), torch.tensor([0.2, 0.3, 0.4])
    wanted = (views.double() / 255 - mean[:, None, None]) / std[:, None, None]
    rows, columns = augment.holes(drawn(4), 16, 0.5)
    x = augment.finish(views, mean, std, (rows, columns))
    assert x.dtype == torch.float32 and x.shape == (4, 3, 16, 16)
    assert x.is_contiguous(memory_format=torch.channels_last)
    hole = (rows[:, :, None] & columns[:, None, :])[:, None].expand_as(x)
    assert hole.any() and not x[hole].any()
    assert torch.allclose(x[~hole].double(), wanted[~hole], atol=1e-5)
    assert torch.allclose(augment.finish(views, mean, std).double(), wanted, atol=1e-5)
    # a policy returns views in the other order of memory
    assert torch.equal(augment.finish(views.contiguous(), mean, std, (rows, columns)), x)


def test_views_leave_the_images_as_they_were() -> None:
    images, store = ragged((16, 16), (16, 16))
    generator = torch.Generator().manual_seed(0)
    train_crops(store, everything(store), 16, Augment(cutout=0.5), generator)
    assert np.array_equal(store.values.numpy(), np.concatenate([i.reshape(-1, 3) for i in images]))


def test_the_short_side_is_never_below_the_view() -> None:
    assert augment.short_side(224, 0.875) == 256
    assert augment.short_side(32, 1.0) == 32
    assert augment.short_side(1, 0.875) == 1
    assert math.isclose(augment.CROP_PCT, 224 / 256)


@pytest.mark.gpu
@pytest.mark.parametrize("crop", ["resized", "shift", "none"])
def test_a_gpu_makes_the_same_views(crop: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    _, store = ragged(*[(40, 50), (20, 20), (64, 33)] * 4)
    there = Store(store.values.cuda(), store.starts, store.heights, store.widths, store.labels)
    made = [
        train_crops(
            each, everything(store), 32, Augment(crop=crop), torch.Generator().manual_seed(2)
        )
        for each in (store, there)
    ]
    assert made[1].is_cuda
    assert (made[0].int() - made[1].cpu().int()).abs().max() <= 1
