"""The fidelity study of a proxy check: its archs, budgets, seeds and finished trainings."""

from __future__ import annotations

import dataclasses
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nas.core import registry
from nas.core.errors import MissingError, NasError, OptionError, RunError
from nas.core.ledger import Ledger
from nas.data.dataset import SMALL, Dataset, open_asked
from nas.data.loader import Data, open_data
from nas.data.pixels import typical_side
from nas.data.splits import make_splits
from nas.evaluation.parent import Parent, fine_tune, parent_for
from nas.hardware.torch_device import torch_device
from nas.interfaces import TRAINING_FLOPS, Outcome, Space, Task
from nas.models.cost import count
from nas.searching.feasibility import check_space, fitted
from nas.searching.fidelity.proxies import (
    BudgetTrainings,
    ProxyBudget,
    default_budgets,
    parse_budget,
)
from nas.searching.fidelity.sampled import SampledArch, band, spread_archs
from nas.searching.fidelity.settings import ProxySettings
from nas.searching.inheritance import alike, check_inherits, subnets
from nas.training.amount import FINAL
from nas.training.auto import Situation, resolve_recipe
from nas.training.loop import fit, training_flops
from nas.training.recipe import load_recipe
from nas.training.state import Job, Row

ROWS = "trainings.csv"
LONG_EPOCHS = 16
OPENED = 2  # sizes of images that are kept open


class Slot(NamedTuple):
    """One training to be done: which arch, how much, which repeat of it, with which seed."""

    arch: int
    budget: ProxyBudget
    repeat: int
    seed: int


@dataclass(frozen=True)
class ProxyTraining:
    """One finished training, a row of trainings.csv.

    Top-1 in percent on the validation split after the last epoch; a training that failed has an
    error and nan instead.
    """

    arch: int
    arch_id: str
    flops: int
    budget: str
    repeat: int
    seed: int
    accuracy: float
    seconds: float
    training_flops: float
    error: str


@dataclass(frozen=True)
class FidelityStudy:
    """A fidelity study: what its trainings share. `opened` fills as budgets ask for images."""

    settings: ProxySettings
    dataset: Dataset
    space: Space
    candidates: tuple[SampledArch, ...]
    budgets: tuple[ProxyBudget, ...]
    long: ProxyBudget
    device: str
    notes: tuple[str, ...]
    parent: Parent | None = None  # whose weights each arch inherits
    opened: dict[tuple[float, int], Data] = field(default_factory=dict)

    def slots(self) -> list[Slot]:
        """Return all trainings, arch by arch, so that an early end leaves whole archs.

        A seed belongs to one budget and one repeat: were a short training to share it with the
        long one, their noise would be correlated. All archs share it, as the trials of a search do.
        """
        base, seeds = self.settings.seed, self.settings.seeds
        return [
            Slot(arch, budget, repeat, base + order * seeds + repeat)
            for arch in range(len(self.candidates))
            for order, budget in enumerate((*self.budgets, self.long))
            for repeat in range(seeds)
        ]

    def side(self, slot: Slot) -> int:
        """Return the pixels of a training."""
        return slot.budget.imgsz or self.candidates[slot.arch].arch.resolution

    def images(self, slot: Slot) -> Data:
        """Return the data of a training; what few trainings share is closed again."""
        key = (self.settings.fraction * slot.budget.fraction, self.side(slot))
        if key not in self.opened:
            while self.parent and len(self.opened) >= OPENED:  # archs have pixels of their own
                del self.opened[next(iter(self.opened))]
            self.opened[key] = open_data(
                self.dataset,
                imgsz=key[1],
                device=self.device,
                fraction=key[0],
                workers=self.settings.workers,
                normal=self.parent.normal if self.parent else None,
            )
        return self.opened[key]

    def job(self, slot: Slot) -> Job:
        """Return one training, with the recipe that a search would use for its budget."""
        arch, data = self.candidates[slot.arch].arch, self.images(slot)
        chosen, epochs = self.settings, slot.budget.epochs
        given = Situation(
            len(data.train),
            len(data.classes),
            data.size,
            start="weights" if self.parent else "nothing",
            gray=data.gray,
            epochs=epochs,
            batch=chosen.batch_size or 0,
        )
        made = resolve_recipe(chosen.recipe, chosen.recipe_options, given)
        return Job(
            dataclasses.replace(arch, resolution=data.size),
            made.recipe,
            epochs,
            made.amount.batch,
            seed=slot.seed,
            device=self.device,
            init=self.parent.place if self.parent else None,
        )

    def weight(self, slot: Slot) -> float:
        """Return a training's multiply-adds, but for a factor that all share."""
        flops = count(self.candidates[slot.arch].arch, self.side(slot)).flops
        passes = slot.budget.epochs + (1 / 3 if self.parent else 0)  # of a linear probe
        return flops * passes * slot.budget.fraction


