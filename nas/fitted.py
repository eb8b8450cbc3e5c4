"""Fitted coefficients: kept beside the baseline they belong to, and found again."""

from __future__ import annotations

from typing import NamedTuple


class Coefficients(NamedTuple):
    """Growth of depth, width and resolution at phi 1, and in words where they come from."""

    alpha: float
    beta: float
    gamma: float
    origin: str


# Source: Tan and Le 2019, section 3.3, fitted to B0 on ImageNet
PAPER = Coefficients(1.2, 1.1, 1.15, "the paper's, fitted to EfficientNet-B0 on ImageNet")
