"""Recipes: the contract that every file of the folder keeps, found by discovery; options."""

import dataclasses
import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from nas.core import registry
from nas.core.errors import OptionError
from nas.training import optim
from nas.training.recipe import Augment, Recipe, load_recipe, with_options

torch.set_num_threads(1)
each_recipe = pytest.mark.parametrize("name", registry.names("recipes"))
PROXY = load_recipe("proxy", {})


def test_the_recipes_that_users_are_promised_are_there() -> None:
    assert {"efficientnet", "proxy", "finetune"} <= set(registry.names("recipes"))


@each_recipe
def test_a_recipe_is_valid_and_says_where_it_is_from(name: str) -> None:
    recipe = load_recipe(name, {})
    assert recipe.name == name
    assert recipe == registry.export("recipes", name, "RECIPE")
    for words in (recipe.source, recipe.expected):
        assert len(words) > 20 and "\n" not in words and not words.endswith(".")
    assert re.search(r"\d{4}", recipe.source), "a source has a year"


@each_recipe
def test_a_recipe_makes_an_optimizer_that_learns(name: str) -> None:
    torch.manual_seed(0)
    recipe = load_recipe(name, {})
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))
    x, y = torch.randn(64, 8), torch.arange(64) % 4
    base = optim.scaled_lr(recipe, recipe.batch_size)
    optimizer, ema = optim.make_optimizer(model, recipe, base), optim.make_ema(model, recipe)
    losses = []
    for step in range(60):
        for group in optimizer.param_groups:
            group["lr"] = base * optim.lr_at(recipe, step, 60, 6)
        loss = nn.functional.cross_entropy(model(x), y, label_smoothing=recipe.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if ema:
            ema.update_parameters(model)
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]
    assert (ema is not None) == (recipe.ema > 0)


@each_recipe
@pytest.mark.parametrize("epochs", [1, 3, 60])
def test_the_rate_of_a_recipe_reaches_its_peak_and_comes_down(name: str, epochs: int) -> None:
    recipe = load_recipe(name, {})
    steps = epochs * 100
    rates = [optim.lr_at(recipe, step, steps, 100) for step in range(steps)]
    assert max(rates) > 0.8 and min(rates) > 0
    assert rates[-1] < 0.05 and rates[0] < max(rates)


def test_the_efficientnet_recipe_is_the_papers() -> None:
    recipe = load_recipe("efficientnet", {})
    assert recipe.optimizer == "rmsprop_tf" and recipe.momentum == 0.9
    assert optim.scaled_lr(recipe, 2048) == pytest.approx(0.128)
    assert optim.scaled_lr(recipe, 4096) == pytest.approx(0.256)
    assert (recipe.decay_rate, recipe.decay_epochs, recipe.warmup_epochs) == (0.97, 2.4, 5)
    assert (recipe.weight_decay, recipe.label_smoothing, recipe.ema) == (1e-5, 0.1, 0.9999)
    assert recipe.augment.policy == "autoaugment" and recipe.augment.scale == (0.08, 1.0)
    assert recipe.dropout is recipe.stochastic_depth is recipe.norm_momentum is None, "the arch's"
    optimizer = optim.make_optimizer(nn.Linear(1, 1), recipe, 0.1)
    assert optimizer.defaults["decay"] == 0.9 and optimizer.defaults["eps"] == 1e-3


def test_options_replace_fields_of_the_recipe_and_of_its_augmentation() -> None:
    changed = with_options(PROXY, {"lr": 0.1, "epochs": 3, "warmup_epochs": 1, "cutout": 0.5})
    assert (changed.lr, changed.epochs, changed.augment.cutout) == (0.1, 3, 0.5)
    assert changed.augment == dataclasses.replace(PROXY.augment, cutout=0.5)
    assert dataclasses.replace(PROXY, augment=changed.augment, lr=0.1) == dataclasses.replace(
        changed, epochs=PROXY.epochs, warmup_epochs=PROXY.warmup_epochs
    )
    assert with_options(PROXY, {}) == PROXY


@pytest.mark.parametrize("given", ["0.2,1", "0.2, 1.0", (0.2, 1), [0.2, 1]])
def test_the_scale_of_crops_is_a_pair(given: object) -> None:
    assert with_options(PROXY, {"scale": given}).augment.scale == (0.2, 1.0)


