"""A fresh net guesses: its first loss is ln(classes), for all baselines, spaces and new heads."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from nas.core import registry
from nas.models.arch import Arch
from nas.models.build import Model
from nas.models.cost import count
from nas.models.load import baselines
from nas.searching.samplers import random_choices
from nas.training.checkpoint import write_weights
from nas.training.weights.sources import initial_weights

pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES = (2, 3, 10, 100, 1000)
SIDE, POINTS = 32, 4
LARGE = 25e6  # parameters, from which on a net takes seconds
SPACES = {name: registry.export("spaces", name, "SPACE") for name in registry.names("spaces")}


def images(seed: int = 0) -> Tensor:
    """Return a batch like normalised photographs (16, 3, 32, 32): colours, shapes and noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(16, 3, 5, 5, generator=generator)
    shapes = functional.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear")
    return 1.3 * shapes + 0.3 * torch.randn(16, 3, SIDE, SIDE, generator=generator)


def check(model: Model, heads: Sequence[int]) -> None:
    """Assert that a model has the loss of guessing, with its own head and with these fresh ones."""
    with torch.no_grad():
        maps = model.train().forward_features(images())
        for classes in (0, *heads):
            if classes:
                model.reset_classifier(classes)
            logits = model.forward_head(maps)
            labels = torch.arange(16) % logits.shape[1]
            loss = functional.cross_entropy(logits, labels).item()
            assert loss == pytest.approx(math.log(logits.shape[1]), rel=0.1)


def check_arch(arch: Arch) -> None:
    torch.manual_seed(0)
    check(Model(replace(arch, head=replace(arch.head, classes=CLASSES[0]))), CLASSES[1:])


def sized(name: str) -> object:
    large = count(baselines()[name], SIDE).params > LARGE
    return pytest.param(name, marks=pytest.mark.slow if large else ())


@pytest.mark.parametrize("name", [sized(name) for name in baselines()])
def test_a_fresh_baseline_guesses(name: str) -> None:
    check_arch(baselines()[name])


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("seed", range(POINTS))
def test_fresh_points_of_a_space_guess(name: str, seed: int) -> None:
    space = SPACES[name]
    check_arch(space.decode(random_choices(space, random.Random(seed))))


@pytest.mark.parametrize("classes", CLASSES)
def test_a_new_head_on_trained_weights_guesses(classes: int, tmp_path: Path) -> None:
    arch = SPACES["mbconv_small"].decode(
        {name: options[0] for name, options in SPACES["mbconv_small"].choices.items()}
    )
    torch.manual_seed(0)
    parent = Model(replace(arch, head=replace(arch.head, classes=7)))
    optimizer = torch.optim.SGD(parent.parameters(), 0.1, 0.9)
    labels = torch.arange(16) % 7
    for _ in range(15):  # the features grow, and tell images apart
        optimizer.zero_grad()
        functional.cross_entropy(parent(images()), labels).backward()
        optimizer.step()
    write_weights(tmp_path / "weights.safetensors", parent.state_dict())
    child = Model(replace(arch, head=replace(arch.head, classes=classes)))
    taken = initial_weights(child, tmp_path / "weights.safetensors")
    assert (len(child.state_dict()) - len(taken) == 2) == (classes != 7)
    child.load_state_dict(taken, strict=False)
    check(child, [classes + 1])
