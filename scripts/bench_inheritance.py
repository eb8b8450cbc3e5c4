"""How short a fine-tuning ranks sub-networks that start from their parent's weights.

    python scripts/bench_inheritance.py --data ../shared/data/clothing_small --out out

Random sub-networks of a pretrained parent within 10 % of --target multiply-adds are fine-tuned with
the default recipe for each of --lengths epochs and for --full, each length on a schedule of its
own; 0 epochs are the linear probe on inherited weights. Beside them the same networks from random
weights, for --nothing epochs. Only a --fraction of the training images is trained on; up to --held
of the others measure the full fine-tuning, for few validation images rank nothing. The test split
is not read.

Kendall's tau of each length is to the full fine-tuning's accuracy on the held-out images, with its
95 % interval by bootstrap over the networks; `by loss` ranks by the loss on val. The line of the
full one shows what the few validation images alone cost. `best`: the held-out accuracy, after the
full fine-tuning, of the network that this length puts first; `first three`: the mean of those. CPU
seconds are those of one network: its probe, training and validation.

Each finished training is a line of OUT/trainings.csv; a benchmark that was stopped goes on with the
same command, and with more --archs its first ones are those of before. By default 16 networks at
30M take about an hour of one core.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lib import flags, tables

from nas.cli.flags import pairs
from nas.core import run_folder
from nas.core.errors import OptionError
from nas.core.ledger import Ledger
from nas.core.units import parse_count
from nas.data.dataset import Dataset, Split, open_dataset, subset
from nas.data.loader import Data, open_data, open_split
from nas.data.splits import fraction, make_splits
from nas.models.arch import Arch
from nas.models.cost import count
from nas.models.subnets import subnet_space
from nas.searching import ranking
from nas.searching.samplers import random_choices
from nas.training.auto import Situation, resolve_recipe
from nas.training.loop import fit
from nas.training.probe import read_probe
from nas.training.state import Job
from nas.training.trained import load_trained, trained_input
from nas.training.validation import validate
from nas.training.weights.sources import find_weights, save_weights

BAND, DRAWS = 0.1, 200_000
WEIGHTS, NOTHING = "weights", "nothing"
HEAD = "start | epochs | val % | tau to full (95 %) | by loss | best | first three | CPU s each"


class Slot(NamedTuple):
    """A training that may be done or not."""

    start: str
    epochs: int
    arch: int


@dataclass(frozen=True)
class Training:
    """A finished training; accuracies in percent, `held` of a full one on the held-out images."""

    start: str
    epochs: int
    arch: int
    arch_id: str
    pixels: int
    flops: int
    params: int
    choices: str
    val: float
    loss: float
    held: float | None
    cpu_seconds: float

    @property
    def slot(self) -> Slot:
        return Slot(self.start, self.epochs, self.arch)


class Candidate(NamedTuple):
    choices: Mapping[str, Any]
    arch: Arch


@dataclass(frozen=True)
class Bench:
    """What all trainings have in common: images to train and validate on, others held out."""

    dataset: Dataset
    held: Split
    parent: Path  # a folder of weights
    normal: Any  # mean and standard deviation of the weights
    seed: int

    def data(self, pixels: int) -> Data:
        return open_data(self.dataset, imgsz=pixels, normal=self.normal)


@flags.in_one_line
def main(words: Sequence[str] | None) -> None:
    """Do the trainings that are missing, then print the table."""
    asked = parse(words)
    torch.set_num_threads(asked.threads)
    asked.out.mkdir(parents=True, exist_ok=True)
    weights = find_weights(asked.init, None)
    bench = open_bench(asked, weights)
    archs = candidates(weights.arch, len(bench.dataset.classes), asked)
    ledger = Ledger(asked.out / "trainings.csv", Training)
    done = {row.slot for row in ledger.rows}
    for slot in (slot for slot in slots(asked) if slot not in done):
        row = train(bench, slot, archs[slot.arch], asked)
        ledger.append(row)
        told = f"{row.val:.2f} % on val, loss {row.loss:.3f}, {row.cpu_seconds:.0f} CPU s"
        print(*slot, told, flush=True)
    mine = set(slots(asked))
    text = report([row for row in ledger.rows if row.slot in mine], asked)
    run_folder.write_text(asked.out / "table.md", text + "\n")
    print(text)


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = flags.parser(__doc__)
    parser.add_argument("--data", required=True, help="a folder of class folders or of parquet")
    parser.add_argument("--init", default="pretrained", help="weights of the parent")
    parser.add_argument("--target", default="30M", help="multiply-adds")
    parser.add_argument("--archs", type=flags.positive, default=16)
    parser.add_argument("--lengths", type=_numbers, default=(0, 1, 3), help="epochs from weights")
    parser.add_argument("--nothing", type=_numbers, default=(1, 3), help="epochs from nothing")
    parser.add_argument("--full", type=flags.positive, default=11, help="epochs of the full one")
    parser.add_argument("--fraction", type=float, default=0.5, help="of the training images")
    parser.add_argument("--held", type=flags.positive, default=1500, help="of the other ones")
    option = "option of the fine-tuning's recipe"
    parser.add_argument("--recipe-option", action="append", default=[], metavar="K=V", help=option)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=flags.positive, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/inheritance"))
    return parser.parse_args(words)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(",") if word)


def slots(asked: argparse.Namespace) -> Iterator[Slot]:
    """Yield the trainings: all from weights first, one network after the other."""
    lengths = {WEIGHTS: (*asked.lengths, asked.full), NOTHING: asked.nothing}
    for start, every in lengths.items():
        for arch in range(asked.archs):
            for epochs in sorted(set(every)):
                yield Slot(start, epochs, arch)


def open_bench(asked: argparse.Namespace, weights: Any) -> Bench:
    """Return the images and the parent; what decides the trainings is kept beside the ledger.

    Raises:
        OptionError: the trainings that are there are of other images or settings.
    """
    whole = make_splits(open_dataset(asked.data))
    train = whole.splits["train"]
    part = fraction(train, asked.fraction, asked.seed)
    rest = subset(train, np.flatnonzero(~np.isin(train.names, part.names)))
    if not len(rest):
        rest = whole.splits["val"]
    held = fraction(rest, min(1.0, asked.held / len(rest)), asked.seed)
    path, names = (
        asked.out / "settings.json",
        ("init", "target", "full", "fraction", "held", "seed", "recipe_option"),
    )
    own = {name: getattr(asked, name) for name in names} | {"data": whole.fingerprint}
    kept = run_folder.read_json(path) if path.exists() else own
    if kept != own:
        differ = ", ".join(name for name in own if own[name] != kept.get(name))
        raise OptionError(f"{asked.out} has trainings of another {differ}: name another --out")
    run_folder.write_json(path, own)
    save_weights(asked.out / "parent", weights)
    normal = (weights.input.mean, weights.input.std) if weights.input else None
    splits = {**whole.splits, "train": part}
    print(f"{len(part):,} images to train on, {len(splits['val']):,} val, {len(held):,} held out")
    return Bench(replace(whole, splits=splits), held, asked.out / "parent", normal, asked.seed)


def candidates(parent: Arch, classes: int, asked: argparse.Namespace) -> list[Candidate]:
    """Return random sub-networks within the band, none twice.

    Raises:
        OptionError: there are too few.
    """
    space, rng = subnet_space(parent, classes=classes), random.Random(asked.seed)
    target, found = parse_count(asked.target, "--target"), dict[str, Candidate]()
    for _ in range(DRAWS):
        choices = random_choices(space, rng)
        if space.valid and not space.valid(choices):
            continue
        arch = space.decode(choices)
        if abs(count(arch).flops / target - 1) <= BAND:
            found.setdefault(arch.id, Candidate(choices, arch))
        if len(found) == asked.archs:
            return list(found.values())
    raise OptionError(
        f"{len(found)} of {DRAWS:,} random sub-networks lie within {BAND:.0%} of --target "
        f"{asked.target}, not {asked.archs}: give another --target or fewer --archs"
    )


def train(bench: Bench, slot: Slot, candidate: Candidate, asked: argparse.Namespace) -> Training:
    """Train a network from the inherited weights, or from nothing; return its row."""
    arch = candidate.arch
    data = bench.data(arch.resolution)
    job = job_of(bench, slot, arch, data, asked)
    folder = asked.out / "training" / "-".join(map(str, slot))
    started = time.process_time()
    rows = fit(job, data, folder, until=slot.epochs, validate_at=())
    spent = time.process_time() - started
    scores = [(row["val_top1"], row["val_loss"]) for row in rows if "val_top1" in row][-1:]
    if slot.start == WEIGHTS and (probed := read_probe(folder)):
        scores.append((probed.top1, probed.loss))
    held = held_out(bench, folder) if slot.epochs == asked.full else None
    shutil.rmtree(folder)
    cost = count(arch)
    return Training(
        *slot,
        arch_id=arch.id,
        pixels=arch.resolution,
        flops=cost.flops,
        params=cost.params,
        choices=json.dumps(candidate.choices),
        val=max(top1 for top1, _ in scores),
        loss=scores[0][1],
        held=held,
        cpu_seconds=round(spent, 1),
    )


def job_of(bench: Bench, slot: Slot, arch: Arch, data: Data, asked: argparse.Namespace) -> Job:
    """Return the training, by the rule of the recipe `auto`."""
    situation = Situation(
        images=len(data.train),
        classes=len(data.classes),
        side=data.size,
        cost=count(arch),
        start=slot.start,
        gray=data.gray,
        epochs=max(1, slot.epochs),
        validated=len(data.val),
    )
    changed = pairs(asked.recipe_option) if slot.start == WEIGHTS else {}
    plan = resolve_recipe("auto", changed, situation)
    init = bench.parent if slot.start == WEIGHTS else None
    return Job(arch, plan.recipe, plan.amount.epochs, plan.amount.batch, bench.seed, init=init)


def held_out(bench: Bench, folder: Path) -> float:
    """Return the accuracy in percent of a folder's weights on the held-out images."""
    model, config = load_trained(folder)
    loader = open_split(bench.held, trained_input(config))
    return validate(model, loader.ordered(64), len(config["classes"]), device="cpu").top1


