"""The report: what it says, that it stands alone, and that it survives what it is given."""

from __future__ import annotations

import base64
import csv
import gzip
import importlib
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

import nas
from nas.core.errors import RunError
from nas.core.run_folder import read_object
from nas.core.units import format_count
from nas.reporting import report
from nas.reporting.html import charts, data
from nas.reporting.html.axes import Axis
from nas.reporting.html.data import areas, split

PACKED = "application/gzip"
VOID = {"meta", "line", "rect", "circle"}
NASTY = "</script><script>alert('x')</script>\"&<b>"


class Page(HTMLParser):
    """The tags of a page: unbalanced ones, attributes that load, and the text that is seen."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.loads: list[str] = []
        self.figures: list[dict[str, Any]] = []
        self.seen, self.scripts, self.file = "", 0, file
        self.feed(file.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.kind, self.id = dict(attrs).get("type", ""), dict(attrs).get("id", "")
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"] and self.kind in ("application/json", PACKED):
            text = gzip.decompress(base64.b64decode(data)) if self.kind == PACKED else data
            if self.id != "plotly":
                self.figures.append(json.loads(text))
        elif self.open[-1:] not in (["script"], ["style"]):
            self.seen += " " + data.replace("\u00a0", " ")

    @property
    def text(self) -> str:
        """What a reader sees, in single spaces."""
        return re.sub(r"\s+", " ", self.seen)

    def trace(self, name: str) -> dict[str, Any]:
        """Return the first trace of a name."""
        return next(t for f in self.figures for t in f["data"] if t.get("name") == name)


def searched(project: Path, **settings: Any) -> Path:
    given = {"evaluator": "synthetic", "trials": 12, "project": project, **settings}
    return Path(nas.search(**given)["run"])


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(project: Path) -> Path:
    return searched(project, target_flops="400M", evaluator_options={"noise": 0.3})


@pytest.fixture(scope="module")
def family(project: Path, run: Path) -> Path:
    return Path(nas.scale(run, project=project, phi="0..2")["run"])


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Iterator[Path]:
    """A run that a test may spoil."""
    yield Path(shutil.copytree(run, tmp_path / "runs" / "search" / run.name))


def result_of(folder: Path) -> dict[str, Any]:
    return read_object(folder / "result.json")


def rewritten(folder: Path, change: Any = lambda result: None) -> Page:
    """Write the report again after a change of the result."""
    result = result_of(folder)
    change(result)
    (folder / "result.json").write_text(json.dumps(result))
    return Page(report.write(folder))


def sound(page: Page) -> None:
    assert not page.wrong and not page.open
    assert all(re.fullmatch(r"[\w./]+", link) for link in page.loads)
    assert page.file.stat().st_size < 1_000_000


def test_search_page_stands_alone(copy: Path) -> None:
    page = rewritten(copy)
    sound(page)
    source = page.file.read_text()
    assert source.count('id="plotly"') == 1
    assert page.scripts == 2 + len(page.figures)
    assert "default-src 'none'" in source
    assert "trials.csv" in page.loads and "random.csv" in page.loads


def test_search_page_tells_the_winner(copy: Path) -> None:
    page, result = rewritten(copy), result_of(copy)
    best = result["best"]["metrics"]
    b0 = result["references"][0]["metrics"]
    assert f"{best['accuracy']:.2f} ± 0.30 %" in page.text
    assert format_count(best["flops"]) in page.text
    assert f"{format_count(2 * best['flops'])} FLOPs at 2 per MAC" in page.text
    assert "FLOPs are multiply-adds (MACs); other tools report twice as many." in page.text
    assert f"EfficientNet-B0 {result['references'][0]['reward']:.2f}" in page.text
    assert f"{b0['flops'] / 1e6:.2f}" in page.text
    assert "best of 12 random trials" in page.text
    assert "means nothing" in page.text
    assert result["best"]["arch_id"] in page.text


def test_front_chart_shows_every_trial(copy: Path) -> None:
    page, result = rewritten(copy), result_of(copy)
    with (copy / "trials.csv").open(newline="") as file:
        done = [row for row in csv.DictReader(file) if row["state"] == "done"]
    assert len(page.trace("search")["x"]) == len(done)
    assert page.trace("reference nets")["text"] == ["EfficientNet-B0", "deepest", "late"]
    label = result["best"]["label"]
    winner = page.trace(f"winner, {data.title(label)}")
    assert winner["x"] == [pytest.approx(result["best"]["metrics"]["flops"] / 1e6, rel=1e-3)]
    assert winner["error_y"]["array"] == [0.3]
    front = page.figures[0]["layout"]
    assert front["shapes"][0]["x0"] == 400
    assert "target 400.0M" in front["annotations"][0]["text"].replace("\u00a0", " ")


def test_best_so_far_ends_at_the_winner(copy: Path) -> None:
    page, result = rewritten(copy), result_of(copy)
    curve = page.figures[1]["data"]
    found = max(row["reward"] for row in result["leaders"])
    assert curve[0]["y"][-1] == pytest.approx(found, rel=1e-4)
    assert curve[1]["y"][-1] == pytest.approx(result["random"]["reward"], rel=1e-4)
    assert curve[0]["y"] == sorted(curve[0]["y"]) and len(curve[0]["y"]) == 12
    assert curve[2]["name"] == "EfficientNet-B0"


def test_figures_are_plotly(copy: Path, family: Path) -> None:
    plotly = importlib.import_module("plotly.graph_objects")
    for page in (rewritten(copy), Page(report.write(family))):
        for figure in page.figures:
            text = re.sub(r'"var\(--\w+\)"', '"#000000"', json.dumps(figure))
            plotly.Figure(json.loads(text))


@pytest.mark.parametrize("within", [True, False])
def test_noise_is_told_in_words(copy: Path, within: bool) -> None:
    def change(result: dict[str, Any]) -> None:
        for gain in result["gains"]:
            gain["within_noise"] = within

    page = rewritten(copy, change)
    assert ("smaller than the noise" in page.text) == within


def test_unknown_noise_is_not_called_a_gain_beyond_it(tmp_path: Path) -> None:
    page = Page(searched(tmp_path, random_search=False, trials=3) / "report.html")
    sound(page)
    assert "how large the noise is this evaluator does not say" in page.text
    assert "±" not in page.text.replace("Bars: ±", "")
    assert "over random search" not in page.text


def test_surrogate_accuracy_is_called_a_proxy(copy: Path) -> None:
    def change(result: dict[str, Any]) -> None:
        result["evaluator"]["name"] = "surrogate"

    page = rewritten(copy, change)
    assert "The accuracy is a proxy" in page.text
    assert "No net of this search was trained in full" in page.text


def test_names_cannot_break_the_page(copy: Path) -> None:
    def change(result: dict[str, Any]) -> None:
        result |= {"run": NASTY, "objective": NASTY, "controller": NASTY, "stopped": NASTY}
        result["space"]["name"] = result["evaluator"]["title"] = NASTY
        for entry in (result["best"], *result["references"], *result["leaders"]):
            entry["arch"]["name"] = entry["arch_id"] = NASTY
        result["references"][0]["name"] = result["gains"][0]["over"] = NASTY

    (copy / "args.yaml").write_text(yaml.safe_dump({"space": NASTY, NASTY: NASTY}))
    (copy / "importance.csv").write_text(f'choice,importance\n"{NASTY.replace(chr(34), "")}",1\n')
    page = rewritten(copy, change)
    sound(page)
    assert page.scripts == 2 + len(page.figures)
    assert NASTY in page.text
    # plotly reads tags in its texts: they are escaped there once more
    assert "<b>" not in json.dumps(page.trace("reference nets")["text"])


def test_budget_that_nothing_meets(copy: Path) -> None:
    page = rewritten(copy, lambda result: result.update(met=False, stopped="time limit"))
    assert "No evaluated net is within the budget" in page.text
    assert "The search ended early: time limit." in page.text


def test_interrupted_search_has_no_rival(tmp_path: Path) -> None:
    asked = iter(range(100))
    folder = searched(tmp_path, interrupted=lambda: next(asked) > 8, target_flops="400M")
    page = Page(folder / "report.html")
    sound(page)
    assert "ended early" in page.text and "random.csv" not in page.loads
    assert "against random search" not in page.text


def test_search_without_a_trial(tmp_path: Path) -> None:
    page = Page(searched(tmp_path, interrupted=lambda: True) / "report.html")
    sound(page)
    assert "no net was evaluated" in page.text
    assert not page.figures and page.file.stat().st_size < 50_000


def test_damaged_tables_are_survived(copy: Path) -> None:
    (copy / "importance.csv").write_text("choice,importance\n")
    (copy / "pareto.csv").unlink()
    with (copy / "trials.csv").open("a") as file:
        file.write("99,done,7")  # a process died here
    page = rewritten(copy)
    sound(page)
    assert "Too few evaluated trials to tell." in page.text
    assert len(page.trace("search")["x"]) <= 12


def test_failures_are_told_with_their_reason(copy: Path) -> None:
    rows = (copy / "trials.csv").read_text().splitlines()
    width = rows[0].partition(",reason")[0].count(",") - 2
    rows += [f"{n},failed,,0.1{',' * width}out of <memory>,," for n in (90, 91)]
    (copy / "trials.csv").write_text("\n".join(rows) + "\n")
    page = rewritten(copy)
    sound(page)
    assert "2 trials failed: out of <memory>" in page.text


def test_pareto_search_shows_the_dominated_area(tmp_path: Path) -> None:
    page = Page(searched(tmp_path, objective="pareto", trials=20) / "report.html")
    sound(page)
    assert "Pareto front of accuracy against FLOPs" in page.text
    curve = page.figures[1]["data"][0]["y"]
    assert curve == sorted(curve) and 0 < curve[-1] <= 100


def test_cost_axis_is_the_target(tmp_path: Path) -> None:
    folder = searched(tmp_path, target_params="5M", space="mnasnet")
    page = Page(folder / "report.html")
    sound(page)
    assert page.figures[0]["layout"]["xaxis"]["title"]["text"] == "Parameters (million)"
    assert page.figures[0]["layout"]["shapes"][0]["x0"] == 5
    assert "stage by stage" in page.text


def test_drawing_marks_what_differs(copy: Path) -> None:
    result = result_of(copy)
    source = rewritten(copy).file.read_text()
    assert source.count('class="diff"') > 0
    winner = result["best"]["arch"]["stages"]
    assert source.count("<rect") > 2 * sum(stage["layers"] for stage in winner)

    def same(result: dict[str, Any]) -> None:
        result["references"][0]["arch"] = result["best"]["arch"]

    assert 'class="diff"' not in rewritten(copy, same).file.read_text()


def test_search_offers_to_scale_then_shows_its_family(copy: Path) -> None:
    before = rewritten(copy)
    result = result_of(copy)
    assert f"nas scale {result['run']} --phi 1..7" in before.text
    nas.scale(copy, project=copy.parent.parent, phi="1,2", rule="width")
    after = Page(copy / "report.html")
    sound(after)
    assert "Rule width" in after.text and "--phi 1..7" not in after.text

    def other(result: dict[str, Any]) -> None:
        result["best"]["arch"]["stages"][0]["layers"] += 1

    assert "an earlier winner of this search" in rewritten(copy, other).text


def test_base_may_be_a_relative_path(copy: Path) -> None:
    project = copy.parent.parent
    made = Path(nas.scale(copy, project=project, phi="1")["run"])
    args = yaml.safe_load((made / "args.yaml").read_text())
    short = Path(*copy.parts[-3:])
    (made / "args.yaml").write_text(yaml.safe_dump({**args, "base": str(short)}))
    assert "Rule formula" in rewritten(copy).text
    (made / "args.yaml").write_text(yaml.safe_dump({**args, "base": "efficientnet_b0"}))
    assert "No family yet" in rewritten(copy).text


def test_family_page_tells_rule_and_costs(family: Path) -> None:
    page, result = Page(report.write(family)), result_of(family)
    sound(page)
    assert "α = 1.2, β = 1.1, γ = 1.15; α·β²·γ² = 1.920" in page.text
    assert "the paper's equation 3 read literally" in page.text
    for member in result["members"]:
        assert format_count(member["params"]) in page.text
        assert f"{member['flops_ratio']:.2f}" in page.text
        stage = member["arch"]["stages"][-1]
        assert f"{stage['channels']} × {stage['layers']}" in page.text
    growth = page.trace("family")
    assert growth["y"] == pytest.approx([m["flops_ratio"] for m in result["members"]])
    assert "family.csv" in page.loads
    assert f"nas scale {result['base']} --phi 0..2 --rule formula" in page.text


def test_negative_phi_and_rule_without_coefficients(tmp_path: Path) -> None:
    made = nas.scale("efficientnet_b0", project=tmp_path, phi="-1..1", rule="depth")
    page = Page(Path(made["run"]) / "report.html")
    sound(page)
    assert "φ −1 to 1" in page.text and "reads no coefficients" in page.text


def test_run_is_found_by_its_name(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy.parents[2])
    (copy / "report.html").unlink()
    assert report.write(Path(copy.name)) == Path("runs", "search", copy.name, "report.html")
    assert (copy / "report.html").is_file()


def test_foreign_folder_is_refused(tmp_path: Path, copy: Path) -> None:
    with pytest.raises(RunError, match=r"is no run that can be reported.*is expected") as caught:
        report.write(tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(RunError, match="is no run"):
        report.write(tmp_path / "missing")
    (copy / "result.json").unlink()
    with pytest.raises(RunError, match=r"no result\.json yet"):
        report.write(copy)
    (copy / "result.json").write_text("{")
    with pytest.raises(RunError, match="is not JSON"):
        report.write(copy)


def test_other_schema_and_edited_result_are_refused(copy: Path) -> None:
    with pytest.raises(RunError, match="has schema 2, this version reads 1"):
        rewritten(copy, lambda result: result.update(schema=2))
    with pytest.raises(RunError, match=r"lacks what a report needs \(KeyError: 'gains'\)"):
        rewritten(copy, lambda result: (result.update(schema=1), result.pop("gains")))


def test_long_tables_are_thinned() -> None:
    points = [charts.Point(str(n), 1e6 + n, 50 + n % 7) for n in range(3 * charts.MOST)]
    axis = Axis("FLOPs", "million", 1e6)
    figure = charts.front_chart(points, points[:1], [], [], points[0], axis, {})
    assert len(figure["data"][0]["x"]) <= charts.MOST


def test_dominated_area_by_hand() -> None:
    pairs = [(1.0, -3.0), None, (2.0, -2.0), (1.5, -2.5)]
    assert list(areas(pairs, (0.0, -4.0), 8.0)) == [12.5, 12.5, 50.0, 50.0]


def test_choice_names_are_split() -> None:
    assert split("block3_kernel") == ("block 3", "kernel")
    assert split("width") == ("", "width") and split("op_kind") == ("", "op_kind")
