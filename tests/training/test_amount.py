"""What an amount of training is, and what it is worth."""

import pytest

from nas.training.amount import FINAL, RANKING, Amount, Need, worth


@pytest.mark.parametrize(
    ("amount", "steps", "views"),
    [
        (Amount(360, 64, 4), 20, 1280),
        (Amount(45_000, 64, 4), 2812, 179_968),
        (Amount(20, 64, 3), 3, 60),  # fewer images than a batch are one step an epoch
    ],
)
def test_steps_and_views(amount: Amount, steps: int, views: int) -> None:
    assert (amount.steps, amount.views) == (steps, views)


@pytest.mark.parametrize("need", [RANKING, FINAL, Need(1, 1, "nothing")])
@pytest.mark.parametrize("images", [1, 2, 63, 64, 65, 360, 50_000])
@pytest.mark.parametrize("batch", [1, 16, 64])
def test_the_named_epochs_are_the_fewest_that_do(need: Need, images: int, batch: int) -> None:
    epochs = need.epochs(images, batch)
    assert worth(Amount(images, batch, epochs), need).ranks
    if epochs > 1:
        less = worth(Amount(images, batch, epochs - 1), need)
        assert not less.ranks
        assert less.epochs == epochs
        assert f"--epochs {epochs} " in less.text
