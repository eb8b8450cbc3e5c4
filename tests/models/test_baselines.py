"""Baselines: found by their folder; their counts agree with the print or say why not."""

import pytest
import torch

from nas.core import registry
from nas.models.arch import Arch
from nas.models.build import build_model
from nas.models.cost import count
from nas.models.published import Published

ARCHS: dict[str, Arch] = {}
PUBLISHED: dict[str, Published] = {}
for file in registry.names("baselines"):
    ARCHS |= registry.export("baselines", file, "ARCHS")
    PUBLISHED |= registry.export("baselines", file, "PUBLISHED")

NAMES = {
    *(f"efficientnet_b{n}" for n in range(9)),
    "efficientnet_l2",
    *(f"efficientnet_lite{n}" for n in range(5)),
    *(f"efficientnet_v2_{size}" for size in ("s", "m", "l", "b0", "b1", "b2", "b3")),
    *("mnasnet_a1", "mnasnet_b1", "mnasnet_small"),
    *("mobilenet_v1", "mobilenet_v2", "mobilenet_v2_140"),
    *("mobilenet_v3_large", "mobilenet_v3_small"),
    *(f"resnet{layers}" for layers in (18, 34, 50, 101, 152)),
}


def test_every_promised_baseline_is_there() -> None:
    assert set(ARCHS) >= NAMES
    assert set(ARCHS) == set(PUBLISHED)


@pytest.mark.parametrize("name", ARCHS)
def test_an_arch_bears_its_name_and_survives_json(name: str) -> None:
    assert ARCHS[name].name == name
    assert Arch.from_dict(ARCHS[name].to_dict()) == ARCHS[name]


def printed(value: int, figure: int) -> bool:
    """Say whether a value rounds to a printed figure, of which two digits at least are meant."""
    digits = str(figure)
    unit = 10 ** (len(digits) - max(2, len(digits.rstrip("0"))))
    return abs(value - figure) <= unit / 2


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_count_agrees_with_the_print_or_a_note_says_why_not(name: str) -> None:
    found, paper = count(ARCHS[name]), PUBLISHED[name]
    pairs = ((found.params, paper.params), (found.flops, paper.flops))
    agrees = all(figure is None or printed(value, figure) for value, figure in pairs)
    assert agrees or paper.note
    for value, figure in pairs:
        # whatever the reason, it is not a factor
        assert figure is None or value == pytest.approx(figure, rel=0.15)


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_published_has_a_source_and_is_per_cent(name: str) -> None:
    paper = PUBLISHED[name]
    assert paper.source
    assert paper.top1 is None or 50 < paper.top1 < 100
    assert paper.top5 is None or paper.top1 is None or paper.top1 < paper.top5 < 100


@pytest.mark.parametrize("name", ARCHS)
def test_the_built_module_has_as_many_params_and_buffers_as_counted(name: str) -> None:
    with torch.device("meta"):
        model = build_model(ARCHS[name])
    found = count(ARCHS[name])
    assert sum(parameter.numel() for parameter in model.parameters()) == found.params
    running = [value for key, value in model.named_buffers() if "running" in key]
    assert sum(value.numel() for value in running) == found.buffers
