"""Learnt policies and views of single images; and what is said where torchvision does not fit."""

import sys
from collections.abc import Sequence
from importlib import metadata

import numpy as np
import pytest
import torch
from torch import Tensor
from views import train_crops

from nas.core.errors import MissingError, OptionError
from nas.data import augment, policies
from nas.training.recipe import Augment

try:
    policies.vision("this test")
    LACKING = ""
except MissingError as error:
    LACKING = str(error)
with_torchvision = pytest.mark.skipif(bool(LACKING), reason=LACKING or "-")


class _Finder:
    """An import that fails as a torchvision that was built for another torch does."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: object = None
    ) -> None:
        if name.partition(".")[0] == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist\nand more")


@pytest.fixture
def mismatched(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_Finder(), *sys.meta_path])


def images(count: int = 20, size: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    # smooth, so that a geometric change is one of few pixels
    coarse = torch.rand(count, 3, 4, 4, generator=generator) * 255
    smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    return smooth.to(torch.uint8).contiguous(memory_format=torch.channels_last)


def test_a_mismatched_torchvision_is_named_with_both_versions(
    mismatched: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "version", lambda _: "0.1.2")
    monkeypatch.setattr(torch, "__version__", "2.13.0+cpu")
    with pytest.raises(MissingError) as caught:
        policies.make_policy(Augment(policy="autoaugment"), 32)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("policy=autoaugment needs torchvision, but torchvision 0.1.2 does")
    assert "torch 2.13.0+cpu (operator torchvision::nms does not exist)" in message
    assert "pip install --force-reinstall torch==2.13.0 torchvision" in message
    assert message.endswith("--index-url https://download.pytorch.org/whl/cpu")


def test_an_absent_torchvision_is_named_with_torchs_version(
    mismatched: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    monkeypatch.setattr(torch, "__version__", "2.13.0")
    with pytest.raises(MissingError) as caught:
        policies.sample_transform(Augment(), 32, 1.0)
    assert str(caught.value).endswith(
        "needs torchvision, which is not installed beside torch 2.13.0: "
        "pip install torch==2.13.0 torchvision"
    )


def test_without_a_policy_torchvision_is_not_asked_for(mismatched: None) -> None:
    assert policies.make_policy(Augment(), 32) is None


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        (Augment(policy="mixup"), "not 'mixup'"),
        (Augment(policy="randaugment", magnitude=31), "magnitude must be 0..30, not 31"),
    ],
)
def test_what_no_policy_can_be_is_refused(recipe: Augment, says: str) -> None:
    with pytest.raises(OptionError, match=says):
        policies.make_policy(recipe, 32)


def test_seeded_draws_leave_the_generator_as_it_was() -> None:
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    with policies.seeded(1):
        first = torch.rand(3)
    assert torch.equal(torch.rand(3), wanted)
    with pytest.raises(ZeroDivisionError), policies.seeded(1):
        assert torch.equal(torch.rand(3), first)
        raise ZeroDivisionError
    with policies.seeded(2):
        assert not torch.equal(torch.rand(3), first)


@with_torchvision
@pytest.mark.parametrize("name", ["autoaugment", "randaugment"])
@pytest.mark.parametrize("size", [32, 96])
def test_a_group_shares_a_policy_and_groups_differ(name: str, size: int) -> None:
    policy = policies.make_policy(Augment(policy=name), size)
    assert policy
    same = images(1, size).expand(32, -1, -1, -1)
    views = policies.apply_policy(policy, same, range(4))
    assert views.dtype == torch.uint8 and views.shape == same.shape
    kinds = [{view.numpy().tobytes() for view in group} for group in views.split(policies.GROUP)]
    assert [len(kind) for kind in kinds] == [1] * 4
    assert len(set.union(*kinds)) >= 3


@with_torchvision
def test_a_policy_depends_on_its_groups_seed_alone() -> None:
    policy = policies.make_policy(Augment(policy="randaugment"), 32)
    assert policy
    batch = images(20)
    state = torch.get_rng_state()
    whole = policies.apply_policy(policy, batch, [11, 12, 13])
    torch.rand(5)
    parts = [policies.apply_policy(policy, batch[8 * i : 8 * i + 8], [11 + i]) for i in range(3)]
    assert torch.equal(whole, torch.cat(parts))
    torch.set_rng_state(state)
    assert torch.equal(policies.apply_policy(policy, batch, [11, 12, 13]), whole)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(policies.apply_policy(policy, batch, [1, 2, 3]), whole)


@with_torchvision
def test_layers_and_magnitude_say_how_strong_randaugment_is() -> None:
    batch = images(64)

    def strength(**options: int) -> float:
        policy = policies.make_policy(Augment(policy="randaugment", **options), 32)
        assert policy
        views = policies.apply_policy(policy, batch, range(8))
        return float((views.float() - batch.float()).abs().mean())

    assert strength(layers=0) == 0
    assert strength(layers=1, magnitude=30) > strength(layers=1, magnitude=3) > 0
    assert strength(layers=3, magnitude=9) > strength(layers=1, magnitude=9)


@with_torchvision
@pytest.mark.parametrize("crop_pct", [1.0, 0.875])
@pytest.mark.parametrize("size", [(64, 64), (73, 100)])
def test_without_variation_a_sample_is_the_plain_view(
    size: tuple[int, int], crop_pct: float
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    stored = augment.short_side(64, crop_pct)
    if min(size) != stored:
        image = image[:stored, :stored]
    still = policies.sample_transform(Augment(crop="none", flip=False), 64, crop_pct)
    store = augment.store_images([image])
    plain = augment.plain_crops(store, torch.tensor([0]), 64, crop_pct=crop_pct)[0]
    view = still(torch.from_numpy(image).permute(2, 0, 1))
    # only where the image is enlarged is a pixel anything but copied
    assert (view.int() - plain.int()).abs().max() <= (0 if min(image.shape[:2]) == stored else 2)


@with_torchvision
def test_shifted_samples_are_the_batched_ones() -> None:
    image = np.random.default_rng(0).integers(1, 256, (32, 32, 3), dtype=np.uint8)
    recipe = Augment(crop="shift", shift=0.0625)
    single = policies.sample_transform(recipe, 32, 1.0)
    with policies.seeded(0):
        alone = {
            single(torch.from_numpy(image).permute(2, 0, 1)).numpy().tobytes() for _ in range(400)
        }
    index = torch.zeros(400, dtype=torch.long)
    generator = torch.Generator().manual_seed(0)
    views = train_crops(augment.store_images([image]), index, 32, recipe, generator)
    batched = {view.contiguous().numpy().tobytes() for view in views}
    assert alone == batched and len(alone) == 2 * 25


@with_torchvision
def test_samples_have_a_policy_and_a_part_of_their_own() -> None:
    recipe = Augment(crop="resized", policy="autoaugment")
    transform = policies.sample_transform(recipe, 32, 0.875)
    with policies.seeded(0):
        views = [transform(images(1, 48)[0]) for _ in range(30)]
    assert all(view.shape == (3, 32, 32) and view.dtype == torch.uint8 for view in views)
    assert len({view.numpy().tobytes() for view in views}) == 30
