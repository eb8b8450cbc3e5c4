"""Files and names of weights to start from that cannot be."""

import io
import math
import zipfile

import torch
from torch import Tensor

from bad_inputs.row import Row, rows
from bad_inputs.world import ARCH
from nas.models.arch import Arch
from nas.models.build import Model

T = "train tiny.json --data images --epochs 1 --tracker none --init"
CODE = b"cposix\nsystem\n(S'touch owned'\ntR."  # what a pickle may hold that runs as it is read


def saved(weights: object) -> bytes:
    file = io.BytesIO()
    torch.save(weights, file)
    return file.getvalue()


def saved_code() -> bytes:
    """Return a file as torch.save writes one, whose pickle calls a program."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", CODE)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return file.getvalue()


def tiny() -> dict[str, Tensor]:
    return Model(Arch.from_dict(ARCH)).state_dict()


WEIGHTS = tiny()
FIRST = next(iter(WEIGHTS))
GOOD = saved(WEIGHTS)
FAULTY: dict[str, bytes] = {
    "half.pth": GOOD[: len(GOOD) // 2],
    "empty.pth": b"",
    "half.safetensors": b"\x40\x00\x00\x00\x00\x00\x00\x00{",
    "text.pth": b"hello",
    "code.pth": saved_code(),
    "pickle.pth": CODE,
    "list.pth": saved([1, 2, 3]),
    "numbers.pth": saved({"epoch": 3}),
    "missing.pth": saved({k: v for k, v in WEIGHTS.items() if k != FIRST}),
    "more.pth": saved({**WEIGHTS, "extra.weight": torch.zeros(3)}),
    "shape.pth": saved({**WEIGHTS, FIRST: torch.zeros(3, 3)}),
    "nan.pth": saved({**WEIGHTS, FIRST: WEIGHTS[FIRST] * math.nan}),
    "resnet.pth": saved({"conv1.weight": torch.zeros(64, 3, 7, 7), "bn1.weight": torch.ones(64)}),
}
SAYS = {
    "half.pth": "half.pth|get the file again",
    "empty.pth": "empty.pth is damaged, or half of a file|get the file again",
    "half.safetensors": "half.safetensors|get the file again",
    "text.pth": "text.pth is no file of weights|.safetensors",
    "code.pth": "code.pth holds code|is not run",
    "pickle.pth": "pickle.pth",
    "list.pth": "list.pth holds no state dict",
    "numbers.pth": "numbers.pth holds no state dict",
    "missing.pth": f"missing.pth|{FIRST}",
    "more.pth": "more.pth|extra.weight",
    "shape.pth": f"shape.pth|{FIRST}",
    "nan.pth": f"nan.pth|not finite|{FIRST}",
    "resnet.pth": "resnet.pth|another arch",
}
NAMED = [
    (
        "train resnet18 --data images --init pretrained",
        "no package with|of resnet18|--init timm:NAME",
    ),
    (f"{T} pretrained", "pretrained|--init"),
    (f"{T} timm:nonsense", "timm:nonsense"),
    ("train resnet18 --data images --init timm:resnet18.none", "no weights 'resnet18.none'"),
    (f"{T} torchvision:nonsense", "torchvision:nonsense"),
    (f"{T} timm:", "timm:"),
]
ROWS: list[Row] = [
    *rows(
        *((f"{T} {name}", SAYS[name], {name: content}) for name, content in FAULTY.items()),
        world=("images", "arch"),
    ),
    *rows(*NAMED, world=("images", "arch")),
]
