"""Scale: the verb: its JSON, its files, its default base, its errors (rules: test_compound)."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import pytest

import nas
from nas.cli.commands.resume import resume
from nas.cli.commands.scale import attend
from nas.core import run_folder
from nas.core.errors import ArchError, OptionError, RunError
from nas.reporting.terminal.scale import ScalingScreen
from nas.scaling.result import ScaleResult
from nas.scaling.scale import COLUMNS, scale
from nas.scaling.settings import ScaleSettings
from nas.scaling.setup import ScaleSetup
from nas.searching.search import search

KEYS = {"name", "phi", "depth", "width", "resolution", "params", "flops"}


def test_the_result_has_the_keys_that_are_promised(folder: Path) -> None:
    found = scale("efficientnet_b0", phi="1..3")
    assert {"schema", "rule", "members"} <= set(found)
    assert (found["schema"], found["rule"]) == (1, "formula")
    assert [member["name"] for member in found["members"]] == ["b1", "b2", "b3"]
    for member in found["members"]:
        assert set(member) >= KEYS
        assert all(isinstance(member[key], int) for key in ("resolution", "params", "flops"))
    kept = run_folder.read_json(folder / found["run"] / "result.json")
    assert kept == json.loads(json.dumps(found))


def test_a_member_says_what_it_is(folder: Path) -> None:
    found = scale("efficientnet_b0", phi="2")
    member = found["members"][0]
    assert (member["depth"], member["width"]) == pytest.approx((1.44, 1.21))
    cost = nas.count(nas.load_arch(f"{found['run']}/b2"))
    assert (cost.params, cost.flops) == (member["params"], member["flops"])
    assert member["flops_ratio"] == pytest.approx(member["flops"] / found["baseline"]["flops"])
    assert member["two_to_phi"] == 4


def test_the_files_are_written(folder: Path) -> None:
    found = nas.scale("efficientnet_b0", phi="1..2", name="mine")
    place = folder / "runs" / "scale" / "mine"
    assert found["run"] == "runs/scale/mine"
    names = {str(p.relative_to(place)) for p in place.rglob("*") if p.is_file()}
    wanted = {"args.yaml", "env.json", "family.csv", "result.json", "report.html"}
    assert names >= {*wanted, "b1/arch.json", "b2/arch.json"}
    rows = run_folder.read_csv(place / "family.csv")
    assert [row["name"] for row in rows] == ["b1", "b2"]
    assert tuple(rows[0]) == COLUMNS
    assert int(rows[1]["flops"]) == found["members"][1]["flops"]
    assert run_folder.read_args(place)["base"] == "efficientnet_b0"


def test_the_default_base_is_the_latest_search(folder: Path) -> None:
    with pytest.raises(OptionError, match="no finished search under runs/search: run `nas search"):
        scale()
    winners = {}
    given: dict[str, Any] = {"evaluator": "synthetic", "trials": 4, "random_search": False}
    for name, target in (("old", "100M"), ("new", "200M")):
        found = search(**given, name=name, target_flops=target)
        winners[name] = nas.load_arch(found["best"]["arch"]).id
    (folder / "runs/search/unfinished").mkdir()
    run_folder.write_args(folder / "runs/search/unfinished", {})
    found = scale(phi="1")
    assert nas.load_arch(found["baseline"]["arch"]).id == winners["new"] != winners["old"]
    assert found["base"].endswith("new")


def test_a_base_may_be_a_baseline_a_run_a_file_or_data(folder: Path) -> None:
    arch = nas.load_arch("mobilenet_v2")
    (folder / "mine.json").write_text(arch.to_json())
    found = [
        scale(base, phi="1")["members"][0]["params"]
        for base in ("mobilenet_v2", "mine.json", arch.to_dict())
    ]
    assert len(set(found)) == 1
    first = scale("mobilenet_v2", phi="1")
    assert scale(f"{first['run']}/b1", phi="0")["members"][0]["params"] == found[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"base": "efficientnet_b00"}, "did you mean 'efficientnet_b0'"),
        ({"phi": "x"}, "--phi takes numbers and ranges"),
        ({"rule": "formla"}, "did you mean 'formula'"),
        ({"alpha": 0.5}, "alpha"),
        ({"alpha": 1.3, "rule": "released"}, "rule released reads no --alpha: use --rule formula"),
        ({"device": "cpu"}, "--device is for trainings: give --fit or --train"),
        ({"workers": 2}, "--workers is for trainings"),
        ({"executor": "ray"}, "--executor is for trainings"),
        ({"trial_time_limit": "9m"}, "--trial-time-limit is for trainings"),
        ({"seed": 3}, "--seed is for trainings"),
        ({"accelerator": "cpu"}, "--accelerator is for trainings"),
        ({"download": True}, "--download is for trainings"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(
    folder: Path, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        scale(**{"base": "efficientnet_b0", **arguments})  # type: ignore[arg-type]
    assert not (folder / "runs").exists()


def test_what_may_change_is_taken_by_resume_and_the_rest_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: dict[str, Any] = {"fit": True, "data": "digits", "executor": "ray", "address": "h:1"}
    args = {"base": "resnet18", **ScaleSettings.model_validate(began).model_dump()}
    place = run_folder.create("scale", "f", folder / "runs", args)
    began |= {"name": "f", "resume": True}
    seen: list[ScaleSettings] = []

    def check(setup: ScaleSetup, folder: Path | None = None) -> None:
        seen.append(setup.settings)
        raise OptionError("far enough")

    monkeypatch.setattr("nas.scaling.scale._check", check)
    with pytest.raises(OptionError, match="far enough"):
        scale("resnet18", **began, workers=3, accelerator="cpu")
    assert (seen[0].workers, seen[0].accelerator, seen[0].address) == (3, "cpu", "h:1")
    local = {**began, "executor": "local", "address": None}
    with pytest.raises(OptionError, match="far enough"):
        scale("resnet18", **local)
    assert (seen[1].executor, seen[1].address) == ("local", None)
    with pytest.raises(RunError, match="started with seed 0, not 4"):
        scale("resnet18", **began, seed=4)
    assert run_folder.read_args(place) == args


def test_resume_tells_a_member_from_a_family_by_what_is_in_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    for command in ("train", "scale"):
        note = functools.partial(lambda name, *_: asked.append(name) or 0, command)
        monkeypatch.setattr(f"nas.cli.commands.{command}.attend", note)
    families = [folder / "scale" / "scale" / "f", folder / "runs" / "scale" / "search"]
    for family in families:
        run_folder.write_args(family, {"base": "resnet18"})
        run_folder.write_text(family / "baseline.json", "{}")
        run_folder.write_args(family / "b1", {"arch": "resnet18"})
        monkeypatch.chdir(family / "b1")
        assert resume(Path()) == resume(Path("..")) == resume(family / "b1") == 0
    assert asked == ["train", "scale", "train"] * 2


@pytest.mark.parametrize("pressed", [False, True])
def test_the_way_to_go_on_names_the_run_that_was_made(
    folder: Path, capsys: pytest.CaptureFixture[str], pressed: bool
) -> None:
    scale("resnet18", phi="1", name="fam")

    def work(screen: ScalingScreen, **_: Any) -> ScaleResult:
        found = scale("resnet18", phi="1", name="fam", screen=screen)
        if pressed:
            raise KeyboardInterrupt
        return dataclasses.replace(found, stopped="interrupted")

    assert attend(False, False, work) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "resume with: nas resume runs/scale/fam2"


def test_a_base_that_is_no_arch_is_refused(folder: Path) -> None:
    arch = nas.load_arch("resnet18").to_dict()
    (folder / "other.json").write_text(json.dumps({**arch, "schema": 99}))
    with pytest.raises(ArchError, match=r"other\.json: arch schema 99 cannot be read here"):
        scale("other.json")
    (folder / "text.json").write_text("hello")
    with pytest.raises(ArchError, match="is not JSON"):
        scale("text.json")
    (folder / "project").write_text("")
    with pytest.raises(RunError, match="choose another with --project"):
        scale("resnet18", phi="1", project=folder / "project")
