"""What torchvision.transforms.v2 does for us: learnt policies, and views of one image at a time.

torchvision is tied to one version of torch; where it is absent or does not fit, only what is asked
for here is missing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from types import ModuleType

import torch
from torch import Tensor

from nas.core.errors import MissingError, OptionError, first_line
from nas.data.augment import ASPECTS, short_side
from nas.data.augment_settings import POLICIES, Augment

GROUP = 8  # images of a batch that share one drawn policy
BINS = 31  # of RandAugment's magnitude in torchvision: 0..30
SMALL = 64  # views up to this side take the policy learnt on CIFAR-10, larger ones ImageNet's
GREY = 128  # what geometric operations uncover, as in the TPU reference

Transform = Callable[[Tensor], Tensor]


def vision(reason: str) -> ModuleType:
    """Return torchvision.transforms.v2.

    Raises:
        MissingError: it is absent, or made for another torch; the message starts with `reason`.
    """
    try:
        from torchvision.transforms import v2
    except Exception as error:  # a mismatched build fails in many ways
        raise MissingError(_missing(reason, error)) from None
    module: ModuleType = v2
    return module


def _missing(reason: str, error: Exception) -> str:
    """Return the line that says which versions there are and how to get a pair that fits."""
    release, _, build = torch.__version__.partition("+")
    pair = f"torch=={release} torchvision"
    index = f" --index-url https://download.pytorch.org/whl/{build}" if build else ""
    try:
        version = metadata.version("torchvision")
    except metadata.PackageNotFoundError:
        return (
            f"{reason} needs torchvision, which is not installed beside torch {torch.__version__}: "
            f"pip install {pair}{index}"
        )
    return (
        f"{reason} needs torchvision, but torchvision {version} does not fit torch "
        f"{torch.__version__} ({first_line(error)}): pip install --force-reinstall {pair}{index}"
    )


def make_policy(augment: Augment, size: int) -> Transform | None:
    """Return the policy for uint8 images (..., 3, size, size); None where there is none.

    AutoAugment: arXiv:1805.09501, of CIFAR-10 up to 64 px, else of ImageNet. RandAugment:
    arXiv:1909.13719, `layers` operations of `magnitude` 0..30 on torchvision's scale. All images
    of a call are treated alike; what is drawn comes from torch's CPU generator.

    Raises:
        MissingError: there is no torchvision that fits.
        OptionError: the magnitude or the number of layers is out of range.
    """
    if augment.policy == "none":
        return None
    _check(augment)
    v2 = vision(f"policy={augment.policy}")
    if augment.policy == "autoaugment":
        kinds = v2.AutoAugmentPolicy
        kind = kinds.CIFAR10 if size <= SMALL else kinds.IMAGENET
        learnt: Transform = v2.AutoAugment(kind, fill=GREY)
        return learnt
    drawn: Transform = v2.RandAugment(augment.layers, augment.magnitude, BINS, fill=GREY)
    return drawn


def _check(augment: Augment) -> None:
    if augment.policy not in POLICIES:
        raise OptionError(f"policy must be one of {', '.join(POLICIES)}, not {augment.policy!r}")
    if augment.policy == "randaugment" and not 0 <= augment.magnitude < BINS:
        raise OptionError(f"magnitude must be 0..{BINS - 1}, not {augment.magnitude}")


def apply_policy(policy: Transform, views: Tensor, seeds: Sequence[int]) -> Tensor:
    """Return uint8 views (B, 3, S, S) after the policy, drawn anew for each group of 8 images.

    `seeds`: one for each group. The policy of a group depends on its seed alone.
    """
    parts = []
    for group, seed in zip(torch.split(views, GROUP), seeds, strict=True):
        with seeded(seed):
            parts.append(policy(group))
    return torch.cat(parts)


def sample_transform(augment: Augment, size: int, crop_pct: float) -> Transform:
    """Return what makes a training view, uint8 (3, size, size), of one uint8 image (3, H, W).

    The views of `nas.data.augment.train_boxes` but for antialiasing, and with a policy of its own
    for each image. Without the cutout. What is drawn comes from torch's CPU generator.

    Raises:
        MissingError: there is no torchvision that fits.
        OptionError: as of `make_policy`.
    """
    v2 = vision("data that does not fit into memory")
    steps = _crops(v2, augment, size, crop_pct)
    if augment.flip:
        steps.append(v2.RandomHorizontalFlip())
    policy = make_policy(augment, size)
    made: Transform = v2.Compose(steps + ([policy] if policy else []))
    return made


def _crops(v2: ModuleType, augment: Augment, size: int, crop_pct: float) -> list[Transform]:
    if augment.crop == "resized":
        return [v2.RandomResizedCrop(size, augment.scale, ASPECTS, antialias=True)]
    whole = v2.Resize(short_side(size, crop_pct), antialias=True)
    if augment.crop == "none":
        return [whole, v2.CenterCrop(size)]
    reach = round(augment.shift * size)
    return [whole, v2.CenterCrop(size + 2 * reach), v2.RandomCrop(size)]


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Have torch's CPU generator draw from `seed`; afterwards it goes on as if nothing was drawn.

    torch.manual_seed would also reseed every GPU, and with it dropout.
    """
    generator = torch.default_generator
    state = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(state)
