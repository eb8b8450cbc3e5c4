"""MobileNetV1, V2 (and 1.4 times wider), V3-Large and V3-Small.

Sources: Howard et al. 2017 (arXiv 1704.04861); Sandler et al. 2018 (arXiv 1801.04381); Howard et
al. 2019 (arXiv 1905.02244); tensorflow/models, research/slim/nets/mobilenet.
"""

from __future__ import annotations

from nas.models.arch import Arch, Head, Squeeze, Stage, Stem
from nas.models.compound import scale_arch
from nas.models.published import Published

V1 = ((1, 64, 1), (2, 128, 2), (2, 256, 2), (2, 512, 6), (2, 1024, 2))  # stride, channels, layers
V2 = (
    # expansion, stride, channels, layers
    (1, 1, 16, 1),
    (6, 2, 24, 2),
    (6, 2, 32, 3),
    (6, 2, 64, 4),
    (6, 1, 96, 3),
    (6, 2, 160, 3),
    (6, 1, 320, 1),
)
RE, HS = "relu", "hardswish"
V3_LARGE = (
    # kernel, expanded channels, channels, squeeze, activation, stride; one layer each
    (3, 16, 16, 0, RE, 1),
    (3, 64, 24, 0, RE, 2),
    (3, 72, 24, 0, RE, 1),
    (5, 72, 40, 0.25, RE, 2),
    (5, 120, 40, 0.25, RE, 1),
    (5, 120, 40, 0.25, RE, 1),
    (3, 240, 80, 0, HS, 2),
    (3, 200, 80, 0, HS, 1),
    (3, 184, 80, 0, HS, 1),
    (3, 184, 80, 0, HS, 1),
    (3, 480, 112, 0.25, HS, 1),
    (3, 672, 112, 0.25, HS, 1),
    (5, 672, 160, 0.25, HS, 2),
    (5, 960, 160, 0.25, HS, 1),
    (5, 960, 160, 0.25, HS, 1),
)
V3_SMALL = (
    (3, 16, 16, 0.25, RE, 2),
    (3, 72, 24, 0, RE, 2),
    (3, 88, 24, 0, RE, 1),
    (5, 96, 40, 0.25, HS, 2),
    (5, 240, 40, 0.25, HS, 1),
    (5, 240, 40, 0.25, HS, 1),
    (5, 120, 48, 0.25, HS, 1),
    (5, 144, 48, 0.25, HS, 1),
    (5, 288, 96, 0.25, HS, 2),
    (5, 576, 96, 0.25, HS, 1),
    (5, 576, 96, 0.25, HS, 1),
)


def _v1() -> Arch:
    stages = tuple(
        Stage("depthwise", channels, layers, stride=stride, skip="none")
        for stride, channels, layers in V1
    )
    return Arch("mobilenet_v1", stages, activation="relu")


def _v2() -> Arch:
    stages = tuple(
        Stage("mbconv", channels, layers, stride=stride, expansion=expansion)
        for expansion, stride, channels, layers in V2
    )
    return Arch("mobilenet_v2", stages, head=Head(1280, dropout=0.2), activation="relu6")


def _v3(name: str, rows: tuple[tuple[int, int, int, float, str, int], ...], head: Head) -> Arch:
    stem = 16
    stages: list[Stage] = []
    for kernel, middle, channels, se, activation, stride in rows:
        # the paper gives the expanded width itself; an Arch holds its ratio to the input's
        ratio = middle / (stages[-1].channels if stages else stem)
        stage = Stage("mbconv", channels, 1, kernel, stride, ratio, se, activation=activation)
        stages.append(stage)
    squeeze = Squeeze("expanded", activation=RE, gate="hardsigmoid")
    return Arch(name, tuple(stages), Stem(stem), head, activation=HS, squeeze=squeeze)


def _archs() -> dict[str, Arch]:
    v2 = _v2()
    nets = (
        _v1(),
        v2,
        scale_arch(v2, depth=1, width=1.4, resolution=224, name="mobilenet_v2_140"),
        _v3("mobilenet_v3_large", V3_LARGE, Head(960, 1280, 0.2)),
        _v3("mobilenet_v3_small", V3_SMALL, Head(576, 1024, 0.2)),
    )
    return {arch.name: arch for arch in nets}


ARCHS = _archs()

_SLIM = "tensorflow/models, research/slim/nets/mobilenet/README.md"
_BIAS = "the README leaves out the two parameters a channel of batch norm"

PUBLISHED = {
    "mobilenet_v1": Published(
        70.6, 89.5, 4_200_000, 569_000_000, "Zoph et al. 2018 (arXiv 1707.07012), Table 3"
    ),
    "mobilenet_v2": Published(71.8, 91.0, 3_470_000, 300_000_000, _SLIM, _BIAS),
    "mobilenet_v2_140": Published(75.0, 92.5, 6_060_000, 582_000_000, _SLIM, _BIAS),
    "mobilenet_v3_large": Published(
        75.2,
        None,
        5_400_000,
        219_000_000,
        "Howard et al. 2019 (arXiv 1905.02244), Table 3",
        "counted 5.48M and 216.6M, as torchvision's and timm's nets; slim's README prints 217M",
    ),
    "mobilenet_v3_small": Published(
        67.4,
        None,
        2_900_000,
        66_000_000,
        "Howard et al. 2019 (arXiv 1905.02244), Table 3",
        "counted 2.54M and 56.5M, as torchvision's net; the released net is smaller than printed",
    ),
}
