"""One architecture for timm: EfficientNet's blocks in any arrangement, written by nas.

import sys

import timm

sys.path.insert(0, "FOLDER")  # this one
import nas_effnet  # registers the architecture

model = timm.create_model("local-dir:FOLDER", pretrained=True)
"""

from __future__ import annotations

from functools import partial
from typing import Any

from timm.layers import get_act_layer
from timm.models import build_model_with_cfg, register_model
from timm.models.efficientnet import (
    EfficientNet,
    EfficientNetFeatures,
    SqueezeExcite,
    decode_arch_def,
)
from torch import nn

_HEAD = ("num_classes", "num_features", "head_conv", "global_pool")


@register_model  # type: ignore[untyped-decorator]
def nas_effnet(
    pretrained: bool = False,
    *,
    stages: list[list[str]],
    stem: dict[str, int],
    num_features: int,
    act: str,
    squeeze_act: str | None,
    gate: str,
    bn_eps: float,
    bn_momentum: float,
    **kwargs: Any,
) -> nn.Module:
    """Return timm's EfficientNet of these stages, in the strings of timm's `decode_arch_def`.

    `stem` has `channels`, `kernel` and `stride`; `num_features` are the channels of the head.
    """
    features = kwargs.pop("features_only", False)
    if features:
        kwargs.setdefault("out_indices", tuple(range(_levels(stages))))
    net = build_model_with_cfg(
        EfficientNetFeatures if features else EfficientNet,
        "nas_effnet",
        pretrained,
        pretrained_strict=not features,  # the head is left out
        kwargs_filter=_HEAD if features else None,
        block_args=decode_arch_def(stages),
        num_features=num_features,
        stem_size=stem["channels"],
        stem_kernel_size=stem["kernel"],
        fix_stem=True,
        round_chs_fn=_as_it_is,
        act_layer=get_act_layer(act),
        norm_layer=partial(nn.BatchNorm2d, eps=bn_eps, momentum=bn_momentum),
        se_layer=partial(
            SqueezeExcite,
            gate_layer=get_act_layer(gate),
            force_act_layer=get_act_layer(squeeze_act) if squeeze_act else None,
        ),
        **kwargs,
    )
    if features:
        kept = {k: v for k, v in net.pretrained_cfg.items() if k not in (*_HEAD, "classifier")}
        net.pretrained_cfg = net.default_cfg = kept
    # timm's stem always strides by 2; only its features need to be told of another stride
    net.conv_stem.stride = (stem["stride"], stem["stride"])
    for level in getattr(net.feature_info, "info", net.feature_info):
        level["reduction"] = level["reduction"] * stem["stride"] // 2
    return net  # type: ignore[no-any-return]


def _as_it_is(channels: int) -> int:
    return channels


def _levels(stages: list[list[str]]) -> int:
    """Return how many maps of different size there are, the stem's among them."""
    return 1 + sum("_s2_" in blocks[0] for blocks in stages)
