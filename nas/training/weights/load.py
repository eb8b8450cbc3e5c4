"""Trained weights for a model: of a run, a file or a state dict."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from nas.core import run_folder
from nas.core.errors import OptionError
from nas.models.arch import Arch
from nas.models.build import Features, Model
from nas.models.load import Source, build_model
from nas.training.trained import VERBS, config_of, load_finite
from nas.training.weights.files import PICKLES
from nas.training.weights.sources import (
    Weights,
    built_as,
    find_weights,
    fitting,
    is_named,
    weights_in,
)


def load_weights(
    model: Model | Features | Source, source: str | Path | Mapping[str, Tensor] | None = None
) -> Model | Features:
    """Return a model with trained weights, ready to predict (in eval mode).

    `source` is a train run, a search run that trained, a file (.safetensors or .pth), `pretrained`
    (of an installed package, or cached), `timm:NAME`, `torchvision:NAME`, or a state dict; by
    default the run that `model` names. Files and state dicts may be under the names of timm,
    torchvision or efficientnet_pytorch. `model` is a module of `build_model`, which is filled and
    returned, or anything that `build_model` takes: `load_weights("runs/train/train")`. Where the
    weights were trained with another padding or epsilon, its modules are replaced by such. A
    classifier of other classes keeps its fresh weights.

    Raises:
        OptionError: there are no such weights, or they are of another arch.
        RunError: their file is damaged.
        MissingError: the package that has them is not installed.
    """
    if not isinstance(model, nn.Module | str | Path | Arch | Mapping):
        raise OptionError(
            f"load_weights takes a model, or an arch by name, path, Arch or data, not {model!r:.80}"
        )
    if source is None and isinstance(model, str | Path):
        source = model
    built = model if isinstance(model, nn.Module) else build_model(model)
    arch = built.arch
    if isinstance(source, Mapping):
        wrong = [value for value in source.values() if not isinstance(value, Tensor)]
        if wrong:
            raise OptionError(f"a state dict holds tensors alone, not {wrong[0]!r:.80}")
        weights = weights_in(source, arch, "the state dict")
    elif isinstance(source, str | Path):
        weights = find_weights(source, arch)
    else:
        raise OptionError(
            "load_weights takes weights as a run, a file, a name such as pretrained, or a state "
            f"dict, not {source!r:.80}"
        )
    _build_like(built, weights)
    built.load_state_dict(fitting(built, weights.tensors, weights.told), strict=False)
    return built.eval()


def open_trained(source: str | Path) -> tuple[Model, dict[str, Any]]:
    """Return a model with trained weights, in eval mode, and what config.json says of it.

    `source` is one of `find_weights`, or the name of a run. Outputs whose names are not known are
    numbered.

    Raises:
        OptionError: there is no trained model, or a file does not tell its arch.
        MissingError: the package that has the weights is not installed.
        RunError: files are damaged, or a weight is not finite.
    """
    if not is_named(source):
        path = run_folder.find(source, VERBS)
        if path.suffix not in (".safetensors", *PICKLES) or path.is_dir():
            return load_finite(path)
        source = path
    weights = find_weights(source)
    if weights.input is None:
        raise OptionError(
            f"{source} does not tell the mean and deviation that it was trained with: give a run, "
            "or a file beside its config.json"
        )
    model = Model(weights.arch)
    model.load_state_dict(weights.tensors)
    classes = weights.classes or [str(number) for number in range(weights.arch.head.classes)]
    return model.eval(), config_of(weights.arch, classes, weights.input)


def _build_like(model: Model | Features, weights: Weights) -> None:
    """Make a model pad and normalise as the arch of weights does; its modules are new then."""
    own, theirs = model.arch, weights.arch
    wanted = built_as(own, theirs)
    if wanted == own:
        return
    device = next(model.parameters()).device
    fresh = Model(wanted).to(device)
    model.arch, model.stem, model.stages = wanted, fresh.stem, fresh.stages
    if isinstance(model, Model):
        classes = model.get_classifier().out_features
        model.head = fresh.head
        if classes != wanted.head.classes:
            model.reset_classifier(classes)
