"""Compare training speed: our loop, timm's net in a plain loop, and what a fixed batch allows.

Four contenders train nets of one shape on equal random images, in turn, a round of steps each:

    ours        `nas.training.loop.fit` as users run it: views, recipe, optimizer, averaged weights
    ceiling     our net and optimizer again and again on one batch that lies on the device
    timm        timm's net in a plain loop; `lib/timm_loop.py` says what exactly that is
    timm fixed  timm's net and optimizer on one batch

All do the recipe's augmentation, but ours draws a policy such as AutoAugment for groups of images
and the plain loop for every image: `--recipe-option policy=none` leaves it out. Nothing is decoded.
Validation and checkpoints are outside of the time. The first round warms up and is not counted.

    python scripts/bench_training.py --imgsz 96 --batch 16 --threads 1
    python scripts/bench_training.py --device cuda --amp --imgsz 224 --batch 256 --steps 30
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lib import flags, timm_loop
from lib.images import random_images, resident
from lib.suite_report import training_tables
from torch import Tensor, nn
from torch.nn import functional

from nas.cli.flags import pairs
from nas.core.errors import MissingError, NasError, OptionError
from nas.data.loader import Data, Loader
from nas.hardware import measurement
from nas.hardware.timing import load
from nas.hardware.torch_device import torch_device
from nas.models.arch import Arch
from nas.models.build import Model
from nas.models.cost import count
from nas.models.load import load_arch
from nas.training import optim
from nas.training.loop import fit
from nas.training.recipe import Recipe, load_recipe
from nas.training.state import Job, Row

OURS, CEILING, TIMM, TIMM_FIXED = "ours", "ceiling", "timm", "timm fixed"
RATIOS = ((OURS, CEILING), (OURS, TIMM), (TIMM, TIMM_FIXED), (CEILING, TIMM_FIXED))
# the learning rate does not change the work, and random labels must not make a net diverge
LR = 1e-6

# trains for one round; returns images a second
Round = Callable[[], float]


@dataclass(frozen=True)
class Bench:
    """What all contenders have in common. `seconds`: no round begins later."""

    arch: Arch  # as the recipe changes it
    timm: str
    recipe: Recipe
    batch: int
    steps: int
    rounds: int
    device: str
    amp: bool
    workers: int
    seconds: float
    clock: str

    @property
    def size(self) -> int:
        return self.arch.resolution

    @property
    def cuda(self) -> bool:
        return self.device.startswith("cuda")


class _Enough(Exception):
    """The time is up."""


@flags.in_one_line
def main(words: Sequence[str] | None) -> None:
    given = parse(words)
    torch.set_num_threads(given.threads)
    result = compare(bench_from(given))
    print(json.dumps(result) if given.json else "\n".join(training_tables([result])))


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = flags.parser(__doc__)
    parser.add_argument("--arch", default="efficientnet_b0", help="a baseline, arch.json or run")
    parser.add_argument("--timm", metavar="NAME", help="what timm calls it")
    parser.add_argument("--recipe", default="efficientnet")
    parser.add_argument("--recipe-option", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--imgsz", type=flags.positive, help="default the arch's")
    parser.add_argument("--batch", type=flags.positive, default=32)
    parser.add_argument("--steps", type=flags.positive, default=4, help="of one round")
    parser.add_argument("--rounds", type=flags.positive, default=7, help="after one to warm up")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    parser.add_argument("--amp", action="store_true", help="bfloat16 autocast, for all")
    parser.add_argument("--threads", type=flags.positive, default=torch.get_num_threads())
    workers = "processes of the plain loop; default none on a CPU, one a core beside a GPU"
    parser.add_argument("--workers", type=int, default=-1, help=workers)
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no round later")
    clock = "cpu: the processor time of this process, on a machine that others use; not for a GPU"
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help=clock)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args(words)


def bench_from(given: argparse.Namespace) -> Bench:
    """Return what is compared, checked.

    Raises:
        OptionError: no such arch, recipe, option or device.
    """
    recipe = load_recipe(given.recipe, pairs(given.recipe_option) | {"lr": LR})
    device = torch_device(given.device)
    arch = load_arch(given.arch)
    if arch.in_channels != 3:
        raise OptionError(f"{arch.name} takes {arch.in_channels} channels; images have 3")
    name = given.timm or timm_loop.NAMES.get(arch.name, arch.name)
    arch = regularised(dataclasses.replace(arch, resolution=given.imgsz or arch.resolution), recipe)
    workers = given.workers
    if workers < 0:
        workers = len(measurement.allowed_cores()) if device.startswith("cuda") else 0
    plain = ("batch", "steps", "rounds", "amp", "seconds", "clock")
    rest = {key: getattr(given, key) for key in plain}
    return Bench(arch, name, recipe, device=device, workers=workers, **rest)


def regularised(arch: Arch, recipe: Recipe) -> Arch:
    """Return the arch with the recipe's dropout and stochastic depth, where it has them."""
    if recipe.dropout is not None:
        arch = dataclasses.replace(
            arch, head=dataclasses.replace(arch.head, dropout=recipe.dropout)
        )
    depth = recipe.stochastic_depth
    return arch if depth is None else dataclasses.replace(arch, stochastic_depth=depth)


