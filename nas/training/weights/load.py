"""Trained weights for a model: of a run, a file or a state dict."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from nas.core.errors import OptionError
from nas.models.arch import Arch
from nas.models.build import Features, Model
from nas.models.load import Source, build_model
from nas.training.weights.sources import Weights, built_as, find_weights, fitting, weights_in


def load_weights(
    model: Model | Features | Source, source: str | Path | Mapping[str, Tensor] | None = None
) -> Model | Features:
    """Return a model with trained weights, ready to predict (in eval mode).

    `source` is a train run, a search run that trained, a .safetensors file or a state dict; by
    default the run that `model` names. `model` is a module of `build_model`, which is filled and
    returned, or anything that `build_model` takes: `load_weights("runs/train/train")`. A classifier
    of other classes keeps its fresh weights.

    Raises:
        OptionError: there are no such weights, or they are of another arch.
        RunError: their file is damaged.
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
            f"load_weights takes weights as a run, a .safetensors file or a state dict, not "
            f"{source!r:.80}"
        )
    _build_like(built, weights)
    built.load_state_dict(fitting(built, weights.tensors, weights.told), strict=False)
    return built.eval()


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
