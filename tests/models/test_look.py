"""What there is and costs: `nas ls runs`, `nas cost` of several archs, tables of scores."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import nas
from nas.models.compound import AIMED, RULES
from nas.models.show import cost, listing
from nas.reporting.terminal import look, scale, train
from nas.training.model_card import _scores
from nas.training.result import TrainResult


def printed(show: Any, *given: Any) -> str:
    out = io.StringIO()
    show(*given, Console(file=out, width=400, markup=False))
    return out.getvalue()


@pytest.fixture
def searched(tmp_path: Path) -> dict[str, Any]:
    return nas.search(evaluator="synthetic", trials=4, target_flops="400M", project=tmp_path)


def test_runs_are_told_with_what_they_found(tmp_path: Path, searched: dict[str, Any]) -> None:
    nas.search(evaluator="synthetic", trials=3, objective="pareto", project=tmp_path, name="[red]x")
    nas.scale("mobilenet_v2", project=tmp_path, phi="1")
    first, second, third = listing("runs", tmp_path)
    best = searched["best"]
    assert first["accuracy"] == best["metrics"]["accuracy"] and first["reward"] == best["reward"]
    assert first["flops"] == best["metrics"]["flops"]
    assert first["objective"] == searched["objective"]
    assert first["date"] <= second["date"] <= third["date"] and first["finished"]
    assert second["objective"].startswith("front of accuracy and flops")
    assert third["accuracy"] is third["reward"] is None
    text = printed(look.show_runs, listing("runs", tmp_path))
    assert f"{best['reward']:.2f}" in text and "[red]x" in text and first["date"][:10] in text


@pytest.mark.parametrize(("width", "hidden"), [(80, 2), (100, 1), (140, 0)])
def test_a_narrow_terminal_cuts_no_name_of_a_run(width: int, hidden: int) -> None:
    row = {
        "name": "runs/search/mine",
        "date": "2026-12-01T11:36:00",
        "finished": True,
        "accuracy": 67.43,
        "flops": 642_500_000,
        "reward": 67.43,
        "objective": "accuracy × (flops/400.00M)^w, w = 0 up to T, -1 above",
        "about": "space=mbconv controller=predictor trials=60",
    }
    file = io.StringIO()
    look.show_runs([row], Console(file=file, width=width, force_terminal=True, no_color=True))
    text = file.getvalue()
    assert "runs/search/mine  2026-12-01 11:36  yes" in text
    titles = ["objective", "settings"]
    said = f"left out in this width: {', '.join(titles[2 - hidden :])}"
    assert (said in text) == bool(hidden)


@pytest.mark.parametrize(
    "content, damaged",
    [("{", True), ('{"best": {"metrics": {"accuracy": "x"}}}', False), ("[1]", True)],
)
def test_a_damaged_run_hides_no_other(
    tmp_path: Path, searched: dict[str, Any], content: str, damaged: bool
) -> None:
    nas.scale("mobilenet_v2", project=tmp_path, phi="1")
    (Path(searched["run"]) / "result.json").write_text(content)
    rows = listing("runs", tmp_path)
    assert len(rows) == 2 and rows[0]["accuracy"] is None
    assert ("damaged" in rows[0]["about"]) == damaged
    assert "mobilenet_v2" in printed(look.show_runs, rows)


def test_runs_of_older_versions_have_a_date(tmp_path: Path, searched: dict[str, Any]) -> None:
    (Path(searched["run"]) / "env.json").unlink()
    assert listing("runs", tmp_path)[0]["date"].startswith("20")


def test_several_archs_are_compared(
    tmp_path: Path, searched: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    from nas.cli.commands.look import cost as command

    names = ["efficientnet_b0", searched["run"], "mobilenet_v2"]
    command(names)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == names
    assert "1.00" in lines[1] or " 1 " in lines[1]
    command(names, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert [each["source"] for each in found["archs"]] == names and found["schema"] == 1
    assert {k: v for k, v in found["archs"][0].items() if k != "source"} == cost(names[0])
    command(names[:1], as_json=True)
    assert json.loads(capsys.readouterr().out) == cost(names[0])


@pytest.mark.parametrize("rule", sorted(set(RULES) - {"released"}))
def test_where_rounding_misses_the_aim_is_told(tmp_path: Path, rule: str) -> None:
    result = nas.scale("mobilenet_v3_small", project=tmp_path, phi="0..3", rule=rule)
    off = {m["name"]: m["flops_ratio"] / m["two_to_phi"] - 1 for m in result["members"]}
    said = scale.rounding_misses(result)
    for name, miss in off.items():
        told = f"{name} {miss:+.1%}" in said
        assert told == (rule in AIMED and abs(miss) > scale.NEAR)
    if rule == "fast":
        assert "(depth 1.07 → 2.00)" in said and "--rule exact" in said
        assert "Rounding misses 2<sup>φ</sup>" in (Path(result["run"]) / "report.html").read_text()


@pytest.mark.parametrize("classes, told", [(2, False), (5, False), (6, True)])
def test_no_top5_where_it_says_nothing(classes: int, told: bool) -> None:
    score = {"top1": 50.0, "top5": 100.0, "standard_error": 1.0, "n": 9, "loss": 0.5}
    names = [str(n) for n in range(classes)]
    known = {"run": "runs/train/x", "epochs": 1, "classes": names, "val": score, "test": score}
    result = TrainResult.from_dict(known)
    table = printed(lambda console: console.print(train._scores(result)))
    card = "\n".join(_scores(result))
    assert ("top-5" in table) == ("top-5" in card) == ("100.00" in card) == told
    assert "50.00 ±1.00" in table and "| val | 9 | 50.00 ±1.00 |" in card
