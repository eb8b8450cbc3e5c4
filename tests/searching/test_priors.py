"""Priors of earlier runs: points that are no networks here, and runs that are damaged."""

import dataclasses
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SPACE, Cli

from nas.core import registry, run_folder
from nas.core.errors import OptionError, RunError
from nas.interfaces import Choices, Space
from nas.searching.gp import features
from nas.searching.gp.features import PointFeatures
from nas.searching.search import search
from nas.searching.settings import SearchSettings
from nas.searching.setup import Setup, prepare
from nas.searching.start import resumption
from nas.searching.start.priors import MAKERS, Place, Source, prior_of_run
from nas.searching.start.warm_start import FILE, read_source, with_source_path, with_start

SMALL = {"space": "space.py", "evaluator": "ledger.py", "random_search": False}
NARROW = SPACE.rstrip().removesuffix(")") + "    valid=lambda choices: RULE,\n)\n"


def setup_of(**settings: Any) -> Setup:
    return prepare(
        SearchSettings.model_validate(with_source_path(settings, Path("runs"))), strict=False
    )


def narrow(rule: str, name: str = "narrow.py") -> dict[str, Any]:
    """Write the small space with a rule of what is valid; return the settings that use it."""
    Path(name).write_text(NARROW.replace("RULE", rule))
    return {**SMALL, "space": name, "controller": "predictor"}


@pytest.fixture
def own(folder: Path) -> Path:
    """A working directory with an earlier search of the small space."""
    search(**SMALL, trials=12, name="own")
    return folder


def points(space: Space) -> list[Choices]:
    options = product(*space.choices.values())
    return [dict(zip(space.choices, each, strict=True)) for each in options]


def small(valid: Callable[[Any], bool] | None = None) -> Space:
    space: Space = registry.export("spaces", "./space.py", "SPACE")
    return dataclasses.replace(space, valid=valid)


def test_points_that_are_no_networks_here_are_left_out(own: Path) -> None:
    found = search(**narrow('choices["expansion"] < 6'), trials=3, name="b", warm_start="own")
    assert found["trials"] == 3 and "prior: the mean of" in found["warm_start"]["line"]


def test_a_run_without_a_network_here_is_refused_before_anything_is_written(folder: Path) -> None:
    search(**narrow('choices["expansion"] < 6'), trials=3, name="own")
    with pytest.raises(OptionError, match="none of the 3 evaluated there is one: name") as error:
        search(**narrow('choices["expansion"] == 6', "b.py"), trials=3, name="b", warm_start="own")
    assert "\n" not in str(error.value) and not Path("runs/search/b").exists()


def test_none_of_the_points_and_some_of_them(folder: Path) -> None:
    here = small(lambda choices: choices["expansion"] == 1)
    accuracies = [(point, 50.0 + point["channels"] * 1.0) for point in points(small())]  # type: ignore[operator]
    others = [pair for pair in accuracies if pair[0]["expansion"] != 1]
    with pytest.raises(OptionError, match="none of the 24 evaluated there is one: name another"):
        prior_of_run(here, here.choices, others)
    prior, line = prior_of_run(here, here.choices, accuracies)
    assert "from the 12 points that are networks here" in line
    asked = prior(points(small()))
    networks = np.array([point["expansion"] == 1 for point in points(small())])
    assert np.ptp(asked[~networks]) == 0 < np.ptp(asked[networks])
    assert np.isclose(asked[~networks][0], np.mean([50 + 16, 50 + 24, 50 + 32]))
    assert prior([]).shape == (0,)


def test_a_space_whose_random_points_are_no_networks_has_features(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "SAMPLE_SIZE", 2)
    found = PointFeatures(small(lambda choices: False))
    assert found.counted(points(small())[0]) is None and len(found.inputs([])) == 0


