"""The surrogate: what it promises about its file, its numbers and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau

from nas.core.errors import EvaluatorError, OptionError
from nas.evaluation import skeleton
from nas.evaluation.evaluators import surrogate
from nas.evaluation.evaluators.surrogate import DEVICES, FILE, MEASURED_LATENCY, TIMES, make
from nas.models.arch import Arch, Head, Squeeze, Stage, Stem

DATA = Path(__file__).parents[3] / "shared" / "data" / "accel_nasbench"
# EfficientNet-B0's own choices (Tan and Le 2019, table 1): expansion, kernel, layers
B0 = ((1, 3, 1), (6, 3, 2), (6, 5, 2), (6, 3, 3), (6, 5, 3), (6, 5, 4), (6, 3, 1))
WITH_SE = tuple((expansion, kernel, layers, 1) for expansion, kernel, layers in B0)


def arch(genes: Any = WITH_SE, **changes: Any) -> Arch:
    shape = zip(skeleton.WIDTHS, skeleton.STRIDES, genes, strict=True)
    stages = tuple(
        Stage("mbconv", width, int(layers), int(kernel), stride, float(expansion), 0.25 * se)
        for width, stride, (expansion, kernel, layers, se) in shape
    )
    return replace(Arch("net", stages, head=Head(1280, dropout=0.2)), **changes)


def stage(number: int, **changes: Any) -> Arch:
    stages = list(arch().stages)
    stages[number - 1] = replace(stages[number - 1], **changes)
    return arch(stages=tuple(stages))


def points(count: int, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    most = np.array(skeleton.MOST_LAYERS) + 1
    genes = [rng.choice((1, 4, 6), (count, 7)), rng.choice((3, 5), (count, 7))]
    genes += [rng.integers(1, most, (count, 7)), rng.integers(0, 2, (count, 7))]
    return np.stack(genes, axis=2)


def table(name: str) -> Any:
    if not (DATA / name).is_file():
        pytest.skip("the table of Accel-NASBench is not here (../shared/data/accel_nasbench)")
    return pytest.importorskip("pandas").read_parquet(DATA / name)


def genotypes(frame: Any) -> Any:
    names = [f"block{stage}_{gene}" for stage in range(7) for gene in ("e", "k", "l", "se")]
    return frame[names].to_numpy(dtype=np.int64).reshape(-1, 7, 4)


def test_the_file_is_small_and_plain() -> None:
    assert FILE.stat().st_size < 300_000
    with np.load(FILE, allow_pickle=False) as file:
        assert not any(file[name].dtype.hasobject for name in file.files)


def test_the_file_says_where_it_comes_from() -> None:
    provenance = make().provenance
    assert "Apache-2.0" in provenance["licence"]
    assert {"source", "commit", "citation", "date", "command"} <= set(provenance)


def test_held_out_quality_passes_the_gate() -> None:
    quality = make().quality
    assert quality["accuracy"]["tau"] >= 0.925
    assert quality["accuracy"]["tau_min"] >= 0.92
    assert set(quality) == {"accuracy", *TIMES}
    for found in quality.values():
        assert 0.66 < found["within_68"] < 0.8
        assert 0.93 < found["within_95"] < 0.97
        assert found["n"] > 5000


def test_the_title_says_proxy_and_how_good() -> None:
    title = make().title
    assert "proxy top-1, not full training" in title
    assert f"{make().quality['accuracy']['tau']:.3f}" in title
    assert "per image" in make(device="a100").title
    assert "measured" in make(device="zcu102").title


def test_b0_is_near_the_top_of_the_proxy_scale() -> None:
    found = make().evaluate(arch())
    assert 65 < found["accuracy"] < 67
    assert 0.2 < found["accuracy_std"] < 0.8
    assert set(found) == {"accuracy", "accuracy_std"}


def test_deviations_exceed_what_repeats_show() -> None:
    spread = make().predict(points(500))["accuracy_std"]
    assert 0.1 < make().noise_sd < 0.4
    assert np.all((spread > 0.1) & (spread < 3))


def test_counted_costs_are_those_of_b0() -> None:
    # 385.815 M multiply-adds and 5,288,548 parameters, less stem, head and classifier
    codes = np.array([WITH_SE])
    logs = skeleton.features(codes)[0, :49].reshape(7, 7)
    assert np.exp(logs[:, 4]).sum() == pytest.approx(353.626e6, rel=1e-4)
    assert np.exp(logs[:, 5]).sum() == pytest.approx(5_288_548 - 928 - 412_160 - 1_281_000)


@pytest.mark.parametrize("device", DEVICES)
def test_speeds_are_positive_and_units_agree(device: str) -> None:
    found = make(device=device).predict(points(300))
    assert all(np.all(values > 0) for values in found.values())
    if device not in MEASURED_LATENCY:
        np.testing.assert_allclose(found["latency_ms"] * found["throughput"], 1000)
    assert np.all(found["latency_ms_std"] < found["latency_ms"])


def test_more_layers_take_longer() -> None:
    deeper = [(e, k, min(layers + 1, 3), 1) for e, k, layers in B0]
    for device in DEVICES:
        predict = make(device=device).evaluate
        assert predict(arch(deeper))["latency_ms"] > predict(arch())["latency_ms"]


def test_one_and_many_agree() -> None:
    evaluator, codes = make(device="vck190"), points(20)
    many = evaluator.predict(codes)
    for i, code in enumerate(codes):
        assert evaluator.evaluate(arch(code)) == pytest.approx(
            {name: values[i] for name, values in many.items()}, rel=1e-9
        )


def test_name_dropout_and_stochastic_depth_do_not_matter() -> None:
    other = arch(name="other", head=Head(1280, dropout=0.5), stochastic_depth=0.3)
    assert make().evaluate(other) == make().evaluate(arch())


@pytest.mark.parametrize(
    ("outside", "message"),
    [
        (arch(resolution=240), "the resolution must be 224, not 240"),
        (arch(stem=Stem(40)), "stem.channels must be 32, not 40"),
        (arch(head=Head(1280, classes=10)), "head.classes must be 1000, not 10"),
        (arch(activation="relu"), "the activation must be silu, not 'relu'"),
        (arch(squeeze=Squeeze(of="expanded")), "squeeze.of must be input, not 'expanded'"),
        (arch(stages=arch().stages[:6]), "the number of stages must be 7, not 6"),
        (arch(stages=(*arch().stages, arch().stages[6])), "the number of stages must be 7, not 8"),
        (stage(2, expansion=3.0), "stage 2: expansion must be 1 or 4 or 6, not 3.0"),
        (stage(3, kernel=7), "stage 3: kernel must be 3 or 5, not 7"),
        (stage(5, layers=4), "stage 5: layers must be 1 or 2 or 3, not 4"),
        (stage(6, channels=200), "stage 6: channels must be 192, not 200"),
        (stage(4, se=0.5), "stage 4: se must be 0 or 0.25, not 0.5"),
        (stage(7, op="bottleneck"), "stage 7: op must be mbconv, not 'bottleneck'"),
    ],
)
def test_an_arch_outside_is_refused_in_one_line(outside: Arch, message: str) -> None:
    make().check(arch())
    with pytest.raises(EvaluatorError) as caught:
        make().evaluate(outside)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_wrong_options_are_refused() -> None:
    with pytest.raises(OptionError, match=r"did you mean 'zcu102'.*a100, rtx3090"):
        make(device="zcu12")
    with pytest.raises(OptionError, match="noise"):
        make(noise=-1)


def test_noise_is_fixed_per_arch_and_has_the_asked_deviation() -> None:
    plain, noisy = make(), make(noise=0.3)
    nets = [arch(code) for code in points(400)]
    drawn = np.array([noisy.evaluate(n)["accuracy"] - plain.evaluate(n)["accuracy"] for n in nets])
    assert drawn.std() == pytest.approx(0.3, rel=0.12)
    assert abs(drawn.mean()) < 0.05
    assert noisy.evaluate(nets[0]) == make(noise=0.3).evaluate(nets[0])
    assert noisy.evaluate(nets[0]) != noisy.evaluate(nets[0], seed=1)
    assert noisy.evaluate(nets[0]) != make(noise=0.3, seed=1).evaluate(nets[0])


def test_the_draw_is_the_same_in_every_process() -> None:
    assert surrogate._draw("a/0/0") == surrogate._draw("a/0/0")
    code = "from nas.evaluation.evaluators.surrogate import _draw; print(_draw('a/0/0'))"
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=True)
    assert float(run.stdout) == surrogate._draw("a/0/0")


def test_inference_needs_numpy_only() -> None:
    code = (
        "import sys; from nas.evaluation.evaluators.surrogate import make; make(); "
        "print([m for m in ('torch', 'pandas', 'sklearn', 'scipy') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=True)
    assert run.stdout.strip() == b"[]"


def test_on_the_table_the_shipped_model_ranks_better_than_held_out() -> None:
    frame = table("accel_nasbench.parquet")
    found = make().predict(genotypes(frame))["accuracy"]
    assert kendalltau(found, frame["val_top1"]).statistic > make().quality["accuracy"]["tau"]


def test_the_second_table_gives_the_stored_figures() -> None:
    frame = table("accel_nasbench_multiseed.parquet")
    frame = frame[frame["scheme"] == "proxified"]
    codes = genotypes(frame)
    networks, which = np.unique(codes.reshape(-1, 28), axis=0, return_inverse=True)
    top1 = np.bincount(which.ravel(), frame["val_top1"]) / np.bincount(which.ravel())
    found = make().predict(networks.reshape(-1, 7, 4))["accuracy"]
    stored = make().quality["accuracy"]
    assert kendalltau(found, top1).statistic == pytest.approx(stored["multiseed_tau"], abs=1e-3)
    error = np.sqrt(np.mean((found - top1) ** 2))
    assert error == pytest.approx(stored["multiseed_rmse"], abs=1e-3)


def test_no_row_of_the_table_is_in_the_file() -> None:
    rows = {code.tobytes() for code in genotypes(table("accel_nasbench.parquet"))}
    rows |= {code.tobytes() for code in genotypes(table("accel_nasbench_multiseed.parquet"))}
    with np.load(FILE, allow_pickle=False) as file:
        centres = file["centres"].astype(np.int64)
        sizes = {size for name in file.files for size in file[name].shape}
    assert not any(code.tobytes() in rows for code in centres)
    assert max(sizes) <= 2000
