"""Where a teacher comes from: a run of the same classes, or a net with weights of other images.

One of other classes gets a classifier first, a linear probe on the training images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nas.core.errors import NasError, OptionError, did_you_mean, first_line, install
from nas.core.units import format_count
from nas.data.batches import Input, Resident, Streaming
from nas.data.dataset import some
from nas.data.loader import Data, Loader
from nas.models.build import Model
from nas.models.cost import count
from nas.models.load import baselines
from nas.training import distributed
from nas.training.checkpoint import digest
from nas.training.probe import probe
from nas.training.teacher import (
    Candidate,
    Facts,
    Normal,
    Renormalised,
    Teacher,
    has_teacher,
    read_teacher,
    ready,
    timm_library,
)
from nas.training.trained import holds, load_finite, trained_input
from nas.training.validation import validate
from nas.training.weights.packages import PACKAGES, file_of
from nas.training.weights.sources import PRETRAINED, Weights, find_weights, is_named

TIMM = "timm:"
DEAR = 160  # pixels a side of views above which a teacher by a linear probe is not given more
BATCH = 64  # images that it is asked for at once, before a training
Say = Callable[[str], None]


def find_teacher(source: str, kept: Path | None = None) -> Candidate:
    """Return the net that a source names, or that a training has `kept` before.

    A source: a run, timm:NAME, `pretrained`, or weights as `--init` takes them.

    Raises:
        OptionError: there is none.
        RunError: its files are damaged.
        MissingError: a package that has it is not installed.
    """
    if kept and has_teacher(kept):
        return read_teacher(kept)
    if source.startswith(TIMM):
        return _of_timm(source)
    if source == PRETRAINED:
        return _best_installed()
    return _of_run(source) if is_run(source) else _of_weights(source)


def is_run(source: str) -> bool:
    """Tell whether a source is a run of ours, whose classes are to be those of the images."""
    return not is_named(source) and (holds(Path(source)) or not Path(source).exists())


def check_classes(found: Candidate, classes: Sequence[str]) -> None:
    """Check that a run that is to teach was trained on these classes.

    Raises:
        OptionError: it was not; the message names some that differ.
    """
    if set(found.classes) == set(classes) or not (found.facts or is_run(found.source)):
        return
    unknown = [name for name in classes if name not in found.classes]
    more = [name for name in found.classes if name not in classes]
    parts = [f"does not know {some(unknown)}"] if unknown else []
    parts += [f"knows {some(more)}, which the images have not"] if more else []
    raise OptionError(
        f"--teacher {found.source} was trained on other classes, it {' and '.join(parts)}: take a "
        "run on these images, or --teacher pretrained"
    )


def make_teacher(
    found: Candidate,
    data: Data,
    at: Callable[[int], Data],
    *,
    pixels: int = 0,
    device: str,
    mixed: bool,
    say: Say,
) -> Teacher:
    """Return a net as a teacher for these images, scored on the val split.

    `at`: the images at another number of pixels, normalised as `data` are. `pixels`: of its views;
    0: by `view_pixels`.

    Raises:
        OptionError: its classifier is no linear layer.
        NasError: it does not run on views of these pixels, or its answers are not finite.
    """
    if found.facts:
        pixels = found.facts.pixels
    elif found.fixed or not pixels:
        pixels = view_pixels(found, data.size, probed=set(found.classes) != set(data.classes))
    own = pixels != data.size
    seen = _alike(at(pixels), data) if own else data
    net = Renormalised(found.net, found.normal, (seen.mean, seen.std))
    facts = found.facts or _prepared(found, net, seen, device=device, mixed=mixed, say=say)
    ready(net, device)
    return Teacher(net, facts, seen.train if own else None)


def view_pixels(found: Candidate, side: int, *, probed: bool) -> int:
    """Return the side of the views of a teacher, whose student has views of `side` pixels.

    A net whose classifier is kept takes those it was trained at. A linear probe is made for any:
    for twice the student's, or fewer where these would be dear.
    """
    if found.fixed or not probed:
        return found.pixels
    return max(side, min(2 * side, found.pixels, DEAR))


def _alike(seen: Data, data: Data) -> Data:
    """Return the images of other pixels, of which views show the same parts as those of `data`."""
    taken = dataclasses.replace(seen.input, crop_pct=data.crop_pct)
    return dataclasses.replace(
        seen, input=taken, train=_showing(seen.train, taken), val=_showing(seen.val, taken)
    )


def _showing(loader: Loader, taken: Input) -> Loader:
    assert isinstance(loader, Resident | Streaming)
    return dataclasses.replace(loader, input=taken)


def _prepared(
    found: Candidate, net: Renormalised, data: Data, *, device: str, mixed: bool, say: Say
) -> Facts:
    """Give a net the classifier for these images, in place; return what is known of it then."""
    _classifier(found)
    flops, map_bytes = _measured(net, data.size, found.source)
    ready(net, device)
    probed = set(found.classes) != set(data.classes)
    if probed:
        say(f"{found.told} is to teach: first a linear probe on {len(data.train):,} images")
        made = probe(net, data, device=device, batch=BATCH, mixed=mixed)
        found.net.reset_classifier(len(data.classes))  # type: ignore[operator]
        _fill(_classifier(found), made.weight, made.bias)
    else:
        places = [found.classes.index(name) for name in data.classes]
        classifier = _classifier(found)
        _fill(classifier, classifier.weight[places], classifier.bias[places])
    ready(net, device)
    world = distributed.world()
    batches = data.val.ordered(BATCH * world, distributed.rank(), world)
    score = validate(net, batches, len(data.classes), device=device, amp=mixed)
    facts = Facts(
        source=found.source,
        told=found.told,
        timm=found.timm,
        arch=_arch(found.net, len(data.classes)),
        normal=found.normal,
        pixels=data.size,
        classes=data.classes,
        probed=probed,
        top1=score.top1,
        images=score.count,
        params=sum(weight.numel() for weight in net.parameters()),
        flops=flops,
        map_bytes=map_bytes,
        digest=digest({k: v.cpu() for k, v in found.net.state_dict().items()}),
    )
    say(described(facts))
    return facts


def described(facts: Facts) -> str:
    """Return a line on a teacher: what it is, how good, what it costs."""
    how = " by its linear probe" if facts.probed else ""
    return (
        f"teacher: {facts.told}, val top-1 {facts.top1:.2f} %{how} (n = {facts.images:,}); "
        f"{format_count(facts.flops)} multiply-adds a view of {facts.pixels} pixels, beside the "
        "training's own"
    )


def _of_run(source: str) -> Candidate:
    model, config = load_finite(source)
    seen = trained_input(config)
    normal = seen.mean, seen.std
    return Candidate(
        source, model, normal, tuple(config["classes"]), f"the run {source}", seen.size
    )


def _of_weights(source: str) -> Candidate:
    """Return the net of weights that are no run's: a file, a folder, a published net of ours."""
    weights = find_weights(source)
    return _of(weights, source, weights.told or source)


