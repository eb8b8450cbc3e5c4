"""From weights: a linear probe, then all of the network; statistics, early parts, resumption."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from digits import TINY, digits, job, same
from sklearn.linear_model import LogisticRegression
from torch import nn

from nas.core.errors import NasError, OptionError
from nas.data.loader import Data
from nas.models.arch import Arch, Norm
from nas.models.build import Model
from nas.training import loop, probe, start
from nas.training.auto import Situation, resolve_recipe
from nas.training.checkpoint import read_weights
from nas.training.loop import fit
from nas.training.mending import BEST
from nas.training.preemption import Notice
from nas.training.probe import choose_statistics, read_probe, recalibrate
from nas.training.start import training_mode
from nas.training.state import Job, Start, fresh, restored
from nas.training.weights.sources import Weights, save_weights


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data() -> Data:
    return digits()


@pytest.fixture(scope="module")
def trained(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training whose weights are worth starting from."""
    folder = tmp_path_factory.mktemp("trained")
    fit(job(4, optimizer="adamw", lr=0.2), data, folder)
    return folder


def fine(trained: Path | None, epochs: int = 3, **more: Any) -> Job:
    """Return a fine-tuning by the rule, of the weights of a training."""
    own = {f.name for f in dataclasses.fields(Job)}
    changed = {"interval": 1} | {k: v for k, v in more.items() if k not in own}
    given = Situation(1_000, 10, 32, start="weights", gray=True, epochs=epochs)
    recipe = resolve_recipe("auto", changed, given).recipe
    kept = {k: v for k, v in more.items() if k in own}
    return dataclasses.replace(job(epochs), recipe=recipe, init=trained, **kept)


def test_a_probe_is_scikit_learns_logistic_regression(data: Data, trained: Path) -> None:
    model = fresh(fine(trained)).model
    found = probe.probe(model, data, device="cpu")
    seen = probe._Reader(model, "cpu", False, Notice())
    (x, y), (val_x, val_y) = (
        [t.numpy() for t in seen.vectors(each.ordered(64))] for each in (data.train, data.val)
    )
    scale = np.sqrt(np.square(x - x.mean(0)).mean())
    by_strength = {}
    for strength in probe.STRENGTHS:
        theirs = LogisticRegression(C=1 / (strength * len(x)), max_iter=2_000)
        theirs.fit((x - x.mean(0)) / scale, y)
        odds = theirs.predict_log_proba((val_x - x.mean(0)) / scale)
        by_strength[strength] = -odds[np.arange(len(val_y)), val_y].mean()
    assert found.score.loss == pytest.approx(by_strength[found.score.strength], rel=0.02)
    assert found.score.loss <= min(by_strength.values()) * 1.02
    logits = val_x @ found.weight.numpy().T + found.bias.numpy()
    assert found.score.top1 == pytest.approx(100 * (logits.argmax(1) == val_y).mean())
    assert found.score.n == len(data.val)


