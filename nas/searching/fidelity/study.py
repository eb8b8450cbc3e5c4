"""The fidelity study of a proxy check: its archs, budgets, seeds and finished trainings."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
import shutil
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nas.core import registry
from nas.core.errors import MissingError, NasError, OptionError, RunError
from nas.core.ledger import Ledger
from nas.core.units import format_count
from nas.data.dataset import SMALL, Dataset, open_asked
from nas.data.loader import Data, open_data
from nas.data.pixels import typical_side
from nas.data.splits import make_splits
from nas.hardware.torch_device import torch_device
from nas.interfaces import TRAINING_FLOPS, Choices, Outcome, Space, Task
from nas.models.arch import Arch
from nas.models.cost import count
from nas.searching.feasibility import check_space, fitted, try_decode
from nas.searching.fidelity.proxies import (
    BudgetTrainings,
    ProxyBudget,
    default_budgets,
    parse_budget,
)
from nas.searching.fidelity.settings import ProxySettings
from nas.searching.samplers import random_choices, repair
from nas.training.amount import FINAL
from nas.training.auto import Situation, resolve_recipe
from nas.training.loop import fit, training_flops
from nas.training.recipe import load_recipe
from nas.training.state import Job, Row

ROWS = "trainings.csv"
DRAWS = 2000
BAND, SAMPLED = 0.1, 200  # of the target, to both sides; archs that a median is taken of
LONG_EPOCHS = 16
# where random points in the band are rare, so many for each arch are repaired to lie there; unless
# so many repairs failed
STRATUM, MOST_FAILURES = 5, 3


class SampledArch(NamedTuple):
    """One arch of the check; its multiply-adds are counted at the long training's image size."""

    arch: Arch
    choices: Choices
    flops: int


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

    def images(self, budget: ProxyBudget) -> Data:
        """Return the data of a budget, opened once."""
        key = (self.settings.fraction * budget.fraction, budget.imgsz)
        if key not in self.opened:
            self.opened[key] = open_data(
                self.dataset,
                imgsz=budget.imgsz,
                device=self.device,
                fraction=key[0],
                workers=self.settings.workers,
            )
        return self.opened[key]

    def job(self, slot: Slot) -> Job:
        """Return one training, with the recipe that a search would use for its budget."""
        arch, data = self.candidates[slot.arch].arch, self.images(slot.budget)
        chosen, epochs = self.settings, slot.budget.epochs
        given = Situation(
            len(data.train),
            len(data.classes),
            data.size,
            gray=data.gray,
            epochs=epochs,
            batch=chosen.batch_size or 0,
        )
        made = resolve_recipe(chosen.recipe, chosen.recipe_options, given)
        return Job(
            dataclasses.replace(arch, resolution=slot.budget.imgsz),
            made.recipe,
            epochs,
            made.amount.batch,
            seed=slot.seed,
            device=self.device,
        )

    def weight(self, slot: Slot) -> float:
        """Return a training's multiply-adds, but for a factor that all share."""
        flops = count(self.candidates[slot.arch].arch, slot.budget.imgsz).flops
        return flops * slot.budget.epochs * slot.budget.fraction


def open_study(chosen: ProxySettings) -> FidelityStudy:
    """Check the parts and pick the archs; nothing is written or trained yet.

    Raises:
        OptionError: a setting is wrong, the data cannot be used, or the space has too few archs.
        MissingError: a package that the data needs is not installed.
    """
    load_recipe(chosen.recipe, chosen.recipe_options)  # refused before the images are read
    device = torch_device(chosen.device)
    dataset = make_splits(open_asked(chosen))
    space, notes = _space(chosen, dataset)
    imgsz = chosen.imgsz or check_space(space).resolution
    long = ProxyBudget(chosen.long_epochs or _long_epochs(chosen, dataset), 1.0, imgsz)
    budgets = _budgets(chosen, long)
    (least, most), note = _band(chosen, space)
    candidates = spread_archs(space, chosen.archs, seed=chosen.seed, least=least, most=most)
    return FidelityStudy(chosen, dataset, space, candidates, budgets, long, device, (*notes, *note))


def _band(chosen: ProxySettings, space: Space) -> tuple[tuple[float, float], tuple[str, ...]]:
    """Return the least and most multiply-adds of the archs, and a line where they were chosen.

    A search compares archs of about one size; over all sizes a proxy that sees the size alone
    ranks well, and says nothing of that.
    """
    if chosen.min_flops or chosen.max_flops:
        return (chosen.min_flops or 0, chosen.max_flops or math.inf), ()
    target = float(chosen.target_flops or 0)
    note: tuple[str, ...] = ()
    if not target:
        rng = random.Random(chosen.seed)
        archs = (try_decode(space, random_choices(space, rng)) for _ in range(SAMPLED))
        target = statistics.median(count(arch).flops for arch in archs if arch)
        words = f"archs within {BAND:.0%} of {format_count(target)} multiply-adds, the median of"
        note = (f"{words} {space.name}; --target-flops takes that of your search",)
    return ((1 - BAND) * target, (1 + BAND) * target), note


