"""Records: JSON in, attributes, the same JSON out; the mapping of before; what a notebook shows."""

import json
import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from nas.core.records import Record, Table, named, optional, plain


class Point(NamedTuple):
    x: float
    y: float


@dataclass(frozen=True)
class Worker:
    name: str
    gpus: float = 0.0


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Part(Record):
    name: str
    label: str | None = named("class")
    error: str = optional("")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Whole(Record):
    schema: int = 1
    run: Path
    best: Part | None
    parts: tuple[Part, ...] = ()
    by_name: dict[str, Part]
    worker: Worker
    at: Point
    span: tuple[int, float] = (0, 0.0)
    metrics: dict[str, float]

    def _table(self) -> Table:
        return Table(("name", "class"), [(each.name, each.label) for each in self.parts])


DATA: dict[str, Any] = {
    "schema": 1,
    "run": "runs/search/x",
    "best": None,
    "parts": [{"name": "a<b>", "class": None, "error": "broken"}, {"name": "b", "class": "cat"}],
    "by_name": {"c": {"name": "c", "class": "dog"}},
    "worker": {"name": "cpu", "gpus": 0.5},
    "at": {"x": 1.0, "y": 2.5},
    "span": [3, 0.5],
    "metrics": {"accuracy": 70.0},
}


def test_json_comes_back_as_it_was_in_its_order() -> None:
    whole = Whole.from_dict(DATA)
    assert json.dumps(whole.to_dict()) == json.dumps(DATA)
    assert whole.run == Path("runs/search/x") and whole.parts[1].label == "cat"
    assert whole.worker == Worker("cpu", 0.5) and whole.at.y == 2.5 and whole.span == (3, 0.5)
    assert whole.by_name["c"].label == "dog" and whole.metrics["accuracy"] == 70.0
    assert plain([whole]) == [DATA]


def test_a_record_is_the_dictionary_that_it_was() -> None:
    whole = Whole.from_dict(DATA)
    assert whole["parts"][0]["class"] is None and {**whole} == DATA == whole
    assert list(whole) == list(DATA) and len(whole) == len(DATA) and "best" in whole
    assert whole.get("absent", 3) == 3 and dict(whole.items()) == DATA
    assert json.dumps(whole) == json.dumps(DATA) and pickle.loads(pickle.dumps(whole)) == whole
    assert replace(whole, at=Point(0.0, 0.0))["at"] == {"x": 0.0, "y": 0.0}
    part = whole.parts[1]
    assert "error" not in part and list(part) == ["name", "class"]
    with pytest.raises(KeyError, match="error"):
        part["error"]
    with pytest.raises(KeyError, match="label"):
        part["label"]


def test_what_is_beyond_is_left_out_and_what_lacks_is_named() -> None:
    assert Whole.from_dict({**DATA, "checksum": "00"}) == DATA
    short = {k: v for k, v in DATA.items() if k not in ("schema", "parts")}
    assert Whole.from_dict(short).parts == () and Whole.from_dict(short).schema == 1
    with pytest.raises(KeyError, match="metrics"):
        Whole.from_dict({k: v for k, v in DATA.items() if k != "metrics"})


@pytest.mark.parametrize(
    ("key", "value"), [("parts", {}), ("parts", ["a"]), ("best", [1]), ("worker", "cpu")]
)
def test_data_of_another_kind_is_refused(key: str, value: object) -> None:
    with pytest.raises(TypeError, match="is expected"):
        Whole.from_dict({**DATA, key: value})


def test_a_record_shows_in_a_line_and_a_notebook_in_a_table_that_is_escaped() -> None:
    whole = Whole.from_dict({**DATA, "run": "runs/<script>"})
    assert repr(whole) == "Whole(run='runs/<script>')"
    assert repr(whole.parts[1]) == "Part(name='b', label='cat', error='')"
    page = whole._repr_html_()
    assert "<script>" not in page and "runs/&lt;script&gt;" in page
    assert "<td>a&lt;b&gt;</td>" in page and page.count("<tr>") == 4
    many = Whole.from_dict({**DATA, "parts": [{"name": str(n), "class": ""} for n in range(25)]})
    assert "<td>9</td>" in many._repr_html_() and "and 15 more" in many._repr_html_()
    assert "<td>10</td>" not in many._repr_html_()
