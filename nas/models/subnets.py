"""The sub-networks of a network as a space: what can inherit its weights at less cost.

Of each stage kernel, expansion and layers are free up to the parent's, and of the whole network the
width and the pixels. The parent itself is a point. Everything else is the parent's: op, strides,
squeeze-and-excitation, activation, norm, padding.

Sources: Cai et al. 2020 (Once-for-all) for kernel, expansion, layers and pixels; the width is that
of Howard et al. 2017 (MobileNetV1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from nas.core.errors import ArchError, OptionError
from nas.interfaces import Choices, Fits, Option, Space
from nas.models import cost
from nas.models.arch import Arch, Stage
from nas.models.compound import LEAST_PIXELS, scale_arch
from nas.models.skeleton import form_of

NAME = "subnets"
WIDTHS = (0.75, 0.875, 1.0)
SHARES = (1 / 3, 1 / 2, 2 / 3, 1.0)  # of the expanded channels
LEAST_KERNEL = 3
MOST_DEPTHS = 6  # options of the layers of a stage
# steps of the pixels, up to 256 and beyond: fine enough that the parent itself nearly meets a cost
FINE, COARSE = 8, 16
KINDS = ("kernel", "expansion", "layers")
BY_ITSELF = 0.5  # of the logarithm of what a reference saves: what it saves without fewer pixels


def subnet_space(
    parent: Arch,
    *,
    classes: int = 0,
    pixels: Sequence[int] = (),
    widths: Sequence[float] = WIDTHS,
) -> Space:
    """Return the sub-networks of a network as a space.

    `classes` of the data, 0: the parent's. `pixels`: sides of the input to choose among; by default
    from 32 to the parent's in steps of 8 (of a parent above 256: of 16). `widths`: factors of all
    channels; one that changes where a skip connection acts is left out. What is equal here gives an
    equal space, so that a search is resumed with one made again.

    Raises:
        OptionError: a width is none in 0 < w <= 1, or pixels are too few.
    """
    for width in widths:
        if not 0 < width <= 1:
            raise OptionError(f"the width of a sub-network must lie in 0 < w <= 1, not {width!r}")
    for side in pixels:
        if side < LEAST_PIXELS:
            raise OptionError(f"pixels must be at least {LEAST_PIXELS}, not {side!r}")
    if classes:
        parent = replace(parent, head=replace(parent.head, classes=classes))
    return _Subnets(parent, tuple(pixels) or sides_of(parent), tuple(widths)).space


def sides_of(parent: Arch) -> tuple[int, ...]:
    """Return the pixels to choose among, up to the parent's."""
    most = parent.resolution
    step = FINE if most <= 256 else COARSE
    return (*range(LEAST_PIXELS, most, step), most)


