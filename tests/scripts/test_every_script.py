"""Every script of scripts/ runs, with the smallest flags, and knows those that the docs name."""

import csv
import importlib
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from digits import TINY

from nas.evaluation.evaluators.surrogate import DEVICES, MEASURED_LATENCY
from nas.searching.search import search

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
sys.path[:0] = [str(SCRIPTS), str(SCRIPTS / "reproduce")]
PROGRAMS = sorted(
    str(path.relative_to(SCRIPTS))
    for path in SCRIPTS.rglob("*.py")
    if 'if __name__ == "__main__"' in path.read_text(encoding="utf-8")
)
DOCS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
COMMANDS = [
    (page.name, line)
    for page in DOCS
    if page.name != "log.md"  # dated entries keep the names of their day
    for line in re.findall(
        r"(?:^ {4}|`)python\s+(scripts/[^`\n]*)",
        page.read_text(encoding="utf-8").replace("\\\n", " "),
        re.MULTILINE,
    )
]
NET = "mobilenet_v3_small"
TRAINING = f"--arch {NET} --imgsz 32 --batch 4 --steps 1 --rounds 1 --threads 1"
# the smallest flags of each, by what there is in the folder (see `inputs`); several are run in turn
SMALLEST: dict[str, list[str]] = {
    "bench_ask.py": ["--controllers random --finished 5 --in-flight 1 --repeats 3"],
    "bench_cluster.py": [
        "--controllers random --workers 1,4 --rough 4 --trials 8 --seeds 1 --picture a.png --out b"
    ],
    "bench_controllers.py": [
        "--controllers random --seeds 1 --processes 1 --trials 6 --points 6 --rewards hard "
        "--table table.csv --space space.py"
    ],
    "bench_cost.py": [f"--archs {NET} --repeats 1"],
    "bench_early_stopping.py": ["rungs.csv --seeds 2 --pruners halving"],
    "bench_inheritance.py": [
        "--data photos --archs 2 --lengths 0 --nothing 1 --full 1 --fraction 0.5 --out out"
    ],
    "bench_memory.py": [f"--archs {NET} --batch 2"],
    "bench_own_images.py": [
        "--data photos --targets 30M --seeds 0 --out out --train epochs=1 --train init=pretrained "
        "--search init=pretrained --search trials=1 --search epochs=1 --search finalists=0 "
        "--search random_search=false"
    ],
    "bench_pretrained.py": [
        "--imgsz 32 --images 40 --epochs 1 --trials 1 --target 20M --threads 1"
    ],
    "bench_priors.py": [
        "scores --table accel_nasbench.parquet --archs 4 --images 4 --side 32",
        "naswot --seeds 1 --trials 5 --points 10 --processes 1",
        "pool runs/search/pool --seeds 1 --top 2",
        "warm --seeds 1 --controllers random --trials 6 --warm-trials 5 --output out",
    ],
    "bench_ray.py": ["--tasks 8 --tuned 2 --rounds 1 --sleeps 0.1 --each 2"],
    "bench_training.py": [TRAINING],
    # the other targets: test_fit.py, test_shared.py, test_ray_faults.py
    # of a training and of its driver; the other targets have tests of their own
    "chaos.py": ["family --kills 2 --phi 0 --epochs 2"],
    "compare_trained.py": [
        "tiny.json --times 2 --data digits --workers 1 --epochs 1 --fraction 0.05 --seeds 1 --out a"
        ".csv"
    ],
    "export_family.py": ["--phi 0 --imgsz 32 --format pt2"],
    "first_hour.py": ["gray:30 --seeds 1 --out out --epochs 1"],
    "fit_surrogate.py": ["--data . --out surrogate.npz --folds 2"],
    "fit_times.py": ["--data accel_nasbench.parquet --folds 2"],
    "gpu_suite.py": ["--smoke --out out --parts training,memory,family,pretrained"],
    "reproduce/table2.py": ["--out out.csv"],
    "reproduce/table3.py": ["--out out.csv"],
    "reproduce/table4.py": ["--devices fake --rounds 1 --no-b7"],
    "reproduce/table7.py": ["--out out.csv"],
    "tune_proxy.py": ["--data digits --set lr=0.01 --epochs 1 --archs 1 --fraction 0.05"],
    "verify_family.py": ["--phi 0"],
    "write_stub.py": ["--check"],
}
# its virtual environments are fetched: run in part by test_export_scripts.py
FETCHES = {"export_parity.py"}
SLOW = {"bench_ray.py", "chaos.py", "export_family.py", "first_hour.py", "gpu_suite.py"}
SLOW |= {"naswot", "verify_family.py", "bench_own_images.py", "bench_pretrained.py"}