def compare(bench: Bench) -> dict[str, Any]:
    """Run all rounds; return speeds in images a second, and their ratios, as JSON data.

    Raises:
        NasError: our own loop cannot run.
    """
    notes: list[str] = []
    classes = bench.arch.head.classes
    images, labels = random_images(bench.steps * bench.batch, bench.size, classes)
    rounds = {CEILING: ceiling(bench)}
    try:
        rounds |= timm_rounds(bench, images, labels, notes.append)
    except (ImportError, MissingError) as error:
        notes.append(f"timm is left out: {str(error).splitlines()[0]}")
    data = resident(images, labels, size=bench.size, classes=classes, device=bench.device)
    speeds = race(bench, data, rounds, notes.append)
    return {
        "schema": 1,
        "machine": machine(bench),
        "settings": described(bench),
        "load": load(),
        "notes": notes,
        "images_per_second": speeds,
        "ratios": [ratio(speeds, *pair) for pair in RATIOS if set(pair) <= set(speeds)],
    }


def race(
    bench: Bench, data: Data, others: dict[str, Round], say: Callable[[str], None]
) -> dict[str, list[float]]:
    """Return the images a second of each contender in each round but the first.

    An epoch of `fit` is a round of ours; the others run between its epochs, in alternating order.
    One that fails is left out, and `say` is told why.

    Raises:
        NasError: our loop cannot run, or the time was up before a round that counts.
    """
    loader = Clocked(bench, data.train)
    speeds: dict[str, list[float]] = {OURS: loader.speeds, **{name: [] for name in others}}
    deadline = time.monotonic() + bench.seconds

    def watch(row: Row) -> None:
        order = others if len(loader.speeds) % 2 else reversed(others)
        with fastest_kernels():
            for name in [name for name in order if len(speeds[name]) == len(loader.speeds) - 1]:
                try:
                    speeds[name].append(others[name]())
                except (RuntimeError, OSError) as error:  # the others go on without it
                    say(f"{name} is left out: {str(error).splitlines()[0]}")
        if time.monotonic() > deadline:
            raise _Enough

    data = dataclasses.replace(data, train=loader)
    where = (bench.device, bench.amp)
    job = Job(bench.arch, bench.recipe, bench.rounds + 1, bench.batch, 0, *where)
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(_Enough):
        fit(job, data, Path(folder), validate_at=(), watch=watch, say=say)
    if len(loader.speeds) < 2:
        raise NasError(f"only the warm-up fitted into {bench.seconds:g} s: give more --seconds")
    whole = {name: values for name, values in speeds.items() if len(values) == len(loader.speeds)}
    return {name: values[1:] for name, values in whole.items()}


