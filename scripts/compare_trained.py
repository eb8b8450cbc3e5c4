"""Train archs alike: who is best?

    python scripts/compare_trained.py runs/search/search --data shared/cifar10 --out compared.csv
    python scripts/compare_trained.py runs/search/search --times 4 --data ... --out scaled.csv

The first compares a search's winner, random search's and a hand-scaled EfficientNet-B0:
mbconv_small's with B0's own choices, scaled in depth and width together (alpha 1.2, beta 1.1) until
it has the winner's multiply-adds. The second compares the base with nets of --times its
multiply-adds: scaled by depth, by width, by resolution and by all three (the comparison of Tan and
Le 2019, Table 7, at a size that a laptop can train). Every arch is trained with the same recipe,
images, epochs and seeds, which no search has used; of each training the weights of its best epoch
by validation accuracy are tested, once. A row of --out is written as soon as a training is done and
not repeated; a table of other data or of another recipe is refused.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from lib import flags
from lib.processes import mapped

from nas.core import registry, run_folder
from nas.data.dataset import open_dataset
from nas.data.loader import open_data
from nas.data.splits import make_splits
from nas.models.arch import Arch
from nas.models.compound import family, scale_arch
from nas.models.cost import count
from nas.models.load import load_arch
from nas.searching.feasibility import fitted
from nas.searching.outcome.finals import pooled_deviation
from nas.training.loop import fit
from nas.training.recipe import load_recipe
from nas.training.state import Job
from nas.training.trained import load_trained
from nas.training.validation import validate

COLUMNS = (
    *("name", "arch_id", "flops", "params", "seed", "epochs", "val", "test", "seconds"),
    *("data", "recipe"),
)
ALPHA, BETA, FIRST = 1.2, 1.1, 10_000


@flags.in_one_line
def main(words: Sequence[str] | None) -> None:
    """Train what is missing in the table, then print means and spread."""
    asked = _arguments(words)
    archs = _scaled(asked) if asked.times else _archs(Path(asked.base))
    done = _done(asked)
    jobs = [
        (name, arch.to_dict(), seed, vars(asked))
        for seed in range(FIRST, FIRST + asked.seeds)
        for name, arch in archs.items()
        if (name, arch.id, str(seed), str(asked.epochs)) not in done
    ]
    for row in mapped(_train, jobs, asked.workers):
        _append(asked.out, row)
        print(*row, flush=True)
    mine = {(name, arch.id, str(asked.epochs)) for name, arch in archs.items()}
    rows = run_folder.read_csv(asked.out)
    _show([row for row in rows if (row["name"], row["arch_id"], row["epochs"]) in mine])


def _done(asked: argparse.Namespace) -> set[tuple[str, ...]]:
    """Return name, arch, seed and epochs of the trainings in the table.

    Raises:
        SystemExit: they are of other data or of another recipe, or do not say of which.
    """
    rows = run_folder.read_csv(asked.out)
    mine = _fingerprint(asked.data, asked.fraction), asked.recipe
    for row in rows:
        if (row.get("data"), row.get("recipe")) != mine:
            raise SystemExit(
                f"{asked.out} is of data {row.get('data')} and recipe {row.get('recipe')}, not of "
                f"{mine[0]} and {mine[1]}: name another --out"
            )
    return {tuple(row[k] for k in ("name", "arch_id", "seed", "epochs")) for row in rows}


def _fingerprint(data: str, fraction: float) -> str:
    """Return what the images are, and which share of them is trained on."""
    return f"{open_dataset(data).fingerprint}/{fraction:g}"


def _archs(folder: Path) -> dict[str, Arch]:
    result = run_folder.read_json(folder / "result.json")
    winner = Arch.from_dict(result["best"]["arch"])
    found = {"search": winner}
    if result["random"]:
        found["random search"] = Arch.from_dict(result["random"]["arch"])
    return {**found, "scaled EfficientNet-B0": _scaled_b0(winner)}


def _scaled(asked: argparse.Namespace) -> dict[str, Arch]:
    """Return the base and what each way of scaling makes of it, all as near to --times as it goes.

    The ways ask for other multipliers until rounding leaves the wanted multiply-adds: compared are
    nets of equal cost, not nets of equal phi.
    """
    base = load_arch(asked.base)
    wanted = asked.times * count(base).flops
    found = {"base": base}
    for way in ("depth", "width", "resolution", "formula"):
        steps = (step / 40 for step in range(1, 200))
        nets = [member.arch for member in family(base, steps, rule=way, **_growth(asked))]
        near = min(nets, key=lambda arch: abs(count(arch).flops - wanted))
        found["compound" if way == "formula" else way] = near
    return found


def _growth(asked: argparse.Namespace) -> dict[str, float]:
    return {"alpha": asked.alpha, "beta": asked.beta, "gamma": asked.gamma}


def _scaled_b0(winner: Arch) -> Arch:
    """Return B0 for small images, scaled to the winner's multiply-adds as nearly as it goes."""
    space = registry.export("spaces", "mbconv_small", "SPACE")
    b0 = registry.export("spaces", "mbconv_small", "B0")
    fit_space = fitted(space, winner.head.classes, winner.resolution)
    base, wanted = fit_space.decode({**b0, "width": 1.0}), count(winner).flops
    scaled = (
        scale_arch(base, depth=ALPHA**-power, width=BETA**-power, resolution=winner.resolution)
        for power in (step / 20 for step in range(400))
    )
    return min(scaled, key=lambda arch: abs(count(arch).flops - wanted))


