"""Optimisers against hand-written references, schedules against their formulas, the average."""

import dataclasses
import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from nas.training import optim
from nas.training.recipe import Recipe

Array = npt.NDArray[np.float64]
torch.set_num_threads(1)

PLAIN = Recipe("plain", "test", "-", 10, 128, "sgd", 0.4, "one_cycle")


def small_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 1),
        nn.GroupNorm(2, 4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
    )


def descend(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        x = torch.randn(4, 3, 8, 8, generator=generator)
        y = torch.randint(5, (4,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def saved(state: Any) -> Any:
    """Return a state as a checkpoint gives it back: without pickled code."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def tensorflow(value: Array, grads: list[Array], lrs: list[float], decay: float) -> Array:
    """Apply the formulas of tf.compat.v1.train.RMSPropOptimizer, one element at a time."""
    out = value.copy()
    for index in np.ndindex(value.shape):
        mean_square, momentum, x = 1.0, 0.0, float(value[index])
        for gradient, lr in zip(grads, lrs, strict=True):
            g = float(gradient[index]) + decay * x
            mean_square += (g * g - mean_square) * (1 - 0.9)
            momentum = 0.9 * momentum + lr * g / math.sqrt(mean_square + 1e-3)
            x -= momentum
        out[index] = x
    return out


@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_rmsprop_is_tensorflows(decay: float) -> None:
    rng = np.random.default_rng(0)
    lrs = [0.1, 0.2, 0.05, 0.05, 0.0, 0.3]
    starts = [rng.normal(size=shape) for shape in [(3, 2), (4,), ()]]
    grads = [[rng.normal(size=start.shape) for _ in lrs] for start in starts]
    params = [nn.Parameter(torch.tensor(start)) for start in starts]
    optimizer = optim.RMSpropTF(params, lr=1.0, weight_decay=decay)
    for step, lr in enumerate(lrs):
        optimizer.param_groups[0]["lr"] = lr
        for param, given in zip(params, grads, strict=True):
            param.grad = torch.tensor(given[step])
        optimizer.step()
    for param, start, given in zip(params, starts, grads, strict=True):
        wanted = tensorflow(start, given, lrs, decay)
        np.testing.assert_allclose(param.detach().numpy(), wanted, rtol=1e-12, atol=1e-14)


def test_rmsprop_differs_from_torchs() -> None:
    ours, theirs = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    mine = optim.RMSpropTF([ours], 0.1)
    other = torch.optim.RMSprop([theirs], 0.1, alpha=0.9, eps=1e-3, momentum=0.9)
    for param, optimizer in ((ours, mine), (theirs, other)):
        param.grad = torch.full((1,), 0.01)
        optimizer.step()
    # from a mean square of 1 the first step is about lr * g, from 0 it is lr / sqrt(0.1)
    assert 1 - ours.item() == pytest.approx(0.1 * 0.01 / math.sqrt(0.90101), rel=1e-3)
    assert 1 - theirs.item() > 0.2


def test_rmsprop_leaves_alone_what_has_no_gradient() -> None:
    used, idle = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = optim.RMSpropTF([used, idle], 0.1, weight_decay=0.1)
    used.grad = torch.ones(2)
    optimizer.step()
    assert torch.equal(idle, torch.ones(2)) and not torch.equal(used, torch.ones(2))
    assert set(optimizer.state) == {used}
    optimizer.zero_grad()
    optimizer.step()  # nothing to do at all


def test_rmsprop_calls_its_closure_with_gradients() -> None:
    param = nn.Parameter(torch.tensor([3.0]))
    optimizer = optim.RMSpropTF([param], 0.1)

    def closure() -> float:
        optimizer.zero_grad()
        loss = (param**2).sum()
        loss.backward()
        return loss.item()

    losses = [optimizer.step(closure) for _ in range(5)]
    assert losses[0] == 9.0 and losses[-1] is not None and losses[-1] < 5.0


def test_the_update_keeps_the_memory_layout() -> None:
    param = nn.Parameter(torch.randn(4, 3, 3, 3).to(memory_format=torch.channels_last))
    param.grad = torch.randn_like(param)
    optimizer = optim.RMSpropTF([param], 0.1)
    optimizer.step()
    for value in (param, *optimizer.state[param].values()):
        assert value.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", ["rmsprop_tf", "sgd", "adamw"])
def test_a_checkpoint_of_the_optimizer_goes_on_exactly(name: str) -> None:
    recipe = dataclasses.replace(PLAIN, optimizer=name, weight_decay=0.01)
    straight, first = small_model(), small_model()
    one, two = (optim.make_optimizer(model, recipe, 0.01) for model in (straight, first))
    descend(straight, one, 3)
    descend(first, two, 3)
    resumed = small_model()
    resumed.load_state_dict(saved(first.state_dict()))
    three = optim.make_optimizer(resumed, recipe, 0.5)
    three.load_state_dict(saved(two.state_dict()))
    descend(straight, one, 3, seed=2)
    descend(resumed, three, 3, seed=2)
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["rmsprop_tf", "sgd", "adamw"])
def test_weight_decay_is_on_weights_of_convolutions_and_linear_layers_only(name: str) -> None:
    model = small_model()
    before = {key: value.clone() for key, value in model.named_parameters()}
    recipe = dataclasses.replace(PLAIN, optimizer=name, weight_decay=0.1, momentum=0.0)
    optimizer = optim.make_optimizer(model, recipe, 0.5)
    for param in model.parameters():
        param.grad = torch.zeros_like(param)
    optimizer.step()
    shrunk = {key for key, value in model.named_parameters() if not value.equal(before[key])}
    assert shrunk == {"0.weight", "2.weight", "6.weight"}
    share = (model[0].weight / before["0.weight"]).detach()
    if name != "rmsprop_tf":  # decoupled and L2 coincide here: 1 - lr * decay
        torch.testing.assert_close(share, torch.full_like(share, 0.95))


def test_adamw_decays_apart_from_its_gradient() -> None:
    param = nn.Linear(1, 1, bias=False)
    recipe = dataclasses.replace(PLAIN, optimizer="adamw", weight_decay=0.1)
    optimizer = optim.make_optimizer(param, recipe, 0.1)
    nn.init.constant_(param.weight, 10.0)
    param.weight.grad = torch.ones_like(param.weight)
    optimizer.step()
    # an L2 penalty would be normalised away: 10 - 0.1
    assert param.weight.item() == pytest.approx(10 * (1 - 0.1 * 0.1) - 0.1, rel=1e-5)


def test_frozen_parameters_are_left_out() -> None:
    model = small_model()
    model[:-1].requires_grad_(False)
    optimizer = optim.make_optimizer(model, PLAIN, 0.1)
    given = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert given == {id(model[-1].weight), id(model[-1].bias)}


@pytest.mark.parametrize("name", ["rmsprop_tf", "sgd", "adamw"])
def test_every_group_follows_the_learning_rate(name: str) -> None:
    model = small_model()
    recipe = dataclasses.replace(PLAIN, optimizer=name, weight_decay=0.1)
    optimizer = optim.make_optimizer(model, recipe, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = [value.clone() for value in model.parameters()]
    descend(model, optimizer, 1)
    for old, new in zip(before, model.parameters(), strict=True):
        assert torch.equal(old, new)


def test_the_learning_rate_is_linear_in_the_batch() -> None:
    assert optim.scaled_lr(PLAIN, 256) == 0.4
    assert optim.scaled_lr(PLAIN, 64) == pytest.approx(0.1)


def factors(recipe: Recipe, epochs: int, steps_per_epoch: int) -> list[float]:
    steps = epochs * steps_per_epoch
    return [optim.lr_at(recipe, step, steps, steps_per_epoch) for step in range(steps)]


def exponential(step: int, warmup: float, stair: float) -> float:
    """Apply the formulas of TensorFlow's released EfficientNet (utils.build_learning_rate)."""
    return step / warmup if step < warmup else 0.97 ** math.floor(step / stair)


def test_the_exponential_schedule_is_tensorflows() -> None:
    recipe = dataclasses.replace(PLAIN, schedule="exponential", epochs=20, warmup_epochs=5)
    found = factors(recipe, 20, 100)
    wanted = [exponential(step, 500, 240) for step in range(2000)]
    # the warm-up is taken at the middle of a step, so that the first one learns too
    np.testing.assert_allclose(found[:500], np.array(wanted[:500]) + 0.5 / 500)
    np.testing.assert_allclose(found[500:], wanted[500:])


def test_a_short_training_shrinks_warm_up_and_stairs_with_it() -> None:
    recipe = dataclasses.replace(PLAIN, schedule="exponential", epochs=350, warmup_epochs=5)
    full, short = factors(recipe, 350, 20), factors(recipe, 35, 200)
    np.testing.assert_allclose(full, short)
    assert factors(recipe, 7, 100)[-1] == pytest.approx(0.97**145, rel=0.1)


def test_a_longer_training_goes_on_decaying() -> None:
    recipe = dataclasses.replace(PLAIN, schedule="exponential", epochs=10, warmup_epochs=1)
    long, short = factors(recipe, 20, 50), factors(recipe, 10, 50)
    assert long[: len(short)] == short and long[-1] == pytest.approx(0.97**8)


def test_one_cycle_is_a_triangle_and_cosine_half_a_wave() -> None:
    recipe = dataclasses.replace(PLAIN, warmup_epochs=2.5)
    line = factors(recipe, 10, 40)
    np.testing.assert_allclose(line, np.interp(np.arange(400) + 0.5, [0, 100, 400], [0, 1, 0]))
    curve = factors(dataclasses.replace(recipe, schedule="cosine"), 10, 40)
    np.testing.assert_allclose(curve[:100], line[:100])
    t = (np.arange(100, 400) + 0.5 - 100) / 300
    np.testing.assert_allclose(curve[100:], (1 + np.cos(np.pi * t)) / 2)


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "exponential"])
@pytest.mark.parametrize("warmup", [0.0, 0.3, 5.0, 9.99])
@pytest.mark.parametrize(("epochs", "per_epoch"), [(1, 1), (1, 3), (3, 1), (10, 7), (40, 2)])
def test_every_factor_is_a_positive_share(
    schedule: str, warmup: float, epochs: int, per_epoch: int
) -> None:
    recipe = dataclasses.replace(PLAIN, schedule=schedule, warmup_epochs=warmup)
    found = factors(recipe, epochs, per_epoch)
    assert all(0 < factor <= 1 for factor in found)


def averaged(model: nn.Module, decay: float = 0.9) -> torch.optim.swa_utils.AveragedModel:
    ema = optim.make_ema(model, dataclasses.replace(PLAIN, ema=decay))
    assert ema
    return ema


def test_no_average_without_a_decay() -> None:
    assert optim.make_ema(small_model(), PLAIN) is None


def test_the_average_warms_up_as_tensorflows() -> None:
    model, shadow = nn.Linear(1, 1, bias=False), 0.0
    ema = averaged(model, 0.7)
    for n in range(60):
        value = math.sin(n)
        nn.init.constant_(model.weight, value)
        ema.update_parameters(model)
        decay = min(0.7, (1 + n) / (10 + n)) if n else 0.0  # the first is copied
        shadow = decay * shadow + (1 - decay) * value
        assert ema.module.weight.item() == pytest.approx(shadow, abs=1e-5)
    assert ema.n_averaged.item() == 60


def test_norm_statistics_are_averaged_and_counters_copied() -> None:
    model = small_model()
    ema = averaged(model)
    norm, mean = model[1], ema.module[1]
    for value in (1.0, 2.0, 5.0):
        norm.running_mean.fill_(value)
        norm.num_batches_tracked.fill_(int(value))
        ema.update_parameters(model)
    wanted = 1.0
    for n, value in ((1, 2.0), (2, 5.0)):
        decay = (1 + n) / (10 + n)
        wanted = decay * wanted + (1 - decay) * value
    torch.testing.assert_close(mean.running_mean, torch.full((4,), wanted))
    assert mean.num_batches_tracked.item() == 5


def test_the_average_neither_trains_nor_counts_batches() -> None:
    model = small_model().train()
    ema = averaged(model)
    assert not any(param.requires_grad for param in ema.parameters())
    before = ema.module[1].running_mean.clone()
    ema(torch.randn(4, 3, 8, 8))
    assert torch.equal(ema.module[1].running_mean, before) and model.training
    assert all(param.requires_grad for param in model.parameters())


def test_the_average_follows_weights_that_are_loaded() -> None:
    model = small_model()
    ema = averaged(model)
    ema.update_parameters(model)
    model.load_state_dict({key: value + 1 for key, value in model.state_dict().items()})
    for _ in range(2):  # the decay of the second is 2 / 11, of the third 3 / 12
        ema.update_parameters(model)
    left = 2 / 11 * 3 / 12
    for mean, value in zip(ema.module.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(mean, (value - left).detach())


def test_a_checkpoint_of_the_average_goes_on_exactly() -> None:
    model = small_model()
    optimizer = optim.make_optimizer(model, PLAIN, 0.1)
    straight, first = averaged(model, 0.99), averaged(model, 0.99)
    for seed in range(5):
        descend(model, optimizer, 1, seed)
        straight.update_parameters(model)
        first.update_parameters(model)
    resumed = averaged(small_model(), 0.99)
    resumed.load_state_dict(saved(first.state_dict()))
    assert resumed.n_averaged.item() == 5
    for seed in range(5, 10):
        descend(model, optimizer, 1, seed)
        straight.update_parameters(model)
        resumed.update_parameters(model)
    for a, b in zip(straight.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def minimise(make: Callable[[nn.Module], torch.optim.Optimizer]) -> float:
    model = small_model()
    x = torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    y = torch.arange(32) % 5
    optimizer, loss = make(model), torch.tensor(0.0)
    for _ in range(60):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    return loss.item()


@pytest.mark.parametrize(("name", "lr"), [("rmsprop_tf", 0.03), ("sgd", 0.1), ("adamw", 0.01)])
def test_every_optimizer_learns(name: str, lr: float) -> None:
    recipe = dataclasses.replace(PLAIN, optimizer=name, weight_decay=1e-4)
    assert minimise(lambda model: optim.make_optimizer(model, recipe, lr)) < 1.2
