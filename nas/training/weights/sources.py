"""Where weights to start from are found: runs, files, and what other libraries publish."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from nas.core import run_folder
from nas.core.errors import OptionError, RunError
from nas.data.batches import Input, Triple
from nas.models.arch import Arch
from nas.models.build import Features, Model
from nas.training.checkpoint import read_weights
from nas.training.trained import CONFIG, find_trained, numbers
from nas.training.weights.naming import origin, renamed


@dataclass(frozen=True)
class Weights:
    """Trained weights of one network, with all that they were trained with.

    `tensors` are under our names. `arch`: the network that they give the right logits in, with its
    padding and norm; its classifier may be of other classes than the tensors say. `input`: the
    preprocessing; None where the source does not tell it. `classes`: names of the outputs, () where
    unknown. `told`: the source in words, for messages.
    """

    tensors: Mapping[str, Tensor]
    arch: Arch
    input: Input | None = None
    classes: tuple[str, ...] = ()
    told: str = ""


def find_weights(source: str | Path, arch: Arch | None = None) -> Weights:
    """Return the weights that a source names: for `arch`, or of the network that the source names.

    Raises:
        OptionError: there are no such weights, they are of another arch, or no arch is given and
            the source does not tell one.
        RunError: a file is damaged.
        MissingError: the package that has them is not installed.
    """
    raise NotImplementedError


def initial_weights(model: Model, source: Path) -> dict[str, Tensor]:
    """Return the weights of a run or a safetensors file that a model can start from.

    The classifier is left out where its shape differs, as with other classes.

    Raises:
        OptionError: there is no such file, or the weights are of another arch.
        RunError: the file is damaged.
    """
    return fitting(model, weights_of(source), f"--init {source}")


def weights_of(source: Path) -> dict[str, Tensor]:
    """Return the weights of a run or of a safetensors file.

    Raises:
        OptionError: there is no such file or trained model.
        RunError: the file is damaged.
    """
    return read_weights(source if source.is_file() else find_trained(source)[1])


def fitting(
    model: Model | Features, weights: Mapping[str, Tensor], source: str
) -> dict[str, Tensor]:
    """Return those of the weights that a model has; its classifier may be of other classes.

    Names may be those of timm or torchvision, where it is a net of theirs.

    Raises:
        OptionError: the weights are of another arch; the message names them as `source`.
    """
    own = model.state_dict()
    body = isinstance(model, Features)
    if not body and not set(own) & set(weights) and (library := origin(list(weights))):
        found = renamed(weights, own)
        if found is None:
            raise OptionError(
                f"{source} holds weights under the names of {library}, of another net than this: "
                "take the arch that reproduces it (`nas ls baselines`)"
            )
        return found
    classifier = [] if body else list(own)[-2:]  # weight and bias
    missing = [
        name
        for name, tensor in own.items()
        if name not in classifier and (name not in weights or weights[name].shape != tensor.shape)
    ]
    missing += [n for n in weights if n not in own and not (body and n.startswith("head."))]
    if missing:
        raise OptionError(
            f"{source} holds the weights of another arch: {missing[0]} is not "
            "in both, or of another shape; take the arch they belong to"
        )
    return {
        name: tensor
        for name, tensor in weights.items()
        if name in own and tensor.shape == own[name].shape
    }


def normal_of(source: Path) -> tuple[Triple, Triple] | None:
    """Return the mean and standard deviation that weights were trained with; None: not known.

    `source` is a run, or a weights file, whose config.json lies beside it or a folder above.

    Raises:
        RunError: that config.json is damaged.
    """
    above = [source.parent, source.parent.parent] if source.is_file() else []
    places = [source, source / "best", *above]
    path = next((place / CONFIG for place in places if (place / CONFIG).is_file()), None)
    described = run_folder.read_json(path) if path else {}
    if not isinstance(described, dict) or not {"mean", "std"} <= described.keys():
        return None
    mean, std = described["mean"], described["std"]
    if not numbers(mean, 3) or not numbers(std, 3) or min(std) <= 0:
        raise RunError(f"{path} is damaged: mean and std must be 3 numbers each, std above 0")
    return tuple(map(float, mean)), tuple(map(float, std))  # type: ignore[return-value]
