"""What a training is given: order, ranks, epochs, splits, statistics, and where images are kept."""

import dataclasses
import json
import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from nas.core import system
from nas.core.errors import MissingError, NasError, OptionError, RunError
from nas.data import augment as crops
from nas.data import batches, loader, pixels, policies
from nas.data.batches import Batch, Resident, Streaming
from nas.data.dataset import Dataset, Split
from nas.data.loader import Data, open_data, open_split
from nas.data.pixels import Pixels
from nas.training.recipe import Augment

Image = npt.NDArray[np.uint8]

try:
    policies.vision("this test")
    LACKING = ""
except MissingError as error:
    LACKING = str(error)
with_torchvision = pytest.mark.skipif(bool(LACKING), reason=LACKING or "-")

# the training images of `dataset`: of several sizes, number i of mean brightness about 2 i
SIZES = [(36, 36), (40, 52), (60, 36), (20, 24)]
STILL = Augment(crop="none", flip=False)


def image(number: int, size: tuple[int, int] | None = None) -> Image:
    height, width = size or SIZES[number % len(SIZES)]
    rng = np.random.default_rng(number)
    noise = rng.integers(0, 40, (height, width, 3))
    return (noise + 2 * number).clip(0, 255).astype(np.uint8)


def split(name: str, images: list[Image], broken: tuple[int, ...] = ()) -> Split:
    def read(i: int) -> Image:
        if i in broken:
            raise OSError("truncated")
        return images[i]

    labels = np.arange(len(images)) % 2
    names = [f"{name}/{i}.png" for i in range(len(images))]
    return Split(labels, names, read, fingerprint=f"{name} of {len(images)}")


def dataset(train: int = 50, val: int = 9, test: int = 5) -> Dataset:
    counts = {"train": train, "val": val, "test": test}
    splits = {name: split(name, [image(i) for i in range(n)]) for name, n in counts.items()}
    return Dataset("made up", ("dark", "bright"), splits, "made up", ("a note",))


@pytest.fixture(scope="module")
def data() -> Data:
    return open_data(dataset(), imgsz=32, cache=False)


@pytest.fixture
def mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pixels:
    """The training images in a cache on disk that is mapped, as that of a large data set is."""
    monkeypatch.setattr(pixels, "RESIDENT", 0)
    found = pixels.decode_split(dataset().splits["train"], 37, cache=tmp_path / "cache")
    assert isinstance(found.values, np.memmap)
    return found


def joined(made: Iterator[Batch]) -> tuple[Tensor, Tensor]:
    views, labels = zip(*made, strict=True)
    return torch.cat(views), torch.cat(labels)


