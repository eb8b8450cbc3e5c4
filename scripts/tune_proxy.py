"""Compare settings of the proxy recipe: how well a few archs do in a short training.

    python scripts/tune_proxy.py --data shared/cifar10 --set lr=0.016 --set lr=0.032,batch_size=64

Each --set is one variant of the recipe; every variant trains the same archs with the same seeds,
and the table has the validation accuracy of each. What won is in nas/training/recipes/proxy.py.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lib import flags

from nas.cli.flags import pairs
from nas.core import registry
from nas.data.dataset import open_dataset
from nas.data.loader import open_data
from nas.data.splits import make_splits
from nas.models.cost import count
from nas.searching.feasibility import fitted
from nas.searching.samplers import random_choices
from nas.training.loop import fit
from nas.training.recipe import with_options
from nas.training.state import Job


@flags.in_one_line
def main(words: Sequence[str] | None) -> None:
    """Train every arch with every variant and print a line for each."""
    asked = _arguments(words)
    torch.set_num_threads(asked.threads)
    dataset = make_splits(open_dataset(asked.data))
    data = open_data(dataset, imgsz=asked.imgsz, fraction=asked.fraction)
    space = fitted(
        registry.export("spaces", "mbconv_small", "SPACE"), len(dataset.classes), asked.imgsz
    )
    rng = random.Random(0)
    drawn = (random_choices(space, rng) for _ in range(10_000))
    points = [c for c in drawn if count(space.decode(c)).flops <= asked.most][: asked.archs]
    proxy = registry.export("recipes", "proxy", "RECIPE")
    for text in asked.set:
        recipe = with_options(proxy, pairs(text.split(",")) if text else {})
        started, found = time.perf_counter(), []
        for seed, choices in enumerate(points):
            job = Job(space.decode(choices), recipe, asked.epochs, recipe.batch_size, seed=seed)
            with tempfile.TemporaryDirectory() as folder:
                rows = fit(job, data, Path(folder), validate_at=())
            found.append(rows[-1]["val_top1"])
        line: dict[str, Any] = {"set": text, "mean": sum(found) / len(found), "top1": found}
        print(json.dumps({**line, "seconds": round(time.perf_counter() - started)}), flush=True)


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = flags.parser(__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--fraction", type=float, default=0.1)
    parser.add_argument("--archs", type=int, default=2)
    parser.add_argument("--most", type=int, default=6_000_000, help="multiply-adds of an arch")
    parser.add_argument("--imgsz", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
