"""EfficientNet-B0 to B8, L2, and EfficientNet-lite0 to lite4.

B0 is a search result; every other net here is B0 scaled. Sources: Tan and Le 2019 (arXiv
1905.11946v5); the released code (tensorflow/tpu, models/official/efficientnet and its lite/).
"""

from __future__ import annotations

from nas.models.arch import Arch, Head, Stage
from nas.models.compound import RELEASED, Release, scale_arch
from nas.models.published import Published

STAGES = (
    # kernel, expansion, stride, channels, layers
    (3, 1, 1, 16, 1),
    (3, 6, 2, 24, 2),
    (5, 6, 2, 40, 2),
    (3, 6, 2, 80, 3),
    (5, 6, 1, 112, 3),
    (5, 6, 2, 192, 4),
    (3, 6, 1, 320, 1),
)
L2 = Release(4.3, 5.3, 800, 0.5)
LITE = (
    Release(1.0, 1.0, 224, 0.2),
    Release(1.0, 1.1, 240, 0.2),
    Release(1.1, 1.2, 260, 0.3),
    Release(1.2, 1.4, 280, 0.3),
    Release(1.4, 1.8, 300, 0.3),
)


def _base(name: str, se: float, activation: str) -> Arch:
    stages = tuple(
        Stage("mbconv", channels, layers, kernel, stride, expansion, se)
        for kernel, expansion, stride, channels, layers in STAGES
    )
    head = Head(1280, dropout=0.2)
    return Arch(name, stages, head=head, activation=activation, stochastic_depth=0.2)


def _scaled(base: Arch, name: str, row: Release, fixed_ends: bool = False) -> Arch:
    return scale_arch(
        base,
        depth=row.depth,
        width=row.width,
        resolution=row.resolution,
        fixed_ends=fixed_ends,
        dropout=row.dropout,
        name=name,
    )


def _archs() -> dict[str, Arch]:
    base = _base("efficientnet_b0", 0.25, "silu")
    lite = _base("efficientnet_lite0", 0.0, "relu6")
    names = {f"efficientnet_b{phi}": row for phi, row in RELEASED.items()} | {"efficientnet_l2": L2}
    archs = [_scaled(base, name, row) for name, row in names.items()]
    archs += [_scaled(lite, f"efficientnet_lite{n}", row, True) for n, row in enumerate(LITE)]
    return {arch.name: arch for arch in archs}


ARCHS = _archs()

_PAPER = "Tan and Le 2019 (arXiv 1905.11946v5), Table 2"
_LITE = "tensorflow/tpu, models/official/efficientnet/lite/README.md"
_LOW = "the printed FLOPs lie below any count of this net at its released resolution"
_HIGH = "the README's MAdds lie 3 to 6 % above the count of convolutions and linear layers"

PUBLISHED = {
    "efficientnet_b0": Published(77.1, 93.3, 5_300_000, 390_000_000, _PAPER),
    "efficientnet_b1": Published(
        79.1, 94.4, 7_800_000, 700_000_000, _PAPER, "counted 687M where the paper prints 0.70B"
    ),
    "efficientnet_b2": Published(
        80.1,
        94.9,
        9_200_000,
        1_000_000_000,
        _PAPER,
        "9.2M counts the running statistics of batch norm; the parameters are 9.11M",
    ),
    "efficientnet_b3": Published(81.6, 95.7, 12_000_000, 1_800_000_000, _PAPER),
    "efficientnet_b4": Published(82.9, 96.4, 19_000_000, 4_200_000_000, _PAPER, _LOW),
    "efficientnet_b5": Published(83.6, 96.7, 30_000_000, 9_900_000_000, _PAPER, _LOW),
    "efficientnet_b6": Published(84.0, 96.8, 43_000_000, 19_000_000_000, _PAPER),
    "efficientnet_b7": Published(84.3, 97.0, 66_000_000, 37_000_000_000, _PAPER, _LOW),
    "efficientnet_b8": Published(
        85.5,
        None,
        None,
        None,
        "tensorflow/tpu, models/official/efficientnet/README.md",
        "trained with AdvProp",
    ),
    "efficientnet_l2": Published(
        88.4,
        None,
        None,
        None,
        "tensorflow/tpu, models/official/efficientnet/README.md",
        "trained with Noisy Student on 300M more images",
    ),
    "efficientnet_lite0": Published(75.1, None, 4_700_000, 407_000_000, _LITE, _HIGH),
    "efficientnet_lite1": Published(76.7, None, 5_400_000, 631_000_000, _LITE, _HIGH),
    "efficientnet_lite2": Published(77.6, None, 6_100_000, 899_000_000, _LITE, _HIGH),
    "efficientnet_lite3": Published(79.8, None, 8_200_000, 1_440_000_000, _LITE, _HIGH),
    "efficientnet_lite4": Published(81.5, None, 13_000_000, 2_640_000_000, _LITE, _HIGH),
}
