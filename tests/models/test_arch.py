"""Arch: JSON there and back, an id that means the network, errors of one line."""

import json
from dataclasses import replace

import pytest

from baselines.efficientnet import ARCHS
from nas.core.errors import ArchError
from nas.models.arch import Arch, Head, Norm, Squeeze, Stage, Stem

B0 = ARCHS["efficientnet_b0"]
TINY = Arch("tiny", (Stage("mbconv", 16, 2),))


def test_json_round_trip() -> None:
    data = json.loads(B0.to_json())
    assert Arch.from_dict(data) == B0
    assert data["schema"] == 1


def test_json_lists_and_whole_expansions_make_the_same_net() -> None:
    data = json.loads(B0.to_json())
    for stage in data["stages"]:
        stage["expansion"] = int(stage["expansion"])
    assert Arch.from_dict(data).id == B0.id


def test_defaults_may_be_left_out() -> None:
    data = {"schema": 1, "name": "tiny", "stages": [{"op": "mbconv", "channels": 16, "layers": 2}]}
    assert Arch.from_dict(data) == TINY


def test_id_is_golden() -> None:
    # results and journals refer to archs by id: a new value here breaks every one of them
    assert B0.id == "4dd759701d18"


def test_id_ignores_the_name() -> None:
    assert replace(B0, name="other").id == B0.id


def test_id_ignores_the_split_into_stages() -> None:
    split = replace(TINY, stages=(Stage("mbconv", 16), Stage("mbconv", 16)))
    assert split.id == TINY.id


def test_id_ignores_a_skip_that_cannot_act() -> None:
    one = replace(TINY, stages=(Stage("mbconv", 16, stride=2),))
    dead = replace(one, stages=(replace(one.stages[0], skip="none"),))
    assert one.id == dead.id
    assert TINY.id != replace(TINY, stages=(Stage("mbconv", 16, 2, skip="none"),)).id


def test_id_ignores_the_squeeze_rule_where_nothing_squeezes() -> None:
    other = Squeeze("expanded", gate="hardsigmoid")
    assert replace(TINY, squeeze=other).id == TINY.id
    assert replace(B0, squeeze=other).id != B0.id


@pytest.mark.parametrize(
    "change",
    [
        {"resolution": 240},
        {"in_channels": 1},
        {"activation": "relu"},
        {"norm": Norm(eps=1e-5)},
        {"stem": Stem(40)},
        {"head": Head(1280, classes=10)},
        {"stochastic_depth": 0.0},
        {"padding": "same"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_id_sees_every_other_field(change: dict[str, object]) -> None:
    assert replace(B0, **change).id != B0.id


def stage(**change: object) -> dict[str, object]:
    return {"stages": (replace(Stage("mbconv", 16), **change),)}


WRONG = {
    "resolution": lambda: {"resolution": 31},
    "resolution type": lambda: {"resolution": 224.0},
    "in_channels": lambda: {"in_channels": 0},
    "no stages": lambda: {"stages": ()},
    "activation": lambda: {"activation": "swish"},
    "stochastic depth": lambda: {"stochastic_depth": 1.0},
    "padding": lambda: {"padding": "valid"},
    "stem channels": lambda: {"stem": Stem(0)},
    "stem kernel": lambda: {"stem": Stem(kernel=4)},
    "stem pool": lambda: {"stem": Stem(pool=0)},
    "head channels": lambda: {"head": Head(-1)},
    "head hidden": lambda: {"head": Head(hidden=-1)},
    "head dropout": lambda: {"head": Head(dropout=-0.1)},
    "head classes": lambda: {"head": Head(classes=0)},
    "norm": lambda: {"norm": Norm("layer")},
    "squeeze of": lambda: {"squeeze": Squeeze("output")},
    "squeeze gate": lambda: {"squeeze": Squeeze(gate="relu")},
    "squeeze activation": lambda: {"squeeze": Squeeze(activation="swish")},
    "stage channels": lambda: stage(channels=True),
    "stage layers": lambda: stage(layers=0),
    "stage kernel": lambda: stage(kernel=2),
    "stage stride": lambda: stage(stride=0),
    "stage se": lambda: stage(se=1.5),
    "stage skip": lambda: stage(skip="concat"),
    "stage activation": lambda: stage(activation="swish"),
    "stage expansion": lambda: stage(expansion=0),
    "too many strides": lambda: {"stages": (Stage("mbconv", 16, stride=2),) * 8},
}


@pytest.mark.parametrize("case", WRONG)
def test_an_impossible_value_is_refused_in_one_line(case: str) -> None:
    with pytest.raises(ArchError) as caught:
        replace(B0, **WRONG[case]())
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) > 20


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"schema": 2, "name": "x", "stages": []}, "schema 2"),
        ({"name": "x", "stages": []}, "schema None"),
        ({"schema": 1}, "no arch"),
        ([], "no arch"),
        ({"schema": 1, "name": "x", "stages": [], "widht": 1}, "'widht'"),
        ({"schema": 1, "name": "x", "stages": [{"op": "mbconv"}]}, "channels"),
        ({"schema": 1, "name": "x", "stages": [{"op": "mbconv", "chanels": 8}]}, "stage 1"),
        ({"schema": 1, "name": "x", "stages": [3]}, "stage 1"),
        ({"schema": 1, "name": "x", "stages": 3}, "list"),
        ({"schema": 1, "name": "x", "stages": [], "stem": 3}, "stem"),
        ({"schema": 1, "stages": [{"op": "mbconv", "channels": 8}]}, "name"),
    ],
)
def test_foreign_data_is_refused_in_one_line(data: object, says: str) -> None:
    with pytest.raises(ArchError) as caught:
        Arch.from_dict(data)  # type: ignore[arg-type]
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_blocks_stride_and_change_channels_first_only() -> None:
    blocks = replace(B0, stages=(Stage("mbconv", 24, 3, stride=2),)).blocks()
    shapes = [(b.inputs, b.outputs, b.stride) for b in blocks]
    assert shapes == [(32, 24, 2), (24, 24, 1), (24, 24, 1)]
    assert [b.skip for b in blocks] == ["none", "identity", "identity"]
