"""EfficientNet-B0's skeleton, whose seven stages may vary: which archs have it, and as numbers.

The space of Accel-NASBench: expansion, kernel, layers and squeeze-and-excitation of each stage.
"""

from __future__ import annotations

from functools import cache
from operator import attrgetter

import numpy as np
import numpy.typing as npt

from nas.models.arch import Arch, Stage

Array = npt.NDArray[np.float64]
Rule = tuple[str, object, tuple[object, ...]]  # what, its value, what is allowed
Codes = npt.NDArray[np.int64]  # (n, 7, 4): expansion, kernel, layers, se (0 or 1) of each stage

STEM, HEAD, CLASSES, PIXELS = 32, 1280, 1000, 224
WIDTHS = (16, 24, 40, 80, 112, 192, 320)
STRIDES = (1, 2, 2, 2, 1, 2, 1)
EXPANSIONS, KERNELS, SE_RATIO = (1, 4, 6), (3, 5), 0.25
MOST_LAYERS = (3, 3, 3, 3, 3, 4, 3)
GRID = 48  # options of a stage: 3 expansions x 2 kernels x 4 layers x 2


def encode(arch: Arch) -> Codes:
    """Return the (7, 4) codes of an arch of the space."""
    genes = [[s.expansion, s.kernel, s.layers, s.se > 0] for s in arch.stages]
    return np.array(genes, dtype=np.int64)


def options(codes: Codes) -> Codes:
    """Return for each stage the number of its option, 0 to GRID - 1: (n, 7, 4) to (n, 7)."""
    expansion = np.searchsorted(EXPANSIONS, codes[:, :, 0])
    kernel = codes[:, :, 1] // 2 - 1
    return ((expansion * 2 + kernel) * 4 + codes[:, :, 2] - 1) * 2 + codes[:, :, 3]


def features(codes: Codes) -> Array:
    """Return what the models see of each point, (n, 56).

    The four choices of each stage as numbers; the logs of its multiply-adds, parameters and
    activations; those multiply-adds added over the early, middle and late stages; how much
    squeeze-and-excitation, 5x5, expansion and receptive field there is in all.
    """
    per_stage, adding = _tables()
    rows = np.arange(7)
    found = options(codes)
    sums = adding[rows, found]
    flops = np.add.reduceat(sums[:, :, 0], [0, 3, 5], axis=1)
    own = per_stage[rows, found].reshape(len(codes), -1)
    return np.concatenate([own, np.log(flops), sums[:, :, 1:].sum(axis=1)], axis=1)


@cache
def _tables() -> tuple[Array, Array]:
    """Return what a stage adds to the features, (7, GRID, 7), and to the totals, (7, GRID, 5)."""
    expansion, kernel, layers, se = (
        part.ravel().astype(float)
        for part in np.meshgrid(EXPANSIONS, KERNELS, range(1, 5), (0, 1), indexing="ij")
    )
    wide, growth = kernel == 5, np.log(expansion)
    genes = [growth / np.log(6), wide, (layers - 1) / 2, se]
    per_stage, adding = [], []
    for stage in range(7):
        costs = _stage_costs(stage, expansion, kernel, layers, se)
        per_stage.append(np.stack([*genes, *map(np.log, costs)], axis=1))
        sums = [costs[0], se, wide, growth, (kernel - 1) * layers]
        adding.append(np.stack(sums, axis=1))
    return np.stack(per_stage), np.stack(adding)


def _stage_costs(
    stage: int, expansion: Array, kernel: Array, layers: Array, se: Array
) -> tuple[Array, Array, Array]:
    """Return multiply-adds, parameters and activations of a stage; its first block differs."""
    width, stride = WIDTHS[stage], STRIDES[stage]
    inputs = WIDTHS[stage - 1] if stage else STEM
    side = PIXELS // 2 // int(np.prod(STRIDES[:stage]))
    first = _block_costs(inputs, width, side, stride, expansion, kernel, se)
    rest = _block_costs(width, width, side // stride, 1, expansion, kernel, se)
    flops, params, activations = (a + (layers - 1) * b for a, b in zip(first, rest, strict=True))
    return flops, params, activations


def _block_costs(
    inputs: int, outputs: int, side: int, stride: int, expansion: Array, kernel: Array, se: Array
) -> tuple[Array, Array, Array]:
    """Count one MBConv block as the released EfficientNet builds it: no layer for expansion 1,
    squeeze-and-excitation with biases on a width from the block input, norms in the parameters.
    """
    hidden, squeezed = inputs * expansion, max(1, int(SE_RATIO * inputs))
    expands = expansion > 1
    before, after = side**2, (side // stride) ** 2
    gate = 2 * hidden * squeezed * se
    flops = expands * inputs * hidden * before + hidden * (kernel**2 + outputs) * after + gate
    params = expands * (inputs + 2) * hidden + (kernel**2 + 2 + outputs) * hidden + 2 * outputs
    activations = expands * hidden * before + (hidden + outputs) * after
    return flops, params + gate + se * (hidden + squeezed), activations


def misfit(arch: Arch) -> str | None:
    """Return the first rule of the space that the arch breaks, as one line, or None."""
    for what, value, allowed in _rules(arch):
        if value not in allowed:
            wanted = " or ".join(str(option) for option in allowed)
            return (
                f"the surrogate predicts networks on EfficientNet-B0's skeleton only: {what} must "
                f"be {wanted}, not {value!r}; use --space mbconv, or train with --data FOLDER, or "
                "try the space out with --evaluator synthetic, whose accuracies are made up"
            )
    return None


def _rules(arch: Arch) -> list[Rule]:
    """List what the space fixes."""
    ends = {"stem.channels": STEM, "stem.kernel": 3, "stem.stride": 2, "stem.pool": 1}
    ends |= {"head.channels": HEAD, "head.hidden": 0, "head.classes": CLASSES}
    rules: list[Rule] = [(name, attrgetter(name)(arch), (value,)) for name, value in ends.items()]
    rules += [
        ("the resolution", arch.resolution, (PIXELS,)),
        ("in_channels", arch.in_channels, (3,)),
        ("the activation", arch.activation, ("silu",)),
        ("norm.kind", arch.norm.kind, ("batch",)),
        ("the number of stages", len(arch.stages), (len(WIDTHS),)),
    ]
    if any(stage.se for stage in arch.stages):
        rules.append(("squeeze.of", arch.squeeze.of, ("input",)))
        rules.append(("squeeze.gate", arch.squeeze.gate, ("sigmoid",)))
        rules.append(("squeeze.activation", arch.squeeze.activation, (None, "silu")))
    # a wrong number of stages is reported before this list could run past the seven
    for number, stage in enumerate(arch.stages[: len(WIDTHS)]):
        rules += _stage_rules(number, stage)
    return rules


def _stage_rules(number: int, stage: Stage) -> list[Rule]:
    where = f"stage {number + 1}:"
    return [
        (f"{where} op", stage.op, ("mbconv",)),
        (f"{where} channels", stage.channels, (WIDTHS[number],)),
        (f"{where} stride", stage.stride, (STRIDES[number],)),
        (f"{where} layers", stage.layers, tuple(range(1, MOST_LAYERS[number] + 1))),
        (f"{where} kernel", stage.kernel, KERNELS),
        (f"{where} expansion", stage.expansion, EXPANSIONS),
        (f"{where} se", stage.se, (0, SE_RATIO)),
        (f"{where} skip", stage.skip, ("identity",)),
        (f"{where} activation", stage.activation, (None, "silu")),
    ]