def numbers(x: Tensor, data: Data) -> list[int]:
    """Return which images these views are of, by their brightness."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (data.mean, data.std))
    return (((x * std + mean) * 255 - 19.5) / 2).mean((1, 2, 3)).round().int().tolist()


def test_data_has_what_a_training_asks_for(data: Data) -> None:
    assert (len(data.train), len(data.val)) == (50, 9)
    assert data.classes == ("dark", "bright") and data.notes == ("a note",)
    assert (data.size, data.crop_pct) == (32, 0.875)
    x, y = next(iter(data.train.train(0, 0, 16, Augment())))
    assert x.shape == (16, 3, 32, 32) and x.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert y.shape == (16,) and y.dtype == torch.int64


def test_ordered_gives_each_image_once_in_order(data: Data) -> None:
    made = list(data.train.ordered(16))
    assert [len(x) for x, _ in made] == [16, 16, 16, 2]
    x, y = joined(iter(made))
    assert numbers(x, data) == list(range(50))
    assert y.tolist() == [i % 2 for i in range(50)]


def test_an_epoch_gives_full_batches_of_distinct_images(data: Data) -> None:
    made = list(data.train.train(0, 0, 16, STILL))
    assert [len(x) for x, _ in made] == [16, 16, 16] and batches.steps(50, 16) == 3
    x, y = joined(iter(made))
    seen = numbers(x, data)
    assert len(set(seen)) == 48 and seen != sorted(seen)
    assert y.tolist() == [i % 2 for i in seen]


def test_fewer_images_than_a_batch_are_one_batch(data: Data) -> None:
    ((x, _),) = data.val.train(0, 0, 64, STILL)
    assert sorted(numbers(x, data)) == list(range(9))


def test_an_epoch_is_a_function_of_seed_and_number(data: Data) -> None:
    def epoch(number: int, seed: int) -> tuple[Tensor, Tensor]:
        return joined(data.train.train(number, seed, 16, Augment(crop="resized", cutout=0.3)))

    once = epoch(3, 1)
    torch.rand(7)
    assert all(torch.equal(a, b) for a, b in zip(once, epoch(3, 1), strict=True))
    for other in (epoch(4, 1), epoch(3, 2), epoch(1, 3)):
        assert not torch.equal(once[0], other[0])
    epoch(0, -1)  # any whole number is a seed


@pytest.mark.parametrize("world", [1, 2])
def test_the_rest_of_an_epoch_is_that_of_the_whole(
    data: Data, monkeypatch: pytest.MonkeyPatch, world: int
) -> None:
    whole = list(data.train.train(1, 5, 8, Augment(crop="resized", cutout=0.3), 0, world))
    made, crop = list[int](), loader.crops.crop
    monkeypatch.setattr(loader.crops, "crop", lambda *given: (made.append(1), crop(*given))[1])
    rest = list(data.train.train(1, 5, 8, Augment(crop="resized", cutout=0.3), 0, world, 4))
    assert len(whole) == 6 and len(rest) == len(made) == 2
    assert all(torch.equal(*pair) for pair in zip(rest[0], whole[4], strict=True))
    assert all(torch.equal(*pair) for pair in zip(rest[1], whole[5], strict=True))
    assert not list(data.train.train(1, 5, 8, Augment(), 0, world, 6))


def test_loading_leaves_torchs_generator_alone(data: Data, mapped: Pixels) -> None:
    state = torch.get_rng_state()
    joined(data.train.train(0, 0, 16, Augment(crop="resized", cutout=0.3)))
    joined(Streaming(mapped, data.input, "cpu", 0).ordered(16))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_the_batches_of_one_process(data: Data, world: int) -> None:
    recipe = Augment(crop="resized", cutout=0.3)
    whole = list(data.train.train(2, 0, 16, recipe))
    parts = [list(data.train.train(2, 0, 16, recipe, rank, world)) for rank in range(world)]
    for step, (x, y) in enumerate(whole):
        assert torch.equal(torch.cat([part[step][0] for part in parts]), x)
        assert torch.equal(torch.cat([part[step][1] for part in parts]), y)


@pytest.mark.parametrize(("world", "each"), [(2, 5), (4, 3), (16, 1)])
def test_too_few_images_for_a_batch_are_shared_equally(data: Data, world: int, each: int) -> None:
    parts = [list(data.val.train(0, 0, 64, STILL, rank, world)) for rank in range(world)]
    assert [[len(x) for x, _ in part] for part in parts] == [[each]] * world
    seen = {number for part in parts for number in numbers(part[0][0], data)}
    assert seen == set(range(9))


@pytest.mark.parametrize("world", [1, 2, 3, 16])
def test_ranks_evaluate_each_image_once(data: Data, world: int) -> None:
    shares = [data.val.ordered(16, rank, world) for rank in range(world)]
    seen = sorted(n for share in shares for x, _ in share for n in numbers(x, data))
    assert seen == list(range(9))


@pytest.mark.parametrize(("batch", "rank", "world"), [(0, 0, 1), (-4, 0, 1), (3, 0, 4), (4, 2, 2)])
def test_what_is_no_batch_is_refused_at_once(
    data: Data, mapped: Pixels, batch: int, rank: int, world: int
) -> None:
    for each in (data.train, Streaming(mapped, data.input, "cpu", 0)):
        with pytest.raises(OptionError, match=r"at least 1|rank must be in 0\.\.1"):
            each.train(0, 0, batch, STILL, rank, world)
        with pytest.raises(OptionError, match=r"at least 1|rank must be in 0\.\.1"):
            each.ordered(batch, rank, world)


def test_the_test_split_is_read_when_it_is_asked_for() -> None:
    read: list[int] = []

    def note(i: int) -> Image:
        read.append(i)
        return image(i)

    made = dataset()
    hidden = dataclasses.replace(made.splits["test"], read=note, fingerprint="")
    opened = open_data(
        dataclasses.replace(made, splits={**made.splits, "test": hidden}), imgsz=32, cache=False
    )
    assert not read
    x, _ = joined(opened.test().ordered(4))
    assert numbers(x, opened) == list(range(5))
    assert opened.test() is opened.test() and sorted(read) == list(range(5))


def test_a_fraction_is_of_the_training_images_only() -> None:
    half = open_data(dataset(), imgsz=32, fraction=0.5, cache=False)
    again = open_data(dataset(), imgsz=32, fraction=0.5, cache=False)
    other = open_data(dataset(), imgsz=32, fraction=0.5, seed=1, cache=False)
    assert (len(half.train), len(half.val), len(half.test())) == (26, 9, 5)
    labels = [joined(each.train.ordered(64)) for each in (half, again, other)]
    assert torch.equal(labels[0][0], labels[1][0])
    assert not torch.equal(labels[0][0], labels[2][0])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"imgsz": 0}, "--imgsz must be"),
        ({"workers": -1}, "--workers"),
        ({"fraction": 0}, "fraction"),
    ],
)
def test_what_cannot_be_opened_is_refused(options: dict[str, int], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        open_data(dataset(), **{"imgsz": 32, "cache": False, **options})  # type: ignore[arg-type]


def test_broken_images_are_noted_and_too_many_refused() -> None:
    made = dataset()
    many = split("train", [image(i % 60) for i in range(200)], broken=(3,))
    opened = open_data(
        dataclasses.replace(made, splits={**made.splits, "train": many}), imgsz=32, cache=False
    )
    assert len(opened.train) == 199
    assert opened.notes[1].startswith("train: 1 of 200 images is broken")
    for broken in ((3,), tuple(range(50))):
        bad = split("train", [image(i) for i in range(50)], broken)
        with pytest.raises(OptionError, match="broken, more than 1%"):
            open_data(
                dataclasses.replace(made, splits={**made.splits, "train": bad}),
                imgsz=32,
                cache=False,
            )


def test_mean_and_deviation_are_those_of_the_training_images() -> None:
    images = [image(i, (20, 30)) for i in range(30)]
    opened = open_data(
        dataclasses.replace(
            dataset(), splits={**dataset().splits, "train": split("train", images)}
        ),
        imgsz=32,
        cache=False,
    )
    every = np.stack(images).reshape(-1, 3) / 255
    assert opened.mean == pytest.approx(every.mean(0), abs=1e-5)
    assert opened.std == pytest.approx(every.std(0), abs=1e-5)
    x, _ = joined(opened.train.ordered(64))
    assert abs(float(x.mean())) < 0.02 and float(x.std()) == pytest.approx(1, abs=0.1)


def test_statistics_of_many_large_images_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    many = pixels.decode_split(split("x", [image(i % 100, (90, 20)) for i in range(300)]), None)
    mean, std = loader.statistics(many)
    monkeypatch.setattr(loader, "SAMPLED_IMAGES", 100)
    sampled = loader.statistics(many)
    assert sampled == loader.statistics(many) != (mean, std)
    assert sampled[0] == pytest.approx(mean, abs=0.05)
    assert sampled[1] == pytest.approx(std, abs=0.05)


def test_a_channel_of_one_value_does_not_divide_by_nothing() -> None:
    flat = pixels.decode_split(split("x", [np.full((8, 8, 3), 7, np.uint8)] * 4), None)
    made = Resident(flat, loader.crops.make_store(flat), loader.input_for(flat, 8))
    x, _ = joined(made.ordered(4))
    assert x.isfinite().all() and x.abs().max() < 1e-3


@pytest.mark.parametrize(("imgsz", "crop_pct"), [(32, 0.875), (35, 0.875), (36, 1.0), (64, 1.0)])
def test_the_middle_is_cut_out_of_images_that_are_larger_than_the_view(
    imgsz: int, crop_pct: float
) -> None:
    opened = open_data(dataset(), imgsz=imgsz, cache=False)  # the median short side is 36
    assert opened.crop_pct == crop_pct
    assert loader.stored_side(224) == 256


def test_one_split_for_a_network_that_is_there(data: Data) -> None:
    alone = open_split(dataset().splits["val"], data.input, cache=False)
    assert torch.equal(joined(alone.ordered(4))[0], joined(data.val.ordered(16))[0])


def test_images_that_take_over_half_of_the_memory_are_not_kept(
    mapped: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = pixels.decode_split(dataset().splits["train"], 37)
    for free, fits in ((2 * mapped.values.nbytes, True), (2 * mapped.values.nbytes - 1, False)):
        monkeypatch.setattr(loader, "free_memory", lambda free=free: free)
        assert loader._fits([mapped], "cpu") is fits
        assert loader._fits([small], "cpu")  # it is in memory already


def test_free_memory_is_the_machines_or_the_containers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "CONTROL", tmp_path)
    free = system.free_memory()
    assert free > 1e6
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("4000\n")
    (tmp_path / "memory.stat").write_text("anon 3000\ninactive_file 500\n")
    assert system.free_memory() == 1500
    (tmp_path / "memory.max").write_text("max\n")
    assert system.free_memory() > 1e6


def test_streaming_needs_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.transforms", None)
    with pytest.raises(MissingError, match=r"resident=False.* pip install"):
        open_data(dataset(), imgsz=32, cache=False, resident=False)


@pytest.mark.parametrize("side", [32, 48])
def test_streamed_plain_views_are_the_resident_ones(mapped: Pixels, side: int) -> None:
    seen = loader.input_for(mapped, side)
    kept = Resident(mapped, loader.crops.make_store(mapped), seen)
    streamed = Streaming(mapped, seen, "cpu", 0)
    wanted, made = joined(kept.ordered(16)), joined(streamed.ordered(16))
    assert torch.equal(wanted[0], made[0]) and torch.equal(wanted[1], made[1])
    assert made[0].is_contiguous(memory_format=torch.channels_last)


def test_worker_processes_change_nothing(mapped: Pixels) -> None:
    seen = loader.input_for(mapped, 32)
    alone = joined(Streaming(mapped, seen, "cpu", 0).ordered(16))
    helped = joined(Streaming(mapped, seen, "cpu", 2).ordered(16))
    assert torch.equal(alone[0], helped[0]) and torch.equal(alone[1], helped[1])
    assert not multiprocessing.active_children()


def test_workers_are_sent_the_place_of_the_images_not_the_images(mapped: Pixels) -> None:
    sent = pickle.dumps(batches._place(mapped))
    assert len(sent) < 5_000 < mapped.values.nbytes
    assert np.array_equal(pickle.loads(sent).pixels().image(7), mapped.image(7))


def test_images_in_memory_are_read_in_this_process(mapped: Pixels) -> None:
    small = pixels.decode_split(dataset().splits["train"], 37)
    assert loader._workers(4, small) == 0
    assert loader._workers(4, mapped) == 4 and loader._workers(0, mapped) == 0
    assert 1 <= loader._workers(None, mapped) <= loader.MOST_WORKERS


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_worker_that_is_killed_is_told_of(mapped: Pixels) -> None:
    made = Streaming(mapped, loader.input_for(mapped, 32), "cpu", 1).ordered(1)
    next(made)
    (child,) = multiprocessing.active_children()
    assert child.pid
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(NasError, match=r"reads images died .*--workers"):
        list(made)


def test_a_cache_that_is_gone_is_told_of(mapped: Pixels) -> None:
    assert isinstance(mapped.values, np.memmap)
    Path(str(mapped.values.filename)).unlink()
    made = Streaming(mapped, loader.input_for(mapped, 32), "cpu", 1).ordered(16)
    with pytest.raises(NasError, match=r"cache of images cannot be read .*run again"):
        list(made)


@with_torchvision
def test_streamed_training_is_a_function_of_seed_and_epoch_not_of_workers(mapped: Pixels) -> None:
    seen = loader.input_for(mapped, 32)
    recipe = Augment(crop="resized", cutout=0.3, policy="randaugment")

    def epoch(number: int, workers: int = 0, rank: int = 0, world: int = 1) -> Tensor:
        streamed = Streaming(mapped, seen, "cpu", workers)
        return joined(streamed.train(number, 5, 16, recipe, rank, world))[0]

    alone = epoch(1)
    state = torch.get_rng_state()
    assert torch.equal(epoch(1, workers=2), alone)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(epoch(2), alone)
    assert alone.shape == (48, 3, 32, 32)
    halves = [epoch(1, rank=rank, world=2).split(8) for rank in range(2)]
    assert torch.equal(torch.cat([x for pair in zip(*halves, strict=True) for x in pair]), alone)


@with_torchvision
def test_streamed_training_views_are_of_the_same_images_as_resident_ones(mapped: Pixels) -> None:
    seen = loader.input_for(mapped, 32)
    kept = Resident(mapped, loader.crops.make_store(mapped), seen)
    streamed = Streaming(mapped, seen, "cpu", 0)
    for recipe in (STILL, Augment(crop="shift"), Augment(crop="resized", cutout=0.25)):
        (x, y), (u, v) = (joined(each.train(0, 0, 16, recipe)) for each in (kept, streamed))
        assert torch.equal(y, v)
        assert (x.mean((1, 2, 3)) - u.mean((1, 2, 3))).abs().max() < 0.7  # brightness tells them
    # the cutout is the very same one
    assert torch.equal((x == 0).all(1), (u == 0).all(1))


@with_torchvision
def test_data_is_streamed_where_it_is_asked_for(tmp_path: Path) -> None:
    opened = open_data(dataset(), imgsz=32, cache=tmp_path, resident=False, workers=0)
    assert isinstance(opened.train, Streaming) and isinstance(opened.test(), Streaming)
    assert "read again for each epoch" in opened.notes[-1]
    kept = open_data(dataset(), imgsz=32, cache=tmp_path)
    difference = joined(opened.val.ordered(4))[0] - joined(kept.val.ordered(4))[0]
    assert (difference.abs() * max(kept.std)).max() <= 2 / 255
    with pytest.raises(OptionError, match="magnitude"):
        opened.train.train(0, 0, 4, Augment(policy="randaugment", magnitude=40))


@with_torchvision
def test_resident_training_with_a_policy_is_the_same_on_ranks(data: Data) -> None:
    recipe = Augment(policy="autoaugment", cutout=0.2)
    (whole,) = data.train.train(0, 0, 32, recipe)
    parts = [next(iter(data.train.train(0, 0, 32, recipe, rank, 2))) for rank in range(2)]
    assert torch.equal(torch.cat([x for x, _ in parts]), whole[0])
    plain = next(iter(data.train.train(0, 0, 32, Augment(cutout=0.2))))
    assert torch.equal(plain[1], whole[1]) and not torch.equal(plain[0], whole[0])


def flip(images: Pixels, number: int) -> Path:
    """Change a bit of an image in the file that images are mapped from; return its folder."""
    assert isinstance(images.values, np.memmap)
    path = Path(str(images.values.filename))
    with path.open("r+b") as file:
        file.seek(images.values.offset + 3 * int(images.starts[number]) + 5)
        old = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([old ^ 4]))
    return path.parent


def refusal(epoch: Callable[[], Iterator[Batch]]) -> str:
    """Return what the error says that batches end in."""
    try:
        joined(epoch())
    except RunError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("workers", [None, 0, 2])
def test_a_changed_bit_of_mapped_images_is_told_and_they_are_decoded_anew(
    mapped: Pixels, workers: int | None
) -> None:
    """`workers` None: of images that are kept in memory, mapped all the same."""
    seen = loader.input_for(mapped, 32)
    store = crops.make_store(mapped)
    made: Resident | Streaming = Resident(mapped, store, seen)
    if workers is not None:
        made = Streaming(mapped, seen, "cpu", workers)
    whole = joined(made.ordered(16))
    folder = flip(mapped, 7)
    for epoch in (lambda: made.ordered(16), lambda: made.train(0, 0, 16, Augment())):
        said = refusal(epoch)
        assert "are damaged, the checksum of one differs" in said
        assert "\n" not in said and "--resume" in said
    with pytest.raises(RunError, match="are damaged"):
        loader.statistics(mapped)
    again = pixels.decode_split(dataset().splits["train"], 37, cache=folder.parent)
    same = joined(Streaming(again, seen, "cpu", 0).ordered(16))
    assert torch.equal(same[0], whole[0]) and torch.equal(same[1], whole[1])


def test_a_cache_of_before_that_has_no_checksums_of_images_is_used(mapped: Pixels) -> None:
    assert isinstance(mapped.values, np.memmap)
    folder = Path(str(mapped.values.filename)).parent
    facts = json.loads((folder / "pixels.json").read_text())
    (folder / "pixels.json").write_text(json.dumps({**facts, "checksums": facts["checksums"][:2]}))
    again = pixels.decode_split(dataset().splits["train"], 37, cache=folder.parent)
    assert again.checks is None and mapped.checks is not None
    assert isinstance(again.values, np.memmap) and (again.values == mapped.values).all()
