"""Pruners: the contract for every file of nas/searching/pruners, and their options."""

from pathlib import Path

import pytest
from optuna.pruners import BasePruner

from nas.core import registry
from nas.core.errors import OptionError
from nas.testing import PrunerContract, each
from nas.testing.pruners import RUNGS, open_log, train

NAMES = registry.names("pruners")
globals().update(each(PrunerContract, NAMES, none={"stops": False}))


def made(name: str, rungs: tuple[int, ...], **options: object) -> BasePruner:
    pruner: BasePruner = registry.make("pruners", name, options=options, rungs=rungs)
    return pruner


@pytest.mark.parametrize("name", NAMES)
def test_an_option_that_it_does_not_have_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match=f"pruner {name} has no option 'luck'"):
        made(name, (1, 2), luck=1)
    # the rungs are the evaluator's to say
    with pytest.raises(OptionError, match="has no option 'rungs'"):
        registry.make("pruners", name, options={"rungs": (1,)}, rungs=(1, 2))


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("halving", "reduction_factor", 1),
        ("halving", "reduction_factor", 2.5),
        ("hyperband", "reduction_factor", 0),
        ("median", "startup", -1),
        ("median", "warmup", -1),
        ("median", "startup", "few"),
    ],
)
def test_a_bad_option_is_one_line(name: str, option: str, value: object) -> None:
    with pytest.raises(OptionError, match=f"pruner {name}") as error:
        made(name, (1, 2, 4), **{option: value})
    assert "\n" not in str(error.value)


def test_a_later_first_rung_leaves_the_early_ones_alone(tmp_path: Path) -> None:
    log = open_log(tmp_path / "journal.log", made("halving", RUNGS[2], first_rung=4))
    ends = [train(log, 80.0 - number, RUNGS[2])[-1] for number in range(12)]
    assert min(ends) == 4