DAMAGED = [
    ("sources.json", "[]", r"sources.json holds no JSON object, but \[\]; was it edited\?$"),
    ("result.json", "{}", r"own is damaged \(KeyError: 'evaluator'\): name another run$"),
    ("result.json", "[]", r"own is damaged \(TypeError: .*\): name another run$"),
]


@pytest.mark.parametrize(("file", "text", "message"), DAMAGED)
def test_a_damaged_file_of_the_earlier_run_is_one_line(
    own: Path, file: str, text: str, message: str
) -> None:
    path = own / "runs/search/own" / file
    path.write_text(text)
    setup = setup_of(**SMALL, warm_start="own")
    if file == "result.json":  # is asked for only where a device measures
        setup = dataclasses.replace(setup, spec=dataclasses.replace(setup.spec, device="cpu"))
        run_folder.write_args(path.parent, {**run_folder.read_args(path.parent), "device": "cpu"})
    with pytest.raises(RunError, match=message) as error:
        read_source(setup)
    assert "\n" not in str(error.value)


def test_wrong_settings_of_the_earlier_run_name_it(own: Path) -> None:
    path = own / "runs/search/own"
    run_folder.write_args(path, {**run_folder.read_args(path), "seed": -3})
    with pytest.raises(OptionError, match=r"search/own/args.yaml: .*-3"):
        read_source(setup_of(**SMALL, warm_start="own"))


def test_what_is_kept_is_checked_and_a_fault_of_a_prior_is_its_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = setup_of(**{**SMALL, "evaluator": "synthetic", "space": "mbconv"}, warm_start="naswot")
    place = Place(folder, lambda line: None, lambda: False)
    kept = {"schema": 1, "kind": "naswot", "source": "naswot"}
    for key, value in (("schema", 2), ("kind", "tarot"), ("kind", ["naswot"])):
        run_folder.write_json(folder / FILE, {**kept, key: value})
        with pytest.raises(RunError, match=f"{FILE} is damaged .*: start a new run"):
            with_start(setup, place, {})

    def fault(setup: Setup, place: Place) -> Any:
        raise LookupError("a fault of the scoring")

    monkeypatch.setitem(MAKERS, "naswot", Source(lambda setup: "", fault))  # type: ignore[arg-type]
    run_folder.write_json(folder / FILE, kept)
    with pytest.raises(LookupError, match="a fault of the scoring"):
        with_start(setup, place, {})


OWN = {"controller": "evolution", "controller_options": {"population": 9}}
WAYS = [
    (OWN, {"controller": "random"}, False),
    (OWN, {"controller": "nsga2", "controller_options": {"population": 8}}, True),
    (OWN, {"seed": 4}, True),
    ({"controller": "evolution"}, {"controller": "random"}, True),
    ({"pruner_options": {"keep": 2}}, {"pruner": "none"}, False),
    ({"storage": "sqlite:///x.db"}, {"seed": 4}, False),
]


@pytest.mark.parametrize(("theirs", "asked", "offered"), WAYS)
def test_a_way_out_that_would_be_refused_is_not_offered(
    folder: Path, theirs: dict[str, Any], asked: dict[str, Any], offered: bool
) -> None:
    run_folder.create(
        "search", "own", Path("runs"), SearchSettings.model_validate(theirs).model_dump()
    )
    with pytest.raises(RunError) as error:
        resumption.found(Path("runs"), "own", {**theirs, **asked})
    assert ("--warm-start" in str(error.value)) == offered
    assert offered or "resume it with its own settings, or name another run" in str(error.value)


def test_plan_looks_for_the_run_in_the_project(folder: Path, cli: Cli) -> None:
    search(evaluator="synthetic", trials=2, random_search=False, name="own", project="there")
    known = ["plan", "--evaluator", "synthetic", "--warm-start", "own"]
    assert "taken over: 2 of 2" in cli(*known, "--project", "there").stdout
    refused = " ".join(cli(*known).stderr.split())
    assert "there is no run" in refused and "runs/search/own" in refused
