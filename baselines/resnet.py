"""ResNet-18, 34, 50, 101 and 152, with the stride on the 3x3 convolution (v1.5).

Sources: He et al. 2016 (arXiv 1512.03385); torchvision's resnet.py and its weights' metadata.
"""

from __future__ import annotations

from nas.models.arch import Arch, Norm, Stage, Stem
from nas.models.published import Published

NETS = (
    # name, op, expansion, layers of the four stages
    ("resnet18", "basic", 1, (2, 2, 2, 2)),
    ("resnet34", "basic", 1, (3, 4, 6, 3)),
    ("resnet50", "bottleneck", 4, (3, 4, 6, 3)),
    ("resnet101", "bottleneck", 4, (3, 4, 23, 3)),
    ("resnet152", "bottleneck", 4, (3, 8, 36, 3)),
)
ROWS = ((1, 64), (2, 128), (2, 256), (2, 512))  # stride, channels of the 3x3 convolution


def _net(name: str, op: str, expansion: int, depths: tuple[int, ...]) -> Arch:
    stages = tuple(
        Stage(op, width * expansion, layers, 3, stride, expansion, skip="projection")
        for (stride, width), layers in zip(ROWS, depths, strict=True)
    )
    norm = Norm(eps=1e-5, momentum=0.1)
    return Arch(name, stages, Stem(64, 7, 2, pool=2), activation="relu", norm=norm)


ARCHS = {row[0]: _net(*row) for row in NETS}

_WEIGHTS = "torchvision, ResNet weights IMAGENET1K_V1"

PUBLISHED = {
    "resnet18": Published(69.758, 89.078, 11_689_512, 1_814_000_000, _WEIGHTS),
    "resnet34": Published(73.314, 91.420, 21_797_672, 3_664_000_000, _WEIGHTS),
    "resnet50": Published(76.130, 92.862, 25_557_032, 4_089_000_000, _WEIGHTS),
    "resnet101": Published(77.374, 93.546, 44_549_160, 7_801_000_000, _WEIGHTS),
    "resnet152": Published(78.312, 94.046, 60_192_808, 11_514_000_000, _WEIGHTS),
}
