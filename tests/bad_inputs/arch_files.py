"""Archs that are none: names, files, folders, JSON, values, sizes."""

import json
from typing import Any

from bad_inputs.row import Row, rows
from bad_inputs.world import ARCH


def arch(**changed: Any) -> dict[str, str]:
    """Return the file a.json, an arch with these fields."""
    return {"a.json": json.dumps({**ARCH, **changed})}


def stage(**changed: Any) -> dict[str, str]:
    return arch(stages=[{"op": "conv", "channels": 8, "stride": 2, **changed}])


LONG = "n" * 5000
DEEP = "[" * 100_000
ROWS: list[Row] = [
    *rows(
        ("cost efficientnet_b00", "'efficientnet_b00'|did you mean 'efficientnet_b0'"),
        ("cost ./efficientnet_b0", "'./efficientnet_b0'|nas ls baselines"),
        ("cost ''", "no best/arch.json|arch.json"),
        (f"cost {LONG}", "File name too long"),
        ("cost a.json", "'a.json'|nas ls runs"),
        ("cost folder", "folder holds no best/arch.json", {"folder/x": ""}),
        ("cost runs", "name one of its members: r", {"runs/r/arch.json": "{}"}),
        ("cost a.json/b", "'a.json/b'", {"a.json": "{}"}),
        ("cost a.json", "a.json is not JSON", {"a.json": ""}),
        ("cost a.json", "a.json is not JSON|line 1 column 2", {"a.json": "{"}),
        ("cost a.json", "a.json is not JSON", {"a.json": "schema: 1\nstages: []\n"}),
        ("cost a.json", "a.json is not JSON|nested too deeply", {"a.json": DEEP}),
        ("cost a.json", "nested too deeply", {"a.json": '{"stages":' * 50_000}),
        ("cost a.json", "a.json is no UTF-8 text", {"a.json": b"\xff\xfe{\x00}\x00"}),
        ("cost a.json", "a.json is no UTF-8 text|at 10", {"a.json": b'{"name": "\xe9"}'}),
        ("cost a.json", "no arch: a JSON object with 'schema'", {"a.json": "[]"}),
        ("cost a.json", "no arch: a JSON object", {"a.json": "null"}),
        ("cost a.json", "no arch: a JSON object", {"a.json": '"efficientnet_b0"'}),
        ("cost a.json", "no arch", {"a.json": "1" + "0" * 4000}),
        ("cost a.json", "a.json is not JSON|4300", {"a.json": "1" + "0" * 5000}),
        ("cost a.json", "not JSON", {"a.json": "\ufeff{}"}),
        ("cost a.json", "schema None", {"a.json": '{"stages": []}'}),
        ("cost a.json", "schema 2|upgrade nas", arch(schema=2)),
        ("cost a.json", "schema '1'", arch(schema="1")),
        ("cost a.json", "stages must be a list, not {}", arch(stages={})),
        ("cost a.json", "at least one stage", arch(stages=[])),
        ("cost a.json", "stage 1 must be a JSON object, not 'conv'", arch(stages=["conv"])),
        ("cost a.json", "unknown field 'colour'", arch(colour="red")),
        ("cost a.json", "stage 1 has an unknown field 'chanels'", stage(chanels=8)),
        ("cost a.json", "stage 1 lacks a field|op", arch(stages=[{"channels": 8}])),
        ("cost a.json", "stem must be a JSON object, not 32", arch(stem=32)),
        ("cost a.json", "head has an unknown field 'width'", arch(head={"width": 3})),
        ("cost a.json", "name must be text, not 3", arch(name=3)),
        ("cost a.json", "resolution must be a whole number|31", arch(resolution=31)),
        ("cost a.json", "resolution must be a whole number|32.0", arch(resolution=32.0)),
        ("cost a.json", "resolution must be a whole number|True", arch(resolution=True)),
        (
            "cost a.json",
            "resolution must be|inf",
            {"a.json": json.dumps(ARCH).replace("32}", "Infinity}")},
        ),
        ("cost a.json", "in_channels must be|0", arch(in_channels=0)),
        ("cost a.json", "head.classes must be|-2", arch(head={"classes": -2})),
        ("cost a.json", "head.dropout must lie in 0 <= x < 1, not 1", arch(head={"dropout": 1})),
        ("cost a.json", "head.dropout must lie in|nan", arch(head={"dropout": float("nan")})),
        ("cost a.json", "stem.kernel must be odd|4", arch(stem={"kernel": 4})),
        ("cost a.json", "stem.stride must be|'2'", arch(stem={"stride": "2"})),
        ("cost a.json", "activation must be one of relu|'swish'", arch(activation="swish")),
        ("cost a.json", "activation must be one of|['relu']", arch(activation=["relu"])),
        ("cost a.json", "padding must be one of symmetric, same|'valid'", arch(padding="valid")),
        ("cost a.json", "padding must be one of symmetric, same|1", arch(padding=1)),
        (
            "cost a.json",
            "norm.kind must be one of batch, group, not 'layer'",
            arch(norm={"kind": "layer"}),
        ),
        ("cost a.json", "squeeze.gate must be one of|'softmax'", arch(squeeze={"gate": "softmax"})),
        ("cost a.json", "stochastic_depth must lie in|2", arch(stochastic_depth=2)),
        ("cost a.json", "no op named 'mbkonv'|known: basic", stage(op="mbkonv")),
        ("cost a.json", "op|3", stage(op=3)),
        ("cost a.json", "op", stage(op="../cost")),
        ("cost a.json", "op", stage(op=["conv"])),
        ("cost a.json", "stage 1: channels must be|0", stage(channels=0)),
        ("cost a.json", "stage 1: channels|None", stage(channels=None)),
        ("cost a.json", "stage 1: layers must be at most 10000, not 10001", stage(layers=10_001)),
        ("cost a.json", "stage 1: kernel must be odd|2", stage(kernel=2)),
        ("cost a.json", "stage 1: se must lie in|-0.5", stage(op="mbconv", se=-0.5)),
        ("cost a.json", "stage 1: skip must be one of|'residual'", stage(skip="residual")),
        ("cost a.json", "expansion must lie between 0 and 1000, not 1000", stage(expansion=1000)),
        ("cost a.json", "expansion must lie between|'6'", stage(op="mbconv", expansion="6")),
        ("cost a.json", "expansion", stage(op="conv", expansion=6)),
        ("cost a.json", "op must be a word such as mbconv, not None", stage(op=None)),
        ("cost a.json", "shrinks below one pixel|use fewer strides", stage(stride=64)),
        ("cost efficientnet_b0 --imgsz 16", "16"),
        ("cost efficientnet_b0 --imgsz 0", "0"),
        ("cost efficientnet_b0 --imgsz -224", "-224"),
        ("cost efficientnet_b0 --imgsz 1e3", "integer|not '1e3'"),
        ("cost efficientnet_b0 --imgsz 224x224", "'224x224'"),
        ("cost", "Missing argument"),
        ("cost efficientnet_b0 resnet50 --pixels 3", "--pixels"),
        ("show efficientnet_b9", "'efficientnet_b9'|did you mean"),
        (
            "show a.json",
            "stage 2: channels",
            arch(stages=[{"op": "conv", "channels": 8}, {"op": "conv", "channels": 2.5}]),
        ),
        ("show", "Missing argument"),
        ("show a.json --imgsz 64", "--imgsz", arch()),
        ("show a.json", "layers must be a whole number|1e+16", stage(layers=1e16)),
        ("bench resnet5", "'resnet5'"),
        ("cost a.json --check", "memory|GiB", stage(channels=400_000_000)),
        ("cost a.json --check", "memory|GiB", arch(resolution=10_000_000)),
        ("export a.json", "memory|GiB", arch(stem={"channels": 10**12})),
        ("export a.json", "memory|GiB", arch(head={"channels": 10**6, "classes": 10**6})),
    ),
    *rows(
        (
            "train a.json --data images --tracker none",
            "GiB|smaller net",
            stage(channels=400_000_000),
        ),
        world=("images",),
        code=1,
    ),
    *rows(
        ("bench a.json", "memory|GiB|smaller batch", stage(channels=400_000_000, stride=1)),
        code=1,
    ),
    Row("cost a.json", ("pipe or a device",), special=("a.json", "fifo")),
    Row("cost a.json", ("pipe or a device",), special=("a.json", "/dev/zero")),
    Row("cost a.json", ("no baseline, file or run 'a.json'",), special=("a.json", "loop")),
    Row("cost best", ("holds no best/arch.json",), special=("best/arch.json", "fifo")),
    Row("show a.json", ("holds no best/arch.json",), special=("a.json", "folder")),
    Row("cost /dev/stdin", ("/dev/stdin",), special=("x", "folder")),
]
