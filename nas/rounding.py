"""How widths are rounded: channels, expanded channels, squeezed channels."""

from __future__ import annotations

from nas.arch import Block
from nas.layers import Layer, SqueezeExcite


def round_channels(exact: float, *, keep: float = 0.9) -> int:
    """Return the nearest multiple of 8 (half up, at least 8), never below `keep` of `exact`.

    Source: the released EfficientNet code (round_filters).
    """
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded + 8 if rounded < keep * exact else rounded


def expanded(inputs: int, expansion: float) -> int:
    """Return inputs * expansion; a product that is not whole is rounded like channels."""
    exact = inputs * expansion
    whole = round(exact)
    return whole if whole and abs(exact - whole) < 1e-6 * exact else round_channels(exact)


def squeeze_layers(block: Block, channels: int) -> list[Layer]:
    """Return the squeeze-and-excite layer that a block asks for on `channels`, or nothing."""
    if not block.se:
        return []
    rule = block.squeeze
    if rule.of == "input":
        squeezed = max(1, int(block.se * block.inputs))
    else:
        squeezed = round_channels(block.se * channels)
    return [SqueezeExcite(channels, squeezed, rule.activation or block.activation, rule.gate)]