@contextlib.contextmanager
def fastest_kernels() -> Iterator[None]:
    """Have cuDNN try its kernels for each new shape and keep the fastest, as timm's train.py."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def ceiling(bench: Bench) -> Round:
    """Return rounds of our net and optimizer on one batch."""
    model = on_device(bench, Model(bench.arch))
    return fixed(bench, model, optim.make_optimizer(model, bench.recipe, LR))


def timm_rounds(
    bench: Bench, images: Tensor, labels: Tensor, say: Callable[[str], None]
) -> dict[str, Round]:
    """Return rounds of timm's net in the plain loop, and on one batch.

    Raises:
        ImportError: timm cannot be imported.
        MissingError: torchvision, of which the plain loop's views are, does not work.
    """
    if not timm_loop.known(bench.timm):
        say(f"timm is left out: it has no net {bench.timm}; --timm names another")
        return {}
    nets = [on_device(bench, timm_loop.net(bench.timm, bench.arch)) for _ in range(2)]
    ours, theirs = count(bench.arch).params, sum(p.numel() for p in nets[0].parameters())
    if ours != theirs:
        say(f"not quite one shape: {ours:,} parameters, and {theirs:,} of timm's {bench.timm}")
    optimizer = timm_loop.make_optimizer(nets[1], bench.recipe, LR)
    return {
        TIMM: plain(bench, nets[0], images, labels),
        TIMM_FIXED: fixed(bench, nets[1], optimizer),
    }


def plain(bench: Bench, model: nn.Module, images: Tensor, labels: Tensor) -> Round:
    """Return rounds of the plain loop.

    At the start of a round each worker makes its first batch, which is trained on outside of the
    time: in a whole epoch these are few.
    """
    optimizer = timm_loop.make_optimizer(model, bench.recipe, LR)
    follow = timm_loop.follower(model, bench.recipe)
    loader = timm_loop.make_loader(
        images,
        labels,
        bench.recipe,
        bench.size,
        batch_size=bench.batch,
        batches=bench.workers + bench.steps,
        num_workers=bench.workers,
        pin_memory=bench.cuda,
    )

    def train(batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        for x, y in batches:
            x, y = timm_loop.normalised(x, bench.device), y.to(bench.device, non_blocking=True)
            descend(bench, model, optimizer, x, y)
            follow()

    def run() -> float:
        batches = iter(loader)
        train(itertools.islice(batches, bench.workers))
        return timed(bench, lambda: train(batches))

    return run


def fixed(bench: Bench, model: nn.Module, optimizer: torch.optim.Optimizer) -> Round:
    """Return rounds of a net on one batch."""
    shape = (bench.batch, 3, bench.size, bench.size)
    x = torch.randn(shape).to(bench.device, memory_format=torch.channels_last)
    y = torch.arange(bench.batch, device=bench.device) % bench.arch.head.classes

    def steps() -> None:
        for _ in range(bench.steps):
            descend(bench, model, optimizer, x, y)

    return lambda: timed(bench, steps)


def descend(
    bench: Bench, model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor
) -> None:
    """Take one step: forward, backward, optimizer."""
    with torch.autocast(bench.device.partition(":")[0], torch.bfloat16, enabled=bench.amp):
        logits = model(x)
    soft = bench.recipe.label_smoothing
    loss = functional.cross_entropy(logits.float(), y, label_smoothing=soft)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def timed(bench: Bench, steps: Callable[[], object]) -> float:
    """Return the images a second of a round, from an idle device to an idle device."""
    start = now(bench)
    steps()
    return bench.steps * bench.batch / (now(bench) - start)


@dataclass(frozen=True)
class Clocked:
    """The loader of a training, as `nas.data.loader.Loader`, that times its epochs as `timed` does.

    An epoch ends when the batch after the last is asked for: its step has been taken then.
    """

    bench: Bench
    loader: Loader
    speeds: list[float] = dataclasses.field(default_factory=list)

    def __len__(self) -> int:
        return len(self.loader)

    def train(self, *epoch: Any) -> Iterator[tuple[Tensor, Tensor]]:
        start = now(self.bench)
        yield from self.loader.train(*epoch)
        self.speeds.append(len(self) / (now(self.bench) - start))

    def ordered(self, *batch: Any) -> Iterator[tuple[Tensor, Tensor]]:
        return self.loader.ordered(*batch)


def now(bench: Bench) -> float:
    """Return the time in seconds when the device has done all that it was given."""
    if bench.cuda:
        torch.cuda.synchronize(bench.device)
    return time.process_time() if bench.clock == "cpu" else time.perf_counter()


def on_device(bench: Bench, model: nn.Module) -> nn.Module:
    # torch's stubs do not know this keyword of Module.to
    model.to(bench.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.train()


def machine(bench: Bench) -> str:
    if not bench.cuda:
        return f"{measurement.processor()}, torch {torch.__version__}"
    card = torch.cuda.get_device_name(bench.device)
    return (
        f"{card}, CUDA {torch.version.cuda}, torch {torch.__version__}; {measurement.processor()}"
    )


def described(bench: Bench) -> dict[str, Any]:
    """Return the settings as JSON data."""
    names = ("timm", "batch", "steps", "device", "amp", "workers", "clock")
    own = {name: getattr(bench, name) for name in names}
    recipe = {"recipe": bench.recipe.name, "policy": bench.recipe.augment.policy}
    threads = torch.get_num_threads()
    return {"arch": bench.arch.name, "imgsz": bench.size, **own, **recipe, "threads": threads}


def ratio(speeds: Mapping[str, Sequence[float]], one: str, other: str) -> dict[str, Any]:
    """Return the ratio of two contenders' medians, and that of each round."""
    return {
        "of": [one, other],
        "medians": statistics.median(speeds[one]) / statistics.median(speeds[other]),
        "rounds": [mine / its for mine, its in zip(speeds[one], speeds[other], strict=True)],
    }


if __name__ == "__main__":
    main()
