"""MnasNet-A1, B1 (without squeeze-and-excite; torchvision's mnasnet1_0) and small.

Sources: Tan et al. 2019 (arXiv 1807.11626v3); tensorflow/tpu, models/official/mnasnet.
"""

from __future__ import annotations

from nas.models.arch import Arch, Head, Stage, Stem
from nas.models.published import Published

STAGES = {
    # op, kernel, expansion, stride, channels, layers, squeeze
    "a1": (
        ("sepconv", 3, 1, 1, 16, 1, 0),
        ("mbconv", 3, 6, 2, 24, 2, 0),
        ("mbconv", 5, 3, 2, 40, 3, 0.25),
        ("mbconv", 3, 6, 2, 80, 4, 0),
        ("mbconv", 3, 6, 1, 112, 2, 0.25),
        ("mbconv", 5, 6, 2, 160, 3, 0.25),
        ("mbconv", 3, 6, 1, 320, 1, 0),
    ),
    "b1": (
        ("sepconv", 3, 1, 1, 16, 1, 0),
        ("mbconv", 3, 3, 2, 24, 3, 0),
        ("mbconv", 5, 3, 2, 40, 3, 0),
        ("mbconv", 5, 6, 2, 80, 3, 0),
        ("mbconv", 3, 6, 1, 96, 2, 0),
        ("mbconv", 5, 6, 2, 192, 4, 0),
        ("mbconv", 3, 6, 1, 320, 1, 0),
    ),
    "small": (
        ("mbconv", 3, 1, 1, 8, 1, 0),
        ("mbconv", 3, 3, 2, 16, 1, 0),
        ("mbconv", 3, 6, 2, 16, 2, 0),
        ("mbconv", 5, 6, 2, 32, 4, 0.25),
        ("mbconv", 3, 6, 1, 32, 3, 0.25),
        ("mbconv", 5, 6, 2, 88, 3, 0.25),
        ("mbconv", 3, 6, 1, 144, 1, 0),
    ),
}


def _net(size: str, stem: int) -> Arch:
    stages = tuple(
        Stage(op, channels, layers, kernel, stride, expansion, se)
        for op, kernel, expansion, stride, channels, layers, se in STAGES[size]
    )
    head = Head(1280, dropout=0.2)
    return Arch(f"mnasnet_{size}", stages, Stem(stem), head, activation="relu")


ARCHS = {arch.name: arch for arch in (_net("a1", 32), _net("b1", 32), _net("small", 8))}

_PAPER = "Tan et al. 2019 (arXiv 1807.11626v3)"

PUBLISHED = {
    "mnasnet_a1": Published(75.2, 92.5, 3_900_000, 312_000_000, f"{_PAPER}, Table 1"),
    "mnasnet_b1": Published(
        74.5,
        92.1,
        4_400_000,
        315_000_000,
        f"{_PAPER}, Table 2",
        "the paper's MAdds are a little above the count, 314.4M",
    ),
    "mnasnet_small": Published(66.0, None, 2_000_000, 68_000_000, f"{_PAPER}, Table 4, search 2"),
}