def script(name: str) -> ModuleType:
    return importlib.import_module(Path(name).stem)


def parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), path)


def accel_nasbench(folder: Path) -> None:
    """Write made-up tables with the columns of Accel-NASBench's."""
    rng, rows = np.random.default_rng(0), list[dict[str, Any]]()
    for _ in range(60):
        row: dict[str, Any] = {}
        for block, most in enumerate((2, 3, 3, 4, 4, 5, 2)):
            genes = {"e": (1, 4, 6), "k": (3, 5), "l": range(1, most), "se": (0, 1)}
            row |= {f"block{block}_{g}": int(rng.choice(list(o))) for g, o in genes.items()}
        row |= {"val_top1": float(60 + rng.normal()), "train_time": float(rng.uniform(900, 2000))}
        row |= {f"{name}_throughput_mean": float(rng.uniform(100, 200)) for name in DEVICES}
        row |= {f"{name}_latency_mean": float(rng.uniform(1, 2)) for name in MEASURED_LATENCY}
        rows.append(row)
    parquet(folder / "accel_nasbench.parquet", rows)
    seeds = [{**row, "scheme": "proxified", "val_top1": row["val_top1"] + 0.1} for row in rows]
    parquet(folder / "accel_nasbench_multiseed.parquet", [*rows[:0], *seeds, *seeds])


def pool(folder: Path) -> None:
    settings: dict[str, Any] = {"controller": "random", "trials": 8, "random_search": False}
    search(space="mbconv_small", evaluator="synthetic", name="pool", **settings)


def rungs(folder: Path) -> None:
    with (folder / "rungs.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["trial", "epochs", "reward", "training_flops"])
        table.writerows([n, e, 50 + n + e, 10.0 * e] for n in range(4) for e in (1, 2, 4))


def table(folder: Path) -> None:
    from itertools import product

    from nas.core import registry

    space = registry.export("spaces", str(folder / "space.py"), "SPACE")
    with (folder / "table.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([*space.choices, "accuracy_0"])
        rows.writerows([*point, 50 + n] for n, point in enumerate(product(*space.choices.values())))


def photos(folder: Path) -> None:
    script("first_hour.py").make_folder(folder / "photos", "folder", 48)


INPUTS: dict[str, Callable[[Path], None]] = {
    "accel_nasbench.parquet": accel_nasbench,
    "--data .": accel_nasbench,
    "--data photos": photos,
    "runs/search/pool": pool,
    "rungs.csv": rungs,
    "table.csv": table,
    "tiny.json": lambda folder: (folder / "tiny.json").write_text(TINY.to_json()) and None,
}


@pytest.fixture
def small(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory; what is solved for 2,000 networks is solved for few."""
    monkeypatch.setenv("NAS_CACHE", str(folder / "cache"))
    fit_surrogate = script("fit_surrogate.py")
    monkeypatch.setattr(fit_surrogate, "CENTRES", 40)
    monkeypatch.setattr(fit_surrogate, "TIME_CENTRES", 20)
    monkeypatch.setattr(fit_surrogate, "STEPS", 2)
    return folder


@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param(name, words, marks=[pytest.mark.slow] * bool({name, words.split()[0]} & SLOW))
        for name, every in SMALLEST.items()
        for words in every
    ],
)
def test_a_script_runs(
    name: str, words: str, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for sign, make in INPUTS.items():
        if sign in words:
            make(small)
    if "ray" in name:
        pytest.importorskip("ray.tune", reason="needs ray[tune]")
    threads, before = torch.get_num_threads(), set(os.environ)
    try:
        assert not script(name).main(shlex.split(words))
    finally:
        torch.set_num_threads(threads)
        for added in set(os.environ) - before:
            del os.environ[added]
    shown = capsys.readouterr().out
    assert re.search(r"\d", shown), shown


def test_every_script_is_run_by_some_test() -> None:
    assert set(PROGRAMS) == {*SMALLEST, *FETCHES}


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_a_command_of_the_docs_is_understood(
    page: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, *words = shlex.split(command.replace("[", "").replace("]", ""))
    name = path.removeprefix("scripts/")
    assert name in PROGRAMS, f"{page}: no {path}"
    target = words[:1] if name in ("chaos.py", "bench_priors.py") else []
    with pytest.raises(SystemExit) as end:
        script(name).main([*target, "--help"])
    assert end.value.code == 0
    known = set(re.findall(r"--[a-z][a-z0-9-]*", capsys.readouterr().out))
    unknown = {word for word in words if word.startswith("--")} - known
    # first_hour hands on what `nas train` knows
    assert not unknown or name == "first_hour.py", f"{page}: {path} has no {unknown}"
