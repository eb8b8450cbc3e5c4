"""A teacher of the finals: all finalists have it, and what it added is told."""

import shutil
from pathlib import Path
from statistics import fmean
from typing import Any

import inherited
import pytest

import nas
from nas.core.errors import OptionError
from nas.core.run_folder import read_args, read_csv
from nas.searching.outcome import explanation
from nas.searching.result import SearchResult
from nas.training.teacher import FACTS

SPACE = """
from nas.interfaces import Space
from nas.models.arch import Arch, Head, Stage, Stem

def decode(choices):
    stages = (Stage("conv", choices["channels"], choices["layers"], 3, stride=2),)
    return Arch("small", stages, Stem(8, stride=2), Head(16, classes=2), resolution=32)

SPACE = Space("small", {"channels": (8, 16), "layers": (1, 2)}, decode)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """A folder with a space and a run on the digits, which teaches."""
    folder = tmp_path_factory.mktemp("teaching")
    (folder / "space.py").write_text(SPACE)
    base = {"channels": 16, "layers": 1}
    namespace: dict[str, Any] = {}
    exec(SPACE, namespace)
    arch = namespace["decode"](base)
    run = {"epochs": 2, "batch_size": 64, "recipe": "proxy", "tracker": ["none"]}
    nas.train(arch, data="digits", project=folder / "runs", name="teacher", **run)
    return folder


def settings(place: Path, **more: Any) -> dict[str, Any]:
    return {
        "space": str(place / "space.py"),
        "data": "digits",
        "teacher": str(place / "runs" / "train" / "teacher"),
        "epochs": 1,
        "fraction": 0.1,
        "recipe": "proxy",
        "trials": 2,
        "finalists": 1,
        "final_seeds": 2,
        "final_epochs": 1,
        "final_fraction": 0.2,
        "random_search": False,
        "project": place / "runs",
        **more,
    }


@pytest.fixture(scope="module")
def found(place: Path) -> SearchResult:
    return nas.search(**settings(place, name="taught"))


def test_the_result_says_what_the_teacher_added(found: SearchResult) -> None:
    gain = found.teacher
    assert gain and gain.info.told.endswith("runs/train/teacher") and not gain.info.probed
    assert gain.architecture is None  # there is no parent to compare with
    rows = read_csv(found.run / "finals.csv")
    means = {}
    for taught in (True, False):
        own = [
            float(row["accuracy"])
            for row in rows
            if row["length"].endswith("taught") == taught and row["arch_id"] == found.best.arch_id
        ]
        assert len(own) == 2
        means[taught] = sum(own) / 2
    assert gain.teacher == pytest.approx(means[True] - means[False])
    assert found.best.metrics["accuracy"] == pytest.approx(means[True])
    assert "Teacher: " in (found.run / "best" / "README.md").read_text()
    seeds = {(row["arch_id"], row["length"]): set[str]() for row in rows}
    for row in rows:
        seeds[row["arch_id"], row["length"]].add(row["seed"])
    assert len({frozenset(each) for each in seeds.values()}) == 1  # the same for all
    assert len(seeds) == len(found.finals) + 1


def test_a_search_goes_on_with_the_teacher_that_it_kept(found: SearchResult, place: Path) -> None:
    assert read_args(found.run)["teacher"] == settings(place)["teacher"]
    kept = (found.run / "teacher" / FACTS).read_bytes()
    shutil.copytree(place / "runs" / "train" / "teacher", place / "aside")
    shutil.rmtree(place / "runs" / "train" / "teacher")
    try:
        (found.run / "result.json").unlink()
        again = nas.search(**settings(place, name="taught"), resume=True)
    finally:
        shutil.copytree(place / "aside", place / "runs" / "train" / "teacher")
    assert again.finals == found.finals and again.teacher == found.teacher
    assert (found.run / "teacher" / FACTS).read_bytes() == kept


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"finalists": 0}, "--finalists 0 has none"),
        ({"teacher": "nowhere"}, "no such run"),
        ({"data": None, "epochs": None, "fraction": None, "recipe": None}, "belongs to trainings"),
    ],
)
def test_what_no_teacher_can_teach_is_refused(place: Path, more: dict[str, Any], says: str) -> None:
    if "data" in more:
        more |= dict.fromkeys(("finalists", "final_seeds", "final_epochs", "final_fraction"))
        more |= {"evaluator": "synthetic"}
    with pytest.raises(OptionError, match=says):
        nas.search(**settings(place, name="refused", **more))
    assert not (place / "runs" / "search" / "refused").exists()


@pytest.mark.slow
def test_a_parent_and_a_teacher_are_told_apart(
    tmp_path_factory: pytest.TempPathFactory, one_thread: None
) -> None:
    """The architecture's line compares with the parent, the teacher's with the net itself."""
    place = inherited.make_place(tmp_path_factory.mktemp("both"))
    found = nas.search(
        **inherited.settings(
            place, teacher=inherited.make_teacher(place), final_seeds=2, name="both"
        )
    )
    gain, parent, best = found.teacher, found.parent, found.best
    assert gain and not gain.info.probed and parent and parent.accuracy is not None
    names = {each.name for each in found.finals}
    assert parent.name in names and gain.over in ("", parent.name)
    rows = read_csv(found.run / "finals.csv")
    # all finalists are taught; the result and the parent are trained without the teacher too
    taught = {row["arch_id"] for row in rows if row["length"].endswith("taught")}
    alone = {row["arch_id"] for row in rows if not row["length"].endswith("taught")}
    assert taught == {each.arch_id for each in found.finals}
    assert alone == {best.arch_id, parent.arch_id}
    means = {
        (row["arch_id"], row["length"].endswith("taught")): fmean(
            float(other["accuracy"])
            for other in rows
            if (other["arch_id"], other["length"]) == (row["arch_id"], row["length"])
        )
        for row in rows
    }
    without = means[best.arch_id, False]
    assert gain.teacher == pytest.approx(means[best.arch_id, True] - without)
    lines = "\n".join(explanation.inherited(found))
    if best.arch_id == parent.arch_id:
        assert gain.architecture is None
    else:
        ahead = means[best.arch_id, True] - means[parent.arch_id, True]
        assert gain.architecture == pytest.approx(ahead)
        assert lines.count(f"over {parent.name}, both with the teacher") == 1
    assert lines.count("inherited the weights of a tiny net") == 1
    card = (found.run / "best" / "README.md").read_text()
    assert all(line in card for line in lines.splitlines()) and "teacher" in lines
