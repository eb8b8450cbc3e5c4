"""The results of the small verbs: the keys that --json has had since schema 1, in their order."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

import nas
from nas.core.run_folder import read_json
from nas.exporting.result import ExportResult

Cli = Callable[..., CompletedProcess[str]]
EXPORT = [
    *("schema", "run", "source", "format", "imgsz", "batch_size", "preprocessing"),
    *("features_only", "seed", "output", "bytes", "arch", "arch_id", "trained", "classes", "mean"),
    *("std", "params", "multiply_adds", "num_classes", "tolerance", "max_difference", "max_ratio"),
    *("rounding", "comparison", "seconds", "notes", "next"),
]
BENCH = [
    *("schema", "name", "id", "resolution", "params", "flops", "device", "fingerprint"),
    *("median_ms", "p10_ms", "p90_ms", "n", "load", "unrest", "steady", "batch", "throughput"),
    *("notes", "flops_per_second", "memory", "advice"),
]
PLAN = [
    *("schema", "space", "size", "choices", "objective", "controller", "notes", "warm_start"),
    *("evaluator", "problem", "reachable", "random_archs", "shares", "trials", "final_trainings"),
    *("final_ratio", "references", "workers", "time_limit", "early_stopping", "seconds_per_trial"),
    *("seconds_per_proposal", "projected_seconds", "worker_hours", "gpu_hours", "price", "cost"),
]


@pytest.mark.parametrize("features", [False, True])
def test_an_export(folder: Path, features: bool) -> None:
    given = {"format": "standalone", "imgsz": 32, "features_only": features}
    found = nas.export("mobilenet_v3_small", **given)
    told = found.to_dict()
    more = ["channels", "strides"] if features else []
    place = EXPORT.index("tolerance")
    assert list(told) == [*EXPORT[:place], *more, *EXPORT[place:]]
    assert ("argmax_equal" in told["comparison"][0]) == (not features)
    assert found.run and read_json(found.run / "result.json") == json.loads(json.dumps(told))
    assert json.dumps(ExportResult.from_dict(told).to_dict()) == json.dumps(told)
    assert found.output.exists() and str(found.output) in repr(found)
    assert "<td>1</td>" in found._repr_html_()


def test_a_plan(cli: Cli) -> None:
    printed = json.loads(cli("plan", "--target-flops", "400M", "--json").stdout)
    found = nas.plan(target_flops="400M")
    assert list(printed) == PLAN == list(found.to_dict())
    assert list(printed["shares"]["flops"]) == ["target", "at_or_under", "within_5_percent"]
    assert found.reachable["flops"].least == printed["reachable"]["flops"]["least"]
    assert found.reachable["flops"].least < 400e6 < found.reachable["flops"].most
    assert "<td>flops</td>" in found._repr_html_()


def test_a_bench_and_a_look_at_the_machine(cli: Cli) -> None:
    timed = ("bench", "resnet18", "--imgsz", "32", "--device-option", "seconds=0.2", "--json")
    printed = json.loads(cli(*timed).stdout)
    assert list(printed) == BENCH
    found = nas.bench("resnet18", resolution=32, options={"seconds": 0.2})
    assert list(found.to_dict()) == BENCH and found.flops == printed["flops"]
    seen = nas.doctor(None)
    printed = json.loads(cli("doctor", "--json").stdout)
    assert list(printed) == ["schema", "data", "machine", "findings"] == list(seen.to_dict())
    assert [list(each) for each in printed["findings"]] == [
        ["level", "finding", "advice"] for _ in seen.findings
    ]
    assert seen.machine["cpu"] == printed["machine"]["cpu"] and seen.data is None
