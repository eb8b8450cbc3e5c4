"""A teacher: a trained net whose answers another net learns from (knowledge distillation).

It sees the same part of an image as the student, mirrored alike (Beyer et al. 2022, arXiv
2106.05237, "consistent teaching"), but at its own pixels and normalised as its weights want it: a
net of 128 pixels knows little of views of 64 (docs/results.md). A training keeps its teacher in its
run folder: whatever becomes of the source, a resumed training has the same one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.core import run_folder
from nas.core.errors import ArchError, MissingError, RunError, first_line
from nas.core.records import Record
from nas.data.augment_settings import Augment
from nas.data.batches import Triple
from nas.data.loader import Loader
from nas.models.arch import Arch
from nas.models.build import Model
from nas.models.cost import FLOAT_BYTES
from nas.training.checkpoint import digest, read_weights, write_weights
from nas.training.recipe import Recipe
from nas.training.scores import TeacherScore

FOLDER, FACTS, WEIGHTS, SCHEMA = "teacher", "teacher.json", "model.safetensors", 1
Normal = tuple[Triple, Triple]  # mean and standard deviation of a network's views


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Facts(Record):
    """What is known of a teacher beside its weights.

    `told`: its source in words. `timm`: its name there, "" of ours, which have an `arch`. `normal`:
    and `pixels` a side: of the views that it takes. `top1` in percent on `images` validation
    images; `probed`: its classifier is a linear probe, made for these images. `flops`, `map_bytes`:
    multiply-adds and the largest maps of one view. `digest`: of its weights.
    """

    schema: int = SCHEMA
    source: str
    told: str
    timm: str = ""
    arch: dict[str, Any] | None = None
    normal: Normal
    pixels: int
    classes: tuple[str, ...]
    probed: bool
    top1: float
    images: int
    params: int
    flops: int
    map_bytes: int
    digest: str

    def score(self) -> TeacherScore:
        """Return what a result tells of it."""
        return TeacherScore(
            source=self.source,
            told=self.told,
            top1=self.top1,
            n=self.images,
            probed=self.probed,
            flops=self.flops,
            pixels=self.pixels,
        )

    @property
    def memory(self) -> tuple[float, float]:
        """Return bytes: of the weights, and of the largest maps of a view."""
        return FLOAT_BYTES * self.params, self.map_bytes


@dataclass(frozen=True)
class Teacher:
    """A network that teaches, with what is known of it.

    `views`: the training images at its own pixels; None: those of the student are of as many.
    """

    net: Renormalised
    facts: Facts
    views: Loader | None = None

    def __repr__(self) -> str:
        return f"Teacher({self.facts.source!r}, {self.facts.digest})"


@dataclass(frozen=True)
class Candidate:
    """A net that may teach: `classes` of its own, () where they are not known.

    `timm`: its architecture there, "" of ours. `pixels`: a side that it was trained at; `fixed`: it
    takes no other. `facts`: of a teacher that was made before; there is nothing left to do for it.
    """

    source: str
    net: nn.Module
    normal: Normal
    classes: tuple[str, ...]
    told: str
    pixels: int
    timm: str = ""
    fixed: bool = False
    facts: Facts | None = None


class Renormalised(nn.Module):
    """A network behind views that were normalised for another: its student."""

    net: Any
    scale: Tensor
    shift: Tensor

    def __init__(self, net: nn.Module, own: Normal, given: Normal) -> None:
        super().__init__()
        self.net = net
        (mean, std), (seen_mean, seen_std) = (
            [torch.tensor(each, dtype=torch.float64) for each in normal] for normal in (own, given)
        )
        shape = (1, 3, 1, 1)
        self.register_buffer("scale", (seen_std / std).float().view(shape))
        self.register_buffer("shift", ((seen_mean - mean) / std).float().view(shape))

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last map of views that are normalised as given."""
        found: Tensor = self.net.forward_features(x * self.scale + self.shift)
        return found

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return logits, or with `pre_logits` the vector that the classifier reads."""
        found: Tensor = self.net.forward_head(x, pre_logits=pre_logits)
        return found

    def get_classifier(self) -> nn.Module:
        """Return the last linear layer."""
        found: nn.Module = self.net.get_classifier()
        return found

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def with_views(
    teacher: Teacher | None,
    loader: Loader,
    epoch: int,
    seed: int,
    batch: int,
    augment: Augment,
    rank: int = 0,
    world: int = 1,
    first: int = 0,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield the batches of `Loader.train`, each with what a teacher sees of the same images."""
    order = (epoch, seed, batch, augment, rank, world, first)
    own = loader.train(*order)
    if not teacher or not teacher.views:
        return ((x, y, x) for x, y in own)
    both = zip(own, teacher.views.train(*order), strict=True)
    return ((x, y, seen) for (x, y), (seen, _) in both)


def weakness(facts: Facts, top1: float) -> str:
    """Return a warning where a teacher knows less than its student, of val top-1 `top1`, or ""."""
    if facts.top1 >= top1:
        return ""
    return (
        f"the teacher ({facts.told}: {facts.top1:.2f} % of val) is worse than what its student "
        f"starts from ({top1:.2f} %): take a better one, or more pixels "
        "(--recipe-option teacher_pixels=...)"
    )


