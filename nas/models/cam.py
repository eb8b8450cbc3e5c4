"""Class activation maps: where in an image a net sees a class.

Sources: Zhou et al. 2016 (arXiv 1512.04150), class activation maps, as in Tan and Le 2019, Figure
7; Selvaraju et al. 2017 (arXiv 1610.02391), Grad-CAM, for heads that are not linear.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nas.core.errors import OptionError, did_you_mean
from nas.models.build import Model

METHODS = ("auto", "cam", "gradcam")


class Evidence(NamedTuple):
    """Logits (N, classes), and for one class of each image a map (N, h, w) of what speaks for it.

    The maps are as fine as the last convolution's output. By `cam` the mean of a map and the
    class's bias (N,) add up to its logit, exactly; by `gradcam` they do so to the first order only.
    """

    logits: Tensor
    classes: Tensor
    maps: Tensor
    bias: Tensor
    method: str  # cam or gradcam


def explain(
    model: Model, x: Tensor, classes: Tensor | None = None, method: str = "auto"
) -> Evidence:
    """Return the maps of images (N, C, H, W) for a class each; by default for the likeliest.

    `cam` weighs the channels of the last map by the classifier's weights; `gradcam` by the mean
    gradient of the logit, which is the same where the head is linear; `auto` takes cam there.

    Raises:
        OptionError: there is no such method, or `cam` is asked of a head with a hidden layer.
    """
    linear = not model.arch.head.hidden
    check_method(method)
    if method == "cam" and not linear:
        raise OptionError(
            f"{model.arch.name} has a hidden layer between its last map and the classifier, which "
            "cam cannot look through: use --method gradcam"
        )
    with torch.no_grad():
        last = last_map(model, x)
        logits = pooled(model, last)
    chosen = logits.argmax(1) if classes is None else classes
    taken = "cam" if linear and method != "gradcam" else "gradcam"
    weights = (
        model.get_classifier().weight[chosen].detach()
        if taken == "cam"
        else _gradients(model, last, chosen)
    )
    maps = torch.einsum("nk,nkhw->nhw", weights, last)
    return Evidence(logits, chosen, maps, model.get_classifier().bias[chosen].detach(), taken)


def check_method(method: str) -> None:
    """Refuse a method that there is not.

    Raises:
        OptionError: it is none of METHODS.
    """
    if method not in METHODS:
        raise OptionError(
            f"--method takes {', '.join(METHODS)}, not {method!r}{did_you_mean(method, METHODS)}"
        )


def last_map(model: Model, x: Tensor) -> Tensor:
    """Return what the head takes the mean of, (N, K, h, w)."""
    last = model.forward_features(x)
    for layer in list(model.head)[: _before_the_mean(model)]:
        last = layer(last)
    return last


def pooled(model: Model, last: Tensor) -> Tensor:
    """Return the logits (N, classes) that a last map gives."""
    for layer in list(model.head)[_before_the_mean(model) :]:
        last = layer(last)
    return last


def _gradients(model: Model, last: Tensor, classes: Tensor) -> Tensor:
    """Return the gradient of each image's logit by the means of the channels, (N, K)."""
    leaf = last.detach().requires_grad_()
    with torch.enable_grad():
        chosen = pooled(model, leaf).gather(1, classes[:, None]).sum()
    # a mean over h * w positions gives each of them 1 / (h * w) of its gradient
    return torch.autograd.grad(chosen, leaf)[0].sum((2, 3))


def _before_the_mean(model: Model) -> int:
    """Return how many layers of the head work on the map itself."""
    return 1 if model.arch.head.channels else 0
