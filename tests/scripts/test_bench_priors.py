"""The measurements of what an earlier search, the surrogate or NASWOT saves: small, and judged."""

import csv
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from nas.core import registry
from nas.interfaces import Space
from nas.models.points import decode
from nas.searching.samplers import no_violation
from nas.searching.search import search
from nas.searching.start import zero_cost

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import bench_priors


def test_bench_warm_start_tells_new_evaluations_from_earlier_ones(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ("--seeds", "2", "--controllers", "evolution", "--trials", "26", "--warm-trials", "6")
    bench_priors.main(["warm", *small, "--output", str(folder / "out")])
    with open(folder / "out" / "warm_start.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    marks = {(row["start"], int(row["new"])) for row in rows}
    cold, warm = "nothing", "the earlier trials"
    assert marks == {*((cold, new) for new in (5, 10, 15, 20, 25)), (warm, 5)}
    first = {(r["start"], r["seed"]): float(r["true"]) for r in rows if r["new"] == "5"}
    assert all(40 < value < 70 for value in first.values())
    # 26 trials at 400M, not all below 200M, and 5 at 200M; the same reference may still be the best
    assert any(first[warm, seed] != first[cold, seed] for seed in "01")
    assert "| evolution | the earlier trials | " in capsys.readouterr().out


def test_bench_prior_unlearns_what_a_prior_says(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool: dict[str, Any] = {"controller": "random", "trials": 16}
    run = search(space="mbconv_small", evaluator="synthetic", name="pool", **pool)["run"]
    bench_priors.main(["pool", run, "--seeds", "3", "--top", "2"])
    told = capsys.readouterr().out
    assert told.startswith("16 trainings, accuracy ") and "Kendall's tau" in told
    rows = [line.split("|")[1].strip() for line in told.splitlines() if line.startswith("| ")]
    assert rows == ["prior", "---", "none", "surrogate", "surrogate, turned round"]


def test_a_prior_that_knows_is_ahead_from_the_first_evaluations() -> None:
    space: Space = registry.export("spaces", "mbconv", "SPACE")
    truth = registry.make("evaluators", "surrogate", options={})
    archs = [decode(space, point) for point in zero_cost.sample_points(space, no_violation, 0, 40)]
    scores = [truth.evaluate(arch)["accuracy"] for arch in archs]
    job = bench_priors.Job("truth", "soft", 0, 12, 0.0, {"truth": scores})
    told = bench_priors.searched(job)
    alone = bench_priors.searched(job._replace(prior="none"))
    assert len(told) == len(alone) == 12
    assert all(later >= before for before, later in pairwise(told))
    assert told[4] > alone[4]