GOOD = {
    "flip": (True, False),
    "dropout": (None, 0, 0.5),
    "stochastic_depth": (None, 0.2),
    "norm_momentum": (None, 0.01, 1),
    "optimizer": ("sgd", "adamw", "rmsprop_tf"),
    "lr": (1, 1e-5, 0.3),
    "momentum": (0, 0.9),
    "ema": (0, 0.9999),
    "magnitude": (0, 9, 30),
    "batch_size": (1, 4096),
}


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, values in GOOD.items() for v in values])
def test_good_values_are_taken(key: str, value: object) -> None:
    changed = with_options(PROXY, {key: value})
    assert getattr(changed if hasattr(changed, key) else changed.augment, key) == value


BAD = {
    "epochs": (0, -1, 1.5, "3", True, None, math.nan),
    "batch_size": (0, 1.5, None),
    "optimizer": ("adam", 1, None, [], True),
    "schedule": ("linear", ""),
    "policy": ("auto", 0),
    "crop": ("random",),
    "lr": (0, -0.1, math.nan, math.inf, "fast", None, True),
    "warmup_epochs": (-1, math.inf, 1e9, "1"),
    "decay_rate": (0, 1.01, -0.5),
    "decay_epochs": (0, -1),
    "momentum": (1, 1.5, -0.1, math.nan),
    "weight_decay": (-1e-5, math.nan),
    "label_smoothing": (1, 2, -0.1),
    "ema": (1, -1, 1.5),
    "dropout": (1, -0.1, "0.2", math.nan, True),
    "stochastic_depth": (1, 2),
    "norm_momentum": (0, -0.1, 1.5, math.nan, "0.1"),
    "clip": (-1, math.nan, True),
    "patience": (-1, 1.5),
    "interval": (0, 0.5),
    "probe": (1, 0, "yes", None),
    "statistics": ("own", "", None, True),
    "freeze_stride": (-1, 1.5, 65),
    "adapt": (1, 0, "yes", None),
    "teacher_share": (-0.1, 1.1, "half"),
    "temperature": (0, math.inf, True),
    "teacher_features": (-1, math.nan, "on"),
    "teacher_pixels": (-1, 64.5, 5000),
    "scale": ("0.2", 0.2, "a,b", (0.5, 0.2), (0, 1), (0.1, 1.1), (0.1, 0.5, 1), None, "nan,1"),
    "shift": (0.6, -0.1, "0.1"),
    "flip": (1, 0, "yes", None),
    "cutout": (1.5, -1),
    "layers": (0, 1.5),
    "magnitude": (31, -1),
}


def test_every_option_has_a_value_that_is_refused() -> None:
    own = {f.name for f in dataclasses.fields(Recipe)} - {"name", "source", "expected", "augment"}
    assert set(BAD) == own | {f.name for f in dataclasses.fields(Augment)}


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, values in BAD.items() for v in values])
def test_bad_values_are_refused_in_one_line(key: str, value: object) -> None:
    with pytest.raises(OptionError, match=rf"{key} of recipe proxy takes .*, not ") as caught:
        with_options(PROXY, {key: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["learning_rate", "name", "source", "expected", "augment", ""])
def test_an_unknown_option_is_refused_with_the_known_ones(key: str) -> None:
    with pytest.raises(OptionError, match="has no option") as caught:
        with_options(PROXY, {key: 1})
    assert "lr=" in str(caught.value)


def test_a_slip_of_the_pen_is_understood() -> None:
    with pytest.raises(OptionError, match="did you mean 'momentum'"):
        with_options(PROXY, {"momentun": 0.9})


@pytest.mark.parametrize("options", [{"epochs": 2}, {"warmup_epochs": 10}, {"warmup_epochs": 11}])
def test_a_warm_up_as_long_as_the_training_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(OptionError, match="fewer than its epochs"):
        with_options(PROXY, options)


def test_a_recipe_of_the_users_own_is_checked_as_ours(tmp_path: Path) -> None:
    lines = (
        "from nas.training.recipe import Recipe",
        "RECIPE = Recipe('mine', 'me, 2026', 'nothing', 5, 32, 'sgd', {lr}, 'cosine')",
    )
    good, bad, none = (tmp_path / f"{name}.py" for name in ("good", "bad", "none"))
    good.write_text("\n".join(lines).format(lr=0.1))
    bad.write_text("\n".join(lines).format(lr=-1))
    none.write_text("RECIPE = {'lr': 0.1}\n")
    assert load_recipe(str(good), {"momentum": 0.5}).momentum == 0.5
    with pytest.raises(OptionError, match="lr of recipe mine takes a number"):
        load_recipe(str(bad), {})
    with pytest.raises(OptionError, match="must be a Recipe of nas"):
        load_recipe(str(none), {})


def test_an_unknown_recipe_is_refused_with_the_known_ones() -> None:
    with pytest.raises(OptionError, match=r"no recipe named 'proxi' \(did you mean 'proxy'\?\)"):
        load_recipe("proxi", {})
