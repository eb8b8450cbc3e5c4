"""Runs of before the recipe `auto` are gone on with by the recipes that they were started with."""

import pytest

from nas.scaling.settings import ScaleSettings
from nas.searching.settings import SearchSettings
from nas.searching.start.old_settings import scale_args, search_args


@pytest.mark.parametrize(
    ("args", "recipe", "epochs"),
    [
        ({"data": "digits", "recipe": None, "epochs": None}, "proxy", 4),
        ({"data": "digits", "evaluator": "training", "epochs": 9}, "proxy", 9),
        ({"data": "digits", "recipe": "finetune"}, "finetune", None),
        ({"data": None}, None, None),
        ({"data": "digits", "evaluator": "mine.py"}, None, None),
    ],
)
def test_a_search(args: dict[str, object], recipe: str | None, epochs: int | None) -> None:
    found = SearchSettings.model_validate(search_args(args))
    assert (found.recipe, found.epochs) == (recipe, epochs)


def test_a_new_search_names_its_recipe() -> None:
    assert SearchSettings.model_validate({"data": "digits"}).recipe == "auto"
    assert SearchSettings.model_validate({}).recipe is None


def test_a_family() -> None:
    old = ScaleSettings.model_validate(scale_args({"data": "digits", "fit": True, "train": True}))
    assert (old.recipe, old.fit_recipe, old.fit_epochs) == ("efficientnet", "proxy", 4)
    new = ScaleSettings.model_validate({"data": "digits", "fit": True, "train": True})
    assert (new.recipe, new.fit_recipe, new.fit_epochs) == ("auto", "auto", None)
    assert ScaleSettings.model_validate(scale_args({})) == ScaleSettings.model_validate({})
