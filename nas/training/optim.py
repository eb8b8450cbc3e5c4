"""What a recipe makes of an arch and its model: optimizer, learning rates, averaged weights."""

from __future__ import annotations

import dataclasses
import math
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from nas.models.arch import Arch
from nas.training.recipe import Recipe

REFERENCE_BATCH = 256  # images of the batch that a recipe's learning rate is stated for


class RMSpropTF(torch.optim.Optimizer):
    """RMSProp as TensorFlow has it, which EfficientNet and MnasNet were trained with.

    It differs from torch's in three ways: `eps` is added inside of the root, the mean square starts
    at 1, and the learning rate is part of what the momentum accumulates, so that a change of it
    acts gradually. `weight_decay` is an L2 penalty: it joins the gradient.

    Source: tf.compat.v1.train.RMSPropOptimizer.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        decay: float = 0.9,
        momentum: float = 0.9,
        eps: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {
            "lr": lr,
            "decay": decay,
            "momentum": momentum,
            "eps": eps,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient; return what the closure returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                _step(params, [self._state(p) for p in params], group)
        return loss

    def _state(self, param: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[param]
        if not state:
            state["mean_square"] = torch.ones_like(param)
            state["momentum"] = torch.zeros_like(param)
        return state


def _step(params: list[Tensor], states: list[dict[str, Tensor]], group: dict[str, Any]) -> None:
    """Update parameters of one group, all in a few kernels: hundreds of them are launches only."""
    grads = [p.grad for p in params if p.grad is not None]
    squares = [state["mean_square"] for state in states]
    momenta = [state["momentum"] for state in states]
    if group["weight_decay"]:
        grads = list(torch._foreach_add(grads, params, alpha=group["weight_decay"]))
    torch._foreach_mul_(squares, group["decay"])
    torch._foreach_addcmul_(squares, grads, grads, value=1 - group["decay"])
    roots = torch._foreach_add(squares, group["eps"])
    torch._foreach_sqrt_(roots)
    torch._foreach_mul_(momenta, group["momentum"])
    torch._foreach_addcdiv_(momenta, grads, roots, value=group["lr"])
    torch._foreach_sub_(params, momenta)


def arch_of(arch: Arch, recipe: Recipe) -> Arch:
    """Return the arch as it is trained: with the recipe's own dropouts and momentum, if any."""
    head, depth, norm = arch.head, arch.stochastic_depth, arch.norm
    if recipe.dropout is not None:
        head = dataclasses.replace(head, dropout=recipe.dropout)
    if recipe.stochastic_depth is not None:
        depth = recipe.stochastic_depth
    if recipe.norm_momentum is not None:
        norm = dataclasses.replace(norm, momentum=recipe.norm_momentum)
    return dataclasses.replace(arch, head=head, stochastic_depth=depth, norm=norm)


def make_optimizer(model: nn.Module, recipe: Recipe, lr: float) -> torch.optim.Optimizer:
    """Return the recipe's optimizer over what is trained of a model, at this learning rate.

    Weight decay acts on the weights of convolutions and linear layers, not on norms and biases:
    as an L2 penalty, but decoupled in AdamW (Loshchilov & Hutter 2019), whose first beta is the
    recipe's momentum. SGD is Nesterov's. Parameters without `requires_grad` are left out.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if recipe.optimizer == "rmsprop_tf":
        return RMSpropTF(groups, lr, momentum=recipe.momentum)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr, (recipe.momentum, 0.999), fused=True)
    nesterov = recipe.momentum > 0
    return torch.optim.SGD(groups, lr, recipe.momentum, nesterov=nesterov, fused=True)


def scaled_lr(recipe: Recipe, batch: int) -> float:
    """Return the learning rate for `batch` images a step, over all devices and accumulations."""
    return recipe.lr * batch / REFERENCE_BATCH


def lr_at(recipe: Recipe, step: int, steps: int, steps_per_epoch: int) -> float:
    """Return the share (0..1) of the scaled learning rate in step `step` (from 0) of `steps`.

    A linear rise over `warmup_epochs`; then down to 0 along a line (one_cycle: Smith & Topin 2017,
    its momentum left alone) or half a cosine (Loshchilov & Hutter 2017), or in stairs of
    `decay_rate` every `decay_epochs` counted from the start (exponential: as TensorFlow's released
    EfficientNet). A training shorter than the recipe's `epochs` shrinks these epochs with it.
    """
    epoch = min(steps_per_epoch, steps / recipe.epochs)  # one of the recipe's, in steps
    rise, middle = recipe.warmup_epochs * epoch, step + 0.5
    if middle < rise:
        return middle / rise
    if recipe.schedule == "exponential":
        return float(recipe.decay_rate ** (step // (recipe.decay_epochs * epoch)))
    left = (steps - middle) / (steps - rise)
    return left if recipe.schedule == "one_cycle" else (1 - math.cos(math.pi * left)) / 2


class Ema(AveragedModel):
    """AveragedModel that finds its tensors once: walking both models was 6 of 9 ms of an update.

    So neither may change device, memory format or layers after the first update. Its count stays
    on the CPU, where reading it waits for no device.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self.decay = decay
        self._followed: Callable[[], nn.Module | None] = lambda: None
        self._pairs: list[tuple[list[Tensor], list[Tensor]]] = []
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Move the average towards the model by one step."""
        if self._followed() is not model:
            self._followed, self._pairs = weakref.ref(model), _pairs(self.module, model)
        (means, values), (counters, counts) = self._pairs
        n = int(self.n_averaged)
        if n == 0:
            torch._foreach_copy_(means, values)
        else:
            decay = min(self.decay, (1 + n) / (10 + n))
            torch._foreach_lerp_(means, values, 1 - decay)
        if counters:
            torch._foreach_copy_(counters, counts)
        self.n_averaged += 1


def _pairs(average: nn.Module, model: nn.Module) -> list[tuple[list[Tensor], list[Tensor]]]:
    """Return the tensors of both that are averaged, then those that are counters."""
    both = zip(_tensors(average), _tensors(model), strict=True)
    sides: list[tuple[list[Tensor], list[Tensor]]] = [([], []), ([], [])]
    for mine, its in both:
        own, theirs = sides[not mine.is_floating_point()]
        own.append(mine)
        theirs.append(its)
    return sides


def _tensors(model: nn.Module) -> list[Tensor]:
    return [tensor.detach() for tensor in (*model.parameters(), *model.buffers())]


def make_ema(model: nn.Module, recipe: Recipe) -> AveragedModel | None:
    """Return a running average of a model's weights and norm statistics, or None without `ema`.

    After n updates the decay is min(ema, (1 + n) / (10 + n)), as TensorFlow's
    ExponentialMovingAverage(num_updates): a training of far fewer than 10 / (1 - ema) steps
    averages about its last tenth, so `ema` needs no adjusting to short ones. Whole numbers (batch
    counters) are copied. The average is in eval mode and without gradients; its state_dict holds
    `n_averaged`, n.
    """
    return Ema(model, recipe.ema) if recipe.ema else None