@dataclass(frozen=True)
class _Subnets:
    """The functions of one space, which look things up in tables made at its start."""

    parent: Arch
    pixels: tuple[int, ...]
    widths: tuple[float, ...]

    @cached_property
    def ends(self) -> dict[float, Arch]:
        """Return the parent at each width that keeps its skip connections."""
        found = {width: _narrowed(self.parent, width) for width in sorted({*self.widths, 1.0})}
        skips = [block.skip for block in self.parent.blocks()]
        return {w: a for w, a in found.items() if [b.skip for b in a.blocks()] == skips}

    @cached_property
    def options(self) -> list[dict[str, tuple[Any, ...]]]:
        """Return the options of each stage by their kind."""
        return [
            {
                "kernel": _kernels(stage),
                "expansion": self._expansions(index),
                "layers": _depths(stage.layers),
            }
            for index, stage in enumerate(self.parent.stages)
        ]

    @cached_property
    def stages(self) -> dict[tuple[Any, ...], Stage]:
        """Return every stage that a point may have: equal stages are one object."""
        return {
            (index, width, kernel, expansion, layers): replace(
                end.stages[index], kernel=kernel, expansion=expansion, layers=layers
            )
            for width, end in self.ends.items()
            for index, kinds in enumerate(self.options)
            for kernel in kinds["kernel"]
            for expansion in kinds["expansion"]
            for layers in kinds["layers"]
        }

    @cached_property
    def names(self) -> list[tuple[str, str, str]]:
        numbers = range(1, len(self.parent.stages) + 1)
        return [(f"block{b}_kernel", f"block{b}_expansion", f"block{b}_layers") for b in numbers]

    @cached_property
    def space(self) -> Space:
        choices: dict[str, Sequence[Option]] = {
            "pixels": tuple(sorted(set(self.pixels))),
            "width": tuple(self.ends),
        }
        for names, kinds in zip(self.names, self.options, strict=True):
            choices |= dict(zip(names, kinds.values(), strict=True))
        return Space(
            name=NAME,
            choices=choices,
            decode=self.decode,
            encode=self.encode,
            references=self.references,
            source=f"sub-networks of {self.parent.name}; Cai et al. 2020 (Once-for-all)",
        )

    def decode(self, choices: Mapping[str, Any]) -> Arch:
        """Return the sub-network of a point."""
        width = choices["width"]
        end, known = self.ends[width], self.stages
        stages = tuple(
            known[index, width, choices[k], choices[e], choices[n]]
            for index, (k, e, n) in enumerate(self.names)
        )
        name = f"{self.parent.name}_subnet"
        return replace(end, name=name, stages=stages, resolution=choices["pixels"])

    def encode(self, arch: Arch) -> Choices | None:
        """Return the choices that decode to this network, or None if there are none."""
        if len(arch.stages) != len(self.options) or arch.resolution not in self.pixels:
            return None
        for width, end in self.ends.items():
            if [s.channels for s in end.stages] != [s.channels for s in arch.stages]:
                continue
            choices: Choices = {"pixels": arch.resolution, "width": width}
            for names, kinds, stage in zip(self.names, self.options, arch.stages, strict=True):
                for name, (kind, options) in zip(names, kinds.items(), strict=True):
                    near = [o for o in options if math.isclose(float(o), getattr(stage, kind))]
                    choices[name] = near[0] if near else ""
            if "" not in choices.values() and self.decode(choices).id == arch.id:
                return choices
        return None

    def references(self, fits: Fits) -> dict[str, Arch | Choices]:
        """Return the parent at fewer pixels, and by width, layers, expansion with fewer pixels.

        Their names end with their pixels, as `parent at 112 px`: the most that fit. Of the sizes
        below the parent's by width, by layers, by expansion, and by layers and expansion each is
        the one whose smaller size saves about as much as its fewer pixels.
        """
        whole = {name: options[-1] for name, options in self.space.choices.items()}
        found = {"parent": self._most_pixels(whole, fits)}
        for name, points in self._reduced(whole).items():
            found[name] = self._balanced(points, fits)
        return {f"{name} at {point['pixels']} px": point for name, point in found.items() if point}

    def _reduced(self, whole: Choices) -> dict[str, list[Choices]]:
        """Return points below the parent's size, of each kind of reference."""
        widths = list(self.ends)[:-1]
        by_layers = [self._shrunk(whole, "layers", share) for share in (0.75, 0.5, 0.25)]
        by_expansion = [self._shrunk(whole, "expansion", share) for share in SHARES[:-1]]
        slim = [self._shrunk(each, "expansion", 0.5) for each in by_layers]
        return {
            "by width": [{**whole, "width": width} for width in widths],
            "by layers": [each for each in by_layers if each != whole],
            "by expansion": [each for each in by_expansion if each != whole],
            "by layers and expansion": [each for each in slim if each not in (*by_layers, whole)],
        }

    def _shrunk(self, point: Choices, kind: str, share: float) -> Choices:
        """Return a point with a share of the parent's layers or expanded channels everywhere."""
        found, place = dict(point), KINDS.index(kind)
        for names, kinds in zip(self.names, self.options, strict=True):
            sizes = {option: _size_to(option, kinds[kind][-1]) for option in kinds[kind]}
            enough = [option for option, size in sizes.items() if size >= share - 1e-3]
            found[names[place]] = enough[0]
        return found

    def _most_pixels(self, point: Choices, fits: Fits) -> Choices | None:
        """Return a point with the most pixels that fit; None: not even the fewest do."""
        sides = self.space.choices["pixels"]
        points: Iterator[Choices] = ({**point, "pixels": side} for side in reversed(sides))
        return next((each for each in points if fits(self.decode(each))), None)

    def _balanced(self, points: Sequence[Choices], fits: Fits) -> Choices | None:
        """Return the point whose size saves as much as its fewer pixels, as large as fits."""
        own = math.log(cost.count(self.parent).flops)
        found: list[tuple[float, Choices]] = []
        for point in points:
            if largest := self._most_pixels(point, fits):
                alone = math.log(cost.count(self.decode(point)).flops) - own
                total = math.log(cost.count(self.decode(largest)).flops) - own
                found.append((abs(alone - BY_ITSELF * total), largest))
        return min(found, key=lambda pair: pair[0])[1] if found else None

    def _expansions(self, index: int) -> tuple[Option, ...]:
        """Return the expansions of a stage, from the fewest expanded channels to the parent's.

        Those that would add a layer to a block or leave one out at some width are none.
        """
        own = self.parent.stages[index].expansion
        sizes = {own: self._params(index, own)}
        for share in SHARES[:-1]:
            for expansion in (_plain(own * share), _plain(own / share)):
                size = self._params(index, expansion)
                if size and size < (sizes[own] or 0) and size not in sizes.values():
                    sizes[expansion] = size
        return tuple(sorted(sizes, key=lambda expansion: sizes[expansion] or 0))

    def _params(self, index: int, expansion: float) -> int | None:
        """Return the parameters of a stage with an expansion; None: it would have other layers."""
        stage = replace(self.parent.stages[index], expansion=expansion)
        try:
            for end in self.ends.values():
                changed = replace(end.stages[index], expansion=expansion)
                stages = (*end.stages[:index], changed, *end.stages[index + 1 :])
                if _forms(replace(end, stages=stages), index) != _forms(self.parent, index):
                    return None
            stages = (*self.parent.stages[:index], stage, *self.parent.stages[index + 1 :])
            return cost.sections(replace(self.parent, stages=stages))[index + 1].params
        except ArchError:  # the op does not read it
            return None


def _narrowed(parent: Arch, width: float) -> Arch:
    return scale_arch(parent, depth=1, width=width, resolution=parent.resolution)


def _kernels(stage: Stage) -> tuple[Option, ...]:
    return (*range(min(LEAST_KERNEL, stage.kernel), stage.kernel, 2), stage.kernel)


def _depths(layers: int) -> tuple[Option, ...]:
    """Return numbers of layers up to the parent's: all, or of many some."""
    steps = min(layers, MOST_DEPTHS) - 1
    return tuple(round(1 + (layers - 1) * i / steps) for i in range(steps + 1)) if steps else (1,)


def _plain(expansion: float) -> float:
    """Return an expansion as a person would write it."""
    rounded = round(expansion, 4)
    return int(rounded) if rounded == int(rounded) else rounded


def _size_to(option: Option, whole: Option) -> float:
    """Return the size of an option next to the parent's; an op may narrow by its expansion."""
    ratio = float(option) / float(whole)
    return min(ratio, 1 / ratio)


def _forms(arch: Arch, stage: int) -> list[list[tuple[str, bool]]]:
    """Return the kinds of the layers of a stage's blocks, in order."""
    return [form_of(block) for block, _ in arch.runs(stage)]
