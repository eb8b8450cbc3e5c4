"""The figures of the pages: ticks that can be read, names that do not overlap, what is packed."""

import base64
import gzip
import importlib
import itertools
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nas.reporting.html import axes, charts
from nas.reporting.html.axes import SIDES, Axis, _box, _meet, label_sides
from nas.reporting.html.charts_family import Spot, accuracy_chart, growth_chart, size_chart
from nas.reporting.html.leaders import _unit
from nas.reporting.html.search import compared

ROOT = Path(__file__).parents[2]
MS = Axis("latency", "ms", 1.0)


def ticks(axis: dict[str, Any]) -> list[float]:
    """Return the ticks of a logarithmic axis, as plotly places them."""
    low, high = axis["range"]
    dtick = axis["dtick"]
    decades = range(math.floor(low) - 1, math.ceil(high) + 1)
    if isinstance(dtick, str) and dtick[0] == "L":
        step = float(dtick[1:])
        found = [step * n for n in range(1, 1 + math.ceil(10**high / step))]
    elif isinstance(dtick, str):
        digits = {"D1": range(1, 10), "D2": (1, 2, 5)}[dtick]
        found = [digit * 10.0**decade for decade, digit in itertools.product(decades, digits)]
    else:
        found = [10.0**decade for decade in decades if decade % dtick == 0]
    return [value for value in found if low <= math.log10(value) <= high]


@pytest.mark.parametrize(
    "values",
    [[0.04], [0.04, 0.05], [37.0, 4e4], [0.9, 1.1], [1, 128], [3e-3, 7e6], [980, 1020], [5, 60]],
)
def test_logarithmic_axes_have_several_ticks_written_in_full(values: list[float]) -> None:
    axis: dict[str, Any] = {}
    axes.logarithmic(axis, values)
    assert 10 ** axis["range"][0] < min(values) and max(values) < 10 ** axis["range"][1]
    assert 2 <= len(ticks(axis)) <= 9, ticks(axis)
    # without a format plotly abbreviates the ticks between two powers of ten to one digit
    assert axis["tickformat"] == "~r"


def lines(bounds: dict[str, float], values: list[float]) -> dict[str, Any]:
    layout: dict[str, Any] = {"xaxis": {}}
    axes.name_lines(layout, bounds, values)
    return layout


def test_names_of_near_lines_stand_in_rows_of_their_own() -> None:
    layout = lines({"target 400M": 400, "limit 405M": 405}, [100, 700])
    rows = [note["yshift"] for note in layout["annotations"]]
    assert len(set(rows)) == 2 and abs(rows[0] - rows[1]) >= 14
    low, high = layout["xaxis"]["range"]
    assert low < 100 and high > 700


def test_a_line_beside_the_data_widens_the_axis_and_a_far_one_is_left_out() -> None:
    near = lines({"target": 90}, [20, 80])
    assert near["xaxis"]["range"][1] > 90 and near["annotations"][0]["xanchor"] == "right"
    assert not lines({"target": 4000}, [20, 80]).get("annotations")
    alone = lines({"target": 50}, [50])
    assert alone["xaxis"]["range"][0] < 50 < alone["xaxis"]["range"][1]


def test_every_choice_is_named_in_the_legend_of_importances() -> None:
    blocks = [(f"block {n}", "kernel", 0.05) for n in range(1, 11)]
    figure = charts.importance_chart([("", "width", 0.3), ("", "<op>", 0.2), *blocks])
    names = [trace["name"] for trace in figure["data"]]
    assert "width (30 %)" in [name.replace("\u00a0", " ") for name in names]
    assert all(re.match(r"\S", name) for name in names) and len(set(names)) == 12
    looks = [json.dumps(trace["marker"]) for trace in figure["data"]]
    assert len(set(looks)) == 12  # ten groups and two choices, eight colours


