"""Predict: a trained model and image files in, the likeliest classes of each out."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from nas.core.errors import OptionError
from nas.core.system import processors
from nas.data import augment
from nas.data.batches import Input
from nas.data.images import SUFFIXES, Array, decode, quiet, shrink
from nas.data.loader import stored_side
from nas.data.pixels import reason_of
from nas.data.walk import images_below
from nas.hardware.torch_device import torch_device
from nas.models.build import Model
from nas.training.diagnosis import FIELD
from nas.training.result import Likelihood, Prediction, PredictResult
from nas.training.trained import trained_input
from nas.training.weights.load import open_trained

SCHEMA = 1
BATCH = 64


def predict(
    source: str | Path,
    paths: str | Path | Sequence[str | Path],
    *,
    top: int = 5,
    device: str = "auto",
) -> PredictResult:
    """Return the `top` classes of each image with their probabilities.

    `source` is a train run, a search that trained, or one of `find_weights`, as `pretrained`, which
    knows ImageNet's classes. `paths` are files and folders, or one of them; of a folder all images
    inside are taken. An
    image that cannot be read is a row with its `error`; `failed` counts these.

    Raises:
        OptionError: there is no trained model, or no images.
        MissingError: Pillow is not installed.
        RunError: the model's files are damaged, or its weights not finite.
    """
    if top < 1:
        raise OptionError(f"--top takes a whole number of at least 1, not {top}")
    place = torch_device(device)
    files = image_files([paths] if isinstance(paths, str | Path) else paths)
    if not files:
        raise OptionError("predict needs images: name files or folders after the run")
    model, config = open_trained(source)
    model, taken, classes = model.to(place), trained_input(config), config["classes"]
    rows: list[Prediction] = []
    with ThreadPoolExecutor(processors()) as pool, quiet():
        for start in range(0, len(files), BATCH):
            part = files[start : start + BATCH]
            images = list(pool.map(lambda file: read_image(file, taken), part))
            said = iter(_answers(model, images, taken, place))
            rows += [
                Prediction(path=file, error=image)
                if isinstance(image, str)
                else Prediction(path=file, top=_top(next(said), classes, top))
                for file, image in zip(part, images, strict=True)
            ]
    return PredictResult(
        schema=SCHEMA,
        run=Path(source),
        images=tuple(rows),
        failed=sum(bool(row.error) for row in rows),
        warning=config.get(FIELD, ""),
    )


@torch.no_grad()
def _answers(
    model: Model, images: Sequence[Array | str], taken: Input, device: str
) -> list[Tensor]:
    """Return the probabilities (classes,) of the images that could be read."""
    good = [image for image in images if not isinstance(image, str)]
    if not good:
        return []
    x = augment.finish(views_of(good, taken).to(device), *taken.scale(device))
    return list(model(x).float().softmax(1).cpu())


def views_of(images: Sequence[Array], taken: Input) -> Tensor:
    """Return the part of each image that a net sees, as uint8 (N, 3, S, S)."""
    store, every = augment.store_images(images), torch.arange(len(images))
    return augment.plain_crops(store, every, taken.size, crop_pct=taken.crop_pct)


def image_files(paths: Sequence[str | Path]) -> list[Path]:
    """Return the files among the paths, and the images in and below the folders, sorted.

    Raises:
        OptionError: a folder holds no images, or cannot be read.
    """
    return [file for path in paths for file in _files(Path(path))]


def _files(path: Path) -> list[Path]:
    """Return a file itself, or the images of a folder and those below it, sorted."""
    if not path.is_dir():
        return [path]  # if it does not exist, reading it says so
    if not (found := images_below(path)):
        raise OptionError(f"{path} holds no images: {', '.join(SUFFIXES)} are looked for")
    return found


def read_image(file: Path, taken: Input) -> Array | str:
    """Return an image not much larger than what a net takes, or why it cannot be read."""
    side = stored_side(taken.size)
    try:
        return shrink(decode(file.read_bytes(), at_least=side, decoding=taken.decoding), side)
    except OSError as error:
        return reason_of(error)


def _top(row: Tensor, classes: Sequence[str], top: int) -> tuple[Likelihood, ...]:
    values, indices = row.topk(min(top, len(classes)))
    pairs = zip(indices.tolist(), values.tolist(), strict=True)
    return tuple(Likelihood(name=classes[i], probability=value) for i, value in pairs)
