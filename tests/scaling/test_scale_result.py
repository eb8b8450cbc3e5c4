"""The result of a scaling: what --json prints, for scripts and for notebooks."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import nas
from nas.core.run_folder import read_json
from nas.models.arch import Arch
from nas.scaling.result import ScaleResult

Cli = Callable[..., CompletedProcess[str]]
# the keys that `nas scale --json` has had since schema 1, in their order
KEYS = [
    *("schema", "run", "base", "phi", "rule", "alpha", "beta", "gamma", "coefficients", "fit"),
    *("fixed_ends", "stopped", "baseline", "members"),
]
MEMBER = [
    *("name", "phi", "depth", "width", "resolution", "requested_resolution", "rounded_depth"),
    *("rounded_width", "rounded_resolution", "two_to_phi", "params", "flops", "flops_ratio"),
    *("activations", "training_bytes_per_image", "training_bytes", "arch"),
]


def test_the_keys_of_the_json_are_those_of_schema_1(tmp_path: Path) -> None:
    found = nas.scale("mobilenet_v2", phi="0.5,1", project=tmp_path)
    told = found.to_dict()
    assert list(told) == KEYS and list(told["members"][0]) == MEMBER
    assert list(told["coefficients"]) == ["alpha", "beta", "gamma", "origin"]
    kept = read_json(found.run / "result.json")
    assert json.dumps(ScaleResult.from_dict(kept).to_dict()) == json.dumps(told)
    assert isinstance(found.members[0].arch, Arch)
    assert found.members[0].requested.depth == told["members"][0]["depth"]


def test_what_is_printed_is_what_is_returned(cli: Cli) -> None:
    printed = json.loads(cli("scale", "mobilenet_v2", "--phi", "1..2", "--json").stdout)
    found = nas.scale("mobilenet_v2", phi="1..2")
    assert {**found.to_dict(), "run": printed["run"]} == printed


def test_it_shows_in_a_line_and_in_a_notebook(tmp_path: Path) -> None:
    found = nas.scale("mobilenet_v2", phi="1..2", project=tmp_path)
    assert repr(found).startswith("ScaleResult(base='mobilenet_v2', rule='formula', members=['b1',")
    page = found._repr_html_()
    assert "<td>b2</td>" in page and f"<td>{found.members[1].flops:,}</td>" in page
