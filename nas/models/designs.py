"""Hand designs under a cost, for a space whose choices are called `block3_kernel` and so on.

Plain nets are hard to beat: one op everywhere is worth some thirty random trainings, and a search
that begins with three of these is ahead of a random one after ten (docs/search.md).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

from nas.interfaces import Choices, Decode, Fits, Option
from nas.models.arch import Arch
from nas.models.compound import LEAST_PIXELS, scale_arch
from nas.models.cost import count, sections

WIDTH, PIXELS = 1.1, 1.15  # per unit of phi: Tan and Le 2019, section 3.3
STEP, MOST = 0.1, 4.0  # sizes of phi that are tried, up to some six times the multiply-adds
NEAR = 0.25  # of phi: what is nearer to the net itself is the net itself
DEPTHS = (1.0, 0.75, 0.5, 0.25)
# the choices of EfficientNet-B0, block by block: Tan and Le 2019, table 1
EFFICIENTNET_B0: Choices = {
    f"block{b}_{name}": option
    for b, row in enumerate(
        (
            (1, 3, 1, 0.25),
            (6, 3, 2, 0.25),
            (6, 5, 2, 0.25),
            (6, 3, 3, 0.25),
            (6, 5, 3, 0.25),
            (6, 5, 4, 0.25),
            (6, 3, 1, 0.25),
        ),
        1,
    )
    for name, option in zip(("expansion", "kernel", "layers", "se"), row, strict=True)
}


def bounding(fits: Fits, largest: Arch, usual: Arch) -> Fits:
    """Return `fits`; where even `largest` fits, so that nothing is bounded, the cost of `usual`."""
    if not fits(largest):
        return fits
    budget = count(usual).flops
    return lambda arch: count(arch).flops <= budget


def scaled(arch: Arch, fits: Fits) -> Arch | None:
    """Return `arch` with width and pixels scaled together, up or down, as far as it fits.

    Layers stay. None where not even 8 channels a stage fit. Found by halving, as cost grows with
    the size but for what rounding does.

    Source: Tan and Le 2019 (EfficientNet), section 3.3, with depth held.
    """
    narrowest = math.log(8 / max(stage.channels for stage in arch.stages), WIDTH)
    low, high = math.floor(narrowest / STEP), round(MOST / STEP)
    if not fits(_sized(arch, low * STEP)):
        return None
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(_sized(arch, middle * STEP)) else (low, middle - 1)
    return _sized(arch, low * STEP)


def _sized(arch: Arch, phi: float) -> Arch:
    if abs(phi) < NEAR:
        return arch
    side = max(LEAST_PIXELS, 8 * round(arch.resolution * PIXELS**phi / 8))
    return scale_arch(arch, depth=1, width=WIDTH**phi, resolution=side)


def alike(
    choices: Mapping[str, Sequence[Option]], kinds: Mapping[str, Iterable[Option]]
) -> list[Choices]:
    """Return the points whose blocks are all alike: each combination of one option a kind.

    `kinds`: what to combine, as {"kernel": (3, 5), "width": (0.5, 1.0)}: of `block3_kernel` the
    kind is `kernel`. Of numbers a block that lacks an option has its largest below.
    """
    found = []
    for combination in itertools.product(*kinds.values()):
        chosen = dict(zip(kinds, combination, strict=True))
        point = {n: _nearest(options, chosen[_kind(n)]) for n, options in choices.items()}
        found.append(point)
    return found


def _nearest(options: Sequence[Option], wanted: Option) -> Option:
    if wanted in options or isinstance(wanted, str):
        return wanted
    below = [o for o in options if not isinstance(o, str) and o <= wanted]
    return max(below, default=options[0], key=float)


def _kind(name: str) -> str:
    return name.rpartition("_")[2]


def reduced(pattern: Choices, expansions: Iterable[int]) -> list[Choices]:
    """Return a pattern with at most these expansions, and its layers times .25 to 1, rounded up."""
    return [
        {name: _less(_kind(name), option, most, depth) for name, option in pattern.items()}
        for most in expansions
        for depth in DEPTHS
    ]


def _less(kind: str, option: Option, expansion: int, depth: float) -> Option:
    if kind == "layers":
        return math.ceil(int(option) * depth)
    return min(int(option), expansion) if kind == "expansion" else option


def costliest(points: Iterable[Choices], decode: Decode, fits: Fits) -> Choices | None:
    """Return the point of most multiply-adds that fits, the first of equal ones; None: none."""
    archs = [(choices, decode(choices)) for choices in points]
    fitting = [(choices, arch) for choices, arch in archs if fits(arch)]
    return max(fitting, key=lambda pair: count(pair[1]).flops)[0] if fitting else None


def first_fitting(
    groups: Iterable[Iterable[Choices]], decode: Decode, fits: Fits
) -> Choices | None:
    """Return the costliest point of the first group that holds one that fits; None: none does."""
    return next(filter(None, (costliest(group, decode, fits) for group in groups)), None)


def latest(
    groups: Iterable[Iterable[Choices]],
    choices: Mapping[str, Sequence[Option]],
    kinds: Sequence[str],
    decode: Decode,
    fits: Fits,
) -> Choices | None:
    """Return the point with most parameters in its late half that fits, found greedily.

    Each start of the first group in which any fits is grown from its last block to its second: of
    each of `kinds` in turn to the largest option that fits. None: no start fits.
    """
    blocks = sorted({name.partition("_")[0] for name in choices if "_" in name}, reverse=True)
    names = [f"{block}_{kind}" for block in blocks[:-1] for kind in kinds]
    fitting = ([start for start in group if fits(decode(start))] for group in groups)
    starts = next(filter(None, fitting), [])
    ends = [_grown(start, names, choices, decode, fits) for start in starts]
    return max(ends, key=lambda point: late_params(decode(point)), default=None)


def _grown(
    point: Choices,
    names: Iterable[str],
    choices: Mapping[str, Sequence[Option]],
    decode: Decode,
    fits: Fits,
) -> Choices:
    for name in names:
        options = choices[name]
        for option in options[options.index(point[name]) + 1 :]:
            further = {**point, name: option}
            if not fits(decode(further)):
                break
            point = further
    return point


def late_params(arch: Arch) -> int:
    """Return the parameters of the later half of an arch's stages; the head is none."""
    inner = sections(arch)[1:-1]
    return sum(tally.params for tally in inner[len(inner) // 2 :])