def report(rows: Sequence[Training], asked: argparse.Namespace) -> str:
    """Return the table, and what a random network and the best one have."""
    full = {row.arch: row for row in rows if row.slot[:2] == (WEIGHTS, asked.full)}
    truth = {arch: row.held for arch, row in full.items() if row.held is not None}
    if len(truth) < 2:
        return f"{len(truth)} full trainings: two at least are needed for a ranking"
    groups: dict[tuple[str, int], list[Training]] = {}
    for row in (row for row in rows if row.arch in truth):
        groups.setdefault((row.start, row.epochs), []).append(row)
    lines = [tables.markdown(HEAD.split(" | "), [cells(g, truth) for g in groups.values()]), ""]
    held = list(truth.values())
    lines.append(
        f"full fine-tuning of {len(held)} networks, held-out %: mean {statistics.mean(held):.2f}, "
        f"deviation {statistics.pstdev(held):.2f}, best {max(held):.2f}"
    )
    free = {"params": "params", "pixels": "pixels", "multiply-adds": "flops"}
    for name, field in free.items():
        lines.append(f"tau of {name}: {interval(full.values(), truth, field_of(field))}")
    return "\n".join(lines)


def field_of(name: str) -> Callable[[Training], float]:
    return lambda row: float(getattr(row, name))


def interval(rows: Any, truth: Mapping[int, float], score: Callable[[Training], float]) -> str:
    """Return tau of a score to the truth, with its interval."""
    pairs = [(score(row), truth[row.arch]) for row in rows]
    if len(pairs) < 2:
        return "–"
    found = ranking.agreement([tuple(zip(*pairs, strict=True))])  # type: ignore[list-item]
    return f"{found.value:.2f} ({found.low:.2f}..{found.high:.2f}, n = {found.n})"


def cells(group: Sequence[Training], truth: Mapping[int, float]) -> list[str]:
    """Return a line of the table."""
    first = sorted(group, key=lambda row: -row.val)
    best = [truth[row.arch] for row in first[:3]]
    return [
        group[0].start,
        str(group[0].epochs),
        f"{statistics.mean(row.val for row in group):.1f}",
        interval(group, truth, lambda row: row.val),
        interval(group, truth, lambda row: -row.loss),
        f"{best[0]:.1f}",
        f"{statistics.mean(best):.1f}",
        f"{statistics.mean(row.cpu_seconds for row in group):.0f}",
    ]


if __name__ == "__main__":
    main()
