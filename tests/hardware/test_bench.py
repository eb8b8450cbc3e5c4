"""Bench: what `nas bench` returns, and what it refuses."""

import dataclasses
import json
from pathlib import Path

import pytest

from nas.core.errors import ArchError, NasError, OptionError
from nas.hardware.bench import advice, bench
from nas.models.arch import Arch, Stage
from nas.models.cost import count

NET = Arch("net", (Stage("conv", 16, 2, stride=2),), resolution=64)
# a user's own device; `fail` raises as torch does when its memory ends
OWN = """
from nas.core import registry

def make(*, batch: int = 1, unrest: float = 0.0, fail: bool = False):
    return Own(batch, unrest, fail)

class Own:
    title = fingerprint = "own"

    def __init__(self, batch, unrest, fail):
        self.batch, self.unrest, self.fail = batch, unrest, fail

    def measure(self, arch):
        import dataclasses
        if self.fail:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory\\nmore lines")
        timing = registry.make("devices", "fake", options={"batch": self.batch}).measure(arch)
        return dataclasses.replace(timing, unrest=self.unrest, steady=self.unrest <= 0.1)

    def memory(self, arch):
        return {"inference": 1000 * self.batch, "training": 2000 * self.batch}
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return str(path)


def test_the_result_is_plain_json_with_the_cost_beside_the_time() -> None:
    found = bench(NET, device="fake", batch=4)
    assert json.loads(json.dumps(found)).keys() == found.keys()
    cost = count(NET)
    assert (found["schema"], found["name"], found["id"]) == (1, "net", NET.id)
    assert (found["flops"], found["params"]) == (cost.flops, cost.params)
    assert found["throughput"] == pytest.approx(4000 / found["median_ms"])
    assert found["flops_per_second"] == pytest.approx(cost.flops * found["throughput"], rel=1e-6)
    assert (found["batch"], found["resolution"], found["memory"], found["advice"]) == (
        4,
        64,
        None,
        [],
    )


def test_arch_comes_as_a_name_a_file_a_run_or_data(tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    file = tmp_path / "best" / "arch.json"
    file.write_text(NET.to_json())
    expected = bench(NET, device="fake")
    assert bench(file, device="fake") == bench(tmp_path, device="fake") == expected
    assert bench(NET.to_dict(), device="fake") == expected
    assert bench("efficientnet_b0", device="fake")["resolution"] == 224


def test_resolution_replaces_the_archs_own() -> None:
    assert bench(NET, device="fake", resolution=128) == bench(
        dataclasses.replace(NET, resolution=128), device="fake"
    )
    with pytest.raises(ArchError, match="resolution"):
        bench(NET, device="fake", resolution=16)


def test_a_real_device_is_measured() -> None:
    found = bench(NET, device="cpu", batch=2, options={"seconds": 0.2})
    assert found["n"] >= 4 and found["median_ms"] > 0
    assert "threads 1, batch 2" in found["device"]


@pytest.mark.parametrize(
    ("device", "given", "rule"),
    [
        ("cup", {}, "did you mean"),
        ("cpu:1", {}, "has no option 'index'"),
        ("cuda:x", {}, "takes a name such as cpu or cuda:1"),
        ("cuda:-1", {}, "takes a name such as cpu or cuda:1"),
        ("fake", {"threads": 2}, "has no option 'threads'"),
        ("fake", {"batch": 0}, "batch must be at least 1"),
        ("fake", {"memory": True}, "does not tell its memory"),
        ("fake", {"options": {"gflop": 1.0}}, "has no option 'gflop'"),
        ("fake", {"options": {"gflops": "fast"}}, "takes a number"),
        ("cpu", {"threads": 10_000}, "the cores that this process may use"),
        ("cpu", {"options": {"seconds": 0.0}}, "seconds must be positive"),
        ("nowhere.py", {}, "no file nowhere.py"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    device: str, given: dict[str, object], rule: str
) -> None:
    with pytest.raises(OptionError, match=rule) as caught:
        bench(NET, device=device, **given)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_memory_stands_beside_the_estimate(own: str) -> None:
    found = bench(NET, device=own, batch=3, memory=True)["memory"]
    cost = count(NET)
    weights = 4 * (cost.params + cost.buffers)
    assert found["inference"]["measured"] == 3000
    assert found["inference"]["estimate"] == weights + 3 * (cost.inference_bytes - weights)
    assert found["training"]["measured"] == 6000
    assert found["training"]["estimate"] == cost.training_bytes + 3 * cost.training_bytes_per_image


def test_an_unsteady_number_comes_with_advice(own: str) -> None:
    assert bench(NET, device=own)["advice"] == []
    found = bench(NET, device=own, options={"unrest": 0.25})
    assert not found["steady"]
    assert "unsteady by 25%" in found["advice"][0]


def test_advice_does_without_a_load(own: str) -> None:
    from nas.hardware.timing import summarise

    (line,) = advice(summarise([1.0, 2.0, 3.0], 1, load=None))
    assert "load" not in line and "\n" not in line


def test_what_torch_raises_becomes_one_line(own: str) -> None:
    with pytest.raises(
        NasError, match=r"net cannot be measured at batch 1 .* can't allocate"
    ) as caught:
        bench(NET, device=own, options={"fail": True})
    assert "\n" not in str(caught.value)
