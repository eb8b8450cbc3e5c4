"""EfficientNetV2-S, M, L and B0 to B3.

Fused blocks early, MBConv later. B1 to B3 are B0 scaled by V1's multipliers, with channels rounded
without the 90 % rule. Sources: Tan and Le 2021 (arXiv 2104.00298); google/automl, efficientnetv2.
"""

from __future__ import annotations

from nas.models.arch import Arch, Head, Stage, Stem
from nas.models.compound import RELEASED, scale_arch
from nas.models.published import Published

FUSED, PLAIN = ("fused_mbconv", 0.0), ("mbconv", 0.25)

STAGES = {
    # (op, squeeze), expansion, stride, channels, layers; every kernel is 3
    "s": (
        (FUSED, 1, 1, 24, 2),
        (FUSED, 4, 2, 48, 4),
        (FUSED, 4, 2, 64, 4),
        (PLAIN, 4, 2, 128, 6),
        (PLAIN, 6, 1, 160, 9),
        (PLAIN, 6, 2, 256, 15),
    ),
    "m": (
        (FUSED, 1, 1, 24, 3),
        (FUSED, 4, 2, 48, 5),
        (FUSED, 4, 2, 80, 5),
        (PLAIN, 4, 2, 160, 7),
        (PLAIN, 6, 1, 176, 14),
        (PLAIN, 6, 2, 304, 18),
        (PLAIN, 6, 1, 512, 5),
    ),
    "l": (
        (FUSED, 1, 1, 32, 4),
        (FUSED, 4, 2, 64, 7),
        (FUSED, 4, 2, 96, 7),
        (PLAIN, 4, 2, 192, 10),
        (PLAIN, 6, 1, 224, 19),
        (PLAIN, 6, 2, 384, 25),
        (PLAIN, 6, 1, 640, 7),
    ),
    "b0": (
        (FUSED, 1, 1, 16, 1),
        (FUSED, 4, 2, 32, 2),
        (FUSED, 4, 2, 48, 2),
        (PLAIN, 4, 2, 96, 3),
        (PLAIN, 6, 1, 112, 5),
        (PLAIN, 6, 2, 192, 8),
    ),
}
# size, stem channels, resolution of evaluation, dropout
NETS = (("s", 24, 384, 0.2), ("m", 24, 480, 0.3), ("l", 32, 480, 0.4), ("b0", 32, 224, 0.2))


def _net(size: str, stem: int, resolution: int, dropout: float) -> Arch:
    stages = tuple(
        Stage(op, channels, layers, 3, stride, expansion, se)
        for (op, se), expansion, stride, channels, layers in STAGES[size]
    )
    head, name = Head(1280, dropout=dropout), f"efficientnet_v2_{size}"
    return Arch(name, stages, Stem(stem), head, resolution, stochastic_depth=0.2)


def _scaled(base: Arch, phi: int) -> Arch:
    row = RELEASED[phi]
    return scale_arch(
        base,
        depth=row.depth,
        width=row.width,
        resolution=row.resolution,
        keep=0,
        dropout=row.dropout,
        name=f"efficientnet_v2_b{phi}",
    )


def _archs() -> dict[str, Arch]:
    nets = [_net(*row) for row in NETS]
    nets += [_scaled(nets[-1], phi) for phi in (1, 2, 3)]
    return {arch.name: arch for arch in nets}


ARCHS = _archs()

_README = "google/automl, efficientnetv2/README.md"

PUBLISHED = {
    "efficientnet_v2_s": Published(83.9, None, 21_500_000, 8_400_000_000, _README),
    "efficientnet_v2_m": Published(
        85.2, None, 54_100_000, 24_700_000_000, _README, "counted 24.58B; torchvision's is the same"
    ),
    "efficientnet_v2_l": Published(
        85.7,
        None,
        119_500_000,
        56_300_000_000,
        _README,
        "counted 118.5M and 56.1B; torchvision's and timm's nets are the same",
    ),
    "efficientnet_v2_b0": Published(78.7, None, 7_100_000, 720_000_000, _README),
    "efficientnet_v2_b1": Published(79.8, None, 8_100_000, 1_200_000_000, _README),
    "efficientnet_v2_b2": Published(80.5, None, 10_100_000, 1_700_000_000, _README),
    "efficientnet_v2_b3": Published(82.1, None, 14_400_000, 3_000_000_000, _README),
}
