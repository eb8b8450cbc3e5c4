"""The two kinds of loader: what batches of a split are made of, and in which order.

Resident images lie on the device as uint8, and views are made there, a batch at a time. Streaming
reads the mapped cache in worker processes, which make views one image at a time.
"""

from __future__ import annotations

import dataclasses
import functools
import multiprocessing
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from nas.core.errors import NasError, OptionError, RunError, first_line
from nas.core.processes import follow_parent
from nas.data import augment as crops
from nas.data import policies
from nas.data.augment import Store
from nas.data.augment_settings import Augment
from nas.data.images import PLAIN, Decoding
from nas.data.pixels import Pixels

Batch = tuple[Tensor, Tensor]
Triple = tuple[float, float, float]
# a worker's order: which images, and a seed for the view of each; without seeds, plain views
Request = tuple[Tensor, Tensor | None]


@dataclass(frozen=True)
class Input:
    """What a network takes: squares of `size` pixels, less `mean`, by `std`, of [0, 1] pixels.

    For evaluation they are the middle `crop_pct` of an image's short side. `decoding`: how files
    become such pixels. `interpolation`: how the network's training made smaller images; views of
    our loaders are bilinear.
    """

    size: int
    crop_pct: float
    mean: Triple
    std: Triple
    decoding: Decoding = PLAIN
    interpolation: str = "bilinear"

    def scale(self, device: str | torch.device) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation as tensors (3,) on a device."""
        return torch.tensor(self.mean, device=device), torch.tensor(self.std, device=device)


@dataclass(frozen=True)
class Step:
    """One batch of one rank: which images (B,), and the randomness of each of its crops.

    `draws` (B, crops.DRAWS) float64; `seeds` (B,) int64.
    """

    index: Tensor
    draws: Tensor
    seeds: Tensor


def steps(count: int, batch: int) -> int:
    """Return the batches of an epoch: what is left over is dropped, unless it is all there is."""
    return max(1, count // batch)


def plan(
    count: int, batch: int, epoch: int, seed: int, rank: int = 0, world: int = 1, first: int = 0
) -> Iterator[Step]:
    """Yield what one rank of `world` gets of each batch of an epoch: a function of the arguments.

    Those before batch `first` are left out, and change none of the others.

    The ranks together get what a single process would. Where images are too few for one batch,
    the ranks share them, and some images come twice so that all ranks have equally many.
    """
    order = torch.randperm(count, generator=_generator(seed, epoch))
    share = min(batch // world, -(-count // world))
    for step in range(first, steps(count, batch)):
        generator = _generator(seed, epoch, step + 1)
        draws = crops.draw(share * world, generator)
        seeds = torch.randint(2**62, (share * world,), generator=generator)
        places = torch.arange(step * batch, step * batch + share * world) % count
        mine = slice(rank * share, (rank + 1) * share)
        yield Step(order[places[mine]], draws[mine], seeds[mine])


def _generator(*key: int) -> torch.Generator:
    state = np.random.SeedSequence([number % 2**64 for number in key]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def in_turn(count: int, batch: int, rank: int = 0, world: int = 1) -> Iterator[Tensor]:
    """Yield the positions of a rank, its share of a batch at a time; each has one rank."""
    mine = torch.arange(min(rank, count), count, world)
    return (mine[at : at + batch // world] for at in range(0, len(mine), batch // world))


def _check_batch(batch: int, rank: int, world: int) -> None:
    if not 0 <= rank < world:
        raise OptionError(f"rank must be in 0..{world - 1}, not {rank}")
    if batch < world:
        each = "at least 1" if world == 1 else f"at least 1 for each of {world} processes"
        raise OptionError(f"the batch size must be {each}, not {batch}")


@dataclass(frozen=True, eq=False)
class Resident:
    """A Loader of images that lie on the device as uint8."""

    pixels: Pixels
    store: Store
    input: Input
    note: str = ""

    def __len__(self) -> int:
        return len(self.store)

    @property
    def device(self) -> torch.device:
        return self.store.values.device

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
        _check_batch(batch, rank, world)
        policy = policies.make_policy(augment, self.input.size)
        scale = self.input.scale(self.device)
        for_each = plan(len(self), batch, epoch, seed, rank, world, first)
        return (self._varied(step, augment, policy, scale) for step in for_each)

    def ordered(self, batch: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        _check_batch(batch, rank, world)
        scale = self.input.scale(self.device)
        return (self._plain(index, scale) for index in in_turn(len(self), batch, rank, world))

    def _varied(
        self,
        step: Step,
        augment: Augment,
        policy: policies.Transform | None,
        scale: tuple[Tensor, Tensor],
    ) -> Batch:
        store, size = self.store, self.input.size
        self._check(step.index)
        sides = store.heights[step.index], store.widths[step.index]
        pct = self.input.crop_pct
        boxes = crops.train_boxes(*sides, size, augment, step.draws, crop_pct=pct)
        seen = crops.crop(store, step.index, boxes, size)
        if policy:
            seen = policies.apply_policy(policy, seen, step.seeds[:: policies.GROUP].tolist())
        return _finished(seen, step, augment, scale), self._labels(step.index)

    def _plain(self, index: Tensor, scale: tuple[Tensor, Tensor]) -> Batch:
        self._check(index)
        plain = crops.plain_crops(self.store, index, self.input.size, crop_pct=self.input.crop_pct)
        return crops.finish(plain, *scale), self._labels(index)

    def _check(self, index: Tensor) -> None:
        """Compare mapped images with their checksums; those on a GPU were on their way there."""
        if self.device.type == "cpu":
            self.pixels.check(index.tolist())

    def _labels(self, index: Tensor) -> Tensor:
        return self.store.labels[index].to(self.device, non_blocking=True)


def _finished(seen: Tensor, step: Step, augment: Augment, scale: tuple[Tensor, Tensor]) -> Tensor:
    hole = crops.holes(step.draws, seen.shape[-1], augment.cutout) if augment.cutout else None
    return crops.finish(seen, *scale, hole)


@dataclass(frozen=True, eq=False)
class Streaming:
    """A Loader of images too large for memory, made by `workers` processes; 0: by this one."""

    pixels: Pixels
    input: Input
    device: str
    workers: int
    note: str = ""

    def __len__(self) -> int:
        return len(self.pixels)

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
        _check_batch(batch, rank, world)
        # fails here, not in a worker
        policies.sample_transform(augment, self.input.size, self.input.crop_pct)
        scale = self.input.scale(self.device)
        twice = [plan(len(self), batch, epoch, seed, rank, world, first) for _ in range(2)]
        made = self._made(((step.index, step.seeds) for step in twice[0]), augment)
        return (
            (_finished(seen, step, augment, scale), labels)
            for step, (seen, labels) in zip(twice[1], made, strict=True)
        )

    def ordered(self, batch: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        _check_batch(batch, rank, world)
        scale = self.input.scale(self.device)
        positions = in_turn(len(self), batch, rank, world)
        made = self._made(((index, None) for index in positions), None)
        return ((crops.finish(seen, *scale), labels) for seen, labels in made)

    def _made(self, requests: Iterable[Request], augment: Augment | None) -> Iterator[Batch]:
        """Yield what workers make of each request, on the device: uint8 views and labels.

        Raises:
            NasError: a worker process died, or the cache is gone or damaged.
        """
        try:
            for seen, labels in self._processes(requests, augment):
                there = seen.to(self.device, non_blocking=True)
                yield there.permute(0, 3, 1, 2), labels.to(self.device, non_blocking=True)
        except RunError as error:  # one that a worker sends brings its traceback along
            last = str(error).strip().splitlines()[-1]
            raise RunError(last.removeprefix(f"{RunError.__module__}.RunError: ")) from error
        except (RuntimeError, OSError, EOFError) as error:
            if told := _told(error):
                raise told from error
            raise

    def _processes(self, requests: Iterable[Request], augment: Augment | None) -> DataLoader[Any]:
        source = _place(self.pixels) if self.workers else self.pixels
        return DataLoader(
            _Reader(source, self.input, augment),  # type: ignore[arg-type]
            batch_size=None,
            sampler=requests,
            num_workers=self.workers,
            multiprocessing_context=_context() if self.workers else None,
            pin_memory=torch.device(self.device).type == "cuda",
            generator=torch.Generator(),  # not torch's own, which dropout draws from
            # torch looks whether the fork server lives, not the process that reads
            worker_init_fn=_follow,
        )


def _follow(worker: int) -> None:
    follow_parent()


def _told(error: Exception) -> NasError | None:
    """Return what a person is told of an error in a worker; None: it is a mistake of ours."""
    inside = "in DataLoader worker process" in str(error)  # raised there, and sent here
    if isinstance(error, OSError) and inside:
        return NasError(
            f"the cache of images cannot be read ({type(error).__name__}); run again to make it "
            "anew, and have no other program clear it meanwhile"
        )
    if inside or (isinstance(error, RuntimeError) and "DataLoader worker" not in str(error)):
        return None
    # or the connection to it broke
    return NasError(
        f"a process that reads images died ({first_line(error)}): memory, also shared memory "
        "(docker run --shm-size), may be short; try fewer with --workers"
    )


def _context() -> Any:
    """Return how workers are started: not forked from here, where threads may hold locks.

    A fork server imports once and forks the workers of every epoch in no time.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [name for name in ("nas.data.batches", "torchvision.transforms.v2") if name in sys.modules]
    )
    return context


