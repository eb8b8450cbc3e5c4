"""Train each arch on images for a short while; its validation accuracy is the answer.

With `init` each arch starts from the weights of a parent, which it inherits, and is fine-tuned. The
test split is never read here. Source of the idea: Zoph et al. 2018 and Tan et al. 2019 rank archs
by five epochs on a proxy; `nas proxy-check` tells whether a budget ranks well on your data.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.core import run_folder
from nas.core.errors import EvaluatorError, OptionError
from nas.core.locks import alone
from nas.core.units import format_seconds
from nas.data.dataset import Dataset, open_dataset
from nas.data.splits import make_splits
from nas.evaluation.parent import Parent, deviation, fine_tune, fine_tuned_images, parent_for
from nas.evaluation.teacher import keep_teacher, kept_teacher
from nas.evaluation.training_budget import SMALLEST, TrainingBudget, check_budget, rungs
from nas.interfaces import TRAINING_FLOPS, Metrics
from nas.models.arch import Arch
from nas.models.cost import count
from nas.training.amount import CANDIDATE_EPOCHS, RANKING, Amount, candidate, inheriting, worth
from nas.training.auto import NAME, Plan, Situation, misfits, resolve_recipe
from nas.training.recipe import load_recipe

if TYPE_CHECKING:
    from nas.data.loader import Data
    from nas.training.state import Job

TRAINS = True
PACE = "pace.json"  # of a candidate's folder: its speed, and the epochs that follow from it
PARTS = (25, 50, 100)  # rungs of a training of a time, in hundredths of it
OPENED = 2  # sizes of the images that are kept open, as a space may choose among pixels
FIRST_RUNG = 1 / 4  # of the steps that rank: what a training shows before says nothing


def make(
    *,
    data: str = "",
    image_column: str = "",
    label_column: str = "",
    download: bool = False,
    recipe: str = NAME,
    recipe_options: dict[str, Any] = {},  # noqa: B006
    epochs: int = 0,
    trial_time: float = 0.0,
    fraction: float = 0.0,
    train_imgsz: int = 0,
    batch_size: int = 0,
    accelerator: str = "auto",
    init: str = "",
    teacher: str = "",
    probe: bool = False,
) -> Training:
    """Return the evaluator.

    data: what `--data` takes; image_column, label_column: of its parquet, "": the only ones that
    can be. epochs, fraction (of the training images), train_imgsz (pixels, 0: the arch's own): the
    budget of one candidate; epochs 0: as many as rank candidates, at least 4; fraction 0: all.
    trial_time: seconds instead of epochs: each candidate gets as many whole epochs, at least one,
    as its speed allows. batch_size: 0 is the recipe's. accelerator: auto, cpu, cuda or mps. init:
    weights that archs inherit, as `--init` has them; "": none; auto: pretrained ones for colour
    photographs. With them 0 epochs are few, and a fraction of 0 as many images as rank
    candidates. probe: with them a linear probe is all of the training.
    """
    load_recipe(recipe, recipe_options)  # refused before the images are looked at
    check_budget(fraction, train_imgsz, batch_size, accelerator)
    if epochs < 0:
        raise OptionError(f"epochs must be at least 1, or 0 for as many as rank, not {epochs}")
    if probe and (not init or epochs or trial_time):
        raise OptionError(
            "--epochs 0 is a linear probe alone: it needs weights (--init), and no other length"
        )
    if trial_time and (epochs or "epochs" in recipe_options):
        raise OptionError("--trial-time sets each candidate's epochs: leave --epochs out, or it")
    budget = TrainingBudget(epochs, fraction, train_imgsz, batch_size, trial_time, probe)
    columns = {"image_column": image_column or None, "label_column": label_column or None}
    dataset = make_splits(open_dataset(data, download=download, **columns))
    parent, notes = parent_for(init, dataset.splits["train"])
    dataset = dataclasses.replace(dataset, notes=(*dataset.notes, *notes))
    return Training(dataset, (recipe, recipe_options), budget, accelerator, parent, teacher)


class Training:
    """Evaluator that trains each arch on images for a short while.

    Images are read and decoded when the first arch is trained.
    """

    def __init__(
        self,
        dataset: Dataset,
        recipe: tuple[str, Mapping[str, Any]],
        budget: TrainingBudget,
        accelerator: str,
        parent: Parent | None = None,
        teacher: str = "",
    ) -> None:
        self._dataset = dataset
        self._recipe, self._accelerator = recipe, accelerator
        self.parent, self._teacher = parent, teacher
        self._opened: dict[int, Data] = {}
        self.classes = self._dataset.classes
        self.fingerprint = self._dataset.fingerprint
        self.former_fingerprint = self._dataset.former_fingerprint
        whole = len(self._dataset.splits["train"])
        if not budget.fraction:
            share = fine_tuned_images(whole) / whole if parent else 1.0
            budget = dataclasses.replace(budget, fraction=share)
        self.fraction, self.train_images = budget.fraction, round(whole * budget.fraction)
        self._budget = budget = self._settled(budget)
        self.trial_seconds = budget.seconds
        if budget.seconds:
            self._timed(budget)
        else:
            self._counted(budget)

    def _counted(self, budget: TrainingBudget) -> None:
        """Say what a candidate gets that is trained for a number of epochs."""
        found, validated = self._plan(budget.imgsz or SMALLEST), self._validated
        amount = dataclasses.replace(found.amount, epochs=budget.epochs)
        self.amount: Amount | None = amount
        enough, parent = worth(amount), self.parent
        self.rungs, self.rung_unit = (
            rungs(max(1, budget.epochs), self._first_rung(amount)),
            "epochs",
        )
        # of a whole trial; a forward pass alone is a third of a training step
        self.images = budget.epochs * self.train_images + len(self.rungs) * validated / 3
        self.images += (self.train_images + validated) / 3 if parent else 0  # of the linear probe
        warned = () if enough.ranks or parent else (f"a candidate gets {enough.text}",)
        self.notes = (*self._dataset.notes, *misfits(found.recipe, found.amount), *warned)
        self.title = (
            f"{self._described(amount, found.recipe.name)}; accuracy on {validated:,} validation "
            "images, which are no test images"
        )

    def _described(self, amount: Amount, recipe: str) -> str:
        """Return in words what a candidate's training is."""
        images, parent = f"{amount.images:,} images", self.parent
        if parent and not amount.epochs:
            return f"linear probe of {parent.told} on {self._dataset.name}: {images}"
        done = f"fine-tuned from {parent.told}, a linear probe first," if parent else "trained"
        epochs = f"{amount.epochs} epoch{'s' * (amount.epochs != 1)} of {images}"
        return f"{done} on {self._dataset.name}: {epochs}, {amount}, recipe {recipe}"

    def _timed(self, budget: TrainingBudget) -> None:
        """Say what a candidate gets that is trained for a time."""
        self.amount = None  # each has its own
        self.rungs, self.rung_unit = PARTS, "% of its time"
        self.images, self.notes = 0.0, self._dataset.notes
        self.title = (
            f"trained on {self._dataset.name}: {format_seconds(budget.seconds)} each, in whole "
            f"epochs of {self.train_images:,} images, recipe {self._recipe[0]}; accuracy on "
            f"{self._validated:,} validation images, which are no test images"
        )

    @property
    def _validated(self) -> int:
        return len(self._dataset.splits["val"])

    def _settled(self, budget: TrainingBudget) -> TrainingBudget:
        """Return the budget with the epochs and the batch that were not asked for."""
        name, options = self._recipe
        batch = (
            budget.batch_size or resolve_recipe(name, options, self._situation(budget)).amount.batch
        )
        epochs = PARTS[-1] if budget.seconds else budget.epochs or options.get("epochs", 0)
        if not epochs and self.parent and not budget.probe:
            epochs = inheriting(self.train_images, batch).epochs
        elif not epochs and not self.parent:
            enough = candidate(self.train_images, batch).epochs
            epochs = enough if name == NAME else CANDIDATE_EPOCHS
        return dataclasses.replace(budget, epochs=epochs, batch_size=batch)

    def _situation(
        self, budget: TrainingBudget, side: int = SMALLEST, gray: bool = False
    ) -> Situation:
        return Situation(
            self.train_images,
            len(self.classes),
            side,
            start="weights" if self.parent else "nothing",
            gray=gray,
            epochs=budget.epochs,
            batch=budget.batch_size,
        )

    def _plan(self, side: int, gray: bool = False, epochs: int = 0) -> Plan:
        """Return what is trained on images of so many pixels; the same for every arch.

        epochs: of one arch that is trained for a time.
        """
        given = self._situation(self._budget, side, gray)
        return resolve_recipe(
            *self._recipe, dataclasses.replace(given, epochs=epochs or given.epochs)
        )

    def estimated_seconds(self, arch: Arch) -> float:
        """Return about how long a candidate's training takes, by a model of the machine's speed."""
        each = self._epoch_seconds(arch)
        probed = each / 3 if self.parent else 0.0
        return self._budget.seconds or each * self._budget.epochs + probed

    def full_amount(self, arch: Arch) -> Amount | None:
        """Return what a whole fine-tuning of an arch is, as `nas train` does it; None: no parent.

        On all images, which a candidate may not get.
        """
        if not self.parent:
            return None
        images, side = len(self._dataset.splits["train"]), self._budget.imgsz or arch.resolution
        given = dataclasses.replace(
            self._situation(self._budget, side),
            images=images,
            cost=count(arch, side),
            device=self._device.partition(":")[0],
            epochs=0,
            validated=self._validated,
        )
        return resolve_recipe(*self._recipe, given).amount

    def estimated_worth(self, arch: Arch) -> str:
        """Return what a candidate that is trained for a time gets, by a model of the machine.

        "" where candidates are trained for epochs: `notes` have it.
        """
        if not self._budget.seconds:
            return ""
        epochs = max(1, math.floor(self._budget.seconds / self._epoch_seconds(arch)))
        found = worth(Amount(self.train_images, self._budget.batch_size, epochs))
        counted = f"{epochs:,} epoch{'s' * (epochs > 1)}"
        if found.ranks:
            return f"{counted}: {found.text}"
        longer = math.ceil(found.epochs * self._epoch_seconds(arch))
        return f"{counted}: {found.text.partition(';')[0]}; --trial-time {longer}s would do"

    def _epoch_seconds(self, arch: Arch) -> float:
        """Return about how long an epoch of an arch takes on this machine."""
        side = self._budget.imgsz or arch.resolution
        device = self._device.partition(":")[0]
        given = dataclasses.replace(
            self._situation(self._budget, side), cost=count(arch, side), device=device
        )
        return given.epoch_seconds(self._budget.batch_size)

    def _first_rung(self, amount: Amount) -> int:
        """Return the first epoch after which the accuracy of a training may be asked for.

        After some steps, but in any case after a quarter of a training that is short.
        """
        if self._recipe[0] != NAME:
            return 1
        steps = math.ceil(FIRST_RUNG * RANKING.steps / amount.steps_per_epoch)
        return max(1, min(steps, self._budget.epochs // 4))

    @cached_property
    def image_side(self) -> int:
        """Return the median shorter side in pixels of some training images."""
        from nas.data.pixels import typical_side

        return typical_side(self._dataset.splits["train"])

    def check(self, arch: Arch) -> None:
        """Check that the arch has the data's classes and takes RGB images.

        Raises:
            EvaluatorError: it does not.
        """
        if arch.in_channels != 3:
            raise EvaluatorError(
                f"the images have 3 channels, and the arch takes {arch.in_channels}"
            )
        if arch.head.classes != len(self.classes):
            raise EvaluatorError(
                f"the data has {len(self.classes)} classes, and the arch {arch.head.classes}"
            )
        if self.parent:
            self.parent.check(arch)

    def evaluate(self, arch: Arch, *, seed: int = 0) -> Metrics:
        """Return the metrics of a whole training."""
        with tempfile.TemporaryDirectory() as folder:
            return self.train(arch, seed=seed, epochs=self.rungs[-1], folder=folder)

    def train(self, arch: Arch, *, seed: int, epochs: int, folder: str) -> Metrics:
        """Train up to `epochs`, from the folder's checkpoint if there is one.

        Raises:
            NasError: training has diverged, or memory does not suffice for one image.
        """
        from nas.training.loop import fit, training_flops

        data = self._data(self._budget.imgsz or arch.resolution)
        with alone(Path(folder)):  # a worker that was given up may still write there
            own = self._epochs(arch, data, seed, Path(folder))
            job = self._job(arch, data, seed, own)
            if self.parent:
                return fine_tune(job, data, Path(folder), own * epochs // self.rungs[-1])
            steps = {part: max(1, own * part // self.rungs[-1]) for part in (*self.rungs, epochs)}
            until = steps[epochs]
            rows = fit(job, data, Path(folder), until=until, validate_at=set(steps.values()))
        last = rows[until - 1]  # the checkpoint may be of a later one
        return {
            "accuracy": last["val_top1"],
            "accuracy_std": deviation(last["val_top1"], len(data.val)),
            "epochs": float(until),
            "images_per_second": last["images_per_second"],
            TRAINING_FLOPS: training_flops(job, data, until),
            **({"time_share": float(epochs)} if self._budget.seconds else {}),
        }

    def _job(self, arch: Arch, data: Data, seed: int, epochs: int) -> Job:
        from nas.training.state import Job

        recipe = self._plan(data.size, data.gray, epochs).recipe
        batch, init = self._budget.batch_size, self.parent.place if self.parent else None
        job = Job(arch, recipe, epochs, batch, seed=seed, device=self._device, init=init)
        if not self._teacher:
            return job
        teacher = kept_teacher(Path(self._teacher), data, self._data, self._device)
        return dataclasses.replace(job, teacher=teacher)

    def keep_teacher(
        self, folder: Path, source: str, side: int, say: Callable[[str], None]
    ) -> None:
        """Make a teacher for these images and keep it in a folder, once.

        side: pixels of its students.
        """
        pixels, device = int(self._recipe[1].get("teacher_pixels", 0)), self._device
        keep_teacher(folder, source, self._data, side, pixels=pixels, device=device, say=say)

    def _epochs(self, arch: Arch, data: Data, seed: int, folder: Path) -> int:
        """Return the epochs of one arch's training.

        Of one that is trained for a time they follow from its speed, timed on a few steps before
        the first and kept in the folder: the training ends at the same epoch however often it is
        resumed, wherever.
        """
        from nas.training.loop import images_per_second

        if not self._budget.seconds:
            return self._budget.epochs
        path = folder / PACE
        if not path.exists():
            start = time.perf_counter()
            speed = images_per_second(self._job(arch, data, seed, self.rungs[-1]), data)
            left = self._budget.seconds - (time.perf_counter() - start)
            # a validation scores the net and its averaged weights, forward only
            left -= len(self.rungs) * 2 / 3 * len(data.val) / speed
            own = max(1, math.floor(left * speed / len(data.train)))
            run_folder.write_json(path, {"images_per_second": speed, "epochs": own})
        return int(run_folder.read_object(path)["epochs"])

    def _data(self, side: int) -> Data:
        """Return the images for one side; those of the last few sides are kept open."""
        from nas.data.loader import open_data

        if side not in self._opened:
            while len(self._opened) >= OPENED:
                del self._opened[next(iter(self._opened))]
            self._opened[side] = open_data(
                self._dataset,
                imgsz=side,
                device=self._device,
                fraction=self._budget.fraction,
                normal=self.parent.normal if self.parent else None,
            )
        return self._opened[side]

    @cached_property
    def _device(self) -> str:
        from nas.hardware.torch_device import torch_device

        return torch_device(self._accelerator)
