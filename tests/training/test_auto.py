"""The recipe auto: what the rule gives over many folders, and what wins over it."""

import dataclasses
import itertools

import pytest

from nas.core.errors import OptionError
from nas.models.cost import count
from nas.models.load import baselines
from nas.training import auto
from nas.training.amount import Amount
from nas.training.auto import DEFAULT_SECONDS, Situation, misfits, plan, resolve_recipe
from nas.training.recipe import load_recipe, recipe_from, with_options

B0, SMALL = baselines()["efficientnet_b0"], baselines()["mobilenet_v3_small"]
FOLDERS = [
    Situation(images, classes, side, count(arch, side), start, gray, device)
    for images, classes, side, arch, start, gray, device in itertools.product(
        (1, 2, 14, 60, 230, 1_151, 3_068, 45_000, 1_281_167),
        (2, 1_000),
        (32, 224),
        (B0, SMALL),
        ("nothing", "weights", "frozen"),
        (False, True),
        ("cpu", "cuda"),
    )
]


@pytest.mark.parametrize("given", FOLDERS[:: len(FOLDERS) // 97], ids=str)
def test_a_plan_is_a_recipe_that_fits_its_folder(given: Situation) -> None:
    made = plan(given)
    with_options(made.recipe, {})  # every value can be
    assert made.amount.batch <= given.images
    assert made.recipe.epochs == made.amount.epochs
    assert made.amount.steps >= min(auto.LEAST_STEPS, auto.MOST_EPOCHS) * 0.5
    assert not misfits(made.recipe, made.amount)
    assert made.recipe.clip > 0
    horizon = 1 / (1 - made.recipe.ema) if made.recipe.ema else 1
    assert horizon < 0.1 * made.amount.steps + 2
    assert made.recipe.warmup_epochs <= 0.2 * made.amount.epochs
    assert made.recipe.interval * made.amount.steps_per_epoch < 2 * 60 or made.recipe.interval == 1
    assert given.gray <= (not made.recipe.augment.flip)
    assert "\n" not in made.line and f"{made.amount.steps:,} optimiser steps" in made.line


def test_the_same_situation_gives_the_same_plan_and_its_own_epochs_too() -> None:
    """So a run that stored its epochs and its batch is gone on with by the same recipe."""
    for given in FOLDERS[::101]:
        made = plan(given)
        again = dataclasses.replace(given, epochs=made.amount.epochs, batch=made.amount.batch)
        assert plan(again).recipe == made.recipe


def test_a_cheap_net_gets_the_views_it_wants_and_a_dear_one_what_the_time_holds() -> None:
    images, side = 3_000, 224
    dear = plan(Situation(images, 3, side, count(B0, side)))
    wanted = auto.wanted_views(Situation(images, 3, side))
    assert auto.LEAST_VIEWS <= dear.amount.views < wanted / 4
    assert "more time would use: --time-limit" in dear.line
    cheap = plan(Situation(images, 3, 32, count(SMALL, 32)))
    assert cheap.amount.views == pytest.approx(
        auto.wanted_views(Situation(images, 3, 32)), rel=0.05
    )
    assert cheap.seconds < DEFAULT_SECONDS["cpu"]


def test_a_time_is_kept_by_the_speed_that_was_measured() -> None:
    given = Situation(3_000, 10, 64, count(B0, 64), seconds=1_000.0, validated=300, speed=100.0)
    made = plan(given)
    assert 800 < made.seconds <= 1_000
    twice = plan(dataclasses.replace(given, speed=200.0))
    assert twice.amount.epochs == pytest.approx(2 * made.amount.epochs, abs=2)
    little = plan(dataclasses.replace(given, seconds=0.1))
    assert little.amount.epochs == 1
    named = resolve_recipe("proxy", {}, given)
    assert named.amount.epochs == pytest.approx(made.amount.epochs, rel=0.2)


def test_what_a_user_gives_wins_over_the_rule() -> None:
    given = Situation(3_000, 10, 64, epochs=7, batch=100)
    made = resolve_recipe("auto", {"lr": 0.5, "optimizer": "adamw", "flip": False}, given)
    assert (made.recipe.lr, made.recipe.optimizer, made.recipe.augment.flip) == (
        0.5,
        "adamw",
        False,
    )
    assert made.amount == Amount(3_000, 100, 7)
    assert resolve_recipe(
        "auto", {"epochs": 9, "batch_size": 50}, Situation(3_000, 10, 64)
    ).amount == (Amount(3_000, 50, 9))
    with pytest.raises(OptionError, match="lr of recipe auto takes"):
        resolve_recipe("auto", {"lr": -1}, given)


@pytest.mark.parametrize(
    ("name", "images", "said"),
    [
        ("efficientnet", 300, "one optimiser step an epoch; --batch-size 16"),
        ("efficientnet", 1_000, "averages weights over 10,000 steps"),
        ("efficientnet", 100_000, ""),
        ("proxy", 3_000, ""),
    ],
)
def test_a_named_recipe_that_does_not_fit_says_so(name: str, images: int, said: str) -> None:
    made = resolve_recipe(name, {}, Situation(images, 3, 64))
    lines = misfits(made.recipe, made.amount)
    assert any(said in line for line in lines) if said else not lines


def test_a_recipe_comes_back_from_its_file() -> None:
    for name in ("auto", "efficientnet", "proxy"):
        recipe = load_recipe(name, {})
        assert recipe_from(dataclasses.asdict(recipe)) == recipe
    with pytest.raises(OptionError, match="this is no recipe"):
        recipe_from({"name": "x"})


def test_what_checkpoints_of_before_know_a_recipe_by_has_not_changed() -> None:
    proxy = load_recipe("proxy", {})
    assert "clip" not in repr(proxy) and proxy.later() == {}
    assert with_options(proxy, {"clip": 1.0}).later() == {"clip": 1.0}