def open_study(chosen: ProxySettings) -> FidelityStudy:
    """Check the parts and pick the archs; nothing is written or trained yet.

    Raises:
        OptionError: a setting is wrong, the data cannot be used, or the space has too few archs.
        MissingError: a package that the data needs is not installed.
    """
    load_recipe(chosen.recipe, chosen.recipe_options)  # refused before the images are read
    device = torch_device(chosen.device)
    dataset = make_splits(open_asked(chosen))
    parent, told = parent_for(chosen.init or "", dataset.splits["train"])
    space, notes = _space(chosen, dataset, parent)
    own = 0 if parent else check_space(space).resolution
    imgsz = chosen.imgsz or own
    long = ProxyBudget(chosen.long_epochs or _long_epochs(chosen, dataset, parent), 1.0, imgsz)
    budgets = _budgets(chosen, long)
    (least, most), note = band(chosen, space)
    candidates = spread_archs(space, chosen.archs, seed=chosen.seed, least=least, most=most)
    lines = (*notes, *told, *note)
    return FidelityStudy(chosen, dataset, space, candidates, budgets, long, device, lines, parent)


def _long_epochs(chosen: ProxySettings, dataset: Dataset, parent: Parent | None) -> int:
    images = max(1, round(len(dataset.splits["train"]) * chosen.fraction))
    start = "weights" if parent else "nothing"
    given = Situation(
        images, len(dataset.classes), SMALL, start=start, batch=chosen.batch_size or 0
    )
    amount = resolve_recipe(chosen.recipe, chosen.recipe_options, given).amount
    if parent:
        return amount.epochs
    batch = amount.batch
    return max(LONG_EPOCHS, FINAL.epochs(images, batch))


def _budgets(chosen: ProxySettings, long: ProxyBudget) -> tuple[ProxyBudget, ...]:
    least = 0 if chosen.init else 1
    given = [parse_budget(text, long.imgsz, least) for text in chosen.budget]
    budgets = given or default_budgets(long, inherited=bool(chosen.init))
    if not budgets:
        raise OptionError(
            f"a long training of {long.epochs} epoch leaves no shorter one: take more "
            "--long-epochs, or give --budget with a fraction"
        )
    if longer := [each for each in budgets if each.epochs > long.epochs]:
        raise OptionError(
            f"--budget {longer[0]} has more epochs than the long training's {long.epochs}, which "
            "gives the true ranking: take fewer, or more --long-epochs"
        )
    if len({*budgets, long}) <= len(budgets):
        raise OptionError(
            f"--budget takes budgets that differ from each other and from the long one, {long}; "
            f"not {', '.join(map(str, budgets))}"
        )
    return tuple(budgets)


def _space(
    chosen: ProxySettings, dataset: Dataset, parent: Parent | None
) -> tuple[Space, tuple[str, ...]]:
    """Return the space for the data's classes, and what was understood or chosen for the user."""
    name, notes = chosen.space, dataset.notes
    if parent and not name:
        return subnets(parent, len(dataset.classes), chosen.imgsz), notes
    if name is None:
        side = typical_side(dataset.splits["train"])
        name = "mbconv_small" if side <= SMALL else "mbconv"
        notes += (f"space {name}, since the images are {side} pixels; --space chooses another",)
    space: Space = registry.export("spaces", name, "SPACE")
    if not isinstance(space, Space):
        raise OptionError(f"SPACE of {name} must be a nas.interfaces.Space, not {type(space)}")
    if parent:
        space = alike(space, parent)
        check_inherits(space, parent)
    return fitted(space, len(dataset.classes), chosen.imgsz), notes


