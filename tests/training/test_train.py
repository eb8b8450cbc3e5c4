"""Training: what an interruption, a full memory or disk, a divergence and several processes do."""

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from digits import TINY, digits, equal, files, job, last, numbers, same
from torch import Tensor

from nas.core import run_folder
from nas.core.errors import NasError, OptionError, RunError
from nas.data.loader import Data
from nas.models.build import Model
from nas.training import loop
from nas.training.checkpoint import read_weights
from nas.training.loop import RESULTS, fit, training_flops
from nas.training.mending import BEST
from nas.training.state import CHECKPOINTS, Row, fresh
from nas.training.trained import CONFIG


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """As in a worker process on a busy machine; sums come out the same everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data() -> Data:
    return digits()


# ------------------------------------------------------------------------- what a training leaves


def test_a_training_learns_and_leaves_what_is_promised(data: Data, tmp_path: Path) -> None:
    seen: list[Row] = []
    this = job(6, optimizer="adamw", lr=0.2)
    rows = fit(this, digits(0.3), tmp_path, watch=seen.append)
    assert seen == rows and [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[-1]["val_top1"] > 25  # guessing gives 10
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert all(row["val_top1"] <= row["val_top5"] <= 100 for row in rows)
    kept = [
        f"{CHECKPOINTS}/epoch-{n}/{x}" for n in (5, 6) for x in ("state.pt", "weights.safetensors")
    ]
    assert files(tmp_path) == sorted([CONFIG, BEST, RESULTS, *kept])
    table = run_folder.read_csv(tmp_path / RESULTS)
    assert [{k: float(v) for k, v in row.items()} for row in table] == rows


def test_the_best_weights_are_those_of_the_best_epoch(data: Data, tmp_path: Path) -> None:
    this = job(8)
    rows = fit(this, data, tmp_path)
    best = max(rows, key=lambda row: row["val_top1"])  # the first of equals
    model = Model(TINY)
    model.load_state_dict(read_weights(tmp_path / BEST))
    assert loop.score(model, data, this).top1 == best["val_top1"]
    assert run_folder.read_json(tmp_path / CONFIG)["metrics"] == best


def test_only_the_epochs_that_are_asked_for_are_validated(data: Data, tmp_path: Path) -> None:
    everywhere = fit(job(4), data, tmp_path / "all")
    rows = fit(job(4), data, tmp_path / "some", validate_at=(2,))
    assert [int(row["epoch"]) for row in rows if "val_top1" in row] == [2, 4]
    picked = [row for row in numbers(everywhere) if row["epoch"] in (2, 4)]
    assert picked == [row for row in numbers(rows) if "val_top1" in row]
    assert equal(last(tmp_path / "all")[0], last(tmp_path / "some")[0])


def test_one_seed_one_training(data: Data, tmp_path: Path) -> None:
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        fit(job(1, seed=seed), data, tmp_path / name)
    assert same(tmp_path / "first", tmp_path / "again")
    assert not equal(last(tmp_path / "first")[0], last(tmp_path / "other")[0])


def test_the_test_split_is_not_opened(data: Data, tmp_path: Path) -> None:
    def opened() -> Any:
        raise AssertionError("a training has opened the test split")

    fit(job(2, ema=0.9), dataclasses.replace(data, test=opened), tmp_path)


def test_the_cost_is_three_forward_passes_of_every_image(data: Data) -> None:
    from nas import count

    assert training_flops(job(5), data, 2) == 3 * count(TINY).flops * 2 * len(data.train)


# ----------------------------------------------------------------------------------- interruptions


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "sgd", "ema": 0.9},
        {"optimizer": "adamw", "lr": 0.004, "schedule": "cosine", "dropout": 0.3},
        {"recipe": "efficientnet", "ema": 0.99, "stochastic_depth": 0.3, "policy": "none"},
    ],
    ids=["sgd and ema", "adamw and dropout", "rmsprop, ema and stochastic depth"],
)
def test_interrupted_after_each_epoch_and_resumed_is_uninterrupted(
    data: Data, tmp_path: Path, options: dict[str, Any]
) -> None:
    defaults = {"optimizer": "rmsprop_tf"} if "recipe" in options else {}
    this = job(4, **defaults | options)
    calm = fit(this, data, tmp_path / "calm")
    for until in (1, 2, 3, 4):
        rows = fit(this, data, tmp_path / "broken", until=until)
        assert numbers(rows) == numbers(calm[:until])
    assert same(tmp_path / "calm", tmp_path / "broken")
    assert ("val_top1_ema" in calm[0]) == any("ema." in name for name in last(tmp_path / "calm")[0])


def test_a_finished_training_gives_its_rows_again(data: Data, tmp_path: Path) -> None:
    rows = fit(job(2), data, tmp_path)
    seen: list[Row] = []
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert fit(job(2), data, tmp_path, watch=seen.append) == rows and not seen
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    # and one that is asked about an earlier epoch tells of all that it has done
    assert fit(job(2), data, tmp_path, until=1) == rows


class Kill(BaseException):
    """What stops a training between any two lines."""


@pytest.mark.parametrize("call", range(6))
def test_stopped_while_an_epoch_is_kept_it_is_repeated_alike(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """Stop at each write of the second epoch: best weights, config, checkpoint (2), table."""
    this = job(3, ema=0.9)
    fit(this, data, tmp_path / "calm")
    fit(this, data, tmp_path / "broken", until=1)
    calls = [0]
    replace = Path.replace
    rename = Path.rename

    def stop(move: Callable[..., Path]) -> Callable[..., Path]:
        def moved(path: Path, target: Path) -> Path:
            calls[0] += 1
            if calls[0] == call + 1:
                raise Kill
            return move(path, target)

        return moved

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stop(replace))
        patch.setattr(Path, "rename", stop(rename))
        with contextlib.suppress(Kill):
            fit(this, data, tmp_path / "broken", until=2)
    fit(this, data, tmp_path / "broken")
    assert same(tmp_path / "calm", tmp_path / "broken")
    assert files(tmp_path / "calm") == files(tmp_path / "broken")


@pytest.mark.parametrize(
    ("other", "word"),
    [
        ({"epochs": 4}, "another training"),
        ({"batch": 16}, "another training"),
        ({"seed": 1}, "another training"),
        ({"lr": 0.2}, "another training"),
        ({"arch": dataclasses.replace(TINY, activation="relu")}, "another training"),
        ({"freeze": True}, "another training"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(
    data: Data, tmp_path: Path, other: dict[str, Any], word: str
) -> None:
    fit(job(3), data, tmp_path, until=1)
    before = last(tmp_path)
    with pytest.raises(RunError, match=word) as error:
        fit(job(**other), data, tmp_path)
    assert "\n" not in str(error.value)
    assert equal(last(tmp_path)[0], before[0])


def test_where_it_runs_may_change_between_an_interruption_and_the_rest(
    data: Data, tmp_path: Path
) -> None:
    fit(job(3), data, tmp_path, until=1)
    rows = fit(job(3, checkpointing=True, amp=True), data, tmp_path)
    assert len(rows) == 3


def test_a_full_disk_keeps_the_checkpoint_and_what_is_resumed_is_uninterrupted(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource")
    fit(job(3, ema=0.9), data, tmp_path / "calm")
    fit(job(3, ema=0.9), data, tmp_path / "full", until=1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    largest = max(p.stat().st_size for p in (tmp_path / "full").rglob("weights.safetensors"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1000, before[1]))
    try:
        with pytest.raises(RunError, match=r"File too large.* the checkpoint before it is kept"):
            fit(job(3, ema=0.9), data, tmp_path / "full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(json.loads(last(tmp_path / "full")[1]["rows"])) == 1
    fit(job(3, ema=0.9), data, tmp_path / "full")
    assert same(tmp_path / "calm", tmp_path / "full")


# ------------------------------------------------------------------------ divergence and memory


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_loss_that_diverges_ends_the_training_with_its_reason(
    data: Data, tmp_path: Path, ema: float
) -> None:
    with pytest.raises(NasError, match=r"the loss is \S+ in epoch \d: .*lr=") as error:
        fit(job(9, lr=1000, ema=ema), data, tmp_path)
    assert error.value.exit_code == 1 and "\n" not in str(error.value)
    for path in (tmp_path / CHECKPOINTS).glob("*/weights.safetensors"):
        assert all(bool(v.isfinite().all()) for v in read_weights(path).values())


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make a network run out of memory that is given more than so many images."""
    forward = Model.forward

    def limit(most: int) -> None:
        def small(self: Model, x: Tensor) -> Tensor:
            if len(x) > most:
                raise torch.OutOfMemoryError(f"tried to allocate {len(x)} images")
            return forward(self, x)

        monkeypatch.setattr(Model, "forward", small)

    return limit


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        MemoryError("std::bad_alloc"),
    ],
    ids=str,
)
def test_every_allocators_lack_of_memory_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    forward, said = Model.forward, list[str]()

    def once(self: Model, x: Tensor) -> Tensor:
        if not said:
            raise error
        return forward(self, x)

    monkeypatch.setattr(Model, "forward", once)
    assert len(fit(job(1, 4), digits(0.01), tmp_path, say=said.append)) == 1
    assert said == ["out of memory: 2 images at a time now, 2 times for a step"]


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_out_of_memory_halves_the_batch_and_says_so(
    data: Data, tmp_path: Path, memory: Callable[[int], None], ema: float
) -> None:
    fit(job(2, accumulate=4, ema=ema), data, tmp_path / "roomy")
    said: list[str] = []
    memory(8)
    rows = fit(job(2, ema=ema), data, tmp_path / "small", say=said.append)
    assert said == [
        "out of memory: 16 images at a time now, 2 times for a step",
        "out of memory: 8 images at a time now, 4 times for a step",
    ]
    assert same(tmp_path / "roomy", tmp_path / "small") and len(rows) == 2