def _best_installed() -> Candidate:
    """Return the largest pretrained net whose weights are installed.

    Raises:
        OptionError: there is none.
    """
    known = baselines()
    rows = [row for row in PACKAGES if file_of(row)]
    if not rows:
        raise OptionError(
            "--teacher pretrained finds no weights installed: "
            f"{install('pretrained')}, or name a run or timm:NAME"
        )
    largest = max(rows, key=lambda row: count(known[row.baseline]).flops).baseline
    weights = find_weights(PRETRAINED, known[largest])
    return _of(weights, PRETRAINED, f"pretrained {largest}")


def _of(weights: Weights, source: str, told: str) -> Candidate:
    if weights.input is None:
        raise OptionError(
            f"--teacher {source} does not say how its images were normalised: name a run, "
            "timm:NAME or pretrained"
        )
    model = Model(weights.arch)
    model.load_state_dict(dict(weights.tensors))
    normal = weights.input.mean, weights.input.std
    return Candidate(source, model, normal, weights.classes, told, weights.input.size)


def _of_timm(source: str) -> Candidate:
    """Return a net of timm with its published weights, from its cache or the network."""
    timm, name = timm_library(), source.removeprefix(TIMM)
    try:
        net = timm.create_model(name, pretrained=True)
    except Exception as error:  # of the hub, of the network, of timm itself
        plain = name.partition(".")[0]
        near = "" if timm.is_model(plain) else did_you_mean(plain, timm.list_models())
        raise OptionError(
            f"--teacher {source} cannot be had from timm{near}: {first_line(error)}"
        ) from error
    known = net.pretrained_cfg
    mean, std = (tuple(map(float, known[key])) for key in ("mean", "std"))
    if len(mean) != 3:
        raise OptionError(f"--teacher {source} takes {len(mean)} channels; images have 3")
    pixels, fixed = int(known["input_size"][-1]), bool(known.get("fixed_input_size"))
    normal: Normal = (mean, std)  # type: ignore[assignment]
    return Candidate(
        source, net, normal, (), f"timm's {name}", pixels, str(known["architecture"]), fixed
    )


def _classifier(found: Candidate) -> nn.Linear:
    """Return the last layer of a net.

    Raises:
        OptionError: it is not linear.
    """
    layer = found.net.get_classifier()  # type: ignore[operator]
    if not isinstance(layer, nn.Linear):
        raise OptionError(
            f"--teacher {found.source} has no single linear classifier, but "
            f"{type(layer).__name__}: take another net"
        )
    return layer


def _fill(classifier: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    """Set the numbers of a classifier, those of the first process in all."""
    for own, made in ((classifier.weight, weight), (classifier.bias, bias)):
        values = made.detach().to(own.device, own.dtype)
        own.data = distributed.summed(values if distributed.rank() == 0 else values * 0)


def _arch(net: nn.Module, classes: int) -> dict[str, Any] | None:
    """Return the arch of a net of ours with this number of classes; None of another's."""
    if not isinstance(net, Model):
        return None
    head = dataclasses.replace(net.arch.head, classes=classes)
    return dataclasses.replace(net.arch, head=head).to_dict()


def _measured(net: Renormalised, side: int, source: str) -> tuple[int, int]:
    """Return the multiply-adds of one view, and the bytes of the largest layer's maps.

    Raises:
        NasError: the net does not run on such views.
    """
    largest = 0

    def note(module: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        nonlocal largest
        sizes = [x.numel() * x.element_size() for x in (*given, made) if isinstance(x, Tensor)]
        largest = max(largest, sum(sizes))

    hooks = [m.register_forward_hook(note) for m in net.modules() if not list(m.children())]
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            net.eval()(torch.zeros(1, 3, side, side))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise NasError(
            f"--teacher {source} does not run on views of {side} pixels: {first_line(error)}"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return counter.get_total_flops() // 2, largest
