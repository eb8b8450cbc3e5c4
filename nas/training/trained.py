"""A trained model as files: config.json says what it is, safetensors holds its weights."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from nas.core import run_folder
from nas.core.errors import ArchError, OptionError, RunError
from nas.core.quoting import command
from nas.data.batches import Input
from nas.data.images import PLAIN, Decoding
from nas.data.loader import Data
from nas.models.arch import Arch
from nas.models.build import Model
from nas.models.cost import count
from nas.training.checkpoint import read_weights

CONFIG = "config.json"
SCHEMA = 1
VERBS = ("train", "search")  # whose runs hold trained models
_PLACES = ("weights/best.safetensors", "model.safetensors")


def config(arch: Arch, data: Data, /, **more: Any) -> dict[str, Any]:
    """Return what config.json holds: the arch, the classes and the preprocessing (timm's names)."""
    return config_of(arch, data.classes, data.input, **more)


def config_of(arch: Arch, classes: Sequence[str], taken: Input, /, **more: Any) -> dict[str, Any]:
    """Return what config.json holds of a network, the names of its outputs and what it takes."""
    return {
        "schema": SCHEMA,
        "arch": arch.to_dict(),
        "classes": list(classes),
        "input_size": [3, taken.size, taken.size],
        "mean": list(taken.mean),
        "std": list(taken.std),
        "crop_pct": taken.crop_pct,
        "interpolation": taken.interpolation,
        **_decoding(taken.decoding),
        **more,
    }


def _decoding(chosen: Decoding) -> dict[str, Any]:
    """Return what config.json says of how images become 8-bit RGB, where that is not the usual."""
    return {} if chosen == PLAIN else {"decoding": dataclasses.asdict(chosen)}


def trained_input(config: dict[str, Any]) -> Input:
    """Return what a trained model takes, as its config.json says."""
    mean, std = (tuple(map(float, config[key])) for key in ("mean", "std"))
    known = config.get("decoding") or {}
    whole, fractions = (
        (float(known[key][0]), float(known[key][1])) if known.get(key) else None
        for key in ("whole", "fractions")
    )
    return Input(
        int(config["input_size"][-1]),
        float(config["crop_pct"]),
        mean,  # type: ignore[arg-type]
        std,  # type: ignore[arg-type]
        Decoding(whole, fractions, int(known.get("background", PLAIN.background))),
        str(config.get("interpolation", "bilinear")),
    )


def load_trained(source: str | Path) -> tuple[Model, dict[str, Any]]:
    """Return the model of a train run, a search run or the `best` folder of one, and its config.

    Raises:
        OptionError: there is no trained model; the message says how to make one.
        RunError: its files are damaged.
    """
    folder, weights = find_trained(Path(source))
    arch, described = read_config(folder)
    model, loaded = Model(arch), read_weights(weights)
    if problem := _mismatch(model, loaded):
        raise OptionError(f"{weights} does not fit the arch of {folder / CONFIG}: {problem}")
    model.load_state_dict(loaded)
    return model.eval(), described


def read_config(folder: Path) -> tuple[Arch, dict[str, Any]]:
    """Return the arch of a trained model, and all that its config.json says.

    Raises:
        OptionError: it is of another schema, or of a model that was exported.
        RunError: it is damaged.
    """
    described = run_folder.read_json(folder / CONFIG)
    if isinstance(described, dict) and "architecture" in described:
        raise _exported(folder)
    if not isinstance(described, dict) or described.get("schema") != SCHEMA:
        raise OptionError(f"{folder / CONFIG} is not of schema {SCHEMA}: train again, or upgrade")
    try:
        arch = Arch.from_dict(described["arch"])
        count(arch)
    except (KeyError, ArchError) as error:
        raise RunError(f"{folder / CONFIG} holds no arch: {error}; train again") from error
    if damage := _damage(arch, described):
        raise RunError(f"{folder / CONFIG} is damaged: {damage}; train again")
    return arch, described


def load_finite(source: str | Path) -> tuple[Model, dict[str, Any]]:
    """Do what `load_trained` does; refuse weights that are not finite.

    Raises:
        OptionError: there is no trained model.
        RunError: its files are damaged, or a weight is not finite.
    """
    model, described = load_trained(source)
    broken = [key for key, value in model.state_dict().items() if not value.isfinite().all()]
    if broken:
        raise RunError(
            f"the weights of {source} are not finite ({broken[0]}): the training diverged; "
            "train again with a smaller learning rate"
        )
    return model, described


def holds(source: Path) -> bool:
    """Tell whether a folder is a trained model's."""
    return _files(source) is not None


def _files(source: Path) -> tuple[Path, Path] | None:
    for folder in (source, source / "best"):
        for place in _PLACES:
            if (folder / CONFIG).is_file() and (folder / place).is_file():
                return folder, folder / place
    return None


def find_trained(source: Path) -> tuple[Path, Path]:
    """Return the folder of the config and the file of the weights."""
    if found := _files(source) or _files(run_folder.named(source, VERBS) or source):
        return found
    if not source.exists():
        raise OptionError(f"no trained model {source}: there is no such run, folder or file")
    if (source / "model.py").is_file():
        raise _exported(source)
    if source.is_file():
        raise OptionError(
            f"{source} is a file, which alone is no trained model: name the run or the "
            f"folder that has its {CONFIG} too"
        )
    raise OptionError(
        f"{source} holds no trained model (config.json and {_PLACES[0]}): train one with "
        f"`{command('nas', 'train', source)} --data ...`"
    )


def _exported(folder: Path) -> OptionError:
    return OptionError(f"{folder} was exported for other programs; name the run it came from")


def _damage(arch: Arch, described: dict[str, Any]) -> str:
    """Say what is wrong with the classes or the preprocessing of a config, or nothing."""
    classes: Any = described.get("classes")
    size: Any = described.get("input_size")
    crop: Any = described.get("crop_pct")
    if not isinstance(classes, list) or len(classes) not in (0, arch.head.classes):
        return f"classes must be the names of the {arch.head.classes} outputs"
    if not all(isinstance(name, str) for name in classes):
        return "classes must be words"
    if not numbers(size, 3) or any(side != int(side) or side < 1 for side in size):
        return f"input_size must be three whole numbers, not {size!r:.60}"
    for key in ("mean", "std"):
        if not numbers(described.get(key), arch.in_channels):
            return f"{key} must be {arch.in_channels} numbers, not {described.get(key)!r:.60}"
    if min(described["std"]) <= 0:
        return f"std must be above 0, not {described['std']}"
    if not numbers([crop], 1) or not 0 < crop <= 1:
        return f"crop_pct must lie above 0 and up to 1, not {crop!r:.60}"
    if not isinstance(described.get("interpolation", "bilinear"), str):
        return f"interpolation must be a word, not {described['interpolation']!r:.60}"
    return _odd_decoding(described.get("decoding"))


def _odd_decoding(known: Any) -> str:
    """Say what is wrong with what a config says of decoding, or nothing."""
    if known is None:
        return ""
    if not isinstance(known, dict):
        return f"decoding must name ranges, not {known!r:.60}"
    for key in ("whole", "fractions"):
        pair = known.get(key)
        if pair is not None and not (numbers(pair, 2) and pair[0] < pair[1]):
            return f"decoding: {key} must be two numbers, the smaller first, not {pair!r:.60}"
    level = known.get("background", PLAIN.background)
    if type(level) is not int or not 0 <= level <= 255:
        return f"decoding: background must be a whole number of 0..255, not {level!r:.60}"
    return ""


def numbers(values: Any, length: int) -> bool:
    """Tell whether a value of JSON is a list of so many finite numbers."""
    return (
        isinstance(values, list)
        and len(values) == length
        and all(type(value) in (int, float) and math.isfinite(value) for value in values)
    )


def _mismatch(model: Model, weights: dict[str, Tensor]) -> str:
    own = model.state_dict()
    for name, tensor in own.items():
        if name not in weights:
            return f"{name} is missing"
        if weights[name].shape != tensor.shape:
            return f"{name} has shape {tuple(weights[name].shape)}, not {tuple(tensor.shape)}"
    return next((f"{name} is not of it" for name in weights if name not in own), "")