@dataclass(frozen=True)
class Answer:
    """What a net says of N images: logits (N, K), and the vectors (N, D) of its classifier."""

    logits: Tensor
    vectors: Tensor


@torch.no_grad()
def ask(teacher: Teacher, images: Tensor) -> Answer:
    """Return what a teacher says of views of its pixels, normalised as its student's."""
    vectors = teacher.net.forward_head(teacher.net.forward_features(images), pre_logits=True)
    return Answer(teacher.net.get_classifier()(vectors).float(), vectors.float())


@contextlib.contextmanager
def listening(teacher: Teacher | None, recipe: Recipe, model: Model) -> Iterator[list[Tensor]]:
    """Yield a list that gets the pooled vectors of each forward pass of a student, before dropout.

    Of one whose vectors are as long as its teacher's, if the recipe asks for them; else it stays
    empty.
    """
    heard = list[Tensor]()
    wanted = teacher and recipe.teacher_features
    if not teacher or not wanted or not _same_length(teacher, model):
        yield heard
        return
    layers = [layer for layer in model.head if not isinstance(layer, nn.Dropout)]
    hook = layers[-2].register_forward_hook(lambda layer, given, made: heard.append(made))
    try:
        yield heard
    finally:
        hook.remove()


def _same_length(teacher: Teacher, model: Model) -> bool:
    theirs = teacher.net.get_classifier()
    assert isinstance(theirs, nn.Linear)
    return theirs.in_features == model.get_classifier().in_features


def loss_of(
    recipe: Recipe,
    logits: Tensor,
    labels: Tensor,
    answer: Answer | None,
    vectors: Sequence[Tensor] = (),
) -> Tensor:
    """Return the mean loss of a batch: cross entropy, or that and how far the teacher is away.

    (1 - a) CE(labels) + a T^2 KL(teacher || student), both softened by the temperature T: Hinton
    et al. 2015, arXiv 1503.02531; `a` is the recipe's `teacher_share`. To it comes, for `vectors`
    of the student (one tensor, or none), `teacher_features` x (1 - cosine) of both nets' vectors.
    """
    own = functional.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
    if answer is None:
        return own
    heat, share = recipe.temperature, recipe.teacher_share
    apart = functional.kl_div(
        functional.log_softmax(logits / heat, 1),
        functional.log_softmax(answer.logits / heat, 1),
        log_target=True,
        reduction="batchmean",
    )
    loss = (1 - share) * own + share * heat**2 * apart
    for seen in vectors:
        alike = functional.cosine_similarity(seen.flatten(1).float(), answer.vectors)
        loss = loss + recipe.teacher_features * (1 - alike).mean()
    return loss


def ready(net: nn.Module, device: str) -> None:
    """Move a net to a device, in place, in eval mode and without gradients."""
    net.eval().requires_grad_(False)
    net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def write_teacher(folder: Path, teacher: Teacher) -> None:
    """Write a teacher into a folder; what says that it is whole, last.

    Raises:
        RunError: the disk is full or the folder cannot be written.
    """
    write_weights(folder / WEIGHTS, teacher.net.net.state_dict())
    run_folder.write_json(folder / FACTS, teacher.facts.to_dict())


def has_teacher(folder: Path) -> bool:
    """Tell whether a folder holds a whole teacher."""
    return (folder / FACTS).is_file()


def read_teacher(folder: Path) -> Candidate:
    """Return the teacher of a folder.

    Raises:
        RunError: it is gone or damaged.
        MissingError: it is a net of timm, which is not installed.
    """
    if not has_teacher(folder):
        raise RunError(f"there is no teacher in {folder}: no {FACTS} there")
    facts = run_folder.read_record(folder / FACTS, Facts)
    weights = read_weights(folder / WEIGHTS)
    if digest(weights) != facts.digest:
        raise RunError(f"the weights of the teacher in {folder} are not those of its {FACTS}")
    try:
        net = _empty_net(facts.timm, facts.arch, len(facts.classes))
        net.load_state_dict(weights)
    except (ArchError, RuntimeError, KeyError, TypeError) as error:
        raise RunError(f"the teacher in {folder} is damaged: {first_line(error)}") from error
    return Candidate(
        facts.source,
        net,
        facts.normal,
        facts.classes,
        facts.told,
        facts.pixels,
        facts.timm,
        facts=facts,
    )


def _empty_net(timm: str, arch: Mapping[str, Any] | None, classes: int) -> nn.Module:
    """Return the network of a teacher with fresh weights: timm's of that name, or of an arch.

    Raises:
        MissingError: timm is not installed.
        ArchError: this is no arch.
    """
    if not timm:
        return Model(Arch.from_dict(dict(arch or {})))
    net: nn.Module = timm_library().create_model(timm, pretrained=False, num_classes=classes)
    return net


def timm_library() -> Any:
    """Return timm.

    Raises:
        MissingError: it is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise MissingError("this teacher is a net of timm: pip install timm") from error
    return timm