@dataclass(frozen=True, eq=False)
class _Mapped:
    """Where mapped pixels lie: what travels to a worker instead of them."""

    path: str
    offset: int
    shape: tuple[int, ...]
    rest: Pixels  # without values and names

    def pixels(self) -> Pixels:
        values = np.memmap(self.path, np.uint8, "c", self.offset, self.shape)
        return dataclasses.replace(self.rest, values=values)


def _place(pixels: Pixels) -> _Mapped:
    values = pixels.values
    assert isinstance(values, np.memmap)
    rest = dataclasses.replace(pixels, values=np.empty((0, 3), np.uint8), names=())
    return _Mapped(str(values.filename), values.offset, values.shape, rest)


@dataclass(frozen=True, eq=False)
class _Reader:
    """Makes the views of a request, in this process or in a worker."""

    source: Pixels | _Mapped
    input: Input
    augment: Augment | None

    @functools.cached_property
    def pixels(self) -> Pixels:
        return self.source.pixels() if isinstance(self.source, _Mapped) else self.source

    @functools.cached_property
    def store(self) -> Store:
        return crops.make_store(self.pixels)

    def __getitem__(self, request: Request) -> Batch:
        """Return uint8 views (B, S, S, 3) and labels."""
        index, seeds = request
        self.pixels.check(index.tolist())
        size, pct = self.input.size, self.input.crop_pct
        labels = self.store.labels[index]
        if seeds is None or self.augment is None:
            plain = crops.plain_crops(self.store, index, size, crop_pct=pct)
            return plain.permute(0, 2, 3, 1), labels
        transform = policies.sample_transform(self.augment, size, pct)
        seen = torch.empty(len(index), size, size, 3, dtype=torch.uint8)
        for out, position, seed in zip(seen, index.tolist(), seeds.tolist(), strict=True):
            image = torch.from_numpy(self.pixels.image(position)).permute(2, 0, 1)
            with policies.seeded(seed):
                out.copy_(transform(image).permute(1, 2, 0))
        return seen, labels