def train(
    study: FidelityStudy,
    slot: Slot,
    task: Task,
    *,
    watch: Callable[[Row], None],
    say: Callable[[str], None],
) -> Outcome:
    """Do one training, from its checkpoint in the task's folder if it was begun there.

    Raises:
        OptionError: the data or the recipe cannot be used.
        RunError: the checkpoint cannot be written or read.
    """
    job, data, place = study.job(slot), study.images(slot), Path(task.folder)
    try:
        found = _trained(study, job, data, task, watch=watch, say=say)
    except (OptionError, RunError, MissingError):
        raise
    except NasError as failure:  # this arch diverges or does not fit; the others may not
        found = Outcome(task.number, {}, str(failure), math.nan)
    shutil.rmtree(place, ignore_errors=True)
    return found


def _trained(
    study: FidelityStudy,
    job: Job,
    data: Data,
    task: Task,
    *,
    watch: Callable[[Row], None],
    say: Callable[[str], None],
) -> Outcome:
    place = Path(task.folder)
    if study.parent:
        start = time.perf_counter()
        metrics = fine_tune(job, data, place, job.epochs, watch=watch, say=say)
        return Outcome(task.number, metrics, "", time.perf_counter() - start)
    epochs = fit(job, data, place, validate_at=(job.epochs,), watch=watch, say=say)
    spent = float(training_flops(job, data, job.epochs))
    metrics = {"accuracy": epochs[-1]["val_top1"], TRAINING_FLOPS: spent}
    return Outcome(task.number, metrics, "", sum(epoch["seconds"] for epoch in epochs))


def row_of(study: FidelityStudy, slot: Slot, outcome: Outcome) -> ProxyTraining:
    """Return the outcome of a training as a row of trainings.csv."""
    candidate, found = study.candidates[slot.arch], outcome.metrics
    return ProxyTraining(
        slot.arch,
        candidate.arch.id,
        candidate.flops,
        str(slot.budget),
        slot.repeat,
        slot.seed,
        found.get("accuracy", math.nan),
        outcome.seconds,
        found.get(TRAINING_FLOPS, math.nan),
        outcome.error,
    )


def read_rows(study: FidelityStudy, folder: Path) -> Ledger[ProxyTraining]:
    """Return the finished trainings of a run.

    Raises:
        RunError: a row is damaged, or of another arch than the settings give.
    """
    ledger = Ledger(folder / ROWS, ProxyTraining)
    for number, row in enumerate(ledger.rows, 1):
        if row.arch_id not in {each.arch.id for each in study.candidates}:
            raise RunError(
                f"{folder / ROWS} row {number} is of arch {row.arch_id}, which these settings do "
                "not give: the space or the data has changed; start a new run"
            )
    return ledger


def group_trainings(
    study: FidelityStudy, rows: Sequence[ProxyTraining]
) -> tuple[list[int], dict[ProxyBudget, BudgetTrainings]]:
    """Return the archs whose trainings all succeeded, and the trainings of each budget."""
    good = {(row.arch, row.budget, row.repeat): row for row in rows if not row.error}
    missing = {s.arch for s in study.slots() if (s.arch, str(s.budget), s.repeat) not in good}
    kept = [arch for arch in range(len(study.candidates)) if arch not in missing]

    def trained(budget: ProxyBudget) -> BudgetTrainings:
        found = [good[a, str(budget), r] for a in kept for r in range(study.settings.seeds)]
        accuracies = np.array([row.accuracy for row in found]).reshape(-1, study.settings.seeds)
        seconds = sum(row.seconds for row in found) / max(1, len(found))
        spent = sum(row.training_flops for row in found) / max(1, len(found))
        return BudgetTrainings(budget, accuracies, seconds, spent)

    return kept, {budget: trained(budget) for budget in (*study.budgets, study.long)}