def test_unsteady_latencies_are_not_joined() -> None:
    steady = [Spot("b0", 10, 60, 1), Spot("b1", 20, 62, 1)]
    unsteady = [Spot("b0", 10, 60, 1), Spot("b1", 20, 62, 1, steady=False)]
    figure = accuracy_chart({"formula": steady, "width": unsteady}, MS)
    modes = {trace["name"]: trace["mode"] for trace in figure["data"]}
    assert "lines" in modes["formula"] and "lines" not in modes["width"]
    assert figure["data"][1]["marker"]["symbol"] == ["circle", "circle-open"]


def test_many_references_all_have_a_line() -> None:
    levels = {f"reference {number}": 60.0 + number for number in range(7)}
    figure = charts.curve_chart({"search": [60.0, 61.0]}, levels, "Best reward so far")
    assert [trace["name"] for trace in figure["data"][1:]] == list(levels)


def test_figures_of_a_family_are_plotly() -> None:
    plotly = importlib.import_module("plotly.graph_objects")
    for figure in (
        growth_chart(["base", "b1"], [1, 2], [1, 2.2]),
        size_chart(["base"], [4e7], [4e4]),
        accuracy_chart({"formula": [Spot("b0", 10, 60, 1)]}, MS),
        charts.importance_chart([(f"block {n}", "kernel", 0.1) for n in range(10)]),
    ):
        plotly.Figure(json.loads(re.sub(r'"var\(--\w+\)"', '"#000000"', json.dumps(figure))))


def test_long_data_are_packed_and_short_ones_are_not() -> None:
    text = json.dumps({"data": "é</script>" * 4000})
    packed = re.fullmatch(r'<script type="application/gzip">(.*)</script>', axes.embedded(text))
    assert packed and gzip.decompress(base64.b64decode(packed[1])).decode() == text
    assert len(packed[0]) < len(text) / 10
    assert '"application/json"' in axes.embedded("{}")


def test_plotly_js_is_the_authors_own_with_its_licence() -> None:
    folder = ROOT / "nas" / "reporting" / "html" / "plotly"
    source = gzip.decompress((folder / "plotly-cartesian.min.js.gz").read_bytes()).decode()
    assert "plotly.js (cartesian - minified) v4.1.1" in source[:200]
    assert "MIT License" in (folder / "LICENSE").read_text(encoding="utf-8")


def test_labels_of_points_that_are_close_stand_on_different_sides() -> None:
    seen = [(100.0, 40.0), (700.0, 70.0)]
    near = [(386.0, 65.4), (372.0, 64.3), (385.0, 64.4)]
    names = ["EfficientNet-B0", "deepest", "late"]
    sides = label_sides(names, near, seen)
    boxes = [
        _box(place, name, side, seen) for name, place, side in zip(names, near, sides, strict=True)
    ]
    assert not any(_meet(a, b) for a, b in itertools.combinations(boxes, 2))
    assert label_sides(names, [(200.0, 50.0), (400.0, 50.0), (600.0, 60.0)], seen) == [SIDES[0]] * 3
    assert label_sides(["a, b", ""], [near[0]] * 2, seen) == [SIDES[0]] * 2
    assert label_sides(["alone"], [near[0]], [near[0]]) == [SIDES[0]]


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (12.83, "12.8 times the FLOPs"),
        (2.0, "2.0 times the FLOPs"),
        (1.665, "FLOPs 66.5 % higher"),
        (1.0, "FLOPs 0.0 % lower"),
        (0.25, "FLOPs 75.0 % lower"),
    ],
)
def test_a_cost_is_compared_in_words(ratio: float, words: str) -> None:
    assert compared("FLOPs", ratio) == words


def test_tiny_nets_are_counted_in_thousands() -> None:
    entries: Any = [SimpleNamespace(metrics={"params": n}) for n in (4390.0, 2e6)]
    assert _unit(entries, "params") == ("k", 1e3) and _unit(entries[1:], "params") == ("M", 1e6)
    assert _unit(entries, "flops") == ("M", 1e6)