def _train(job: tuple[str, dict, int, dict]) -> list[object]:  # type: ignore[type-arg]
    name, described, seed, asked = job
    torch.set_num_threads(asked["threads"])
    arch = Arch.from_dict(described)
    recipe = load_recipe(asked["recipe"], {})
    data = open_data(
        make_splits(open_dataset(asked["data"])), imgsz=arch.resolution, fraction=asked["fraction"]
    )
    folder = asked["out"].with_suffix("") / "-".join(
        (name.replace(" ", "-"), arch.id, str(seed), str(asked["epochs"]))
    )
    rows = fit(Job(arch, recipe, asked["epochs"], recipe.batch_size, seed=seed), data, folder)
    model, _ = load_trained(folder)
    model = model.to(memory_format=torch.channels_last)
    test = validate(model, data.test().ordered(500), len(data.classes), device="cpu")
    cost, best = count(arch), max(row["val_top1"] for row in rows)
    seconds = round(sum(row["seconds"] for row in rows))
    head = [name, arch.id, cost.flops, cost.params, seed, asked["epochs"]]
    images = _fingerprint(asked["data"], asked["fraction"])
    return [*head, f"{best:.2f}", f"{test.top1:.2f}", seconds, images, asked["recipe"]]


def _append(path: Path, row: list[object]) -> None:
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([COLUMNS, row] if fresh else [row])


def _show(rows: list[dict[str, str]]) -> None:
    names = list(dict.fromkeys(row["name"] for row in rows))
    groups = {n: [float(row["test"]) for row in rows if row["name"] == n] for n in names}
    deviation = pooled_deviation(list(groups.values()))
    for name, values in groups.items():
        first = next(row for row in rows if row["name"] == name)
        print(
            f"{name}: test {statistics.mean(values):.2f} % ± {deviation / len(values) ** 0.5:.2f} "
            f"(seeds {', '.join(f'{value:.2f}' for value in values)}), "
            f"{int(first['flops']) / 1e6:.2f}M multiply-adds, "
            f"{int(first['params']) / 1e3:.0f}k params"
        )
    print(f"one training's deviation over seeds, pooled: {deviation:.2f} points")


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = flags.parser(__doc__)
    parser.add_argument("base", help="a search run; with --times also a baseline or an arch.json")
    parser.add_argument("--times", type=float, help="multiply-adds over the base's")
    parser.add_argument("--alpha", type=float, default=1.2)
    parser.add_argument("--beta", type=float, default=1.1)
    parser.add_argument("--gamma", type=float, default=1.15)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--fraction", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--recipe", default="proxy")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