def test_out_of_memory_in_a_later_epoch_goes_on_from_the_one_before(
    data: Data, tmp_path: Path, memory: Callable[[int], None]
) -> None:
    fit(job(3), data, tmp_path / "roomy", until=1)
    shutil.copytree(tmp_path / "roomy", tmp_path / "small")
    memory(16)
    said: list[str] = []
    rows = fit(job(3), data, tmp_path / "small", say=said.append, until=2)
    assert len(said) == 1 and len(rows) == 2
    # what was learnt of the memory is kept
    fit(job(3), data, tmp_path / "small", say=said.append)
    assert len(said) == 1 and last(tmp_path / "small")[1]["accumulate"] == 2


@pytest.mark.parametrize("batch", [32, 5, 3, 1])
def test_where_one_image_fits_it_trains(
    tmp_path: Path, memory: Callable[[int], None], batch: int
) -> None:
    memory(1)
    norm = dataclasses.replace(TINY.norm, kind="group")  # batch norm needs more than one image
    rows = fit(job(1, batch, dataclasses.replace(TINY, norm=norm)), digits(0.01), tmp_path)
    assert len(rows) == 1


@pytest.mark.parametrize("batch", [32, 5, 1])
def test_one_image_that_does_not_fit_ends_the_training(
    data: Data, tmp_path: Path, memory: Callable[[int], None], batch: int
) -> None:
    memory(0)
    with pytest.raises(NasError, match="one image of 32 pixels does not fit") as error:
        fit(job(1, batch), data, tmp_path)
    assert "--grad-checkpointing" in str(error.value) and "\n" not in str(error.value)


