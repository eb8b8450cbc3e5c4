"""Batches for training and evaluation: views on the device, in an order that a seed decides.

Images that fit are kept as uint8 where the training is, and all batches are made there. Of more
images than that, worker processes make the views out of the mapped cache.
"""

from __future__ import annotations

import dataclasses
import functools
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from nas.core.errors import OptionError
from nas.core.system import cache_folder, free_memory, processors
from nas.data import augment as crops
from nas.data import policies
from nas.data.augment_settings import Augment
from nas.data.batches import Batch, Input, Resident, Streaming, Triple
from nas.data.dataset import Dataset, Split
from nas.data.depth import decoded_as
from nas.data.pixels import Pixels, check_broken, decode_split
from nas.data.splits import fraction as part_of

MOST_WORKERS = 8
# images and rows of each that mean and standard deviation are taken of
SAMPLED_IMAGES, SAMPLED_ROWS = 10_000, 64


class Loader(Protocol):
    """The images of a split, as batches on a device: x float32 (B, 3, S, S) channels last, y int64.

    `batch` images are a batch of all `world` processes together; each gets its part of it.
    """

    def __len__(self) -> int:
        """Return the number of images."""

    def train(
        self,
        epoch: int,
        seed: int,
        batch: int,
        augment: Augment,
        rank: int = 0,
        world: int = 1,
        first: int = 0,
    ) -> Iterator[Batch]:
        """Yield batches of varied views, full ones: a function of the arguments and the data.

        From batch `first` of the epoch on: no image of those before is looked at.

        Raises:
            OptionError: the batch or the augmentation is out of range.
            MissingError: torchvision is needed and is not there.
        """

    def ordered(self, batch: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """Yield the plain view of every image once; rank r has images r, r + world, ..."""


@dataclass(frozen=True)
class Data:
    """A data set as a training sees it. `test` opens the test split: a search never calls it.

    `gray`: the training images have no colour, their channels are alike.
    """

    train: Loader
    val: Loader
    test: Callable[[], Loader]
    classes: tuple[str, ...]
    input: Input
    notes: tuple[str, ...] = ()
    gray: bool = False

    @property
    def size(self) -> int:
        return self.input.size

    @property
    def crop_pct(self) -> float:
        return self.input.crop_pct

    @property
    def mean(self) -> Triple:
        return self.input.mean

    @property
    def std(self) -> Triple:
        return self.input.std


def open_data(
    dataset: Dataset,
    *,
    imgsz: int,
    device: str = "cpu",
    fraction: float = 1.0,
    seed: int = 0,
    workers: int | None = None,
    cache: Path | bool = True,
    resident: bool | None = None,
    normal: tuple[Triple, Triple] | None = None,
) -> Data:
    """Return the loaders of a data set with train, val and test (`nas.data.splits.make_splits`).

    `fraction` of the training images, chosen by `seed`, are trained on. `workers`: threads that
    decode, and processes that make views of images too large for memory; 0: none; None: by the
    processors. `cache`: a folder, or whether to use the user's. `resident`: whether images are kept
    on the device; None: if they take up to half of its free memory. `normal`: mean and standard
    deviation to normalise by, as of weights that are started from; None: those of the images.

    Raises:
        OptionError: imgsz, fraction or workers is out of range, or over 1 % of a split is broken.
        MissingError: the images are too large for memory, and there is no torchvision.
    """
    if imgsz < 1:
        raise OptionError(f"--imgsz must be at least 1 pixel, not {imgsz}")
    if workers is not None and workers < 0:
        raise OptionError(f"--workers must be 0 or more, not {workers}")
    read = functools.partial(_read, imgsz=imgsz, cache=cache, workers=workers)
    splits = {**dataset.splits, "train": part_of(dataset.splits["train"], fraction, seed)}
    train, val = read(splits["train"]), read(splits["val"])
    seen = dataclasses.replace(input_for(train, imgsz), decoding=splits["train"].decoding)
    gray = all(len({round(x, 4) for x in triple}) == 1 for triple in (seen.mean, seen.std))
    if normal:
        seen = dataclasses.replace(seen, mean=normal[0], std=normal[1])
    stay = _fits([train, val], device) if resident is None else resident
    if not stay:
        policies.vision("a training on images that do not fit into memory (resident=False)")
    opened = functools.partial(_loader, input=seen, device=device, workers=workers, stay=stay)

    @functools.cache
    def test() -> Loader:
        return opened(read(splits["test"]))

    loaders = opened(train), opened(val)
    notes = [f"{name}: {x.note}" for name, x in zip(splits, loaders, strict=False) if x.note]
    if not stay:
        notes.append("images are not kept in memory: they are read again for each epoch")
    return Data(*loaders, test, dataset.classes, seen, (*dataset.notes, *notes), gray)


def open_split(
    split: Split,
    input: Input,
    *,
    device: str = "cpu",
    workers: int | None = None,
    cache: Path | bool = True,
) -> Loader:
    """Return the loader of one split, for a network that is already there, decoded as it takes it.

    Raises:
        OptionError: over 1 % of it is broken.
    """
    split = decoded_as(split, input.decoding)
    pixels = _read(split, imgsz=input.size, cache=cache, workers=workers)
    return _loader(pixels, input, device, workers, _fits([pixels], device))


def stored_side(imgsz: int) -> int:
    """Return the short side at which images are kept for views of this side."""
    return crops.short_side(imgsz, crops.CROP_PCT)


def _read(split: Split, *, imgsz: int, cache: Path | bool, workers: int | None) -> Pixels:
    folder = cache_folder() if cache is True else cache or None
    pixels = decode_split(split, stored_side(imgsz), cache=folder, workers=workers)
    check_broken(pixels)  # before anything is made of the rest
    return pixels


def _loader(
    pixels: Pixels, input: Input, device: str, workers: int | None, stay: bool
) -> Resident | Streaming:
    note = check_broken(pixels)
    if stay:
        return Resident(pixels, crops.make_store(pixels, device), input, note)
    return Streaming(pixels, input, device, _workers(workers, pixels), note)


def input_for(pixels: Pixels, imgsz: int) -> Input:
    """Return what a network trained on these images takes: their mean and standard deviation.

    The whole short side is seen where most images are no larger than the view, else 0.875 of it.
    """
    short = np.median(np.minimum(pixels.heights, pixels.widths))
    return Input(imgsz, crops.CROP_PCT if short > imgsz else 1.0, *statistics(pixels))


def statistics(pixels: Pixels) -> tuple[Triple, Triple]:
    """Return mean and standard deviation of the channels, of pixels in [0, 1]; images weigh alike.

    Of more than 10,000 images a sample is taken, of images above 64 rows every so many rows.
    """
    rng = np.random.default_rng(0)
    count = len(pixels)
    chosen: Iterable[int] = range(count)
    if count > SAMPLED_IMAGES:
        chosen = np.sort(rng.choice(count, SAMPLED_IMAGES, replace=False))
    moments = np.zeros((2, 3))
    pixels.check(chosen)
    for i in chosen:
        moments += _moments(pixels.image(i))
    mean, square = moments / min(count, SAMPLED_IMAGES)
    # a channel of one value only is left unscaled but for its level of noise
    std = np.sqrt(np.maximum(square - mean**2, 1 / 255**2))
    return tuple(mean.tolist()), tuple(std.tolist())


def _moments(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Return the mean and the mean square of each channel (2, 3), of pixels in [0, 1]."""
    rows = image[:: max(1, len(image) // SAMPLED_ROWS)]
    values = rows.reshape(len(rows), -1).astype(np.float32) / 255
    # down the rows first: numpy is slow along an axis of 3
    sums = [x.sum(0).reshape(-1, 3).sum(0, dtype=np.float64) for x in (values, values * values)]
    return np.stack(sums) / (values.size / 3)


def _fits(splits: Sequence[Pixels], device: str) -> bool:
    """Return whether the images take up to half of the free memory, or are in it already."""
    if torch.device(device).type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return 2 * sum(pixels.values.nbytes for pixels in splits) <= free
    mapped = sum(x.values.nbytes for x in splits if isinstance(x.values, np.memmap))
    return 2 * mapped <= free_memory()


def _workers(asked: int | None, pixels: Pixels) -> int:
    """Return how many processes read images: none where these are in this one's memory only."""
    if not isinstance(pixels.values, np.memmap) or multiprocessing.current_process().daemon:
        return 0
    return min(MOST_WORKERS, processors()) if asked is None else asked
