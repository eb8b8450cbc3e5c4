"""What is published of a net: the figures that a paper prints, and how libraries build it."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

from nas.core.errors import ArchError
from nas.models.arch import Arch


@dataclass(frozen=True)
class Published:
    """Printed figures of one net; None where nothing is printed.

    `top1` and `top5` are per cent on the ImageNet validation set, `flops` are multiply-adds,
    `source` says where they are printed. `note` says why a count cannot agree with the print.
    """

    top1: float | None
    top5: float | None
    params: int | None
    flops: int | None
    source: str
    note: str = ""


# torchvision's nets with TensorFlow's epsilon; its others have PyTorch's
_WIDE_EPS = re.compile(r"efficientnet_(b[567]|v2_[sml])|mobilenet_v3_.*")


def published_as(arch: Arch, library: str, name: str) -> Arch:
    """Return an arch built as a library builds its net of that name, so that its weights fit.

    `library`: timm, torchvision or efficientnet_pytorch (Luke Melas-Kyriazi's). Set are the
    padding, the epsilon of the norms and, for MobileNetV1, the activation; the momentum of the
    norms changes no answer and stays. The name may carry a tag, as in `tf_efficientnet_b0.in1k`.

    Raises:
        ArchError: it is another library.
    """
    name = name.partition(".")[0]
    same = library == "efficientnet_pytorch" or name.startswith("tf_")
    if library not in ("timm", "torchvision", "efficientnet_pytorch"):
        raise ArchError(f"library must be timm, torchvision or efficientnet_pytorch, not {library}")
    wide = same or (library == "torchvision" and _WIDE_EPS.fullmatch(name))
    # the paper's relu is relu6 in TensorFlow's code, which timm follows
    six = library == "timm" and name.startswith("mobilenetv1")
    return dataclasses.replace(
        arch,
        padding="same" if same else "symmetric",
        norm=dataclasses.replace(arch.norm, eps=1e-3 if wide else 1e-5),
        activation="relu6" if six else arch.activation,
    )
