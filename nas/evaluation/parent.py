"""The network whose weights the candidates of a search inherit, and their fine-tuning."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from nas.core.errors import EvaluatorError, MissingError, OptionError
from nas.data.dataset import Split
from nas.data.photographs import photographs
from nas.interfaces import TRAINING_FLOPS, Metrics
from nas.models.arch import Arch
from nas.models.cost import count
from nas.models.skeleton import check_skeleton
from nas.training.amount import INHERITED_IMAGES

if TYPE_CHECKING:
    from nas.data.batches import Triple
    from nas.data.loader import Data
    from nas.training.state import Job
    from nas.training.weights.sources import Weights

AUTO, NONE, PRETRAINED = "auto", "none", "pretrained"
# metrics of an inherited candidate: of its linear probe, which comes before its fine-tuning
PROBED, PROBE_SECONDS = "probe_accuracy", "probe_seconds"


@dataclass(frozen=True)
class Parent:
    """The network that candidates inherit from; `source` names its weights."""

    source: str
    weights: Weights
    _kept: list[tempfile.TemporaryDirectory[str]] = field(default_factory=list, compare=False)

    @property
    def arch(self) -> Arch:
        return self.weights.arch

    @property
    def told(self) -> str:
        """Return it in words."""
        return self.weights.told or f"{self.arch.name} ({self.source})"

    @cached_property
    def normal(self) -> tuple[Triple, Triple] | None:
        """Return the mean and standard deviation that its images had; None: not known."""
        known = self.weights.input
        return (known.mean, known.std) if known else None

    @cached_property
    def place(self) -> str:
        """Return a folder that keeps the weights: of a run, or for as long as this lives."""
        from nas.training.weights.sources import save_weights

        if Path(self.source).is_dir():
            return self.source
        self._kept.append(tempfile.TemporaryDirectory(prefix="nas-parent-"))
        save_weights(Path(self._kept[-1].name), self.weights)
        return self._kept[-1].name

    def check(self, arch: Arch) -> None:
        """Check that an arch can inherit its weights.

        Raises:
            EvaluatorError: their skeletons differ.
        """
        try:
            check_skeleton(self.arch, arch)
        except OptionError as error:
            raise EvaluatorError(str(error)) from error


def parent_for(init: str, train: Split) -> tuple[Parent | None, tuple[str, ...]]:
    """Return the parent that `init` names, None for none, and a line on what was chosen.

    AUTO takes pretrained weights where they are installed, for colour photographs.

    Raises:
        OptionError: there are no such weights.
        MissingError: the package that has them is not installed.
    """
    from nas.training.weights.sources import find_weights

    if init in ("", NONE):
        return None, ()
    if init != AUTO:
        asked = Parent(init, find_weights(init))
        notes = [
            f"starts from {asked.told}: each candidate inherits its weights",
            asked.weights.note,
        ]
        return asked, tuple(filter(None, notes))
    if not photographs(train):
        return None, ()
    try:
        found = Parent(PRETRAINED, find_weights(PRETRAINED))
    except MissingError as error:
        return None, (f"nothing is inherited: {error}",)
    line = (
        f"starts from {found.told}, since these are colour photographs: each candidate inherits "
        "its weights; --init none trains from nothing"
    )
    return found, (line,)


def fine_tuned_images(images: int) -> int:
    """Return how many images of a training split a candidate is fine-tuned on."""
    return min(images, INHERITED_IMAGES)


def fine_tune(
    job: Job,
    data: Data,
    folder: Path,
    until: int,
    *,
    watch: Callable[[dict[str, float]], None] = lambda row: None,
    say: Callable[[str], None] = lambda text: None,
) -> Metrics:
    """Fine-tune up to an epoch; return the metrics of the weights that are kept: the best.

    Those of the linear probe count as the epoch 0. A whole fine-tuning may end early.

    Raises:
        NasError: training has diverged, or memory does not suffice for one image.
    """
    from nas.training.loop import fit, training_flops
    from nas.training.probe import read_probe

    whole = until >= job.epochs
    every = range(1, job.epochs + 1)
    last = None if whole and until else until
    rows = fit(job, data, folder, until=last, validate_at=every, watch=watch, say=say)[:until]
    probed = read_probe(folder)
    scores = [row["val_top1"] for row in rows if "val_top1" in row]
    top1 = max([probed.top1, *scores] if probed else scores)
    forward = count(job.arch, data.size).flops * (len(data.train) + len(data.val))
    speed = {"images_per_second": rows[-1]["images_per_second"]} if rows else {}
    return {
        "accuracy": top1,
        "accuracy_std": deviation(top1, len(data.val)),
        "epochs": float(len(rows)),
        **speed,
        TRAINING_FLOPS: training_flops(job, data, len(rows)) + forward,
        **({PROBED: probed.top1, PROBE_SECONDS: probed.seconds} if probed else {}),
    }


def deviation(top1: float, images: int) -> float:
    """Return the standard error of an accuracy in percent on a number of images."""
    share = top1 / 100
    return 100 * math.sqrt(share * (1 - share) / images)