def test_other_errors_are_not_taken_for_a_lack_of_memory(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Model, x: Tensor) -> Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(Model, "forward", broken)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        fit(job(1), data, tmp_path)


# ------------------------------------------------------- the same training in other ways, and parts


def near(first: Path, second: Path, tolerance: float) -> bool:
    """Tell whether two trainings have about the same weights and statistics."""
    (mine, _), (other, _) = last(first), last(second)
    names = [name for name in mine if "num_batches_tracked" not in name]
    return all(torch.allclose(mine[n], other[n], rtol=0, atol=tolerance) for n in names)


def test_accumulation_without_batch_norm_changes_nothing(data: Data, tmp_path: Path) -> None:
    norm = dataclasses.replace(TINY.norm, kind="group")
    arch = dataclasses.replace(TINY, norm=norm)
    for parts in (1, 2, 5):
        fit(job(2, arch=arch, accumulate=parts), data, tmp_path / str(parts))
    # 5 parts of 32 images are 7, 7, 7, 7, 4
    assert near(tmp_path / "1", tmp_path / "2", 1e-5)
    assert near(tmp_path / "1", tmp_path / "5", 1e-5)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_gradient_checkpointing_gives_the_same_weights_and_statistics(
    data: Data, tmp_path: Path, accumulate: int
) -> None:
    options = {"ema": 0.9, "stochastic_depth": 0.2, "dropout": 0.2, "accumulate": accumulate}
    plain = fit(job(3, **options), data, tmp_path / "plain")
    spared = fit(job(3, **options, checkpointing=True), data, tmp_path / "spared")
    assert near(tmp_path / "plain", tmp_path / "spared", 1e-4)
    for mine, other in zip(plain, spared, strict=True):
        assert mine["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)
        assert mine["val_loss"] == pytest.approx(other["val_loss"], rel=1e-3)


def test_gradient_checkpointing_keeps_fewer_activations(data: Data, tmp_path: Path) -> None:
    kept = {}
    for spare in (False, True):
        state = fresh(job(1, checkpointing=spare))
        held = [0]

        def pack(tensor: Tensor, held: list[int] = held) -> Tensor:
            held[0] += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            state.model.train()(torch.rand(8, 3, 32, 32))
        kept[spare] = held[0]
    assert kept[True] < 0.7 * kept[False]


def test_bfloat16_trains_too(data: Data, tmp_path: Path) -> None:
    exact = fit(job(2), data, tmp_path / "exact")
    rough = fit(job(2, amp=True), data, tmp_path / "rough")
    assert rough[-1]["train_loss"] == pytest.approx(exact[-1]["train_loss"], rel=0.05)
    assert rough[-1]["train_loss"] != exact[-1]["train_loss"]
    assert all(v.dtype != torch.bfloat16 for v in last(tmp_path / "rough")[0].values())


def classifier(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in weights.items() if k.startswith("model.head.linear")}


def test_freezing_trains_the_classifier_alone_and_keeps_statistics(
    data: Data, tmp_path: Path
) -> None:
    fit(job(2), data, tmp_path / "first")
    weights = read_weights(tmp_path / "first" / BEST)
    this = job(2, freeze=True, init=tmp_path / "first", ema=0.9, dropout=0.5)
    fit(this, data, tmp_path / "frozen")
    found = last(tmp_path / "frozen")[0]
    changed = {
        k.removeprefix("model.")
        for k, v in found.items()
        if k.startswith("model.") and not torch.equal(v, weights[k.removeprefix("model.")])
    }
    names = list(Model(TINY).state_dict())
    assert changed == set(names[-2:])  # the classifier's weight and bias


def test_weights_to_start_from_are_taken_but_for_another_classifier(
    data: Data, tmp_path: Path
) -> None:
    fit(job(2), data, tmp_path / "first")
    weights = read_weights(tmp_path / "first" / BEST)
    three = dataclasses.replace(TINY, head=dataclasses.replace(TINY.head, classes=3))
    for source in (tmp_path / "first", tmp_path / "first" / BEST):
        model = fresh(job(arch=three, init=source)).model
        own = model.state_dict()
        assert own["stem.conv0.conv.weight"].equal(weights["stem.conv0.conv.weight"])
        assert model.get_classifier().weight.shape == (3, 16)
        blank = fresh(job(arch=three)).model.get_classifier()
        assert torch.equal(model.get_classifier().weight, blank.weight)  # type: ignore[arg-type]
    whole = fresh(job(init=tmp_path / "first")).model.state_dict()
    assert equal(dict(whole), weights)


def test_a_resumption_needs_the_weights_it_once_started_from_no_more(
    data: Data, tmp_path: Path
) -> None:
    fit(job(1), data, tmp_path / "first")
    this = job(3, init=tmp_path / "first")
    fit(this, data, tmp_path / "calm")
    fit(this, data, tmp_path / "broken", until=2)
    shutil.rmtree(tmp_path / "first")
    fit(this, data, tmp_path / "broken")
    assert same(tmp_path / "calm", tmp_path / "broken")


def test_weights_of_another_arch_are_refused(data: Data, tmp_path: Path) -> None:
    fit(job(1), data, tmp_path / "first")
    other = dataclasses.replace(TINY, stages=TINY.stages[:1])  # a size that cannot inherit
    with pytest.raises(OptionError, match="weights of another arch") as error:
        fit(job(arch=other, init=tmp_path / "first"), data, tmp_path / "second")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "second").exists()


def test_averaged_weights_are_reported_beside_the_raw_ones(data: Data, tmp_path: Path) -> None:
    rows = fit(job(4, ema=0.9, lr=2.0), data, tmp_path)
    assert all(row["val_top1"] == row["val_top1_ema"] for row in rows)
    assert any(row["val_top1_ema"] != row["val_top1_raw"] for row in rows)
    plain = fit(job(4, lr=2.0), data, tmp_path / "plain")
    assert [r["val_top1_raw"] for r in rows] == [r["val_top1_raw"] for r in plain]
    assert [r["val_top1"] for r in plain] == [r["val_top1_raw"] for r in plain]
    model = Model(TINY)
    model.load_state_dict(read_weights(tmp_path / BEST))
    best = max(rows, key=lambda row: row["val_top1"])
    assert loop.score(model, data, job()).top1 == best["val_top1_ema"]