def _long_epochs(chosen: ProxySettings, dataset: Dataset) -> int:
    images = max(1, round(len(dataset.splits["train"]) * chosen.fraction))
    given = Situation(images, len(dataset.classes), SMALL, batch=chosen.batch_size or 0)
    batch = resolve_recipe(chosen.recipe, chosen.recipe_options, given).amount.batch
    return max(LONG_EPOCHS, FINAL.epochs(images, batch))


def _budgets(chosen: ProxySettings, long: ProxyBudget) -> tuple[ProxyBudget, ...]:
    given = [parse_budget(text, long.imgsz) for text in chosen.budget]
    budgets = given or default_budgets(long)
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


def _space(chosen: ProxySettings, dataset: Dataset) -> tuple[Space, tuple[str, ...]]:
    """Return the space for the data's classes, and what was understood or chosen for the user."""
    name, notes = chosen.space, dataset.notes
    if name is None:
        side = typical_side(dataset.splits["train"])
        name = "mbconv_small" if side <= SMALL else "mbconv"
        notes += (f"space {name}, since the images are {side} pixels; --space chooses another",)
    space: Space = registry.export("spaces", name, "SPACE")
    if not isinstance(space, Space):
        raise OptionError(f"SPACE of {name} must be a nas.interfaces.Space, not {type(space)}")
    return fitted(space, len(dataset.classes), chosen.imgsz), notes


def spread_archs(
    space: Space, number: int, *, seed: int, least: float, most: float
) -> tuple[SampledArch, ...]:
    """Return different random archs of a space, one of each stratum of FLOPs, small to large.

    The strata hold equally many of the random archs between `least` and `most`.

    Raises:
        OptionError: fewer than `number` are found.
    """
    rng = random.Random(seed)
    points = (random_choices(space, rng) for _ in range(DRAWS))
    pool = _inside(space, points, least, most)
    if len(pool) < STRATUM * number:
        pool |= _inside(
            space, _sample_repaired(space, STRATUM * number, rng, least, most), least, most
        )
    if len(pool) < number:
        upper = format_count(most) if math.isfinite(most) else "any"
        raise OptionError(
            f"only {len(pool)} different archs of {space.name} were found from "
            f"{format_count(least)} to {upper} multiply-adds, and {number} are asked for: widen "
            "--min-flops and --max-flops, or take fewer --archs"
        )
    ranked = sorted(pool.values(), key=lambda each: (each.flops, each.arch.id))
    edges = [len(ranked) * i // number for i in range(number + 1)]
    return tuple(rng.choice(ranked[a:b]) for a, b in itertools.pairwise(edges))


def _inside(
    space: Space, points: Iterable[Choices], least: float, most: float
) -> dict[str, SampledArch]:
    """Return the archs of points that are within the limits, by id."""
    found: dict[str, SampledArch] = {}
    for choices in points:
        arch = try_decode(space, choices)
        if arch and least <= (flops := count(arch).flops) <= most:
            found.setdefault(arch.id, SampledArch(arch, choices, flops))
    return found


def _sample_repaired(
    space: Space, number: int, rng: random.Random, least: float, most: float
) -> Iterator[Choices]:
    """Yield random points repaired to lie within the band, as a search does; some may fail."""

    def violation(choices: Choices) -> float:
        arch = try_decode(space, choices)
        if arch is None:
            return math.inf
        flops = count(arch).flops
        return max(flops / most - 1, least / flops - 1)

    failures = 0
    for _ in range(number):
        choices = repair(space, random_choices(space, rng), rng, violation)
        failures += violation(choices) > 0
        if failures > MOST_FAILURES:
            return
        yield choices


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
    job, data, place = study.job(slot), study.images(slot.budget), Path(task.folder)
    try:
        epochs = fit(job, data, place, validate_at=(job.epochs,), watch=watch, say=say)
        spent = float(training_flops(job, data, job.epochs))
        metrics = {"accuracy": epochs[-1]["val_top1"], TRAINING_FLOPS: spent}
        found = Outcome(task.number, metrics, "", sum(epoch["seconds"] for epoch in epochs))
    except (OptionError, RunError, MissingError):
        raise
    except NasError as failure:  # this arch diverges or does not fit; the others may not
        found = Outcome(task.number, {}, str(failure), math.nan)
    shutil.rmtree(place, ignore_errors=True)
    return found


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