@pytest.mark.parametrize(("images", "classes"), [(1, 2), (3, 2), (10, 3), (40, 7), (30, 1_000)])
def test_a_probe_of_few_images_or_with_classes_that_are_not_seen(images: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(images)
    x = torch.randn(images, 16, generator=generator)
    y = torch.arange(images) % max(2, classes // 2)  # the other half is never shown
    weight, bias, strength = probe._regression((x, y), (x, y), classes)
    assert weight.shape == (classes, 16) and bias.shape == (classes,)
    assert torch.isfinite(weight).all() and torch.isfinite(bias).all()
    assert strength in probe.STRENGTHS
    right = (x @ weight.T + bias).argmax(1) == y
    assert right.float().mean() > 0.9


def test_features_that_are_no_numbers_are_refused(data: Data) -> None:
    model = Model(TINY)
    with torch.no_grad():
        model.get_classifier().weight.fill_(1)
        next(model.stem.parameters()).fill_(math.nan)
    with pytest.raises(NasError, match="no finite numbers"):
        probe.probe(model, data, device="cpu")


def test_of_many_images_a_part_is_probed(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "MOST_BYTES", 4 * 16 * 80)
    model = Model(TINY)
    seen = probe._Reader(model, "cpu", False, Notice())
    x, y = seen.vectors(probe._part(data.train, 64, probe._most(model)))
    assert len(x) == 64 and len(set(y.tolist())) > 5
    assert probe.probe(model, data, device="cpu").score.n == len(data.val)


# --------------------------------------------------------------------------------- statistics


def test_statistics_are_those_that_separate_the_classes(data: Data, trained: Path) -> None:
    model = fresh(fine(trained)).model
    whole = {k: v.clone() for k, v in model.state_dict().items()}
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.running_mean.fill_(30)  # type: ignore[union-attr]
        norm.running_var.fill_(1e-4)  # type: ignore[union-attr]
    assert choose_statistics(model, data, device="cpu") == "recalibrated"
    for norm in norms:
        assert norm.running_mean is not None and norm.running_mean.abs().max() < 30
    assert [norm.momentum for norm in norms] == [0.1] * len(norms)
    model.load_state_dict(whole)
    if choose_statistics(model, data, device="cpu") == "own":
        assert all(torch.equal(v, whole[k]) for k, v in model.state_dict().items())


def test_a_net_without_batch_norm_keeps_what_it_has(data: Data) -> None:
    model = Model(dataclasses.replace(TINY, norm=Norm("group")))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert choose_statistics(model, data, device="cpu") == "own"
    recalibrate(model, data.train.ordered(32))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_what_is_not_trained_stays_as_it_is(data: Data, trained: Path, tmp_path: Path) -> None:
    this = fine(trained, 1, statistics="frozen", freeze_stride=2)
    fit(this, data, tmp_path)
    before, after = read_weights(trained / BEST), restored(this, tmp_path).model.state_dict()
    same_ones = {k for k, v in after.items() if torch.equal(v, before[k])}
    assert {k for k in after if k.startswith("stem.")} <= same_ones
    assert {k for k in after if "running" in k} <= same_ones
    trained_ones = {k for k in after if k.startswith("stages.1.") and k.endswith("conv.weight")}
    assert trained_ones and not trained_ones & same_ones


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("whole", [True, False])
def test_the_mode_follows_from_what_the_probe_found(trained: Path, live: bool, whole: bool) -> None:
    this = fine(trained, freeze_stride=2)
    state = fresh(this)
    state.start = Start({"val_loss": 1.0}, live, whole=whole)
    training_mode(this, state)
    norms = [m for m in state.model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {norm.training for norm in norms} == {live}
    frozen = whole and not live
    assert all(p.requires_grad != frozen for p in state.model.stem.parameters())
    assert state.model.get_classifier().training


FEWER = dataclasses.replace(
    TINY, stages=(TINY.stages[0], dataclasses.replace(TINY.stages[1], layers=1))
)
NARROW = dataclasses.replace(
    TINY, stages=(TINY.stages[0], dataclasses.replace(TINY.stages[1], channels=4))
)
WIDE = dataclasses.replace(TINY, stem=dataclasses.replace(TINY.stem, channels=16))


@pytest.mark.parametrize(
    ("arch", "kept"),
    [(TINY, "all"), (FEWER, "fewer layers"), (NARROW, "cut"), (WIDE, "grown")],
)
def test_the_rate_follows_how_intact_the_weights_are(
    data: Data, trained: Path, tmp_path: Path, arch: Arch, kept: str
) -> None:
    source = tmp_path / "source"
    save_weights(source, Weights(read_weights(trained / BEST), TINY))
    said: list[str] = []
    this = fine(source, freeze_stride=2, arch=arch)
    assert start._kept(this) == kept
    fit(this, data, tmp_path / "run", until=0, say=said.append)
    found = restored(this, tmp_path / "run").start
    assert found and found.whole == (kept == "all")
    assert found.live or kept in ("all", "fewer layers")
    by_live = {"all": 1, "grown": 1, "cut": start.CUT, "fewer layers": start.CUT}
    wanted = start.FEWER_LAYERS if kept == "fewer layers" and not found.live else by_live[kept]
    assert found.rate == wanted
    assert any(line.startswith("learning rate") for line in said) == (wanted != 1)
    # a rate that somebody asks for is the rate
    fit(fine(source, lr=0.1, arch=arch), data, tmp_path / "asked", until=0)
    found = restored(fine(source, lr=0.1, arch=arch), tmp_path / "asked").start
    assert found and found.rate == 1


# --------------------------------------------------------------------------------- the training


def test_a_probe_is_kept_until_an_epoch_is_better(
    data: Data, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    assert fit(fine(trained), data, tmp_path, until=0, say=said.append) == []
    found, kept = read_probe(tmp_path), read_weights(tmp_path / BEST)
    assert found and found.top1 > 50 and f"linear probe: {found.top1:.2f} %" in said[-1]
    monkeypatch.setattr(
        loop, "_validated", lambda *_, **__: {"val_top1": found.top1 - 1, "val_loss": 9.0}
    )
    rows = fit(fine(trained), data, tmp_path, say=said.append)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert all(torch.equal(v, kept[k]) for k, v in read_weights(tmp_path / BEST).items())
    monkeypatch.setattr(loop, "_validated", lambda *_, **__: {"val_top1": 100.0, "val_loss": 0.0})
    fit(fine(trained), data, tmp_path / "other")
    better = read_weights(tmp_path / "other" / BEST)
    assert not all(torch.equal(v, kept[k]) for k, v in better.items())


def test_fine_tuning_is_better_than_its_probe(data: Data, trained: Path, tmp_path: Path) -> None:
    rows = fit(fine(trained, 10, lr=2.0), digits(0.3), tmp_path)
    found = read_probe(tmp_path)
    assert found and max(row["val_top1"] for row in rows) > found.top1


def test_resumed_after_the_probe_and_after_each_epoch_it_is_uninterrupted(
    data: Data, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    this = fine(trained)
    fit(this, data, tmp_path / "calm")
    fit(this, data, tmp_path / "broken", until=0)
    monkeypatch.setattr(start, "probe", None)  # it is not made again
    for epoch in (1, 2, 3):
        # the weights may be gone by now
        fit(dataclasses.replace(this, init=Path("gone")), data, tmp_path / "broken", until=epoch)
    assert same(tmp_path / "calm", tmp_path / "broken")


def test_a_loss_that_blows_up_is_tried_again_at_a_third_of_the_rate(
    data: Data, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = loop._steps
    rates: list[tuple[int, float]] = []
    said: list[str] = []

    def steps(job: Job, data: Data, state: Any, notice: Any) -> tuple[float, float, int]:
        loss, lr, images = true(job, data, state, notice)
        rates.append((state.epoch, state.start.rate))
        bad = state.epoch == 1 and state.start.rate > 0.2
        return (math.nan if bad else loss), lr, images

    monkeypatch.setattr(loop, "_steps", steps)
    rows = fit(fine(trained), data, tmp_path, say=said.append)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    third, ninth = 1 / 3, 1 / 9
    assert [epoch for epoch, _ in rates] == [0, 1, 1, 1, 2]
    assert [rate for _, rate in rates] == pytest.approx([1, 1, third, ninth, ninth])
    assert sum("at a third of the learning rate" in line for line in said) == 2
    assert restored(fine(trained), tmp_path).start.rate == pytest.approx(ninth)  # type: ignore[union-attr]
    monkeypatch.setattr(loop, "_steps", lambda *_: (math.inf, 0.1, 10))
    # at every rate: what the probe gave is handed over, also when it is resumed
    for _ in range(2):
        assert fit(fine(trained), data, tmp_path / "lost", say=said.append) == []
        assert "training has diverged" in said[-1] and "is kept" in said[-1]
    assert read_probe(tmp_path / "lost") and (tmp_path / "lost" / BEST).exists()


def test_a_damaged_probe_checkpoint_is_made_again(
    data: Data, trained: Path, tmp_path: Path
) -> None:
    fit(fine(trained), data, tmp_path, until=0)
    path = tmp_path / "checkpoints" / "epoch-0" / "state.pt"
    path.write_bytes(path.read_bytes()[:-20])
    assert len(fit(fine(trained, 3), data, tmp_path)) == 3


def test_the_classifier_alone_is_probed_too(data: Data, trained: Path, tmp_path: Path) -> None:
    given = Situation(1_000, 10, 32, start="frozen", epochs=1)
    recipe = resolve_recipe("auto", {}, given).recipe
    this = dataclasses.replace(job(1), recipe=recipe, init=trained, freeze=True)
    fit(this, data, tmp_path)
    assert read_probe(tmp_path)


def test_a_recipe_from_weights_needs_weights() -> None:
    with pytest.raises(OptionError, match="name them with --init"):
        resolve_recipe("finetune", {}, Situation(1_000, 10, 64))
    named = resolve_recipe("finetune", {}, Situation(1_000, 10, 64, start="weights"))
    assert (
        named.recipe == resolve_recipe("auto", {}, Situation(1_000, 10, 64, start="weights")).recipe
    )
    assert named.recipe.probe and "after a linear probe" in named.line
