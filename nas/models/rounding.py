"""How widths are rounded: channels, expanded channels."""

from __future__ import annotations


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
